//! The pick in words, without its side effects: no turn is taken, nothing is counted.

use std::cell::Cell;

use model::config::HashKey;
use model::explain::{Candidate, Chosen};
use model::snapshot::{Eligibility, Member, WEIGHT_SCALE};
use model::state::Mode;

use crate::balancer::{Ask, Balancer, Method, Table};
use crate::rng::Rng;

impl Balancer {
    /// All members with why they could be taken or not, and the one that a request with this key would be sent to
    /// now. Where chance decides, it says so, and the answer is what this `rng` would give.
    pub fn explain(&self, key: u64, now_us: u64, rng: &mut Rng) -> (Vec<Candidate>, Option<Chosen>) {
        let ask = Ask {
            tried: &[],
            now_us,
            ejected_too: self.all_out(now_us),
        };
        let candidates = (0..self.members.len())
            .map(|index| self.candidate(index, key, &ask))
            .collect();
        // Picking again from the same numbers tells what the draws were.
        let mut replay = rng.clone();
        let turn = Cell::new(self.pool.peek_turn());
        let next_turn = || turn.replace(turn.get().wrapping_add(1));
        let chosen = self.pick_by(key, &[], now_us, rng, next_turn);
        let chosen = chosen.map(|index| {
            let mut why = self.why_chosen(index, key, &ask, &mut replay);
            if ask.ejected_too {
                why.push_str("; every member is ejected, so ejection counts for nothing");
            }
            Chosen {
                address: self.state.members[index].id.address,
                why,
            }
        });
        (candidates, chosen)
    }

    /// The first `most` members with why they could be taken or not, without the algorithm's figures.
    pub fn candidates(&self, now_us: u64, most: usize) -> Vec<Candidate> {
        let ask = Ask {
            tried: &[],
            now_us,
            ejected_too: self.all_out(now_us),
        };
        let members = 0..self.members.len().min(most);
        let told = members.map(|index| Candidate {
            score: String::new(),
            ..self.candidate(index, 0, &ask)
        });
        told.collect()
    }

    fn candidate(&self, index: usize, key: u64, ask: &Ask<'_>) -> Candidate {
        let known = &self.state.members[index];
        let eligible = self.open(index, ask);
        let mut why = why_eligible(known);
        if known.effective_weight > 0 && self.is_out(index, ask.now_us) {
            let until = self.members[index].load.ejected_until();
            let seconds = until.saturating_sub(ask.now_us).div_ceil(1_000_000);
            let reason = known.ejection.as_ref().map_or("just now", |e| e.reason.as_str());
            why = format!("ejected for another {seconds}s: {reason}");
        }
        if self.capped && self.open_or_full(index, ask) && self.is_full(index) {
            let (in_flight, cap) = (self.members[index].load.in_flight(), self.members[index].cap);
            why = format!("full: {in_flight} of {cap} requests in flight");
        }
        Candidate {
            address: known.id.address,
            eligible,
            why,
            weight: f64::from(known.effective_weight) / f64::from(WEIGHT_SCALE),
            in_flight: self.members[index].load.in_flight(),
            score: if eligible {
                self.score(index, key, ask)
            } else {
                String::new()
            },
        }
    }

    fn score(&self, index: usize, key: u64, ask: &Ask<'_>) -> String {
        match &self.method {
            Method::RoundRobin(schedule) => {
                format!("{} of {} turns", schedule.turns_of(index), schedule.len())
            }
            Method::LeastConnections | Method::PowerOfTwo(_) => {
                format!("{:.2} in flight per weight", self.per_weight(index))
            }
            Method::Random(_) => {
                let open = (0..self.members.len()).filter(|i| self.open(*i, ask));
                let total: f64 = open.map(|i| f64::from(self.members[i].weight)).sum();
                let share = 100.0 * f64::from(self.members[index].weight) / total;
                format!("{share:.1}% of the draws")
            }
            Method::PeakEwma(_) => match self.members[index].load.latency.expected_us(ask.now_us) {
                Some(latency) => format!(
                    "cost {:.2} ms: {:.2} ms expected, {} in flight",
                    self.cost(index, ask.now_us) / 1000.0,
                    latency / 1000.0,
                    self.members[index].load.in_flight()
                ),
                None => "latency not known".to_owned(),
            },
            Method::IpHash => format!("hash score {:.3}", self.rendezvous_score(key, index)),
            Method::ConsistentHash(table, bound) => {
                let share = match table {
                    Table::Ring(ring) => format!("{} of {} points", ring.points_of(index), ring.len()),
                    Table::Maglev(maglev) => format!("{} of {} slots", maglev.slots_of(index), maglev.len()),
                };
                let Some(percent) = *bound else { return share };
                let greatest = self.room(percent, ask).greatest(self, index);
                format!("{share}, at most {greatest} in flight")
            }
        }
    }

