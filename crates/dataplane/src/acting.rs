//! The sequence of what listener and route do before a backend is chosen: edit, answer, take the body, copy.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use balance::Take;
use http::Framing;
use http::forward::{self, Via};
use model::config::{BufferRequests, Route};
use model::reason::Reason;

use crate::actions::{self, Edited};
use crate::attempt::Body;
use crate::counters::Buffered;
use crate::exchange::{Arrived, Client, Ended, Rest, answer, answer_with, refuse_read};
use crate::mirror::{self, Copy, Outcome, Place};
use crate::origin::Origin;
use crate::request_body::{Place as KeptIn, Room};
use crate::serving::LbServing;
use crate::share::{Share, Total};
use crate::slot::InFlight;

/// What all requests of a route share.
#[derive(Debug, Default)]
pub(crate) struct RouteCell {
    /// Bytes of bodies taken whole that are in memory.
    pub(crate) in_memory: Arc<Total>,
    /// Those on disk.
    pub(crate) on_disk: Arc<Total>,
    /// Copies on their way.
    copies: Arc<AtomicU32>,
}

/// Does what the listener and the route do before a backend is chosen; how the request ended, when it did.
pub(crate) async fn act(
    arrived: &Arrived<'_>,
    route: Option<&Route>,
    client: &mut Client<'_>,
    rest: &mut Rest,
) -> Option<Ended> {
    let mut location = Vec::new();
    let mut edited = Edited {
        request_extra: &mut rest.request_extra,
        response_extra: &mut rest.response_extra,
        outgoing: &mut rest.outgoing,
    };
    let acted = actions::act(arrived, route, client, &rest.story, &mut edited, &mut location);
    match acted {
        Ok(None) => {
            let route = route?;
            if let Err(reason) = take_body(arrived, route, client, rest).await {
                return Some(answer(client, reason, None, &rest.response_extra, true).await);
            }
            copy_now(arrived, route, client, rest);
            None
        }
        Ok(Some(own)) => Some(answer_with(arrived, client, &own, &rest.response_extra).await),
        Err(reason) => Some(refuse_read(arrived, client, reason, &rest.response_extra).await),
    }
}

/// Takes the whole body where the route wants that.
async fn take_body(
    arrived: &Arrived<'_>,
    route: &Route,
    client: &mut Client<'_>,
    rest: &mut Rest,
) -> Result<(), Reason> {
    let Some(config) = &route.actions.buffer_requests else {
        return Ok(());
    };
    // The messages of a call come when they come, each in answer to the other side's perhaps: none may be held back.
    if client.reply.is_call() {
        return Ok(());
    }
    let BufferRequests {
        memory,
        memory_total,
        disk,
        disk_total,
    } = *config;
    let counters = arrived.serving.lb.cell.counters.of(arrived.shard.index);
    let most = memory.saturating_add(disk);
    if matches!(arrived.head.framing, Framing::Length(length) if length > most) {
        counters.note_buffered(Buffered::Refused);
        return Err(Reason::BodyTooLarge);
    }
    let Body::Streaming(body) = &mut client.body else {
        return Ok(());
    };
    if std::mem::take(&mut rest.outgoing.expect_continue) {
        let allowed = client.reply.allow_body().await;
        allowed.map_err(|_| Reason::ClientGone)?;
    }
    let (in_memory, on_disk) = cell(&arrived.serving.lb, rest)
        .map(|cell| (cell.in_memory.clone(), cell.on_disk.clone()))
        .unwrap_or_default();
    let room = Room {
        memory: usize::try_from(memory).unwrap_or(usize::MAX),
        most,
        in_memory: Share::empty(in_memory, memory_total),
        on_disk: (disk > 0).then(|| Share::empty(on_disk, disk_total)),
        name: arrived.shard.rng.borrow_mut().next_u64(),
    };
    let clocks = (client.timer, arrived.shard.timers.as_ref());
    let taken = body.take_whole(room, &arrived.serving.config, clocks).await;
    counters.note_buffered(match taken {
        Ok(KeptIn::Memory) => Buffered::Memory,
        Ok(KeptIn::Disk) => Buffered::Disk,
        Ok(KeptIn::DiskForLackOfMemory) => Buffered::Spilled,
        Err(Reason::BodyTooLarge) => Buffered::Refused,
        Err(Reason::BufferFull) => Buffered::Full,
        Err(_) => Buffered::Failed,
    });
    taken.map(|_| ())
}

