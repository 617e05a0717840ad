//! Work that takes the processor for long: the reading and comparing of all load balancers.
//!
//! The control side has two threads, and the connection to the store lives on them: a text of a thousand load balancers
//! that is parsed there keeps answers from being read until the link is taken for dead. So such work is done on the
//! runtime's threads for what blocks, as much of it at once as [`TURNS`] says; the rest waits.

//!
//! Who only asks has turns of his own: however many ask for however much, a change, a confirmation and the taking back
//! of a change that fails do not wait behind them. A piece of work keeps its turn to its end, also when nobody wants it
//! any more.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{DesiredError, Ledger};

/// Pieces of long work at the same time: of changes, and as many of questions.
pub(super) const TURNS: usize = 2;

/// Turns, to be taken by clones.
pub(super) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(TURNS))
}

impl Ledger {
    /// The same ledger for who only asks: what takes long waits behind other questions, and no change waits for it.
    #[must_use]
    pub fn for_questions(&self) -> Self {
        Self {
            turns: self.turns_of_questions.clone(),
            ..self.clone()
        }
    }

    /// Does `work` on another thread, when it is its turn.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DesiredError> {
        let fault = |error: String| DesiredError::Damaged(format!("a fault of Evenkeel: {error}"));
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(|error| fault(error.to_string()))?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|error| fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::sync::mpsc;
    use std::time::Duration;

    use model::desired::{Change, ChangeQuery, DesiredAnswer, DesiredQuery, Text};
    use model::parse::parse_toml;
    use model::plan::Format;
    use model::state::Timestamp;
    use tokio::time::timeout;

    use super::*;
    use crate::{Space, Store};

    const NOW: Timestamp = Timestamp(1_790_000_000_000);
    /// Only a fault takes as long.
    const LONG: Duration = Duration::from_secs(60);

    fn apply(backend: &str, confirm: Option<&str>) -> DesiredQuery {
        let lines = format!("listen = \"127.0.0.1:1\"\nbackend_servers = [\"{backend}\"]\n");
        DesiredQuery::Change(ChangeQuery {
            change: Change::Apply(Text {
                text: format!("[load_balancers.shop]\n{lines}"),
                format: Format::Toml,
                name: None,
            }),
            dry_run: false,
            expect: None,
            confirm: confirm.map(str::to_owned),
            message: None,
            by: Some("eva".to_owned()),
        })
    }

    /// Scenario: others ask for so much that no turn of theirs is free. A change is made all the same, one on trial is
    /// confirmed, another one is taken back; a question waits until it is its turn.
    #[tokio::test]
    async fn questions_keep_nobody_from_changing_or_taking_back() {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(Store::embedded(folder.path()).unwrap(), "/evenkeel/");
        let file = parse_toml("[store]\n", "node.toml").unwrap();
        let ledger = Ledger::new(space.clone());
        let ask = |query| timeout(LONG, ledger.answer(query, &file, NOW));
        let asking = u32::try_from(TURNS).unwrap();
        let taken = ledger.turns_of_questions.clone().acquire_many_owned(asking).await;
        ask(apply("10.0.0.1:80", None)).await.unwrap().unwrap();
        ask(apply("10.0.0.2:80", Some("1h"))).await.unwrap().unwrap();
        let confirm = model::desired::ConfirmQuery {
            revision: None,
            by: None,
        };
        ask(DesiredQuery::Confirm(confirm)).await.unwrap().unwrap();
        ask(apply("10.0.0.3:80", Some("1h"))).await.unwrap().unwrap();
        let pending = ledger.current().await.unwrap().pending.clone().unwrap();
        // By a node that has read nothing yet.
        let mut fresh = Ledger::new(space);
        fresh.turns_of_questions = ledger.turns_of_questions.clone();
        let reverted = timeout(LONG, fresh.revert(&pending, "evenkeel", "worse", NOW)).await;
        assert!(reverted.unwrap().unwrap().change.is_some());
        let mut question = Box::pin(ask(DesiredQuery::State(None)));
        let early = timeout(Duration::from_millis(100), &mut question).await;
        assert!(early.is_err(), "{early:?}");
        drop(taken);
        let DesiredAnswer::State(state) = question.await.unwrap().unwrap().answer else {
            panic!("no state");
        };
        assert_eq!(state.revision, 4);
    }

    /// Scenario: who asked has gone while the work is done. It keeps its turn until it ends.
    #[tokio::test]
    async fn work_that_nobody_wants_keeps_its_turn() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Space::new(Store::embedded(folder.path()).unwrap(), "/evenkeel/"));
        let (begun, begins) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let work = ledger.apart(move || {
            begun.send(()).unwrap();
            ends.recv().unwrap();
        });
        let mut work = Box::pin(work);
        assert!(timeout(Duration::ZERO, &mut work).await.is_err());
        begins.recv_timeout(LONG).unwrap();
        drop(work);
        assert_eq!(ledger.turns.available_permits(), TURNS - 1);
        end.send(()).unwrap();
        let all = ledger.turns.acquire_many(u32::try_from(TURNS).unwrap());
        drop(timeout(LONG, all).await.unwrap().unwrap());
    }
}
