//! Request targets and authorities: their grammar, and the one form that routing sees and the backend gets.

use std::net::Ipv6Addr;

use memchr::memchr;
use model::reason::Reason;

use crate::syntax::{ENCODE, NOT_TARGET, PERCENT, UNRESERVED, class, decimal, hex};

/// An absolute target taken apart (RFC 9112 section 3.2.2): lengths, as offsets into the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absolute {
    /// Where the authority begins.
    pub(crate) authority: usize,
    /// Where path and query begin; the target's length when there are none.
    pub(crate) rest: usize,
}

/// Refuses targets with a byte that no target has.
///
/// # Errors
/// [`Reason::BadTarget`].
pub(crate) fn check(target: &[u8]) -> Result<(), Reason> {
    let all = target.iter().fold(0, |all, &b| all | class(b));
    if all & NOT_TARGET == 0 {
        Ok(())
    } else {
        Err(Reason::BadTarget)
    }
}

/// Takes an absolute target apart; `None` when it is not `http://…` or `https://…`.
pub(crate) fn absolute(target: &[u8]) -> Option<Absolute> {
    let is = |prefix: &[u8]| crate::fields::starts_with(target, prefix);
    let authority = if is(b"http://") {
        7
    } else if is(b"https://") {
        8
    } else {
        return None;
    };
    let rest = target.get(authority..)?;
    let length = rest
        .iter()
        .position(|&b| b == b'/' || b == b'?')
        .unwrap_or(rest.len());
    Some(Absolute {
        authority,
        rest: authority + length,
    })
}

/// Length of the host in an authority `host` or `host:port`; `None` when it is not one.
///
/// Stricter than RFC 3986: a name is letters, digits, `-`, `.`, `_` and `~`; an address in brackets is IPv6
/// without a zone; the port, where there is a colon, is 1 to 65535. No user information, no list.
pub(crate) fn host_length(authority: &[u8]) -> Option<usize> {
    let length = if authority.first() == Some(&b'[') {
        let close = memchr(b']', authority)?;
        let address = std::str::from_utf8(authority.get(1..close)?).ok()?;
        address.parse::<Ipv6Addr>().ok()?;
        close + 1
    } else {
        let name =
            memchr(b':', authority).map_or(authority, |colon| authority.get(..colon).unwrap_or_default());
        if name.is_empty() || !name.iter().all(|&b| class(b) & UNRESERVED != 0) {
            return None;
        }
        name.len()
    };
    match authority.get(length..)? {
        [] => Some(length),
        [b':', port @ ..] if port.len() <= 5 => {
            let port = decimal(port)?;
            (1..=65535).contains(&port).then_some(length)
        }
        _ => None,
    }
}

/// Length of the path in a target in origin form.
pub(crate) fn path_length(target: &[u8]) -> usize {
    memchr(b'?', target).unwrap_or(target.len())
}

/// Whether a target in origin form is its own normal form.
pub(crate) fn is_normal(target: &[u8]) -> bool {
    let (path, query) = target.split_at(path_length(target));
    let mut all = 0;
    let mut previous = 0;
    let mut dots = false;
    for &b in path {
        all |= class(b);
        dots |= b == b'.' && previous == b'/';
        previous = b;
    }
    let in_query = query.iter().fold(0, |all, &b| all | class(b));
    !dots && all & (PERCENT | ENCODE) == 0 && in_query & ENCODE == 0
}

/// Appends the normal form of a target in origin form that passed [`check`], and returns its path's length.
///
/// In the path (RFC 3986 section 6.2.2): escapes of unreserved bytes are decoded, other escapes written in
/// upper case, dot segments removed. Slashes are not merged. Bytes outside the URI grammar are escaped, in the
/// query too; nothing else in the query is touched.
///
/// # Errors
/// [`Reason::BadTarget`] for an escape that is not `%` and two hexadecimal digits; [`Reason::BadPath`] for an
/// escaped slash, backslash, NUL or dot segment and for escapes that are not UTF-8.
///
/// An empty path, which an absolute target may have, becomes `/`.
pub(crate) fn normalise(target: &[u8], out: &mut Vec<u8>) -> Result<usize, Reason> {
    let begin = out.len();
    let (path, query) = target.split_at(path_length(target));
    let mut segments = path.get(1..).unwrap_or_default().split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let before = out.len();
        out.push(b'/');
        let escaped_dot = push_segment(segment, out)?;
        let dots = match out.get(before + 1..) {
            Some(b".") => 1,
            Some(b"..") => 2,
            _ => continue,
        };
        if escaped_dot {
            return Err(Reason::BadPath);
        }
        out.truncate(before);
        if dots == 2 {
            let parent = out.iter().skip(begin).rposition(|&b| b == b'/').unwrap_or(0);
            out.truncate(begin + parent);
        }
        if segments.peek().is_none() {
            out.push(b'/');
        }
    }
    let length = out.len() - begin;
    for &b in query {
        push_plain(b, out);
    }
    Ok(length)
}

