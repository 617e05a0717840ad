//! The tasks without which a process would only seem to work: what a fault of Evenkeel in one of them does.
//!
//! A panic ends a task and nothing else. Were it the hub's, requests would be forwarded for ever by what was known then:
//! no verdict, no order and no change would be taken any more, and nobody would see it. So the process stops, in order,
//! with an exit status that has its supervisor start it again (`Restart=on-failure`).
//!
//! Not among them: tasks that serve one request or make one call. A panic there is that one's, and in the log.

use std::any::Any;
use std::fmt;

use tokio::sync::{mpsc, watch};

/// Starts such tasks.
#[derive(Clone, Debug)]
pub(crate) struct Vital(mpsc::Sender<Fault>);

/// What became of them.
#[derive(Debug)]
pub(crate) struct Faults(mpsc::Receiver<Fault>);

/// For the tasks of one process.
pub(crate) fn tasks() -> (Vital, Faults) {
    // The first one ends the process: those that come with it need no room.
    let (out, faults) = mpsc::channel(1);
    (Vital(out), Faults(faults))
}

/// A task has panicked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    name: &'static str,
    words: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a fault of Evenkeel: the task `{}` has failed ({}). Without it no change would be noticed any more, so \
             this process stops and is to be started again; please report this with what stands before it in the log",
            self.name, self.words
        )
    }
}

impl std::error::Error for Fault {}

impl Vital {
    /// Starts a task, in the tokio runtime that this is called in. It may end by itself.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(task);
        let faults = self.0.clone();
        tokio::spawn(async move {
            let ended = task.await;
            if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
                let words = words(&*panic);
                let _ = faults.try_send(Fault { name, words });
            }
        });
    }

    /// Watches over a task that was started elsewhere, and is to go on until the process stops: it tells through `told`.
    pub(crate) fn watch<T: Send + Sync + 'static>(&self, name: &'static str, mut told: watch::Receiver<T>) {
        let faults = self.0.clone();
        tokio::spawn(async move {
            while told.changed().await.is_ok() {}
            let words = "it has ended, and says nothing any more".to_owned();
            let _ = faults.try_send(Fault { name, words });
        });
    }
}

impl Faults {
    /// Waits until one has panicked. May be dropped while it waits: nothing is lost.
    pub(crate) async fn first(&mut self) -> Fault {
        match self.0.recv().await {
            Some(fault) => fault,
            None => std::future::pending().await,
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use tokio::sync::oneshot;

    use super::*;

    /// Scenario: one task ends as it should, another panics, a third goes on. The panic is told, with its name and words.
    #[tokio::test]
    async fn a_task_that_panics_is_told_and_no_other() {
        let (vital, mut faults) = tasks();
        let (go, gone) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        vital.spawn("short", async move { done.send(()).unwrap() });
        vital.spawn("hub", async move {
            gone.await.unwrap();
            let number = 7;
            panic!("no such slot: {number}");
        });
        vital.spawn("long", std::future::pending());
        ended.await.unwrap();
        let mut failed = Box::pin(faults.first());
        let early = std::future::poll_fn(|context| {
            std::task::Poll::Ready(Future::poll(failed.as_mut(), context).is_ready())
        });
        assert!(!early.await, "one that has ended is no fault");
        go.send(()).unwrap();
        let fault = failed.await;
        assert_eq!((fault.name, fault.words.as_str()), ("hub", "no such slot: 7"));
        let told = fault.to_string();
        assert!(
            told.contains("the task `hub` has failed (no such slot: 7)"),
            "{told}"
        );
    }

    /// Scenario: a task that was started elsewhere tells something, and is gone.
    #[tokio::test]
    async fn a_task_that_falls_silent_is_told() {
        let (vital, mut faults) = tasks();
        let (tells, told) = watch::channel(1);
        vital.watch("checks", told);
        tells.send_replace(2);
        drop(tells);
        assert_eq!(faults.first().await.name, "checks");
    }
}