    fn per_weight(&self, index: usize) -> f64 {
        let member = &self.members[index];
        f64::from(member.load.in_flight()) * f64::from(WEIGHT_SCALE) / f64::from(member.weight.max(1))
    }

    fn why_chosen(&self, index: usize, key: u64, ask: &Ask<'_>, replay: &mut Rng) -> String {
        match &self.method {
            Method::RoundRobin(_) => "the next turn is its".to_owned(),
            Method::LeastConnections => self.why_least(index, ask),
            Method::Random(_) => "drawn at random by weight; the next draw may differ".to_owned(),
            Method::PowerOfTwo(table) => {
                let two = self.draw_two(table, ask, replay);
                self.why_of_two("fewer in flight per weight", two)
            }
            Method::PeakEwma(table) => {
                let two = self.draw_two(table, ask, replay);
                self.why_of_two("the lower cost", two)
            }
            Method::IpHash => "the greatest hash score for this address".to_owned(),
            Method::ConsistentHash(Table::Ring(ring), _) => {
                self.why_owner("ring", ring.find(key, |_| true), index)
            }
            Method::ConsistentHash(Table::Maglev(maglev), _) => {
                self.why_owner("table", maglev.owner(key), index)
            }
        }
    }

    fn why_least(&self, index: usize, ask: &Ask<'_>) -> String {
        let score = self.per_weight(index);
        let equals = (0..self.members.len())
            .filter(|i| self.open(*i, ask) && self.per_weight(*i) == score)
            .count();
        match equals {
            1 => format!("fewest in flight per weight ({score:.2})"),
            _ => format!("drawn by weight among {equals} with the fewest in flight per weight ({score:.2})"),
        }
    }

    fn why_of_two(&self, what: &str, two: Option<(usize, Option<usize>)>) -> String {
        let address = |i: usize| self.state.members[i].id.address;
        match two {
            Some((first, Some(second))) => format!(
                "{what} of two drawn at random, {} and {}; the next draw may differ",
                address(first),
                address(second)
            ),
            _ => "the only one that can be taken".to_owned(),
        }
    }

    fn why_owner(&self, table: &str, owner: Option<usize>, chosen: usize) -> String {
        let key = match self.hash_key() {
            Some(HashKey::ClientAddress) | None => "client address".to_owned(),
            Some(HashKey::Header(name)) => format!("header {name}"),
            Some(HashKey::Cookie(name)) => format!("cookie {name}"),
            Some(HashKey::Path) => "path".to_owned(),
            Some(HashKey::Query(name)) => format!("query parameter {name}"),
        };
        match owner.filter(|o| *o != chosen) {
            None => format!("the {table} gives it this {key}"),
            Some(owner) => format!(
                "the {table} gives this {key} to {}, which cannot take it (ejected, or over its bound): next in line",
                self.state.members[owner].id.address
            ),
        }
    }
}

fn why_eligible(member: &Member) -> String {
    let health = || format!("{}: {}", member.health.health.as_str(), member.health.reason);
    let by = || {
        member
            .order
            .as_ref()
            .map_or_else(String::new, |o| format!(" by {}", o.by))
    };
    match member.eligibility {
        Eligibility::Eligible if member.ramp_since.is_some() => format!("{}, in slow start", health()),
        Eligibility::Eligible | Eligibility::Down => health(),
        Eligibility::AwaitsCheck => format!("found, and awaits its first successful check ({})", health()),
        Eligibility::Draining if member.mode() == Mode::Ready => "draining: it says so itself".to_owned(),
        Eligibility::FailOpen => match &member.ejection {
            Some(ejection) => format!("fail open, though ejected: {}", ejection.reason),
            None => format!("fail open, though {}", health()),
        },
        Eligibility::Draining | Eligibility::Maintenance => {
            let mode = member.order.as_ref().map_or(Mode::Ready, |o| o.mode);
            format!("{}{}", mode.as_str(), by())
        }
        Eligibility::Ejected => match &member.ejection {
            Some(ejection) => format!("ejected: {}", ejection.reason),
            None => "ejected".to_owned(),
        },
        Eligibility::ZeroWeight => format!("weight 0{}", by()),
    }
}