/// Appends the normal form of one path segment; true when it holds an escaped dot.
fn push_segment(segment: &[u8], out: &mut Vec<u8>) -> Result<bool, Reason> {
    let mut escaped_dot = false;
    let mut at = 0;
    while let Some(&b) = segment.get(at) {
        if b != b'%' {
            push_plain(b, out);
            at += 1;
            continue;
        }
        let byte = escape(segment, at)?;
        match byte {
            b'/' | b'\\' | 0 => return Err(Reason::BadPath),
            _ if class(byte) & UNRESERVED != 0 => {
                escaped_dot |= byte == b'.';
                out.push(byte);
                at += 3;
            }
            0..=0x7f => {
                push_escape(byte, out);
                at += 3;
            }
            _ => at = push_character(segment, at, byte, out)?,
        }
    }
    Ok(escaped_dot)
}

/// Appends the escapes of one UTF-8 character of two to four bytes; returns the offset behind it.
fn push_character(segment: &[u8], at: usize, lead: u8, out: &mut Vec<u8>) -> Result<usize, Reason> {
    let length = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(Reason::BadPath),
    };
    let mut character = [0; 4];
    let mut next = at;
    for slot in character.iter_mut().take(length) {
        if segment.get(next) != Some(&b'%') {
            return Err(Reason::BadPath);
        }
        *slot = escape(segment, next)?;
        next += 3;
    }
    // The standard library refuses overlong forms, surrogates and what lies beyond U+10FFFF.
    let character = character.get(..length).unwrap_or_default();
    if std::str::from_utf8(character).is_err() {
        return Err(Reason::BadPath);
    }
    character.iter().for_each(|&b| push_escape(b, out));
    Ok(next)
}

/// The byte meant by the escape at this offset.
fn escape(bytes: &[u8], at: usize) -> Result<u8, Reason> {
    let digit = |i: usize| bytes.get(at + i).copied().and_then(hex).ok_or(Reason::BadTarget);
    Ok(digit(1)? << 4 | digit(2)?)
}

fn push_plain(b: u8, out: &mut Vec<u8>) {
    if class(b) & ENCODE != 0 {
        push_escape(b, out);
    } else {
        out.push(b);
    }
}

fn push_escape(b: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_normal_form_is_normal_and_stays() {
        for (from, to) in [
            ("/a/b/../c/./d", "/a/c/d"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/../../x", "/x"),
            ("/.", "/"),
            ("/a/.", "/a/"),
            ("/a//../b", "/a/b"),
            ("//a//b", "//a//b"),
            ("/%61%7e%2d", "/a~-"),
            ("/%c3%a4", "/%C3%A4"),
            ("/f%2eo", "/f.o"),
            ("/...", "/..."),
            ("/{a}|b?q={c}%2f&d=%zz", "/%7Ba%7D%7Cb?q=%7Bc%7D%2f&d=%zz"),
            ("/%252e%252e", "/%252e%252e"),
            ("", "/"),
            ("?a/../b", "/?a/../b"),
        ] {
            let mut out = Vec::new();
            let length = normalise(from.as_bytes(), &mut out).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), to, "{from}");
            assert_eq!(length, path_length(&out), "{from}");
            let mut again = Vec::new();
            normalise(&out, &mut again).unwrap();
            assert_eq!(again, out, "{from}");
        }
    }

    #[test]
    fn normalising_appends_and_leaves_what_is_there() {
        let mut out = b"/kept".to_vec();
        assert_eq!(normalise(b"/../a/../b?x", &mut out), Ok(2));
        assert_eq!(out, b"/kept/b?x");
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for (text, length) in [
            ("a", 1),
            ("a.b:80", 3),
            ("[::1]", 5),
            ("[::1]:8080", 5),
            ("10.0.0.1:1", 8),
            ("a.", 2),
        ] {
            assert_eq!(host_length(text.as_bytes()), Some(length), "{text}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:080000",
            "a:+8",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a?b",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[v1.a]",
            "a%41",
            "a:80:80",
            "\u{fc}",
        ] {
            assert_eq!(host_length(bad.as_bytes()), None, "{bad}");
        }
    }
}
