//! The etcd engine: its calls over gRPC, by a supervisor of our own.
//!
//! `grpc` speaks the protocol over one connection of HTTP/2, `link` is such a connection and its probe, `client`
//! keeps one to a member that works and judges failures by `verdict`. The calls themselves are here.

mod client;
mod grpc;
mod link;
mod messages;
mod settings;
mod skipped;
mod verdict;
mod watching;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bounds::{LIST_PAGE, MAX_LIST_BYTES};
use crate::error::{ErrorKind, StoreError};
use crate::transaction::{self, Transaction, With, Write};
use crate::types::{Committed, Entry, Granted, Kept, LeaseId, LeaseLeft, Listing, Revision, StoreStatus};
use client::{Client, Effect};
use messages::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRequest,
    LeaseTimeToLiveResponse, Nothing, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    TARGET_CREATE, TARGET_MOD, TxnRequest, TxnResponse, method,
};
pub use settings::{EtcdSettings, EtcdTls};
use skipped::Skipped;
pub(crate) use watching::EtcdWatch;

/// A list whose revision is compacted while it is read begins anew, this many times.
const LIST_ATTEMPTS: u32 = 5;

/// The engine.
#[derive(Debug)]
pub(crate) struct Etcd {
    client: Client,
    skipped: Arc<Skipped>,
}

impl Etcd {
    pub(crate) fn new(settings: EtcdSettings) -> Result<Self, StoreError> {
        let client = Client::new(settings)?;
        let skipped = Arc::default();
        Ok(Self { client, skipped })
    }

