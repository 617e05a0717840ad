//! Caps, queues and circuit breakers.

use std::fmt;

use balance::{Circuit, Shed};
use prometheus_client::encoding::DescriptorEncoder;

use super::{
    BACKEND_CONNECTIONS, CIRCUIT, MAX_IN_FLIGHT, QUEUE_DEPTH, QUEUE_SHED, QUEUE_WAIT, Row, counter, family,
    gauge, histogram, pool_labels,
};
use crate::counters::{HistogramTotal, SHED};
use crate::serving::{PoolServing, Serving};

pub(super) fn pools(encoder: &mut DescriptorEncoder<'_>, serving: &Serving, now_us: u64) -> fmt::Result {
    let all = || serving.load_balancers.values().flat_map(|lb| lb.pools.iter());
    let mut metric = family(encoder, QUEUE_DEPTH)?;
    for pool in all() {
        gauge(
            &mut metric,
            &pool_labels(pool),
            i64::from(pool.cell.load.waiting()),
        )?;
    }
    let mut metric = family(encoder, QUEUE_WAIT)?;
    for pool in all() {
        let mut total = HistogramTotal::default();
        pool.cell.counters.all().for_each(|c| total.add(&c.queue_wait));
        histogram(&mut metric, &pool_labels(pool), &total)?;
    }
    let mut metric = family(encoder, QUEUE_SHED)?;
    for pool in all() {
        for why in 0..SHED {
            let mut labels = pool_labels(pool);
            labels.push(("why", Shed::ALL.get(why).map_or("departed", |shed| shed.as_str())));
            counter(&mut metric, &labels, sheds(pool, why))?;
        }
    }
    let mut metric = family(encoder, CIRCUIT)?;
    for pool in all().filter(|pool| pool.config.overload.circuit_breaker.is_some()) {
        let state = match pool.cell.load.circuit(now_us) {
            Circuit::Closed => 0,
            Circuit::HalfOpen => 1,
            Circuit::Open => 2,
        };
        gauge(&mut metric, &pool_labels(pool), state)?;
    }
    Ok(())
}

fn sheds(pool: &PoolServing, why: usize) -> u64 {
    pool.cell.counters.all().map(|c| c.sheds(why)).sum()
}

pub(super) fn backends(encoder: &mut DescriptorEncoder<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut metric = family(encoder, MAX_IN_FLIGHT)?;
    for row in rows {
        let places = row.first..row.first + row.cells.len();
        let mut caps = places.filter_map(|place| row.pool.balancer.cap(place)).peekable();
        if caps.peek().is_some() {
            gauge(&mut metric, &row.labels, caps.map(i64::from).sum())?;
        }
    }
    let mut metric = family(encoder, BACKEND_CONNECTIONS)?;
    for row in rows {
        let open = row.cells.iter().map(|cell| i64::from(cell.connections.open()));
        gauge(&mut metric, &row.labels, open.sum())?;
    }
    Ok(())
}