fn cell<'l>(lb: &'l LbServing, rest: &Rest) -> Option<&'l RouteCell> {
    lb.route_cells.get(rest.story.route.get()?).map(Arc::as_ref)
}

/// Copies a request whose body is here; one whose body is still coming keeps it for [`copy_late`].
fn copy_now(arrived: &Arrived<'_>, route: &Route, client: &mut Client<'_>, rest: &mut Rest) {
    let Some(config) = &route.actions.mirror else {
        return;
    };
    match &mut client.body {
        Body::Whole(length) => {
            let start = arrived.head.head_len;
            let body = arrived.bytes.get(start..start + *length);
            copy(arrived, route, client.origin, rest, body.unwrap_or_default());
        }
        Body::Streaming(body) => {
            body.keep_at_least(usize::try_from(config.max_body).unwrap_or(usize::MAX));
        }
    }
}

/// Does what is left once a request is answered.
pub(crate) fn finish(arrived: &Arrived<'_>, client: &Client<'_>, rest: &mut Rest) {
    if let Some(sizes) = client.reply.encoded() {
        let counters = arrived.serving.lb.cell.counters.of(arrived.shard.index);
        counters.note_compressed(sizes);
    }
    copy_late(arrived, client, rest);
}

/// Copies a request whose body has come in the meantime.
fn copy_late(arrived: &Arrived<'_>, client: &Client<'_>, rest: &mut Rest) {
    let Body::Streaming(body) = &client.body else {
        return;
    };
    let lb = &arrived.serving.lb;
    let Some(route) = rest.story.route.get().and_then(|r| lb.acting(r)) else {
        return;
    };
    if route.actions.mirror.is_none() {
        return;
    }
    match body.kept() {
        Some(body) => {
            rest.outgoing.set_whole_body(body.len() as u64);
            copy(arrived, route, client.origin, rest, body);
        }
        None if body.done() => mirror::count(arrived.shard, &lb.cell, Outcome::TooLarge),
        // Never came: there is no whole request to copy.
        None => {}
    }
}

fn copy(arrived: &Arrived<'_>, route: &Route, origin: &Origin, rest: &Rest, body: &[u8]) {
    let (shard, lb) = (arrived.shard, &arrived.serving.lb);
    let Some(config) = &route.actions.mirror else {
        return;
    };
    let chosen = shard.rng.borrow_mut().below(100) < u64::from(config.share);
    if !chosen || arrived.head.upgrade(arrived.bytes).is_some() {
        return;
    }
    let count = |outcome| mirror::count(shard, &lb.cell, outcome);
    if body.len() as u64 > config.max_body {
        return count(Outcome::TooLarge);
    }
    let place = cell(lb, rest).and_then(|cell| Place::take(&cell.copies, config.max_in_flight));
    let Some(place) = place else {
        return count(Outcome::Busy);
    };
    let pool = lb.pools.iter().find(|pool| pool.config.name == config.pool);
    let Some(pool) = pool else {
        return count(Outcome::Failed);
    };
    let now_us = shard.timers.recent_us();
    let taken = pool.balancer.take_free(0, now_us, &mut shard.rng.borrow_mut());
    let (index, in_flight) = match taken {
        Take::Taken(index) => (index, InFlight::hold(shard, pool, index)),
        Take::Nobody => return count(Outcome::Failed),
        Take::Wait(_) | Take::Shed(_) => return count(Outcome::Busy),
    };
    let Some(backend) = pool.backends.get(index) else {
        return count(Outcome::Failed);
    };
    let via = Via {
        client: origin.peer.ip(),
        client_text: origin.peer_text.as_bytes(),
        trusted: arrived.trusted,
        scheme: origin.scheme(),
        backend: backend.address_text.as_bytes(),
        upgrade: None,
        trace: None,
    };
    let mut message = Vec::new();
    let head = &rest.outgoing;
    forward::write_request(&mut message, arrived.bytes, head, &via, &rest.request_extra);
    message.extend_from_slice(body);
    let copy = Copy {
        pool: pool.clone(),
        backend: backend.clone(),
        lb: lb.cell.clone(),
        method: head.method,
        message,
        timeout: config.timeout,
        place,
        in_flight,
    };
    mirror::send(shard, copy);
}
