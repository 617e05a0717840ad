//! The access log's way from the shards to its destination, which may be slow, full or stuck: no shard ever waits
//! for it.
//!
//! A shard writes its lines into a chunk of its own; a full chunk, or what a tick finds in it, goes to the one
//! writer thread and comes back empty. The chunks a shard may have out are the bound (`access_log.queue`): with
//! none left, lines are dropped and counted. A changed `[access_log]` gets a writer of its own; the old one ends
//! when every shard has let go of it, with all its lines written.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::config::AccessLog;

use super::destination::Destination;
use super::line::MAX_LINE;

/// Lines gather in chunks of this size; one more line always fits.
const CHUNK: usize = 32 * 1024;

/// Fewest chunks of a shard: one to fill while another is written.
const MIN_CHUNKS: usize = 2;

/// Pause between attempts to open a destination that cannot be opened.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// How often the end looks whether the writer is done.
const FINISH_POLL: Duration = Duration::from_millis(1);

/// What became of lines, over the life of the process.
#[derive(Debug, Default)]
pub(crate) struct LogCounters {
    /// Written.
    pub(crate) written: AtomicU64,
    /// Dropped: the queue was full, or the destination failed.
    pub(crate) dropped: AtomicU64,
    /// Failures of the destination.
    pub(crate) errors: AtomicU64,
}

/// An access log: its settings, and the way to its writer.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) config: AccessLog,
    /// Chunks that each shard may have.
    chunks: usize,
    sender: SyncSender<Message>,
    reopen: Arc<AtomicBool>,
    counters: Arc<LogCounters>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Lines(Chunk),
    /// Nothing to write: look whether to open the destination again.
    Look,
    /// The last one.
    End,
}

struct Chunk {
    bytes: Vec<u8>,
    lines: u64,
    home: SyncSender<Vec<u8>>,
}

impl Sink {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// What the system says about the destination; the writer runs all the same and goes on trying.
    pub(crate) fn start(
        config: AccessLog,
        shards: usize,
        counters: &Arc<LogCounters>,
    ) -> (Arc<Self>, Result<(), io::Error>) {
        let queue = usize::try_from(config.queue).unwrap_or(usize::MAX);
        let chunks = (queue / CHUNK / shards).max(MIN_CHUNKS);
        // Room for every chunk and a nudge: sending never finds the channel full.
        let (sender, receiver) = sync_channel(chunks * shards + 1);
        let reopen = Arc::new(AtomicBool::new(false));
        let opened = Destination::open(&config.to);
        let (destination, result) = match opened {
            Ok(destination) => (Some(destination), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let writer = Writer {
            config: config.clone(),
            destination,
            tried: Instant::now(),
            failing: false,
            reopen: reopen.clone(),
            counters: counters.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&receiver));
        let (writer, result) = match thread {
            Ok(thread) => (Some(thread), result),
            Err(error) => (None, Err(error)),
        };
        let sink = Self {
            config,
            chunks,
            sender,
            reopen,
            counters: counters.clone(),
            writer: Mutex::new(writer),
        };
        (Arc::new(sink), result)
    }

    /// Opens the destination again, before the next line is written.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        // A full channel means that the writer is awake.
        let _ = self.sender.try_send(Message::Look);
    }

    /// Waits until everything that was handed over is written, up to a deadline; then the writer ends.
    pub(crate) fn finish(&self, deadline: Duration) {
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let begun = Instant::now();
        let mut told = false;
        while !writer.is_finished() && begun.elapsed() < deadline {
            told = told || self.sender.try_send(Message::End).is_ok();
            std::thread::sleep(FINISH_POLL);
        }
    }
}

/// A shard's end of an access log.
#[derive(Debug)]
pub(crate) struct ShardLog {
    pub(crate) sink: Arc<Sink>,
    /// A copy of its own: shards do not fight over a reference count.
    pub(crate) config: Rc<AccessLog>,
    chunk: Vec<u8>,
    lines: u64,
    give: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

impl ShardLog {
    pub(crate) fn new(sink: Arc<Sink>) -> Self {
        let (give, free) = sync_channel(sink.chunks);
        for _ in 0..sink.chunks {
            // There is room for all of them. What is not written to yet takes no memory.
            let _ = give.try_send(Vec::with_capacity(CHUNK + MAX_LINE));
        }
        Self {
            config: Rc::new(sink.config.clone()),
            sink,
            chunk: Vec::new(),
            lines: 0,
            give,
            free,
        }
    }

    /// Adds a line that `write` writes, or drops it.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.chunk.capacity() == 0 && !self.take_chunk() {
            self.sink.counters.dropped.fetch_add(1, Relaxed);
            return;
        }
        write(&mut self.chunk);
        self.lines += 1;
        if self.chunk.len() >= CHUNK {
            self.flush();
        }
    }

    fn take_chunk(&mut self) -> bool {
        match self.free.try_recv() {
            Ok(chunk) => self.chunk = chunk,
            Err(_) => return false,
        }
        true
    }

    /// Hands over what there is.
    pub(crate) fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let chunk = Chunk {
            bytes: std::mem::take(&mut self.chunk),
            lines: std::mem::take(&mut self.lines),
            home: self.give.clone(),
        };
        if let Err(
            TrySendError::Full(Message::Lines(chunk)) | TrySendError::Disconnected(Message::Lines(chunk)),
        ) = self.sink.sender.try_send(Message::Lines(chunk))
        {
            // The writer has ended, or could not be started.
            self.sink.counters.dropped.fetch_add(chunk.lines, Relaxed);
            self.chunk = chunk.bytes;
            self.chunk.clear();
        }
    }
}

