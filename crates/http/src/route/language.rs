//! Which of the languages on offer a client prefers (RFC 9110 section 12.5.4, RFC 4647).
//!
//! The ranges of `Accept-Language` are taken by falling quality, equal ones as written. For each, a tag on offer
//! that is the range or lies below it is taken (basic filtering, RFC 4647 section 3.3.1: `de` takes `de-CH`); else
//! the range is cut from its end until a tag equals it (lookup, section 3.4: `de-CH` takes `de`). `*` takes the
//! default language. What a range of quality 0 names is never taken.

use crate::syntax::{list, trim};

/// Most ranges of a request that are looked at, in the order written.
const MAX_RANGES: usize = 32;

#[derive(Clone, Copy, Default)]
struct Range<'a> {
    tag: &'a [u8],
    /// In thousandths.
    quality: u16,
}

/// Index of the language taken among `offered`, which are tags in lower case; the first of them is what `*` takes
/// when `default` is set.
pub(super) fn negotiate<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    offered: &[String],
    default: bool,
) -> Option<usize> {
    let mut table = [Range::default(); MAX_RANGES];
    let mut count = 0;
    for range in fields.flat_map(list).filter_map(read).take(MAX_RANGES) {
        if let Some(slot) = table.get_mut(count) {
            *slot = range;
            count += 1;
        }
    }
    let ranges = table.get_mut(..count)?;
    // Stable, and without memory: the table is short.
    for end in 1..ranges.len() {
        let mut at = end;
        while at > 0 && ranges.get(at - 1).map(|r| r.quality) < ranges.get(at).map(|r| r.quality) {
            ranges.swap(at - 1, at);
            at -= 1;
        }
    }
    let wanted = ranges.iter().filter(|range| range.quality > 0);
    let refused = |tag: &str, at_least: usize| {
        ranges
            .iter()
            .any(|r| r.quality == 0 && r.tag.len() >= at_least && is_below(tag.as_bytes(), r.tag))
    };
    for range in wanted {
        if range.tag == b"*" {
            if default && offered.first().is_some_and(|tag| !refused(tag, 1)) {
                return Some(0);
            }
            continue;
        }
        let taken = |tag: &str, range: &[u8]| !refused(tag, range.len());
        let equal = |wanted: &[u8]| {
            offered
                .iter()
                .position(|tag| tag.as_bytes().eq_ignore_ascii_case(wanted) && taken(tag, wanted))
        };
        let below = || {
            offered
                .iter()
                .position(|tag| is_below(tag.as_bytes(), range.tag) && taken(tag, range.tag))
        };
        let found = equal(range.tag)
            .or_else(below)
            .or_else(|| shorter(range.tag).find_map(equal));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether `tag` is the range or lies below it.
fn is_below(tag: &[u8], range: &[u8]) -> bool {
    let start = tag.get(..range.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(range))
        && matches!(tag.get(range.len()), None | Some(b'-'))
}

/// The range cut from its end, subtag by subtag; a single letter goes with what follows it.
fn shorter(range: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(cut(range), |range| cut(range))
}

fn cut(range: &[u8]) -> Option<&[u8]> {
    let end = range.iter().rposition(|&b| b == b'-')?;
    let start = range.get(..end)?;
    match start {
        [shorter @ .., b'-', _] => Some(shorter),
        _ => Some(start),
    }
}

/// One element of the list: a range with its quality. `None` for what is neither.
fn read(element: &[u8]) -> Option<Range<'_>> {
    let mut parts = element.splitn(2, |&b| b == b';');
    let tag = trim(parts.next()?);
    let fits = !tag.is_empty()
        && tag
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'*'));
    let quality = match parts.next() {
        None => 1000,
        Some(parameter) => quality(trim(parameter))?,
    };
    fits.then_some(Range { tag, quality })
}

/// `q=0.5` in thousandths (RFC 9110 section 12.4.2).
fn quality(parameter: &[u8]) -> Option<u16> {
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, unit) in decimals.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) * unit;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(header: &str, offered: &[&str], default: bool) -> Option<String> {
        let offered: Vec<String> = offered.iter().map(|tag| (*tag).to_owned()).collect();
        negotiate(std::iter::once(header.as_bytes()), &offered, default).and_then(|i| offered.get(i).cloned())
    }

    /// The most preferred of what is on offer, by quality and then as written (RFC 9110 section 12.5.4).
    #[test]
    fn the_most_preferred_language_on_offer_is_taken() {
        for (header, offered, expected) in [
            ("de", &["en", "de"][..], Some("de")),
            ("en, de;q=0.5", &["de", "en"], Some("en")),
            ("de;q=0.5, en;q=0.9", &["de", "en"], Some("en")),
            ("fr, de;q=0.1", &["de", "en"], Some("de")),
            ("DE-ch", &["de"], Some("de")),
            ("de-CH-1996", &["de", "de-ch"], Some("de-ch")),
            ("de", &["en", "de-at", "de-ch"], Some("de-at")),
            ("zh-Hant-x-wadegile", &["zh", "zh-hant"], Some("zh-hant")),
            ("de;q=0", &["de"], None),
            ("de-CH;q=0, de", &["de-ch"], None),
            ("de-CH, de;q=0", &["de"], None),
            ("fr", &["de"], None),
            ("", &["de"], None),
            ("d", &["de"], None),
            (
                "de;q=1.1, en;q=x, fr;q=0.0001, es;q=0.001",
                &["de", "en", "fr", "es"],
                Some("es"),
            ),
            (", ,de ; q=0.7,,", &["de"], Some("de")),
        ] {
            assert_eq!(
                taken(header, offered, false).as_deref(),
                expected,
                "{header} of {offered:?}"
            );
        }
    }

    /// `*` means: whatever there is by default; never a language that a route happens to name.
    #[test]
    fn an_asterisk_takes_the_default() {
        assert_eq!(taken("fr, *;q=0.1", &["en", "de"], true).as_deref(), Some("en"));
        assert_eq!(taken("fr, *;q=0.1", &["de"], false), None);
        assert_eq!(taken("en;q=0, *", &["en", "de"], true), None);
    }

    #[test]
    fn only_the_first_ranges_are_looked_at() {
        let long = format!("{}de", "fr,".repeat(MAX_RANGES));
        assert_eq!(taken(&long, &["de"], false), None);
        let fits = format!("{}de", "fr,".repeat(MAX_RANGES - 1));
        assert_eq!(taken(&fits, &["de"], false).as_deref(), Some("de"));
    }
}
