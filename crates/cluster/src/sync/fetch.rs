//! From a head to load balancers: what was pushed is taken from there, what is missing is read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use model::config::{Admin, Alerts, Config, LoadBalancer, MAX_PAGE_BYTES, Name, Node, Observe, StoreConfig};
use model::parse::parse_balancer;
use reconcile::desired::records::{Digest, Head, LogRecord, State, keys};
use store::StoreError;
use tokio::task::JoinSet;

use super::{Found, Read, Sync};

/// Objects that are read at the same time.
const READS_AT_ONCE: usize = 32;
/// Bytes of pushed objects that are kept until a head refers to them; beyond it they are read when they are needed.
const MAX_PUSHED_BYTES: usize = 64 * 1024 * 1024;
/// Pushed records that are kept likewise.
const MAX_PUSHED_RECORDS: usize = 128;
/// Reasons that are told of a revision that is refused; a text of nonsense must not fill the memory.
const MAX_REASONS: usize = 50;

/// What a watch brought and no head has referred to yet.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    objects: BTreeMap<Digest, Bytes>,
    bytes: usize,
    log: BTreeMap<u64, LogRecord>,
}

impl Pushed {
    /// Keeps what stands under a path, if it is an object or a record.
    pub(super) fn note(&mut self, path: &str, value: &Bytes) {
        if let Some(digest) = path.strip_prefix(keys::OBJECTS) {
            let Ok(digest) = Digest::try_from(digest.to_owned()) else {
                return;
            };
            if self.bytes + value.len() <= MAX_PUSHED_BYTES
                && self.objects.insert(digest, value.clone()).is_none()
            {
                self.bytes += value.len();
            }
        } else if path.starts_with(keys::LOG)
            && self.log.len() < MAX_PUSHED_RECORDS
            && let Ok(record) = serde_json::from_slice::<LogRecord>(value)
        {
            self.log.insert(record.revision, record);
        }
    }
}

/// Texts by their digests.
type Fresh = BTreeMap<Digest, Bytes>;

/// A revision, ready to be served.
pub(super) struct Fetched {
    pub(super) state: State,
    pub(super) read: Read,
    /// The objects that were not known before.
    pub(super) fresh: Fresh,
    /// When its change was written, since the Unix epoch; where its record was at hand.
    pub(super) written: Option<Duration>,
}

/// Why a revision cannot be had.
#[derive(Debug)]
pub(super) enum Failed {
    /// The store cannot be asked now.
    Store(StoreError),
    /// What should be in the store is not there, or not what it should be.
    Missing(String),
    /// Of this state, not everything can be read and served.
    Wrong(State, Parsed),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Missing(what) => f.write_str(what),
            Self::Wrong(_, parsed) => f.write_str(&parsed.reasons.join("; ")),
        }
    }
}

/// What came of reading load balancers.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// Those that could be read, also such whose files this node lacks.
    pub(super) read: Read,
    /// Every error.
    pub(super) reasons: Vec<String>,
}

impl Sync {
    /// All load balancers of the revision in `head`; those that are known already are shared.
    pub(super) async fn fetch(&self, head: &Head) -> Result<Fetched, Failed> {
        let (state, written) = self.state_of(head).await?;
        let known = |name: &Name, digest: &Digest| {
            let read = self.read.get(name).filter(|(of, _)| of == digest);
            read.map(|(digest, balancer)| (*digest, balancer.clone()))
        };
        let mut read = Read::new();
        let mut missing = Vec::new();
        for (name, digest) in &state.objects {
            match known(name, digest) {
                Some(known) => _ = read.insert(name.clone(), known),
                None => missing.push((name.clone(), *digest)),
            }
        }
        let texts = self.texts(&missing).await?;
        // For many of them it takes long, and the connection to the store lives on the threads of this task.
        let parsed = tokio::task::spawn_blocking(move || -> Result<(Parsed, Fresh), Failed> {
            let texts = whole(&missing, texts)?;
            let digests = missing.iter().map(|(_, digest)| *digest);
            let fresh = digests.zip(texts.iter().cloned()).collect();
            Ok((parse_all(missing, &texts), fresh))
        });
        let fault = |error| Failed::Missing(format!("a fault of Evenkeel: {error}"));
        let (parsed, fresh) = parsed.await.map_err(fault)??;
        read.extend(parsed.read);
        if !parsed.reasons.is_empty() {
            let reasons = parsed.reasons;
            return Err(Failed::Wrong(state, Parsed { read, reasons }));
        }
        Ok(Fetched {
            state,
            read,
            fresh,
            written,
        })
    }

