//! Trace context (W3C Trace Context, `traceparent`): read strictly, continued or begun.
//!
//! `tracestate` is not looked into: it is passed on where the `traceparent` beside it is taken over, and dropped
//! where a trace is begun, for it belongs to the trace it came with.

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// The bit of the flags that says that the caller may have recorded the trace.
const SAMPLED: u8 = 1;

/// A place in a trace: what `traceparent` carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: [u8; 16],
    /// The span of whoever sends this; not zero.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. Of versions after 00 the part that 00 knows is read, as the specification asks.
    ///
    /// `None` for everything that is not well-formed: upper-case hexadecimal, zero ids, version ff, wrong lengths.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let fixed = value.get(..LENGTH)?;
        let version: [u8; 1] = hex(fixed.get(..2)?)?;
        let more = value.get(LENGTH..).unwrap_or_default();
        let ends = match version {
            [0] => more.is_empty(),
            [0xff] => false,
            _ => more.first().is_none_or(|b| *b == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| fixed.get(*at) == Some(&b'-'));
        if !ends || !dashes {
            return None;
        }
        let trace_id: [u8; 16] = hex(fixed.get(3..35)?)?;
        let span_id: [u8; 8] = hex(fixed.get(36..52)?)?;
        let [flags]: [u8; 1] = hex(fixed.get(53..55)?)?;
        if trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// A trace that begins here, from random numbers.
    pub fn begin(random: [u64; 3], sampled: bool) -> Self {
        let [high, low, span] = random;
        let mut trace_id = [0; 16];
        for (byte, random) in trace_id
            .iter_mut()
            .zip(high.to_be_bytes().into_iter().chain((low | 1).to_be_bytes()))
        {
            *byte = random;
        }
        Self {
            trace_id,
            span_id: span_id(span),
            sampled,
        }
    }

    /// The same trace one span further: that of the next hop.
    pub fn child(self, random: u64) -> Self {
        Self {
            span_id: span_id(random),
            ..self
        }
    }

    /// The `traceparent` that says this, in version 00.
    pub fn text(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text, 3, &self.trace_id);
        put_hex(&mut text, 36, &self.span_id);
        put_hex(&mut text, 53, &[u8::from(self.sampled)]);
        text
    }
}

fn span_id(random: u64) -> [u8; 8] {
    (random | 1).to_be_bytes()
}

/// Lower-case hexadecimal of exactly `N` bytes.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Writes `bytes` as lower-case hexadecimal from `at` on, as far as there is room.
pub(crate) fn put_hex(text: &mut [u8], at: usize, bytes: &[u8]) {
    let pairs = text.get_mut(at..).unwrap_or_default().chunks_exact_mut(2);
    for (pair, byte) in pairs.zip(bytes) {
        if let [high, low] = pair {
            *high = DIGITS[usize::from(byte >> 4)];
            *low = DIGITS[usize::from(byte & 15)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_read_is_written_the_same() {
        let context = TraceContext::parse(KNOWN).unwrap();
        assert!(context.sampled);
        assert_eq!(context.text(), KNOWN);
        let unsampled = [&KNOWN[..53], b"00"].concat();
        assert!(!TraceContext::parse(&unsampled).unwrap().sampled);
    }

    /// The table of the specification's test suite: what must be ignored.
    #[test]
    fn what_is_not_well_formed_is_refused() {
        let with = |at: usize, new: &[u8]| {
            let mut text = KNOWN.to_vec();
            text[at..at + new.len()].copy_from_slice(new);
            text
        };
        let wrong = [
            b"".to_vec(),
            KNOWN[..54].to_vec(),
            [KNOWN, b"x"].concat(),
            [KNOWN, b"-extra"].concat(),
            with(0, b"ff"),
            with(0, b"0g"),
            with(2, b"_"),
            with(35, b"."),
            with(52, b":"),
            with(3, b"0AF7"),
            with(3, &[b'0'; 32]),
            with(36, &[b'0'; 16]),
            with(36, b"B7"),
            with(53, b"1 "),
        ];
        for text in wrong {
            assert_eq!(
                TraceContext::parse(&text),
                None,
                "{:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    /// A later version may have more behind a dash; the flags that 00 does not know mean nothing.
    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = |end: &str| {
            let text = format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{end}");
            TraceContext::parse(text.as_bytes())
        };
        assert!(later("03").unwrap().sampled);
        assert!(!later("02-what-is-next").unwrap().sampled);
        assert_eq!(later("01.x"), None);
    }

    #[test]
    fn ids_are_never_zero() {
        let context = TraceContext::begin([0, 0, 0], false);
        assert_eq!(TraceContext::parse(&context.text()), Some(context));
        let child = context.child(0);
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.span_id, [0; 8]);
    }
}
