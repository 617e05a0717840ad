//! The meter: sees the frames of a connection pass, both ways, and tells when the client costs too much.
//!
//! HTTP/2 lets a client order work with a few bytes and take the order back, or ask for answers that nobody
//! needs. Each such trick has a limit here ([`Abuse`]). The meter reads frame headers only, holds a few dozen
//! bytes and the numbers of the streams that wait for an answer, and allocates nothing but those.

use model::config::Http2;

/// Bytes of a frame header (RFC 9113 section 4.1).
const HEADER_BYTES: usize = 9;

/// Answered streams that make up for one which was cancelled, or reset for an error.
const FORGIVEN_BY: u32 = 20;

/// WINDOW_UPDATE frames allowed for each DATA frame of ours.
const UPDATES_PER_DATA: u32 = 10;

/// Frames of priority, and WINDOW_UPDATE frames, allowed for each stream.
const PER_STREAM: u32 = 2;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error codes with which we end streams of a client that did nothing wrong (RFC 9113 section 7): NO_ERROR after
/// an early answer, INTERNAL_ERROR for a backend's failure, REFUSED_STREAM over a limit that h2 counts itself,
/// CANCEL for a client that does not read.
const BLAMELESS: [u32; 4] = [0, 2, 7, 8];

const REFUSED_STREAM: u32 = 7;

/// Which limit a client is over. The name is that of its key in `http2`, but for the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Streams cancelled before they were answered (CVE-2023-44487, rapid reset).
    Cancelled,
    /// Streams cancelled in 10 s.
    Resets,
    /// Streams that we had to reset for an error of the client's (CVE-2025-8671, made you reset; CVE-2019-9514).
    ErrorResets,
    /// PING frames in a second (CVE-2019-9512).
    Pings,
    /// SETTINGS frames in 10 s (CVE-2019-9515).
    Settings,
    /// Frames without payload that end nothing (CVE-2019-9518).
    EmptyFrames,
    /// CONTINUATION frames of one header (CVE-2024-27316).
    Continuations,
    /// PRIORITY and unknown frames (CVE-2019-9513).
    Priorities,
    /// WINDOW_UPDATE frames.
    WindowUpdates,
    /// A header block larger than `limits.header_bytes`, as it is sent.
    HeaderBlock,
    /// What the protocol library itself refused to take more of.
    Library,
}

impl Abuse {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Cancelled,
        Self::Resets,
        Self::ErrorResets,
        Self::Pings,
        Self::Settings,
        Self::EmptyFrames,
        Self::Continuations,
        Self::Priorities,
        Self::WindowUpdates,
        Self::HeaderBlock,
        Self::Library,
    ];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "max_cancelled",
            Self::Resets => "max_resets",
            Self::ErrorResets => "max_error_resets",
            Self::Pings => "max_pings",
            Self::Settings => "max_settings",
            Self::EmptyFrames => "max_empty_frames",
            Self::Continuations => "max_continuations",
            Self::Priorities => "max_priorities",
            Self::WindowUpdates => "max_window_updates",
            Self::HeaderBlock => "header_bytes",
            Self::Library => "library",
        }
    }
}

/// How many frames of the kinds that matter were seen: streams opened by the client, resets by it, and by us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Streams the client opened.
    pub streams: u32,
    /// RST_STREAM frames from the client.
    pub resets: u32,
    /// RST_STREAM frames from us.
    pub own_resets: u32,
    /// Those with REFUSED_STREAM among them.
    pub refusals: u32,
}

/// A meter for one connection.
#[derive(Clone, Debug)]
pub struct FrameMeter {
    limits: Http2,
    header_bytes: u32,
    inbound: Frames,
    outbound: Frames,
    seen: Seen,
    /// Streams that have no response yet, in the order opened.
    waiting: Vec<u32>,
    /// Streams whose response began.
    answered: u32,
    cancelled: u32,
    error_resets: u32,
    resets: Window,
    pings: Window,
    settings: Window,
    empty: u32,
    priorities: u32,
    window_updates: u32,
    data_sent: u32,
    /// We sent data or a header since the last PING that was not counted.
    sent_since_ping: bool,
    /// The header block that is being received: frames beyond the first, and bytes.
    block: (u32, u32),
}

/// A count over a span of time, forgotten as a whole when the span is over.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since_ms: u64,
    count: u32,
}

impl Window {
    fn add(&mut self, now_ms: u64, span_ms: u64) -> u32 {
        if now_ms.saturating_sub(self.since_ms) >= span_ms {
            *self = Self {
                since_ms: now_ms,
                count: 0,
            };
        }
        self.count = self.count.saturating_add(1);
        self.count
    }
}

