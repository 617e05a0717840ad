//! Questions and orders of the API, answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::config::{Config, LoadBalancer, Name};
use model::desired::{
    Changed, Confirmed, DesiredAnswer, DesiredFault, DesiredProblem, DesiredQuery, DesiredState, Difference,
    History, MAX_HISTORY,
};
use model::state::Timestamp;
use reconcile::desired::commands::{Refusal, told};

use super::words::{awaiting, difference, in_force, no_longer_compared, note, state, understood};
use super::{DesiredError, Done, Ledger};

/// An answer, and what only the node itself can add to it.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: DesiredAnswer,
    /// Of a dry run: the load balancers of the store as they would be.
    pub would_be: Option<BTreeMap<Name, Arc<LoadBalancer>>>,
    /// What was changed, in a line for the log.
    pub made: Option<String>,
}

/// Whether a query changes something, and is not only a question.
pub fn is_order(query: &DesiredQuery) -> bool {
    match query {
        DesiredQuery::Change(query) => !query.dry_run,
        DesiredQuery::Confirm(_) => true,
        _ => false,
    }
}

impl Ledger {
    /// Answers a question, or carries out an order. `file` is the config in the node's own file, `at` its clock.
    ///
    /// A question may be given up at any moment; an order must be seen through.
    ///
    /// # Errors
    /// Why there is no answer, in the words of the API.
    pub async fn answer(
        &self,
        query: DesiredQuery,
        file: &Config,
        at: Timestamp,
    ) -> Result<Answered, DesiredProblem> {
        match is_order(&query) {
            true => self.answer_in_turn(query, file, at).await,
            false => self.for_questions().answer_in_turn(query, file, at).await,
        }
    }

    async fn answer_in_turn(
        &self,
        query: DesiredQuery,
        file: &Config,
        at: Timestamp,
    ) -> Result<Answered, DesiredProblem> {
        let answered = match query {
            DesiredQuery::State(revision) => self.state(revision).await.map(DesiredAnswer::State),
            DesiredQuery::History { last } => self.notes(last).await.map(DesiredAnswer::History),
            DesiredQuery::Revision(revision) => self.one_change(revision).await.map(DesiredAnswer::Diff),
            DesiredQuery::Diff { from, to } => self.diff(from, to).await.map(DesiredAnswer::Diff),
            DesiredQuery::Confirm(query) => {
                let confirmed = self.confirm(query.revision).await.map_err(problem)?;
                let revision = confirmed.revision;
                let by = query.by.unwrap_or_default();
                return Ok(Answered {
                    answer: DesiredAnswer::Confirmed(Confirmed { revision }),
                    would_be: None,
                    made: Some(format!("revision {revision} was confirmed by {by}")),
                });
            }
            DesiredQuery::Change(query) if query.dry_run => {
                let done = self.foresee(&query, file, at).await.map_err(problem)?;
                let told = move || {
                    let after = done.change.as_ref().map(|change| understood(&change.after));
                    Answered {
                        would_be: Some(after.unwrap_or_else(|| understood(&done.before.objects))),
                        answer: DesiredAnswer::Changed(what_changed(&done, true)),
                        made: None,
                    }
                };
                return self.apart(told).await.map_err(problem);
            }
            DesiredQuery::Change(query) => {
                let done = self.change(&query, file, at).await.map_err(problem)?;
                let told = move || {
                    let made = done.change.as_ref();
                    Answered {
                        made: made.map(|change| {
                            format!("revision {}: {}", change.head.revision, told(&change.record))
                        }),
                        answer: DesiredAnswer::Changed(what_changed(&done, false)),
                        would_be: None,
                    }
                };
                return self.apart(told).await.map_err(problem);
            }
        };
        Ok(Answered {
            answer: answered.map_err(problem)?,
            would_be: None,
            made: None,
        })
    }

    async fn state(&self, revision: Option<u64>) -> Result<DesiredState, DesiredError> {
        match revision {
            Some(revision) => {
                let (revision, objects) = self.objects_at(revision).await?;
                self.apart(move || state(revision, &objects)).await
            }
            None => {
                let current = self.current().await?;
                self.apart(move || in_force(&current)).await
            }
        }
    }

