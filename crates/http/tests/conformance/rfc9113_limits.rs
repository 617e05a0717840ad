//! RFC 9113 section 10.5, denial of service: one test for each trick that is known by a number.

use evenkeel_http::h2::{Abuse, FrameMeter, PREFACE, Seen};
use model::config::Http2;
use proptest::prelude::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const BOTH: u8 = END_STREAM | END_HEADERS;

const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client beside a server, and the clock between them.
struct Wire {
    meter: FrameMeter,
    now_ms: u64,
}

impl Wire {
    fn new() -> Self {
        Self::with(&Http2::default())
    }

    fn with(limits: &Http2) -> Self {
        let mut meter = FrameMeter::new(limits, 32 * 1024);
        meter.received(PREFACE, 0).unwrap();
        Self { meter, now_ms: 0 }
    }

    fn client(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Abuse> {
        self.meter
            .received(&frame(kind, flags, stream, payload), self.now_ms)
    }

    fn server(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Abuse> {
        self.meter.sent(&frame(kind, flags, stream, payload))
    }

    /// How often `step` passes before it does not, and why; at most `most` times.
    fn until(
        &mut self,
        most: u32,
        mut step: impl FnMut(&mut Self, u32) -> Result<(), Abuse>,
    ) -> (u32, Option<Abuse>) {
        for i in 0..most {
            if let Err(abuse) = step(self, i) {
                return (i, Some(abuse));
            }
        }
        (most, None)
    }
}

fn stream(i: u32) -> u32 {
    2 * i + 1
}

/// CVE-2023-44487, rapid reset: streams opened and cancelled before they are answered.
#[test]
fn rapid_reset_ends_with_the_fifty_first() {
    let mut wire = Wire::new();
    let found = wire.until(1000, |wire, i| {
        wire.now_ms += 1000;
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.client(RST_STREAM, 0, stream(i), &8u32.to_be_bytes())
    });
    assert_eq!(found, (50, Some(Abuse::Cancelled)));
    assert_eq!(
        wire.meter.seen(),
        Seen {
            streams: 51,
            resets: 51,
            own_resets: 0,
            refusals: 0,
        }
    );
}

/// A long-lived connection whose user sometimes changes his mind is none.
#[test]
fn a_client_that_mostly_waits_for_answers_may_cancel_for_ever() {
    let mut wire = Wire::new();
    let found = wire.until(20_000, |wire, i| {
        wire.now_ms += 100;
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        if i % 25 == 0 {
            return wire.client(RST_STREAM, 0, stream(i), &8u32.to_be_bytes());
        }
        wire.server(HEADERS, BOTH, stream(i), b"x")
    });
    assert_eq!(found, (20_000, None));
}

/// Cancelling what is answered already is cheap for us, and bounded all the same.
#[test]
fn more_than_a_hundred_resets_in_ten_seconds_are_too_many() {
    let mut wire = Wire::new();
    let reset_answered = |wire: &mut Wire, i: u32| {
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.server(HEADERS, END_HEADERS, stream(i), b"x")?;
        wire.client(RST_STREAM, 0, stream(i), &8u32.to_be_bytes())
    };
    assert_eq!(wire.until(1000, reset_answered), (100, Some(Abuse::Resets)));
    let mut wire = Wire::new();
    let slowly = |wire: &mut Wire, i: u32| {
        wire.now_ms += 101;
        reset_answered(wire, i)
    };
    assert_eq!(wire.until(1000, slowly), (1000, None));
}

/// CVE-2025-8671, made you reset, and CVE-2019-9514: the client sends what forces us to reset.
#[test]
fn made_you_reset_ends_with_the_two_hundred_and_first() {
    let mut wire = Wire::new();
    let found = wire.until(1000, |wire, i| {
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.client(WINDOW_UPDATE, 0, stream(i), &[0; 4])?;
        wire.server(RST_STREAM, 0, stream(i), &PROTOCOL_ERROR.to_be_bytes())
    });
    assert_eq!(found, (200, Some(Abuse::ErrorResets)));
}

/// What a backend breaks is not held against the client.
#[test]
fn our_own_failures_are_not_counted() {
    let mut wire = Wire::new();
    let found = wire.until(1000, |wire, i| {
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.server(RST_STREAM, 0, stream(i), &INTERNAL_ERROR.to_be_bytes())
    });
    assert_eq!(found, (1000, None));
    assert_eq!(wire.meter.seen().own_resets, 1000);
}

/// CVE-2019-9512, ping flood; pings that measure the way of our data are none.
#[test]
fn a_ping_flood_is_noticed_and_measuring_is_not_one() {
    let ping = |wire: &mut Wire, _| wire.client(PING, 0, 0, &[0; 8]);
    assert_eq!(Wire::new().until(1000, ping), (20, Some(Abuse::Pings)));
    let slowly = |wire: &mut Wire, i| {
        wire.now_ms += 51;
        ping(wire, i)
    };
    assert_eq!(Wire::new().until(1000, slowly), (1000, None));
    let measuring = |wire: &mut Wire, i| {
        wire.server(DATA, 0, 1, b"data")?;
        ping(wire, i)
    };
    assert_eq!(Wire::new().until(1000, measuring), (1000, None));
}

/// CVE-2019-9515, settings flood.
#[test]
fn a_settings_flood_is_noticed() {
    let found = Wire::new().until(1000, |wire, _| wire.client(SETTINGS, 0, 0, b""));
    assert_eq!(found, (10, Some(Abuse::Settings)));
}

/// CVE-2019-9518, empty frames flood: data, headers and continuations without a byte.
#[test]
fn a_flood_of_empty_frames_is_noticed() {
    let mut wire = Wire::new();
    wire.client(HEADERS, END_HEADERS, 1, b"x").unwrap();
    let empty = |wire: &mut Wire, _| wire.client(DATA, 0, 1, b"");
    assert_eq!(wire.until(1000, empty), (100, Some(Abuse::EmptyFrames)));
    // An empty frame that ends its stream is how many end it.
    let ending = |wire: &mut Wire, i| {
        wire.client(HEADERS, END_HEADERS, stream(i), b"x")?;
        wire.client(DATA, END_STREAM, stream(i), b"")
    };
    assert_eq!(Wire::new().until(1000, ending), (1000, None));
    let headers = |wire: &mut Wire, i| {
        wire.client(HEADERS, 0, stream(i), b"")?;
        wire.client(CONTINUATION, END_HEADERS, stream(i), b"x")
    };
    assert_eq!(Wire::new().until(1000, headers), (100, Some(Abuse::EmptyFrames)));
}

/// CVE-2024-27316 and its family: a header without end.
#[test]
fn a_header_has_at_most_four_continuations_and_no_more_bytes_than_allowed() {
    let begin = |wire: &mut Wire| wire.client(HEADERS, 0, 1, b"x").unwrap();
    let go_on = |wire: &mut Wire, _| wire.client(CONTINUATION, 0, 1, b"x");
    let mut wire = Wire::new();
    begin(&mut wire);
    assert_eq!(wire.until(1000, go_on), (4, Some(Abuse::Continuations)));
    let mut wire = Wire::new();
    begin(&mut wire);
    let much = |wire: &mut Wire, _| wire.client(CONTINUATION, 0, 1, &[0; 16_000]);
    assert_eq!(wire.until(1000, much), (2, Some(Abuse::HeaderBlock)));
    // Each header begins a new count.
    let each = |wire: &mut Wire, i| {
        wire.client(HEADERS, 0, stream(i), b"x")?;
        wire.client(CONTINUATION, 0, stream(i), b"x")?;
        wire.client(CONTINUATION, END_HEADERS, stream(i), b"x")
    };
    assert_eq!(Wire::new().until(1000, each), (1000, None));
}

/// CVE-2019-9513, resource loop; and frames that nobody knows.
#[test]
fn priorities_are_bounded_by_the_streams_there_were() {
    let priority = |wire: &mut Wire, _| wire.client(PRIORITY, 0, 1, &[0; 5]);
    assert_eq!(Wire::new().until(1000, priority), (100, Some(Abuse::Priorities)));
    let unknown = |wire: &mut Wire, _| wire.client(0xfa, 0, 1, b"");
    assert_eq!(Wire::new().until(1000, unknown), (100, Some(Abuse::Priorities)));
    let with_streams = |wire: &mut Wire, i| {
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.client(PRIORITY, 0, stream(i), &[0; 5])?;
        wire.client(PRIORITY, 0, stream(i), &[0; 5])
    };
    assert_eq!(Wire::new().until(1000, with_streams), (1000, None));
}

/// CVE-2019-9511 and 9517 lead the window by the nose; a download needs an update for every few frames.
#[test]
fn window_updates_are_bounded_by_the_data_there_was() {
    let update = |wire: &mut Wire, _| wire.client(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes());
    assert_eq!(
        Wire::new().until(10_000, update),
        (1000, Some(Abuse::WindowUpdates))
    );
    let download = |wire: &mut Wire, i| {
        wire.server(DATA, 0, 1, b"data")?;
        update(wire, i)?;
        update(wire, i)
    };
    assert_eq!(Wire::new().until(10_000, download), (10_000, None));
}

/// A limit is what the config says.
#[test]
fn limits_come_from_the_config() {
    let limits = Http2 {
        max_cancelled: 1,
        max_pings: 2,
        ..Http2::default()
    };
    let ping = |wire: &mut Wire, _| wire.client(PING, 0, 0, &[0; 8]);
    assert_eq!(Wire::with(&limits).until(10, ping), (2, Some(Abuse::Pings)));
    let cancel = |wire: &mut Wire, i| {
        wire.client(HEADERS, BOTH, stream(i), b"x")?;
        wire.client(RST_STREAM, 0, stream(i), &[0; 4])
    };
    assert_eq!(Wire::with(&limits).until(10, cancel), (1, Some(Abuse::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However the bytes are cut, the same is seen in them.
    #[test]
    fn cuts_do_not_matter(
        frames in proptest::collection::vec(
            (0..11u8, any::<u8>(), 0..6u32, proptest::collection::vec(any::<u8>(), 0..20)), 0..60),
        cuts in proptest::collection::vec(1..40usize, 1..100),
    ) {
        let mut bytes = PREFACE.to_vec();
        for (kind, flags, stream, payload) in &frames {
            bytes.extend(frame(*kind, *flags, *stream, payload));
        }
        let limits = Http2 { max_cancelled: 2, max_empty_frames: 3, ..Http2::default() };
        let mut whole = FrameMeter::new(&limits, 100);
        let at_once = whole.received(&bytes, 0);
        let mut cut = FrameMeter::new(&limits, 100);
        let mut in_pieces = Ok(());
        let mut rest = &bytes[..];
        for size in cuts.iter().cycle() {
            if rest.is_empty() || in_pieces.is_err() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            in_pieces = cut.received(piece, 0);
            rest = after;
        }
        prop_assert_eq!(at_once, in_pieces);
        prop_assert_eq!(whole.seen(), cut.seen());
        // And the way back, where resets have their code in the payload.
        let mut whole = FrameMeter::new(&limits, 100);
        let mut cut = FrameMeter::new(&limits, 100);
        let bytes = &bytes[PREFACE.len()..];
        prop_assert_eq!(whole.sent(bytes), bytes.iter().try_for_each(|b| cut.sent(&[*b])));
    }
}
