//! Pools made by hand: as many members as wanted, with the weights wanted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use balance::{Balancer, Load, PoolLoad, Rng};
use model::config::{
    Algorithm, AllDown, Backend, Caps, Connections, ConsistentHash, HashKey, HashTable, Membership, Name,
    Overload, Passive, Pool, PoolTimeouts, Retries,
};
use model::snapshot::{Eligibility, Member, PoolState, WEIGHT_SCALE};
use model::state::{BackendId, Health, HealthState, Timestamp};

pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) fn consistent(table: HashTable, bounded_load: Option<u16>) -> Algorithm {
    Algorithm::ConsistentHash(ConsistentHash {
        key: HashKey::Path,
        table,
        bounded_load,
    })
}

/// Every algorithm, for promises that all of them make.
pub(crate) fn all_algorithms() -> Vec<Algorithm> {
    vec![
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::Random,
        Algorithm::PowerOfTwo,
        Algorithm::PeakEwma,
        Algorithm::IpHash,
        consistent(HashTable::Ring, None),
        consistent(HashTable::Ring, Some(125)),
        consistent(HashTable::Maglev, None),
        consistent(HashTable::Maglev, Some(125)),
    ]
}

pub(crate) fn address(index: usize) -> SocketAddr {
    let [.., high, low] = (index as u32 + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), 9000)
}

/// A pool whose members have these weights in effect (hundredths); 0 is a member that is down.
pub(crate) fn state(algorithm: Algorithm, effective: &[u32], passive: Option<Passive>) -> PoolState {
    let declared: Vec<u32> = effective
        .iter()
        .map(|w| w.div_ceil(WEIGHT_SCALE).max(1))
        .collect();
    state_with(algorithm, &declared, effective, passive)
}

/// The same, with the declared weights apart from those in effect (slow start).
pub(crate) fn state_with(
    algorithm: Algorithm,
    declared: &[u32],
    effective: &[u32],
    passive: Option<Passive>,
) -> PoolState {
    let name = |text: &str| Name::parse(text).unwrap();
    let backends: Vec<Backend> = declared
        .iter()
        .enumerate()
        .map(|(i, weight)| Backend {
            address: address(i),
            weight: *weight,
            caps: Caps::default(),
        })
        .collect();
    let members = backends
        .iter()
        .zip(effective)
        .map(|(backend, effective)| Member {
            id: BackendId {
                load_balancer: name("shop"),
                pool: name("default"),
                address: backend.address,
            },
            found: None,
            weight: backend.weight,
            effective_weight: *effective,
            eligibility: if *effective == 0 {
                Eligibility::Down
            } else {
                Eligibility::Eligible
            },
            health: HealthState {
                health: if *effective == 0 { Health::Down } else { Health::Up },
                reason: if *effective == 0 {
                    "connection refused"
                } else {
                    "status 200"
                }
                .into(),
                since: Timestamp(0),
            },
            ejection: None,
            order: None,
            ramp_since: None,
            keeps_sessions: false,
        })
        .collect();
    let config = Pool {
        name: name("default"),
        algorithm,
        backends,
        health: None,
        passive,
        slow_start: Duration::ZERO,
        all_down: AllDown::FailClosed,
        connections: Connections::default(),
        timeouts: PoolTimeouts::default(),
        retries: Retries::default(),
        http2: None,
        sticky: None,
        tls: None,
        overload: Overload::default(),
        membership: Membership::default(),
    };
    PoolState {
        load_balancer: name("shop"),
        config: Arc::new(config),
        members,
        left_out: 0,
        all_down: effective.iter().all(|w| *w == 0),
    }
}

pub(crate) fn balancer_of(state: PoolState) -> Balancer {
    let loads = state.members.iter().map(|_| Arc::new(Load::new())).collect();
    Balancer::new(Arc::new(state), Arc::new(PoolLoad::new()), loads)
}

pub(crate) fn balancer(algorithm: Algorithm, effective: &[u32]) -> Balancer {
    balancer_of(state(algorithm, effective, Some(Passive::default())))
}

/// The same pool in a new state: live figures stay.
pub(crate) fn rebuilt(old: &Balancer, pool: &Arc<PoolLoad>, state: PoolState) -> Balancer {
    let loads = (0..old.state().members.len()).map(|i| old.load(i).clone());
    Balancer::new(Arc::new(state), pool.clone(), loads.collect())
}

/// Where each of `count` keys goes. Keys are hashed as a caller does.
pub(crate) fn owners(balancer: &Balancer, count: u64) -> Vec<usize> {
    let mut rng = Rng::new(0);
    (0..count)
        .map(|i| {
            let key = balance::hash(format!("/item/{i}").as_bytes());
            balancer.pick(key, &[], 0, &mut rng).unwrap()
        })
        .collect()
}

pub(crate) fn counts(picks: &[usize], members: usize) -> Vec<u64> {
    let mut counts = vec![0; members];
    for pick in picks {
        counts[*pick] += 1;
    }
    counts
}

/// Largest of all members' (count / share by weight): 1.0 is perfectly even.
pub(crate) fn worst_over_share(counts: &[u64], weights: &[u32]) -> f64 {
    let total: u64 = counts.iter().sum();
    let weight: u32 = weights.iter().sum();
    counts
        .iter()
        .zip(weights)
        .filter(|(_, w)| **w > 0)
        .map(|(count, w)| *count as f64 / (total as f64 * f64::from(*w) / f64::from(weight)))
        .fold(0.0, f64::max)
}

/// Asserts that the counts could well come from a fair draw by weight: chi-square below its 0.9999 quantile
/// (Wilson and Hilferty's approximation), so that one seed in ten thousand would fail; seeds are fixed.
pub(crate) fn assert_drawn_by_weight(counts: &[u64], weights: &[u32], what: &str) {
    let total: u64 = counts.iter().sum();
    let weight: u32 = weights.iter().sum();
    let mut chi_square = 0.0;
    for (count, w) in counts.iter().zip(weights) {
        let ideal = total as f64 * f64::from(*w) / f64::from(weight);
        if *w == 0 {
            assert_eq!(*count, 0, "{what}: a member of weight 0 was picked");
        } else {
            chi_square += (*count as f64 - ideal).powi(2) / ideal;
        }
    }
    let freedom = weights.iter().filter(|w| **w > 0).count() as f64 - 1.0;
    if freedom > 0.0 {
        let part = 2.0 / (9.0 * freedom);
        let limit = freedom * (1.0 - part + 3.719 * part.sqrt()).powi(3);
        assert!(
            chi_square < limit,
            "{what}: {counts:?} for {weights:?}: {chi_square} ≥ {limit}"
        );
    }
}
