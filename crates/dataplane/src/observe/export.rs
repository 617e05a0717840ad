//! The way of sampled requests to an OpenTelemetry collector: a bounded queue, and a thread that sends what it
//! finds there in batches over OTLP/HTTP (JSON).
//!
//! A collector that is slow or gone costs spans, which are counted, and nothing else. A changed `[tracing]` gets
//! an exporter of its own; the old one sends what it has and ends.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::config::Tracing;
use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::record::Record;
use super::spans;

/// A batch is sent when it is this old, or has this many requests.
const BATCH_AGE: Duration = Duration::from_secs(1);
const BATCH: usize = 512;

/// One attempt to send a batch may take this long.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses before a batch is sent again; then it is dropped.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// Most bytes read of a collector's answer, and of the file of header fields.
const MAX_BYTES: u64 = 64 * 1024;

/// How often the end looks whether the exporter is done.
const FINISH_POLL: Duration = Duration::from_millis(1);

/// What became of spans, over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct SpanCounters {
    /// Taken by the collector.
    pub(crate) exported: AtomicU64,
    /// Dropped: the queue was full, or the collector did not take them.
    pub(crate) dropped: AtomicU64,
    /// Attempts to send that failed.
    pub(crate) errors: AtomicU64,
}

/// The queue, and its exporter.
#[derive(Debug)]
pub(crate) struct Exporter {
    pub(crate) config: Tracing,
    sender: SyncSender<Message>,
    counters: Arc<SpanCounters>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Request(Box<Record>),
    /// The last one.
    End,
}

impl Exporter {
    /// Starts the thread that sends. Where it cannot be started, everything is dropped.
    pub(crate) fn start(config: Tracing, counters: &Arc<SpanCounters>) -> Self {
        let (sender, receiver) = sync_channel(config.queue as usize);
        let sending = Sending {
            config: config.clone(),
            agent: None,
            failing: false,
            counters: counters.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || sending.run(&receiver));
        if let Err(error) = &thread {
            tracing::error!("traces: cannot start the exporter: {error}");
        }
        Self {
            config,
            sender,
            counters: counters.clone(),
            thread: Mutex::new(thread.ok()),
        }
    }

    /// Queues a request, or drops it.
    pub(super) fn queue(&self, record: Record) {
        let spans = spans::count(&record);
        if self.sender.try_send(Message::Request(Box::new(record))).is_err() {
            self.counters.dropped.fetch_add(spans, Relaxed);
        }
    }

    /// Waits until what is queued has been sent, up to a deadline.
    pub(crate) fn finish(&self, deadline: Duration) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let begun = Instant::now();
        let mut told = false;
        while !thread.is_finished() && begun.elapsed() < deadline {
            told = told || self.sender.try_send(Message::End).is_ok();
            std::thread::sleep(FINISH_POLL);
        }
    }
}

/// The one that sends, on a thread of its own.
struct Sending {
    config: Tracing,
    /// Made with the first batch: reading the system's certificates takes a while.
    agent: Option<Agent>,
    /// The last batch was dropped: said once in the log.
    failing: bool,
    counters: Arc<SpanCounters>,
}