    /// The state that a head is of, and when its change was written.
    async fn state_of(&self, head: &Head) -> Result<(State, Option<Duration>), Failed> {
        if head.revision == 0 {
            return Ok((State::default(), None));
        }
        let next = Some(head.revision) == self.state.revision.checked_add(1);
        if next && let Some(record) = self.record(head.revision).await? {
            let mut state = self.state.clone();
            if state.step(&record).is_ok() && state.head() == *head {
                return Ok((state, Some(Duration::from_millis(record.at.0))));
            }
        }
        let block = self.space.key(&keys::block(keys::block_of(head.revision)));
        let listing = self.space.store().list(&block).await?;
        let records = listing.entries.iter();
        let records: Result<Vec<LogRecord>, _> = records.map(|e| serde_json::from_slice(&e.value)).collect();
        let records = records
            .map_err(|error| Failed::Missing(format!("the log of changes cannot be read: {error}")))?;
        let state =
            State::of_block(&records, head.revision).map_err(|error| Failed::Missing(error.to_string()))?;
        if state.head() != *head {
            let revision = head.revision;
            return Err(Failed::Missing(format!(
                "the log of changes gives another state of revision {revision} than the head says"
            )));
        }
        let own = records.iter().find(|record| record.revision == head.revision);
        Ok((state, own.map(|record| Duration::from_millis(record.at.0))))
    }

    async fn record(&self, revision: u64) -> Result<Option<LogRecord>, Failed> {
        if let Some(record) = self.pushed.log.get(&revision) {
            return Ok(Some(record.clone()));
        }
        let entry = self
            .space
            .store()
            .get(&self.space.key(&keys::log(revision)))
            .await?;
        Ok(entry.and_then(|entry| serde_json::from_slice(&entry.value).ok()))
    }

    /// What stands under the digests of objects, in the order asked for.
    async fn texts(&self, wanted: &[(Name, Digest)]) -> Result<Vec<Option<Bytes>>, Failed> {
        let mut texts: Vec<Option<Bytes>> = wanted
            .iter()
            .map(|(_, digest)| self.pushed.objects.get(digest).cloned())
            .collect();
        let missing: Vec<usize> = (0..texts.len()).filter(|at| texts[*at].is_none()).collect();
        let mut reads = JoinSet::new();
        let mut waiting = missing.into_iter();
        loop {
            while reads.len() < READS_AT_ONCE
                && let Some(at) = waiting.next()
            {
                let (space, digest) = (self.space.clone(), wanted[at].1);
                let key = space.key(&keys::object(digest));
                reads.spawn(async move { (at, space.store().get(&key).await) });
            }
            let Some(ended) = reads.join_next().await else {
                break;
            };
            let (at, entry) =
                ended.map_err(|error| Failed::Missing(format!("a fault of Evenkeel: {error}")))?;
            texts[at] = entry?.map(|entry| entry.value);
        }
        Ok(texts)
    }
}

/// The texts of objects, when all of them are there and are what their digests name.
fn whole(wanted: &[(Name, Digest)], texts: Vec<Option<Bytes>>) -> Result<Vec<Bytes>, Failed> {
    let whole = texts.into_iter().zip(wanted).map(|(text, (name, digest))| {
        let text =
            text.filter(|text| std::str::from_utf8(text).is_ok_and(|text| Digest::of(text) == *digest));
        text.ok_or_else(|| {
            Failed::Missing(format!(
                "the content of load balancer `{name}` is not in the store"
            ))
        })
    });
    whole.collect()
}

/// A head as it stands in the store. Before the first change there is none: one of revision 0 was written by nobody who
/// works as agreed.
pub(super) fn head(value: &[u8]) -> Found {
    let head = serde_json::from_slice(value).ok();
    let head = head.filter(|head: &Head| head.revision > 0);
    head.map_or(Found::Unreadable, Found::Head)
}

/// Reads load balancers, each with the digest of its text; every error of all of them.
pub(super) fn parse_all(wanted: Vec<(Name, Digest)>, texts: &[Bytes]) -> Parsed {
    let Parsed {
        mut read,
        mut reasons,
    } = Parsed::default();
    for ((name, digest), text) in wanted.into_iter().zip(texts) {
        match parse(&name, text) {
            Ok(balancer) => {
                let (balancer, errors) = with_files(&name, balancer);
                reasons.extend(errors);
                read.extend(balancer.map(|balancer| (name, (digest, balancer))));
            }
            Err(errors) => reasons.extend(errors),
        }
    }
    reasons.truncate(MAX_REASONS);
    Parsed { read, reasons }
}

fn parse(name: &Name, text: &[u8]) -> Result<LoadBalancer, Vec<String>> {
    let text = std::str::from_utf8(text).map_err(|_| vec![format!("load balancer `{name}` is not UTF-8")])?;
    parse_balancer(name, text, "the store")
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// Reads the files whose content is a part of a load balancer, from this node's disk; and which it could not.
fn with_files(name: &Name, balancer: LoadBalancer) -> (Option<Arc<LoadBalancer>>, Vec<String>) {
    let mut alone = Config {
        node: Node::default(),
        admin: Admin::default(),
        observe: Observe::default(),
        store: StoreConfig::default(),
        notify: None,
        alerts: Alerts::default(),
        load_balancers: BTreeMap::from([(name.clone(), Arc::new(balancer))]),
    };
    let problems = alone.load_files(read_page).into_iter();
    let problems = problems.map(|(key, cause)| format!("{key}: {cause}")).collect();
    (alone.load_balancers.remove(name), problems)
}

fn read_page(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    // A pipe may wait for ever to be opened, and to open a device may do something.
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_PAGE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Time since the Unix epoch.
pub(super) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
