//! A watch of etcd: the changes of one prefix, put together by revision.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::timeout_at;

use super::client::{Client, Effect, Open, of};
use super::grpc::Failure;
use super::messages::{WatchCreateRequest, WatchEvent, WatchRequest, WatchResponse, method};
use super::skipped::Skipped;
use super::verdict::{Next, judge};
use super::{number, range_end, revision_of};
use crate::error::{ErrorKind, StoreError};
use crate::types::{Changes, Event, Revision};
/// See [`crate::Watch`].
#[derive(Debug)]
pub(crate) struct EtcdWatch {
    open: Open<WatchResponse>,
    ready: VecDeque<Changes>,
    /// The revision that is being put together; its last part may be still to come.
    parts: Option<(Revision, Vec<Event>)>,
    ended: Option<StoreError>,
    skipped: Arc<Skipped>,
}

impl EtcdWatch {
    /// Opens a watch, and returns once etcd has it.
    pub(super) async fn open(
        client: &Client,
        prefix: &str,
        from: Revision,
        skipped: &Arc<Skipped>,
    ) -> Result<Self, StoreError> {
        let question = WatchRequest {
            create: Some(WatchCreateRequest {
                key: prefix.to_owned().into(),
                range_end: range_end(prefix),
                // 0 would mean: from now on.
                start_revision: number(from).max(1),
                fragment: true,
            }),
        };
        let mut retried = false;
        loop {
            let mut watch = Self {
                open: client.open(method::WATCH, &question).await?,
                ready: VecDeque::new(),
                parts: None,
                ended: None,
                skipped: skipped.clone(),
            };
            let first = timeout_at(watch.open.deadline, watch.open.answers.next()).await;
            let first = first.map_err(|_| StoreError::not_done(ErrorKind::TimedOut, "no watch"))?;
            let error = match first {
                Ok(Some(response)) if response.canceled && response.compact_revision == 0 => {
                    // etcd says the same of a token that has lapsed and of one that may not do this.
                    StoreError::not_done(ErrorKind::Credentials, response.cancel_reason)
                }
                Ok(Some(response)) => {
                    watch.take(response);
                    return Ok(watch);
                }
                Ok(None) => StoreError::not_done(ErrorKind::Lost, "the watch ended at once"),
                Err(failure) => error_of(&failure),
            };
            if retried || error.kind() != ErrorKind::Credentials {
                return Err(error);
            }
            retried = true;
            client
                .forget_token(watch.open.token.as_ref(), watch.open.deadline)
                .await;
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Changes, StoreError> {
        loop {
            if let Some(changes) = self.ready.pop_front() {
                return Ok(changes);
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            match self.open.answers.next().await {
                Ok(Some(response)) => {
                    self.open.link.heard().now();
                    self.take(response);
                }
                Ok(None) => self.ended = Some(StoreError::not_done(ErrorKind::Lost, "etcd ended the watch")),
                Err(failure) => self.ended = Some(error_of(&failure)),
            }
        }
    }

    /// Takes in what etcd sent.
    fn take(&mut self, response: WatchResponse) {
        for event in response.events {
            match read(event, &self.skipped) {
                Ok(Some((revision, event))) => self.add(revision, event),
                Ok(None) => {}
                Err(error) => {
                    self.ended = Some(error);
                    return;
                }
            }
        }
        if !response.fragment {
            self.close();
        }
        if response.compact_revision != 0 {
            let detail = format!("{} is the oldest", response.compact_revision);
            self.ended = Some(StoreError::not_done(ErrorKind::Compacted, detail));
        } else if response.canceled {
            self.ended = Some(StoreError::not_done(ErrorKind::Lost, response.cancel_reason));
        }
    }

    fn add(&mut self, revision: Revision, event: Event) {
        match &mut self.parts {
            Some((current, events)) if *current == revision => events.push(event),
            _ => {
                self.close();
                self.parts = Some((revision, vec![event]));
            }
        }
    }

    fn close(&mut self) {
        if let Some((revision, events)) = self.parts.take() {
            self.ready.push_back(Changes {
                revision,
                events: events.into(),
            });
        }
    }
}

/// What changed; nothing where that is none of ours.
fn read(event: WatchEvent, skipped: &Skipped) -> Result<Option<(Revision, Event)>, StoreError> {
    let kv = event
        .kv
        .ok_or_else(|| StoreError::not_done(ErrorKind::Protocol, "an event of no key"))?;
    let revision = revision_of(kv.mod_revision);
    let event = match event.r#type {
        0 => skipped.entry_of(kv).map(Event::Put),
        _ => skipped.key_of(&kv.key).map(|key| Event::Deleted { key }),
    };
    Ok(event.map(|event| (revision, event)))
}

fn error_of(failure: &Failure) -> StoreError {
    match judge(failure) {
        Next::Tell(error) | Next::Renew(error) | Next::Move(error) => of(Effect::Reads, error),
    }
}
