//! RFC 9110 section 12: content negotiation, as far as codings go.

use evenkeel_http::encoding::negotiate;
use model::config::Encoding::{self, Brotli, Gzip, Zstd};

const OFFERED: [Encoding; 3] = [Zstd, Brotli, Gzip];

fn chosen(accepted: &[&str]) -> Option<Encoding> {
    negotiate(accepted.iter().map(|value| value.as_bytes()), &OFFERED)
}

/// Section 12.4.2: the greatest weight wins; 0 means not acceptable.
#[test]
fn the_greatest_weight_wins_and_of_equals_what_we_like_better() {
    for (accepted, wanted) in [
        ("gzip", Some(Gzip)),
        ("gzip, br", Some(Brotli)),
        ("gzip, deflate, br, zstd", Some(Zstd)),
        ("gzip;q=1.0, br;q=0.9, zstd;q=0.1", Some(Gzip)),
        ("gzip;q=0.001", Some(Gzip)),
        ("gzip;q=0", None),
        ("zstd;q=0, br;q=0, *", Some(Gzip)),
        ("*", Some(Zstd)),
        ("*;q=0", None),
        ("br ; q=0.5 ,\tgzip;q=0.6", Some(Gzip)),
        ("GZIP", Some(Gzip)),
        ("x-gzip", Some(Gzip)),
        ("", None),
        (",, ,", None),
        ("identity", None),
        ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
        ("identity;q=0.6, gzip;q=0.5", None),
        ("identity;q=0, gzip;q=0.1", Some(Gzip)),
        ("compress, deflate", None),
    ] {
        assert_eq!(chosen(&[accepted]), wanted, "{accepted:?}");
    }
    assert_eq!(chosen(&[]), None);
    assert_eq!(chosen(&["br;q=0.5", "gzip"]), Some(Gzip));
}

/// A weight that is none speaks for nothing; what else is said counts still.
#[test]
fn a_malformed_weight_speaks_for_nothing() {
    for weight in [
        "q=", "q=2", "q=1.001", "q=0.1234", "q=-1", "q=.5", "q=1e0", "x=1", "q",
    ] {
        assert_eq!(
            chosen(&[&format!("zstd;{weight}, gzip;q=0.1")]),
            Some(Gzip),
            "{weight}"
        );
    }
}

/// What is said first about a coding counts.
#[test]
fn what_is_said_twice_counts_once() {
    assert_eq!(chosen(&["gzip;q=0, gzip;q=1"]), None);
}