impl Sending {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut batch = Vec::new();
        loop {
            let goes_on = gather(receiver, &mut batch);
            if !batch.is_empty() {
                self.send(&batch);
                batch.clear();
            }
            if !goes_on {
                return;
            }
        }
    }

    fn send(&mut self, batch: &[Record]) {
        let count: u64 = batch.iter().map(spans::count).sum();
        let body = spans::request(&self.config.service_name, batch).to_string();
        let mut pauses = PAUSES.iter();
        let rejected = loop {
            match self.post(&body) {
                Ok(rejected) => break rejected.min(count),
                Err(failure) => {
                    self.counters.errors.fetch_add(1, Relaxed);
                    let pause = pauses.next().filter(|_| failure.again);
                    let Some(pause) = pause else {
                        self.say(&failure.what);
                        self.counters.dropped.fetch_add(count, Relaxed);
                        return;
                    };
                    std::thread::sleep(*pause);
                }
            }
        };
        self.failing = false;
        self.counters.dropped.fetch_add(rejected, Relaxed);
        self.counters.exported.fetch_add(count - rejected, Relaxed);
    }

    /// Sends a batch once; how many spans the collector did not want.
    fn post(&mut self, body: &str) -> Result<u64, Failure> {
        let again = |what: String| Failure { what, again: true };
        let url = format!("{}/v1/traces", self.config.endpoint.trim_end_matches('/'));
        let fields = match &self.config.headers_file {
            Some(path) => {
                read_fields(path).map_err(|cause| again(format!("tracing.headers_file: {cause}")))?
            }
            None => Vec::new(),
        };
        let agent = match &mut self.agent {
            Some(agent) => agent,
            none => none.insert(make_agent(&self.config).map_err(again)?),
        };
        let mut request = agent.post(url).header("Content-Type", "application/json");
        for (name, value) in &fields {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(|error| again(error.to_string()))?;
        let status = response.status().as_u16();
        match status {
            200..=299 => Ok(rejected(response.body_mut())),
            _ => Err(Failure {
                what: format!("the collector answered with status {status}"),
                // OTLP/HTTP: these may succeed later, all others will not.
                again: matches!(status, 429 | 502 | 503 | 504),
            }),
        }
    }

    fn say(&mut self, what: &str) {
        if !self.failing {
            self.failing = true;
            tracing::error!(
                "traces: cannot send to {}: {what}; spans are dropped",
                self.config.endpoint
            );
        }
    }
}

/// Why a batch was not taken, and whether to try again.
struct Failure {
    what: String,
    again: bool,
}

/// Waits for a batch. False: it is the last one.
fn gather(receiver: &Receiver<Message>, batch: &mut Vec<Record>) -> bool {
    let Ok(Message::Request(first)) = receiver.recv() else {
        return false;
    };
    batch.push(*first);
    let begun = Instant::now();
    while batch.len() < BATCH {
        match receiver.recv_timeout(BATCH_AGE.saturating_sub(begun.elapsed())) {
            Ok(Message::Request(next)) => batch.push(*next),
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

fn make_agent(tracing: &Tracing) -> Result<Agent, String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        // Where spans go is said in the config, not in the environment.
        .proxy(None);
    if !tracing.endpoint.starts_with("https://") {
        return Ok(config.build().into());
    }
    let found = match &tracing.ca {
        Some(path) => tls::authorities(path).map_err(|error| format!("tracing.ca: {error}"))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if found.is_empty() {
        return Err("the system has no certificates of authorities to check the collector's with: name a file as `tracing.ca`".to_owned());
    }
    let roots = found
        .iter()
        .map(|certificate| Certificate::from_der(certificate).to_owned());
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots.collect::<Vec<_>>()))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    Ok(config.tls_config(tls).build().into())
}

/// Spans that a collector says it did not take (`partialSuccess`).
fn rejected(body: &mut Body) -> u64 {
    let answer = body
        .with_config()
        .limit(MAX_BYTES)
        .read_to_string()
        .unwrap_or_default();
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    match &answer["partialSuccess"]["rejectedSpans"] {
        Value::String(text) => text.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    }
}

/// Whether header fields for the collector can be read from this file.
///
/// # Errors
/// A sentence that says why not.
pub fn check_headers_file(path: &Path) -> Result<(), String> {
    read_fields(path).map(|_| ())
}

/// Header fields for the collector: `Name: value` lines. Read each time: secrets are changed in place.
fn read_fields(path: &Path) -> Result<Vec<(String, String)>, String> {
    use std::io::Read;
    let unread = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(unread)?;
    let mut fields = Vec::new();
    for line in BufReader::new(file.take(MAX_BYTES)).lines() {
        let line = line.map_err(unread)?;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line is not shown: it is a secret.
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| format!("{}: a line is not `Name: value`", path.display()))?;
        fields.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn header_fields_are_lines_of_a_file() {
        let path = std::env::temp_dir().join(format!("evenkeel-fields-{}", std::process::id()));
        std::fs::write(
            &path,
            "# for the collector\nAuthorization: Bearer a:b\n\n X-Scope : shop \n",
        )
        .unwrap();
        let fields = read_fields(&path).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            fields,
            [pair("Authorization", "Bearer a:b"), pair("X-Scope", "shop")]
        );
        std::fs::write(&path, "hunter2\n").unwrap();
        let error = read_fields(&path).unwrap_err();
        assert!(
            error.contains("is not `Name: value`") && !error.contains("hunter2"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(read_fields(&path).is_err());
    }
}