impl FrameMeter {
    /// A meter for a connection whose client sends its preface first. `header_bytes` bounds a header block.
    pub fn new(limits: &Http2, header_bytes: u32) -> Self {
        Self {
            limits: limits.clone(),
            header_bytes,
            inbound: Frames::after(super::PREFACE.len()),
            outbound: Frames::after(0),
            seen: Seen::default(),
            waiting: Vec::new(),
            answered: 0,
            cancelled: 0,
            error_resets: 0,
            resets: Window::default(),
            pings: Window::default(),
            settings: Window::default(),
            empty: 0,
            priorities: 0,
            window_updates: 0,
            data_sent: 0,
            sent_since_ping: false,
            block: (0, 0),
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// Takes the next bytes from the client. `now_ms` comes from a steady clock.
    ///
    /// # Errors
    /// The first limit that they pass; the connection should end. Bytes after it were not looked at.
    pub fn received(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), Abuse> {
        while let Some(frame) = self.inbound.next(&mut bytes) {
            self.inbound_frame(frame, now_ms)?;
        }
        Ok(())
    }

    /// Takes the next bytes to the client.
    ///
    /// # Errors
    /// [`Abuse::ErrorResets`], when the client makes us reset too many streams.
    pub fn sent(&mut self, mut bytes: &[u8]) -> Result<(), Abuse> {
        while let Some(frame) = self.outbound.next(&mut bytes) {
            self.outbound_frame(frame)?;
        }
        Ok(())
    }

    fn inbound_frame(&mut self, frame: Frame, now_ms: u64) -> Result<(), Abuse> {
        match frame.kind {
            Kind::Data if frame.length == 0 && !frame.has(END_STREAM) => self.empty_frame(),
            Kind::Data | Kind::GoAway => Ok(()),
            Kind::Headers => self.headers(frame),
            Kind::Continuation => self.continuation(frame),
            Kind::Reset => self.reset(frame, now_ms),
            Kind::Settings => {
                let count = self.settings.add(now_ms, 10_000);
                over(count, self.limits.max_settings, Abuse::Settings)
            }
            Kind::Ping if std::mem::take(&mut self.sent_since_ping) => Ok(()),
            Kind::Ping => {
                let count = self.pings.add(now_ms, 1000);
                over(count, self.limits.max_pings, Abuse::Pings)
            }
            Kind::WindowUpdate => {
                self.window_updates = self.window_updates.saturating_add(1);
                let earned = self.data_sent.saturating_mul(UPDATES_PER_DATA);
                let limit = self.limits.max_window_updates.saturating_add(earned);
                over(
                    self.window_updates,
                    limit.saturating_add(self.per_stream()),
                    Abuse::WindowUpdates,
                )
            }
            Kind::Other => {
                self.priorities = self.priorities.saturating_add(1);
                let limit = self.limits.max_priorities.saturating_add(self.per_stream());
                over(self.priorities, limit, Abuse::Priorities)
            }
        }
    }

    fn per_stream(&self) -> u32 {
        self.seen.streams.saturating_mul(PER_STREAM)
    }

    fn empty_frame(&mut self) -> Result<(), Abuse> {
        self.empty = self.empty.saturating_add(1);
        over(self.empty, self.limits.max_empty_frames, Abuse::EmptyFrames)
    }

    fn headers(&mut self, frame: Frame) -> Result<(), Abuse> {
        self.block = (0, frame.length);
        // Trailers come on a stream that is known.
        if frame.stream > self.inbound.newest {
            self.inbound.newest = frame.stream;
            self.seen.streams = self.seen.streams.saturating_add(1);
            // More than can be open are refused by the protocol library without a response that we would see.
            if self.waiting.len() >= self.limits.max_concurrent_streams as usize * 2 {
                self.waiting.remove(0);
            }
            self.waiting.push(frame.stream);
        }
        over(self.block.1, self.header_bytes, Abuse::HeaderBlock)?;
        if frame.length == 0 && !frame.has(END_HEADERS) {
            return self.empty_frame();
        }
        Ok(())
    }

    fn continuation(&mut self, frame: Frame) -> Result<(), Abuse> {
        let (frames, bytes) = self.block;
        self.block = (frames.saturating_add(1), bytes.saturating_add(frame.length));
        over(self.block.0, self.limits.max_continuations, Abuse::Continuations)?;
        over(self.block.1, self.header_bytes, Abuse::HeaderBlock)?;
        if frame.length == 0 && !frame.has(END_HEADERS) {
            return self.empty_frame();
        }
        Ok(())
    }

    fn reset(&mut self, frame: Frame, now_ms: u64) -> Result<(), Abuse> {
        self.seen.resets = self.seen.resets.saturating_add(1);
        if self.forget(frame.stream) {
            self.cancelled = self.cancelled.saturating_add(1);
            let limit = self.limits.max_cancelled.saturating_add(self.forgiven());
            over(self.cancelled, limit, Abuse::Cancelled)?;
        }
        let count = self.resets.add(now_ms, 10_000);
        over(count, self.limits.max_resets, Abuse::Resets)
    }

    fn outbound_frame(&mut self, frame: Frame) -> Result<(), Abuse> {
        match frame.kind {
            Kind::Data => {
                self.data_sent = self.data_sent.saturating_add(1);
                self.sent_since_ping = true;
            }
            Kind::Headers => {
                self.sent_since_ping = true;
                if self.forget(frame.stream) {
                    self.answered = self.answered.saturating_add(1);
                }
            }
            Kind::Reset => {
                self.seen.own_resets = self.seen.own_resets.saturating_add(1);
                let refused = u32::from(frame.code == REFUSED_STREAM);
                self.seen.refusals = self.seen.refusals.saturating_add(refused);
                self.forget(frame.stream);
                if !BLAMELESS.contains(&frame.code) {
                    self.error_resets = self.error_resets.saturating_add(1);
                    let limit = self.limits.max_error_resets.saturating_add(self.forgiven());
                    return over(self.error_resets, limit, Abuse::ErrorResets);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn forgiven(&self) -> u32 {
        self.answered / FORGIVEN_BY
    }

    /// Whether the stream was still waiting; it no longer is.
    fn forget(&mut self, stream: u32) -> bool {
        let at = self.waiting.iter().position(|waiting| *waiting == stream);
        at.map(|at| self.waiting.remove(at)).is_some()
    }
}

fn over(count: u32, limit: u32, abuse: Abuse) -> Result<(), Abuse> {
    if count > limit { Err(abuse) } else { Ok(()) }
}

/// What a frame is to the meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// PRIORITY, and all that we know no use for.
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    flags: u8,
    length: u32,
    stream: u32,
    /// First four bytes of the payload of RST_STREAM.
    code: u32,
}

impl Frame {
    fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The frames in a stream of bytes.
#[derive(Clone, Debug)]
struct Frames {
    /// Bytes that are no frame header.
    skip: u64,
    head: [u8; HEADER_BYTES + 4],
    have: usize,
    newest: u32,
}

impl Frames {
    fn after(preface: usize) -> Self {
        Self {
            skip: preface as u64,
            head: [0; HEADER_BYTES + 4],
            have: 0,
            newest: 0,
        }
    }

    /// The next frame whose header is complete; takes the bytes that were used.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        loop {
            let skipped = self.skip.min(bytes.len() as u64);
            self.skip -= skipped;
            *bytes = bytes.get(usize::try_from(skipped).ok()?..)?;
            if bytes.is_empty() {
                return None;
            }
            let wanted = self.wanted();
            let taken = bytes.len().min(wanted - self.have);
            let slot = self.head.get_mut(self.have..self.have + taken)?;
            slot.copy_from_slice(bytes.get(..taken)?);
            self.have += taken;
            *bytes = bytes.get(taken..)?;
            // With the header complete more may be wanted: the error code of a reset.
            if self.have >= HEADER_BYTES && self.have == self.wanted() {
                return Some(self.take());
            }
        }
    }

    /// Bytes to look at before the frame is known.
    fn wanted(&self) -> usize {
        let [a, b, c, kind, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        if self.have >= HEADER_BYTES && kind == 3 && length >= 4 {
            HEADER_BYTES + 4
        } else {
            HEADER_BYTES
        }
    }

    fn take(&mut self) -> Frame {
        let [a, b, c, kind, flags, s, t, u, v, w, x, y, z] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let looked_at = self.have - HEADER_BYTES;
        self.skip = u64::from(length) - looked_at as u64;
        self.have = 0;
        Frame {
            kind: match kind {
                0 => Kind::Data,
                1 => Kind::Headers,
                3 => Kind::Reset,
                4 => Kind::Settings,
                6 => Kind::Ping,
                7 => Kind::GoAway,
                8 => Kind::WindowUpdate,
                9 => Kind::Continuation,
                _ => Kind::Other,
            },
            flags,
            length,
            stream: u32::from_be_bytes([s & 0x7f, t, u, v]),
            code: if looked_at == 4 {
                u32::from_be_bytes([w, x, y, z])
            } else {
                0
            },
        }
    }
}
