//! Tasks that serve one stream after another.
//!
//! The state of an exchange is some kilobytes; to make it and let go of it for each stream costs more than much of
//! what it does. A task that has served its stream therefore waits for the next, of whatever connection. At most
//! [`MAX_IDLE`] of a shard wait; beyond that a task ends with its stream.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use h2::RecvStream;
use h2::server::SendResponse;
use http_types::Request;
use tokio::task::spawn_local;

use super::connection::Running;
use super::ledger::{Header, Piece};
use super::stream;

/// Tasks of a shard that wait for a stream at most.
const MAX_IDLE: usize = 512;

/// A stream to be served.
pub(super) struct Job {
    pub(super) running: Running,
    /// Its header, counted from the moment that it is here: a burst of streams is served only afterwards.
    pub(super) header: Header,
    pub(super) request: Request<RecvStream>,
    pub(super) respond: SendResponse<Piece>,
}

/// The tasks of a shard that wait for a stream, the most recently busy last.
#[derive(Debug, Default)]
pub(crate) struct StreamTasks {
    idle: RefCell<Vec<Rc<Seat>>>,
}

/// Where a task that waits finds its next stream.
#[derive(Default)]
struct Seat {
    job: Cell<Option<Job>>,
    waker: Cell<Option<Waker>>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}

/// Has a stream served, by a task that waits or by a new one.
pub(super) fn begin(job: Job) {
    let waiting = job.running.0.shard.stream_tasks.idle.borrow_mut().pop();
    let Some(seat) = waiting else {
        spawn_local(run(job));
        return;
    };
    seat.job.set(Some(job));
    if let Some(waker) = seat.waker.take() {
        waker.wake();
    }
}

async fn run(mut job: Job) {
    let seat = Rc::new(Seat::default());
    loop {
        let shard = job.running.0.shard.clone();
        stream::serve(job).await;
        let waits = {
            let mut idle = shard.stream_tasks.idle.borrow_mut();
            let room = idle.len() < MAX_IDLE;
            if room {
                idle.push(seat.clone());
            }
            room
        };
        // A task that waits keeps nothing alive: neither its shard nor the connection that it served.
        drop(shard);
        if !waits {
            return;
        }
        job = poll_fn(|cx| match seat.job.take() {
            Some(job) => Poll::Ready(job),
            None => {
                seat.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await;
    }
}
