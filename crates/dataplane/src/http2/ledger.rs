//! What one connection makes us hold, counted in bytes and bounded.
//!
//! Counted are the headers of its running requests and the pieces of responses that are on their way: from the
//! moment they are handed to the protocol library until they are on the wire. A client that opens many streams
//! and reads nothing gets no further than this.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;

/// The count of one connection.
#[derive(Debug)]
pub(crate) struct Ledger {
    limit: usize,
    /// Headers and pieces.
    held: Cell<usize>,
    /// Pieces alone: they wait for each other, never for headers, which stay until their response is out.
    pieces: Cell<usize>,
    /// Streams that wait for room.
    waiting: RefCell<Vec<Waker>>,
}

impl Ledger {
    pub(crate) fn new(limit: u32) -> Rc<Self> {
        Rc::new(Self {
            limit: limit as usize,
            held: Cell::new(0),
            pieces: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// Whether there is no room for another stream.
    pub(crate) fn is_full(&self) -> bool {
        self.held.get() >= self.limit
    }

    /// Waits for room for a piece.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.pieces.get() < self.limit {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Counts a header of `bytes` for as long as the entry lives.
    pub(crate) fn enter(self: &Rc<Self>, bytes: usize) -> Header {
        self.held.set(self.held.get().saturating_add(bytes));
        Header {
            ledger: self.clone(),
            bytes,
        }
    }
}

/// A header that is held.
#[derive(Debug)]
pub(crate) struct Header {
    ledger: Rc<Ledger>,
    bytes: usize,
}

impl Drop for Header {
    fn drop(&mut self) {
        let held = &self.ledger.held;
        held.set(held.get().saturating_sub(self.bytes));
    }
}

/// A piece of a response on its way, counted until it is written.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Vec<u8>,
    at: usize,
    ledger: Rc<Ledger>,
}

impl Piece {
    pub(crate) fn new(ledger: &Rc<Ledger>, bytes: Vec<u8>) -> Self {
        ledger.held.set(ledger.held.get().saturating_add(bytes.len()));
        ledger.pieces.set(ledger.pieces.get().saturating_add(bytes.len()));
        Self {
            bytes,
            at: 0,
            ledger: ledger.clone(),
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let ledger = &self.ledger;
        let size = self.bytes.len();
        ledger.held.set(ledger.held.get().saturating_sub(size));
        ledger.pieces.set(ledger.pieces.get().saturating_sub(size));
        if ledger.pieces.get() < ledger.limit {
            // Each looks for room again: the list is as long as there are streams.
            ledger.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_comes_back_when_a_piece_is_written_or_dropped() {
        let ledger = Ledger::new(10);
        let cx = Context::from_waker(Waker::noop());
        let first = Piece::new(&ledger, vec![0; 6]);
        assert!(ledger.poll_room(&cx).is_ready());
        let second = Piece::new(&ledger, vec![0; 6]);
        assert!(ledger.is_full());
        assert!(ledger.poll_room(&cx).is_pending());
        drop(first);
        assert!(ledger.poll_room(&cx).is_ready());
        drop(second);
        assert_eq!((ledger.held.get(), ledger.pieces.get()), (0, 0));
        assert!(ledger.waiting.borrow().is_empty());
    }

    /// Else the responses that would end them could not be sent.
    #[test]
    fn headers_keep_streams_out_but_no_piece_waits_for_them() {
        let ledger = Ledger::new(10);
        let cx = Context::from_waker(Waker::noop());
        let header = ledger.enter(20);
        assert!(ledger.is_full());
        assert!(ledger.poll_room(&cx).is_ready());
        drop(header);
        assert!(!ledger.is_full());
    }
}
