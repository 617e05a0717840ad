//! Questions about the load balancers of the store, and changes of them, between the API and the store.
//!
//! A change is carried out to its end, also when who asked for it has gone. What a dry run would do is told for the
//! node that was asked: by its own file, its orders, and what it has found of the backends.

use std::sync::Arc;

use cluster::Desired;
use cluster::desired::{Answered, Guard, Ledger};
use console::Desire;
use dataplane::Dataplane;
use model::cluster::ClusterNews;
use model::config::{Config, Role};
use model::desired::{DesiredAnswer, DesiredFault, DesiredProblem, DesiredQuery};
use model::plan::Plan;
use tokio::sync::{mpsc, watch};

use crate::hub::{Declared, View};
use crate::now;

/// What a whole config would change.
pub(crate) type Foresee = dyn Fn(Arc<Config>) -> Plan + Send + Sync;

/// Answers by the store, beside what `view` says of this node.
pub(crate) fn desire(ledger: Ledger, view: watch::Receiver<View>, foresee: Arc<Foresee>) -> Arc<Desire> {
    Arc::new(move |query| {
        let file = view.borrow().declared.file.clone();
        let (ledger, foresee) = (ledger.clone(), foresee.clone());
        Box::pin(async move {
            let answering = tokio::spawn(async move { answer(&ledger, query, file, foresee).await });
            answering.await.unwrap_or_else(|error| {
                let fault = format!("a fault of Evenkeel: {error}");
                Err(DesiredProblem::new(DesiredFault::OutcomeUnknown, fault))
            })
        })
    })
}

/// Looks after changes that await their confirmation, in the tokio runtime that this is called in.
pub(crate) fn guard(
    ledger: &Ledger,
    dataplane: &Arc<Dataplane>,
    config: &Config,
    news: mpsc::Sender<ClusterNews>,
) {
    let dataplane = dataplane.clone();
    let guard = Guard {
        ledger: ledger.clone(),
        name: config.node.name.clone(),
        totals: Arc::new(move || dataplane.traffic()),
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
    let changes = match &query {
        DesiredQuery::Change(query) => !query.dry_run,
        DesiredQuery::Confirm(_) => true,
        _ => false,
    };
    if changes && !file.node.roles.contains(&Role::Console) {
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
        let declared = Declared::new(file, Arc::new(stored)).map_err(|errors| DesiredProblem {
            errors,
            ..DesiredProblem::new(DesiredFault::BadConfig, "what would be in force is not valid")
        })?;
        // It looks at every pool.
        let plan = tokio::task::spawn_blocking(move || foresee(declared.config)).await;
        changed.plan = plan.ok();
    }
    Ok(answer)
}