    async fn notes(&self, last: usize) -> Result<History, DesiredError> {
        let records = self.history(last.min(MAX_HISTORY)).await?;
        Ok(History {
            revisions: records.iter().map(note).collect(),
        })
    }

    /// What a change made different. Of the oldest that is kept: what it was about, for what was before is gone.
    async fn one_change(&self, revision: u64) -> Result<Difference, DesiredError> {
        let before = revision.saturating_sub(1);
        match self.diff(before, Some(revision)).await {
            Err(DesiredError::Refused(Refusal::Gone { wanted, .. })) if wanted != revision => {
                let record = self.record(revision).await?;
                Ok(Difference {
                    from: before,
                    to: revision,
                    changes: no_longer_compared(&record),
                    note: Some(note(&record)),
                })
            }
            diff => diff,
        }
    }

    async fn diff(&self, from: u64, to: Option<u64>) -> Result<Difference, DesiredError> {
        let (to, after) = match to {
            Some(to) => self.objects_at(to).await?,
            None => {
                let current = self.current().await?;
                (current.state.revision, current.objects.clone())
            }
        };
        let (from, before) = self.objects_at(from).await?;
        let follows = to == from + 1;
        Ok(Difference {
            from,
            to,
            changes: self.apart(move || difference(&before, &after)).await?,
            note: match follows {
                true => Some(note(&self.record(to).await?)),
                false => None,
            },
        })
    }
}

fn what_changed(done: &Done, dry_run: bool) -> Changed {
    let before = &done.before;
    let pending_before = before.pending.as_ref().map(awaiting);
    let warnings = done.warnings.iter().map(ToString::to_string).collect();
    let Some(change) = &done.change else {
        return Changed {
            revision: before.state.revision,
            changed: false,
            changes: Vec::new(),
            warnings,
            awaiting: pending_before,
            settled: None,
            plan: None,
        };
    };
    Changed {
        revision: match dry_run {
            true => before.state.revision,
            false => change.head.revision,
        },
        changed: !dry_run,
        changes: difference(&before.objects, &change.after),
        warnings,
        awaiting: match dry_run {
            true => pending_before.clone(),
            false => change.pending.as_ref().map(awaiting),
        },
        settled: pending_before.map(|pending| pending.revision),
        plan: None,
    }
}

fn problem(error: DesiredError) -> DesiredProblem {
    let detail = error.to_string();
    let (fault, errors) = match error {
        DesiredError::Text(errors) => {
            let told = errors.iter().map(ToString::to_string).collect();
            (DesiredFault::BadConfig, told)
        }
        DesiredError::Refused(Refusal::Invalid(errors)) => (DesiredFault::BadConfig, errors),
        DesiredError::Refused(refusal) => (fault_of(&refusal), Vec::new()),
        DesiredError::Terms(_) => (DesiredFault::BadQuery, Vec::new()),
        DesiredError::Store(_) | DesiredError::Collecting => (DesiredFault::StoreUnavailable, Vec::new()),
        DesiredError::Unknown(..) | DesiredError::Unconfirmed(..) => {
            (DesiredFault::OutcomeUnknown, Vec::new())
        }
        DesiredError::Damaged(_) => (DesiredFault::StoreDamaged, Vec::new()),
    };
    DesiredProblem {
        fault,
        detail,
        errors,
    }
}

fn fault_of(refusal: &Refusal) -> DesiredFault {
    match refusal {
        Refusal::Conflict { .. } => DesiredFault::Conflict,
        Refusal::Unknown { .. } => DesiredFault::UnknownLoadBalancer,
        Refusal::OfFile(_) => DesiredFault::DeclaredInFile,
        Refusal::Invalid(_) | Refusal::TooLarge { .. } | Refusal::TooMany(_) => DesiredFault::BadConfig,
        Refusal::Gone { .. } => DesiredFault::UnknownRevision,
        Refusal::NothingPending { .. } => DesiredFault::NothingPending,
    }
}
