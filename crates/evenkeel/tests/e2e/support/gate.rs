//! A gate that a test opens: whoever comes before waits. It makes the order of things certain without any pause.

use std::sync::{Arc, Condvar, Mutex};

use super::DEADLINE;

/// Closed until [`Gate::open`]; clones are the same gate.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    open: bool,
    waiting: usize,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until the gate is open; gives up silently at the deadline, so that no thread outlives its test.
    pub(crate) fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        let _ = self.0.1.wait_timeout_while(state, DEADLINE, |s| !s.open).unwrap();
    }

    /// How many have come to the gate so far.
    pub(crate) fn came(&self) -> usize {
        self.0.0.lock().unwrap().waiting
    }
}