    pub(crate) async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.get_at(key).await?.1)
    }

    /// The entry, and the revision of the whole store.
    pub(crate) async fn get_at(&self, key: &str) -> Result<(Revision, Option<Entry>), StoreError> {
        let question = RangeRequest {
            key: key.to_owned().into(),
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.client.call(method::RANGE, &question, Effect::Reads).await?;
        let kv = answer.kvs.into_iter().next();
        let entry = kv.and_then(|kv| self.skipped.entry_of(kv));
        Ok((header(answer.header)?, entry))
    }

    /// Asks for a key that the user may read: without one, etcd refuses who may not read everything.
    pub(crate) async fn revision(&self, readable: &str) -> Result<Revision, StoreError> {
        let question = RangeRequest {
            key: readable.to_owned().into(),
            count_only: true,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.client.call(method::RANGE, &question, Effect::Reads).await?;
        header(answer.header)
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut attempt = 1;
        loop {
            match self.list_once(prefix).await {
                Err(error) if error.kind() == ErrorKind::Compacted && attempt < LIST_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Lists page by page, all of them at the revision of the first.
    async fn list_once(&self, prefix: &str) -> Result<Listing, StoreError> {
        let mut question = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: range_end(prefix),
            limit: i64::try_from(LIST_PAGE).unwrap_or(i64::MAX),
            ..RangeRequest::default()
        };
        let mut listing = Listing {
            revision: Revision(0),
            entries: Vec::new(),
        };
        let mut bytes = 0;
        loop {
            let answer: RangeResponse = self.client.call(method::RANGE, &question, Effect::Reads).await?;
            if question.revision == 0 {
                listing.revision = header(answer.header)?;
                question.revision = number(listing.revision);
            }
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            for kv in answer.kvs {
                bytes += kv.key.len() + kv.value.len();
                listing.entries.extend(self.skipped.entry_of(kv));
            }
            if bytes > MAX_LIST_BYTES {
                let detail = format!("more than {MAX_LIST_BYTES} bytes under {prefix}");
                return Err(StoreError::not_done(ErrorKind::TooMuch, detail));
            }
            let Some(last) = last.filter(|_| answer.more) else {
                return Ok(listing);
            };
            question.key = [&last[..], b"\0"].concat().into();
        }
    }

    pub(crate) async fn commit(&self, transaction: &Transaction) -> Result<Committed, StoreError> {
        let question = TxnRequest {
            compare: transaction.compares.iter().map(compare).collect(),
            success: transaction.writes.iter().map(operation).collect(),
        };
        let answer: TxnResponse = self.client.call(method::TXN, &question, Effect::Writes).await?;
        match answer.succeeded {
            true => Ok(Committed::Done(header(answer.header)?)),
            false => Ok(Committed::Conflict),
        }
    }

    pub(crate) async fn watch(&self, prefix: &str, from: Revision) -> Result<EtcdWatch, StoreError> {
        EtcdWatch::open(&self.client, prefix, from, &self.skipped).await
    }

    pub(crate) async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let question = messages::CompactionRequest {
            revision: number(before),
        };
        let result = self
            .client
            .call::<Nothing>(method::COMPACT, &question, Effect::Settles)
            .await;
        match result {
            Err(error) if error.kind() == ErrorKind::Compacted => Ok(()),
            result => result.map(|_| ()),
        }
    }

    pub(crate) async fn grant(&self, seconds: u32) -> Result<Granted, StoreError> {
        let sent = Instant::now();
        let question = LeaseGrantRequest { ttl: seconds.into() };
        let answer: LeaseGrantResponse = self
            .client
            .call(method::LEASE_GRANT, &question, Effect::Writes)
            .await?;
        if !answer.error.is_empty() || answer.id == 0 {
            return Err(StoreError::unknown(ErrorKind::Protocol, answer.error));
        }
        Ok(Granted {
            lease: LeaseId(answer.id),
            seconds: seconds_of(answer.ttl),
            sent,
        })
    }

    /// A call of its own for each: the answer says when this very one was sent.
    pub(crate) async fn keep_alive(&self, lease: LeaseId) -> Result<Kept, StoreError> {
        // The first sending counts, though a later one may have been answered.
        let sent = Instant::now();
        let question = LeaseRequest { id: lease.0 };
        let answer: LeaseKeepAliveResponse = self
            .client
            .call(method::LEASE_KEEP_ALIVE, &question, Effect::Settles)
            .await?;
        match answer.ttl {
            ..=0 => Err(StoreError::not_done(
                ErrorKind::LeaseGone,
                format!("lease {}", lease.0),
            )),
            ttl => Ok(Kept {
                seconds: seconds_of(ttl),
                sent,
            }),
        }
    }

    pub(crate) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let question = LeaseRequest { id: lease.0 };
        let result = self
            .client
            .call::<Nothing>(method::LEASE_REVOKE, &question, Effect::Settles)
            .await;
        match result {
            Err(error) if error.kind() == ErrorKind::LeaseGone => Ok(()),
            result => result.map(|_| ()),
        }
    }

    pub(crate) async fn lease_left(&self, lease: LeaseId) -> Result<Option<LeaseLeft>, StoreError> {
        let question = LeaseRequest { id: lease.0 };
        let answer: Result<LeaseTimeToLiveResponse, _> = self
            .client
            .call(method::LEASE_TIME_TO_LIVE, &question, Effect::Reads)
            .await;
        match answer {
            Ok(answer) if answer.ttl < 0 => Ok(None),
            Ok(answer) => Ok(Some(LeaseLeft {
                seconds: seconds_of(answer.granted_ttl),
                left: Duration::from_secs(answer.ttl.unsigned_abs()),
            })),
            Err(error) if error.kind() == ErrorKind::LeaseGone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How often a key was passed over that is no text.
    pub(crate) fn skipped_keys(&self) -> u64 {
        self.skipped.count()
    }

    pub(crate) async fn status(&self) -> Result<StoreStatus, StoreError> {
        let (status, place) = self.client.status().await?;
        Ok(StoreStatus {
            engine: "etcd",
            place,
            version: Some(status.version),
            revision: header(status.header)?,
            bytes: status.db_size.max(0).unsigned_abs(),
            trouble: status.errors,
        })
    }
}

fn compare(compare: &transaction::Compare) -> Compare {
    let (target, created, changed) = match compare.with {
        With::Absent => (TARGET_CREATE, Some(0), None),
        With::Created(revision) => (TARGET_CREATE, Some(number(revision)), None),
        With::Changed(revision) => (TARGET_MOD, None, Some(number(revision))),
    };
    Compare {
        target,
        key: compare.key.clone().into(),
        create_revision: created,
        mod_revision: changed,
    }
}

fn operation(write: &Write) -> RequestOp {
    match write {
        Write::Put { key, value, lease } => RequestOp {
            put: Some(PutRequest {
                key: key.clone().into(),
                value: value.clone(),
                lease: lease.map_or(0, |lease| lease.0),
            }),
            delete_range: None,
        },
        Write::Delete { key } => RequestOp {
            put: None,
            delete_range: Some(DeleteRangeRequest {
                key: key.clone().into(),
            }),
        },
    }
}

/// The first key after all that begin with `prefix`: no byte of UTF-8 is 0xFF, so there is one more than its last.
fn range_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end.into()
}

fn header(header: Option<ResponseHeader>) -> Result<Revision, StoreError> {
    let header =
        header.ok_or_else(|| StoreError::unknown(ErrorKind::Protocol, "an answer without a header"))?;
    Ok(revision_of(header.revision))
}

fn revision_of(number: i64) -> Revision {
    Revision(number.max(0).unsigned_abs())
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn seconds_of(ttl: i64) -> u32 {
    u32::try_from(ttl.max(0)).unwrap_or(u32::MAX)
}
