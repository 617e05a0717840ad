//! Whether a client is still there while its request waits: for a slot, a connection, a response.
//!
//! A reset says that it is gone. The end of what it sends does not: a client may send no more and wait for its
//! answer (RFC 9112 section 9.6), and to the kernel that looks the same as having hung up. So the client is asked,
//! with a `100 Continue`, which every client of HTTP/1.1 must be able to ignore (RFC 9110 section 15.2): who waits
//! drops it, and for who has hung up its kernel answers with a reset. Why so, and what others do, is in
//! `docs/adr/0013-a-client-that-leaves.md`.
//!
//! A client that is silent while it waits, as nearly all are, costs a look at what the runtime knows already.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use crate::reply::Reply;

/// How often a client is looked at of which something has come: bytes that wait to be read hide what follows them.
/// So it is asked this long after it has ended at the earliest, and a response that comes quickly comes alone.
const LOOK: Duration = Duration::from_millis(50);

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What it means that a client sends no more which cannot be asked: one of HTTP/1.0 knows no `100 Continue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// It waits for its answer.
    Waits,
    /// It has left.
    Left,
}

/// Does `work` for as long as the client is there. Over HTTP/2 a request ends with its stream, wherever it is.
pub(crate) async fn unless_gone<W: Future>(
    reply: &Reply<'_>,
    unasked: Unasked,
    work: W,
) -> Result<W::Output, Gone> {
    let mut work = pin!(work);
    let done = poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if reply.client_stirs(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    match done {
        Some(done) => Ok(done),
        // Boxed: rare, and must not make every request larger.
        None => Box::pin(watch(reply, unasked, work)).await,
    }
}

/// What was seen of a client.
enum Seen<D> {
    Done(D),
    Reset,
    /// Still there, or silent: whether it sends no more.
    Ended(bool),
}

/// The same for a client of which something has come.
async fn watch<W: Future>(
    reply: &Reply<'_>,
    unasked: Unasked,
    mut work: Pin<&mut W>,
) -> Result<W::Output, Gone> {
    let timer = reply.another_timer().await;
    loop {
        timer.arm(LOOK);
        let seen = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Seen::Done(done)),
            Poll::Pending => {
                let left = reply.client_left(cx);
                match (left.reset, timer.expired()) {
                    (true, _) => Poll::Ready(Seen::Reset),
                    (false, true) => Poll::Ready(Seen::Ended(left.ended)),
                    (false, false) => Poll::Pending,
                }
            }
        })
        .await;
        match seen {
            Seen::Done(done) => return Ok(done),
            Seen::Reset => return Err(Gone),
            Seen::Ended(false) => {}
            Seen::Ended(true) if reply.may_ask() => reply.ask().await.map_err(|_| Gone)?,
            Seen::Ended(true) if unasked == Unasked::Left => return Err(Gone),
            Seen::Ended(true) => {}
        }
    }
}