impl Drop for ShardLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The one that writes, on a thread of its own.
struct Writer {
    config: AccessLog,
    destination: Option<Destination>,
    /// When the destination was last opened, or not.
    tried: Instant,
    /// The last write failed: said once in the log.
    failing: bool,
    reopen: Arc<AtomicBool>,
    counters: Arc<LogCounters>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        loop {
            match receiver.recv_timeout(REOPEN_PAUSE) {
                Ok(Message::Lines(chunk)) => {
                    self.look();
                    self.write(chunk);
                }
                Ok(Message::Look) => self.look(),
                Ok(Message::End) => return,
                Err(RecvTimeoutError::Timeout) if self.destination.is_none() => self.look(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Opens the destination again where that was asked for, or where there is none.
    fn look(&mut self) {
        let asked = self.reopen.swap(false, Relaxed);
        if !asked && (self.destination.is_some() || self.tried.elapsed() < REOPEN_PAUSE) {
            return;
        }
        self.tried = Instant::now();
        match Destination::open(&self.config.to) {
            Ok(destination) => {
                tracing::info!("access log: {} is open", self.config.to);
                self.destination = Some(destination);
            }
            // What is open stays: better a line in the old file than none.
            Err(error) => self.failed("open", &error),
        }
    }

    fn write(&mut self, mut chunk: Chunk) {
        let lost = match self.destination.as_mut().map(|to| to.write(&chunk.bytes)) {
            Some(Ok(())) => {
                self.failing = false;
                0
            }
            Some(Err((lost, error))) => {
                self.failed("write to", &error);
                if let Some(Destination::Syslog(_)) = self.destination {
                    // The daemon was started anew, perhaps: its socket is another one.
                    self.destination = None;
                }
                lost
            }
            None => chunk.lines,
        };
        self.counters.dropped.fetch_add(lost, Relaxed);
        self.counters
            .written
            .fetch_add(chunk.lines.saturating_sub(lost), Relaxed);
        chunk.bytes.clear();
        // The shard may have turned to another log.
        let _ = chunk.home.try_send(chunk.bytes);
    }

    fn failed(&mut self, what: &str, error: &io::Error) {
        self.counters.errors.fetch_add(1, Relaxed);
        if !self.failing {
            self.failing = true;
            tracing::error!(
                "access log: cannot {what} {}: {error}; lines are dropped",
                self.config.to
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::config::LogTarget;

    fn log(to: LogTarget) -> AccessLog {
        AccessLog {
            to,
            queue: 64 * 1024,
            ..AccessLog::default()
        }
    }

    /// Several shards, more lines than the queue holds: each line is written or counted as dropped, and none twice.
    #[test]
    fn every_line_is_written_or_counted() {
        const LINES: u64 = 20_000;
        let path = std::env::temp_dir().join(format!("evenkeel-sink-{}", std::process::id()));
        let counters = Arc::new(LogCounters::default());
        let (sink, opened) = Sink::start(log(LogTarget::File(path.clone())), 3, &counters);
        opened.unwrap();
        let shards: Vec<_> = (0..3)
            .map(|shard| {
                let sink = sink.clone();
                std::thread::spawn(move || {
                    let mut log = ShardLog::new(sink);
                    for n in 0..LINES {
                        log.add(|out| out.extend_from_slice(format!("{shard} {n}\n").as_bytes()));
                    }
                })
            })
            .collect();
        shards.into_iter().for_each(|shard| shard.join().unwrap());
        sink.finish(Duration::from_secs(20));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let written = text.lines().count() as u64;
        assert_eq!(written, counters.written.load(Relaxed));
        assert_eq!(written + counters.dropped.load(Relaxed), 3 * LINES);
        let distinct: std::collections::BTreeSet<&str> = text.lines().collect();
        assert_eq!(distinct.len() as u64, written);
    }

    /// A destination that cannot be opened drops lines and keeps nothing; the shard can go on forever.
    #[test]
    fn without_a_destination_lines_are_dropped() {
        let counters = Arc::new(LogCounters::default());
        let missing = LogTarget::File("/nonexistent/access.log".into());
        let (sink, opened) = Sink::start(log(missing), 1, &counters);
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::NotFound);
        let mut shard = ShardLog::new(sink.clone());
        for _ in 0..10_000 {
            shard.add(|out| out.extend_from_slice(b"a line of twenty byte\n"));
        }
        drop(shard);
        sink.finish(Duration::from_secs(20));
        assert_eq!(counters.dropped.load(Relaxed), 10_000);
        assert_eq!(counters.written.load(Relaxed), 0);
    }
}
