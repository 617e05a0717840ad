//! RESP2, as much of it as is needed: commands written, replies read within bounds.

/// Longest line of a reply, and longest text in it, in bytes.
const MAX_TEXT: usize = 4096;
/// Most items of a list, and how deep lists may be in one another.
const MAX_ITEMS: usize = 16;
const MAX_DEPTH: usize = 2;

/// What Redis says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-WRONGPASS …`.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// Bytes; `None`: the null of RESP2.
    Bulk(Option<Vec<u8>>),
    /// A list.
    List(Vec<Self>),
}

/// Not RESP2, or more of it than is taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Reply {
    /// Whether this is the list that begins with this word.
    pub(super) fn is_about(&self, word: &str) -> bool {
        self.word() == Some(word.as_bytes())
    }

    /// The message, when this is one for `channel`.
    pub(super) fn message(&self, channel: &[u8]) -> Option<&[u8]> {
        match self {
            Self::List(items) if self.is_about("message") => match items.as_slice() {
                [_, Self::Bulk(Some(to)), Self::Bulk(Some(message))] if to == channel => Some(message),
                _ => None,
            },
            _ => None,
        }
    }

    fn word(&self) -> Option<&[u8]> {
        match self {
            Self::List(items) => match items.first() {
                Some(Self::Bulk(Some(word))) => Some(word),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A command, as a list of its words.
pub(super) fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Reads a reply from the beginning of `bytes`: with how many of them it is; `None` while it is not whole.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut at = 0;
    Ok(reply(bytes, &mut at, 0)?.map(|reply| (reply, at)))
}

fn reply(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Reply>, Malformed> {
    let Some(line) = line(bytes, at)? else {
        return Ok(None);
    };
    let (kind, rest) = line.split_first().ok_or(Malformed)?;
    match kind {
        b'+' => Ok(Some(Reply::Simple(text(rest)))),
        b'-' => Ok(Some(Reply::Error(text(rest)))),
        b':' => Ok(Some(Reply::Integer(number(rest)?))),
        b'$' => match number(rest)? {
            -1 => Ok(Some(Reply::Bulk(None))),
            length => bulk(bytes, at, length),
        },
        b'*' if depth < MAX_DEPTH => {
            let count = usize::try_from(number(rest)?).map_err(|_| Malformed)?;
            if count > MAX_ITEMS {
                return Err(Malformed);
            }
            let mut items = Vec::with_capacity(count);
            for _ in 0..count {
                match reply(bytes, at, depth + 1)? {
                    Some(item) => items.push(item),
                    None => return Ok(None),
                }
            }
            Ok(Some(Reply::List(items)))
        }
        _ => Err(Malformed),
    }
}

fn bulk(bytes: &[u8], at: &mut usize, length: i64) -> Result<Option<Reply>, Malformed> {
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= MAX_TEXT)
        .ok_or(Malformed)?;
    let Some(found) = bytes.get(*at..*at + length + 2) else {
        return Ok(None);
    };
    let (content, end) = found.split_at(length);
    if end != b"\r\n" {
        return Err(Malformed);
    }
    *at += length + 2;
    Ok(Some(Reply::Bulk(Some(content.to_vec()))))
}

fn line<'b>(bytes: &'b [u8], at: &mut usize) -> Result<Option<&'b [u8]>, Malformed> {
    let rest = bytes.get(*at..).unwrap_or_default();
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
        return if rest.len() > MAX_TEXT {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    if end > MAX_TEXT {
        return Err(Malformed);
    }
    *at += end + 2;
    Ok(rest.get(..end))
}

fn number(text: &[u8]) -> Result<i64, Malformed> {
    let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
    text.parse().map_err(|_| Malformed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_message_is_read_however_it_is_cut() {
        let bytes = b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\n42\r\n+OK\r\n";
        let whole = bytes.len() - 5;
        for cut in 0..whole {
            assert_eq!(read(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (reply, used) = read(bytes).unwrap().unwrap();
        assert_eq!((reply.message(b"ch"), used), (Some(&b"42"[..]), whole));
        assert_eq!(reply.message(b"other"), None);
        assert_eq!(
            read(&bytes[used..]),
            Ok(Some((Reply::Simple("OK".to_owned()), 5)))
        );
    }

    #[test]
    fn other_replies_are_known() {
        let one = |bytes: &[u8]| read(bytes).unwrap().unwrap().0;
        assert_eq!(one(b"-WRONGPASS no\r\n"), Reply::Error("WRONGPASS no".to_owned()));
        assert_eq!(one(b":-7\r\n"), Reply::Integer(-7));
        assert_eq!(one(b"$-1\r\n"), Reply::Bulk(None));
        assert!(one(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n").is_about("pong"));
    }

    #[test]
    fn what_is_too_long_too_deep_or_no_resp_is_refused() {
        let long = [b"+".as_slice(), &[b'x'; MAX_TEXT + 10]].concat();
        let deep = b"*1\r\n*1\r\n*1\r\n:1\r\n";
        for wrong in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b"*17\r\n",
            b"*-1\r\n",
            b"$5000\r\n",
            b"$-2\r\n",
            b":x\r\n",
            b"$1\r\nabc\r\n",
            b"*99999999999999999999\r\n",
            &long,
            deep,
        ] {
            assert_eq!(read(wrong), Err(Malformed), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_command_is_a_list_of_words() {
        assert_eq!(command(&[b"PING"]), b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(
            read(&command(&[b"message", b"ch", b"\r\n"]))
                .unwrap()
                .unwrap()
                .0
                .message(b"ch"),
            Some(&b"\r\n"[..])
        );
    }
}
