//! Questions about the load balancers of the store, and changes of them, between the API and the store.
//!
//! A change is carried out to its end, also when who asked for it has gone; a question ends with its request. What a dry run would do is told for the
//! node that was asked: by its own file, its orders, and what it has found of the backends.

use std::sync::Arc;

use cluster::Desired;
use cluster::desired::{Answered, Guard, Ledger, is_order};
use console::Desire;
use dataplane::Dataplane;
use model::cluster::ClusterNews;
use model::config::{Config, Role};
use model::desired::{DesiredAnswer, DesiredFault, DesiredProblem, DesiredQuery};
use model::plan::Plan;
use tokio::sync::{mpsc, watch};

use crate::hub::{Declared, View};
use crate::now;
use crate::registry::Registration;

/// What a whole config would change.
pub(crate) type Foresee = dyn Fn(Arc<Config>) -> Plan + Send + Sync;

/// Answers by the store, beside what `view` says of this node.
pub(crate) fn desire(ledger: Ledger, view: watch::Receiver<View>, foresee: Arc<Foresee>) -> Arc<Desire> {
    Arc::new(move |query| {
        let file = view.borrow().declared.file.clone();
        let (ledger, foresee) = (ledger.clone(), foresee.clone());
        let is_order = is_order(&query);
        let answering = async move { answer(&ledger, query, file, foresee).await };
        Box::pin(seen_through(is_order, answering))
    })
}

/// What an order comes to, which goes on when nobody waits for it any more; of what is none, the answer.
async fn seen_through<T: Send + 'static>(
    is_order: bool,
    answering: impl Future<Output = Result<T, DesiredProblem>> + Send + 'static,
) -> Result<T, DesiredProblem> {
    if !is_order {
        return answering.await;
    }
    tokio::spawn(answering).await.unwrap_or_else(|error| {
        let fault = format!("a fault of Evenkeel: {error}");
        Err(DesiredProblem::new(DesiredFault::OutcomeUnknown, fault))
    })
}

/// Looks after changes that await their confirmation, in the tokio runtime that this is called in.
pub(crate) fn guard(
    ledger: &Ledger,
    dataplane: &Arc<Dataplane>,
    config: &Config,
    registration: &Registration,
    news: mpsc::Sender<ClusterNews>,
) {
    let dataplane = dataplane.clone();
    let guard = Guard {
        ledger: ledger.clone(),
        name: config.node.name.clone(),
        totals: Arc::new(move || dataplane.traffic()),
        nodes: registration.nodes.clone(),
        told: registration.trial.clone(),
        wall: now,
        news,
    };
    tokio::spawn(async move {
        if let Err(error) = guard.run().await {
            tracing::error!("changes that are not confirmed are not taken back by this node: {error}");
        }
    });
}

async fn answer(
    ledger: &Ledger,
    query: DesiredQuery,
    file: Arc<Config>,
    foresee: Arc<Foresee>,
) -> Result<DesiredAnswer, DesiredProblem> {
    if is_order(&query) && !file.node.roles.contains(&Role::Console) {
        let detail =
            "this node takes no changes: `console` is not among its `node.roles`; ask one that has it";
        return Err(DesiredProblem::new(DesiredFault::BadQuery, detail));
    }
    let Answered {
        mut answer,
        would_be,
        made,
    } = ledger.answer(query, &file, now()).await?;
    if let Some(line) = made {
        tracing::info!("the store: {line}");
    }
    if let (DesiredAnswer::Changed(changed), Some(load_balancers)) = (&mut answer, would_be) {
        let stored = Desired {
            revision: changed.revision,
            load_balancers,
        };
        // It merges everything, and looks at every pool.
        let asked = ledger.for_questions();
        let planned = asked.apart(move || {
            let declared = Declared::new(file, Arc::new(stored))?;
            Ok(foresee(declared.config))
        });
        changed.plan = match planned.await {
            Ok(plan) => Some(plan.map_err(|errors| DesiredProblem {
                errors,
                ..DesiredProblem::new(DesiredFault::BadConfig, "what would be in force is not valid")
            })?),
            Err(_) => None,
        };
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    /// Scenario: who asked has gone before the answer. A question has ended with it; an order is carried out.
    #[tokio::test]
    async fn an_order_is_seen_through_and_a_question_ends_with_its_request() {
        for is_order in [true, false] {
            let (go, gone) = oneshot::channel::<()>();
            let (done, mut is_done) = oneshot::channel();
            let mut asked = Box::pin(seen_through(is_order, async move {
                let _ = gone.await;
                done.send(()).unwrap();
                Ok(())
            }));
            assert!(timeout(Duration::ZERO, &mut asked).await.is_err());
            drop(asked);
            assert_eq!(go.send(()).is_ok(), is_order);
            let came = timeout(Duration::from_secs(60), &mut is_done).await.unwrap();
            assert_eq!(came.is_ok(), is_order);
        }
    }
}
