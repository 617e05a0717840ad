//! HTTP/1 messages as they stand on the wire, read by the simplest code that can: no helper of the program under
//! test, so that both cannot err alike.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;

/// Why there is no (whole) message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other side closed before the first byte.
    Closed,
    /// The other side reset the connection before the first byte.
    Reset,
    /// It ended or was reset within the message; what there was of the body.
    Truncated(Vec<u8>),
    /// Nothing came for too long.
    Silent,
    /// Not HTTP.
    Malformed(String),
}

/// A request or a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// First line.
    pub(crate) line: String,
    /// Head as it came, without the empty line.
    pub(crate) head: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Heads of interim responses before this one.
    pub(crate) interim: Vec<String>,
}

impl Message {
    /// First value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().find(same).map(|(_, v)| v.as_str())
    }

    /// All values of a field.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, v)| v.as_str()).collect()
    }

    /// Status of a response.
    pub(crate) fn status(&self) -> u16 {
        let word = self.line.split(' ').nth(1);
        word.and_then(|s| s.parse().ok()).unwrap_or_default()
    }

    /// Method of a request.
    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// Target of a request.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// Reason code of a failure; empty where there is none.
    pub(crate) fn reason(&self) -> &str {
        self.field("x-evenkeel-reason").unwrap_or_default()
    }

    /// Whether the sender will close after this.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("close"))
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.field("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.field("content-length").and_then(|v| v.parse().ok())
    }
}

/// Where a body without any length ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoLength {
    /// At once: requests.
    Empty,
    /// With the connection: responses.
    UntilClose,
}

/// Reads messages off a connection.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Raw bytes, at most so many; none at the end.
    pub(crate) fn some(&mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            let mut bytes = vec![0; most];
            let n = self.stream.read(&mut bytes)?;
            bytes.truncate(n);
            return Ok(bytes);
        }
        let most = most.min(self.buffer.len());
        Ok(self.buffer.drain(..most).collect())
    }

    /// Head of the next message.
    pub(crate) fn head(&mut self) -> Result<Message, Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).take(end).collect();
        parse_head(&head)
    }

    /// Body of the message with this head.
    pub(crate) fn body(&mut self, message: &mut Message, without_length: NoLength) -> Result<(), Broken> {
        if message.is_chunked() {
            return self.chunks(message);
        }
        match message.length() {
            Some(length) => self.exactly(length, &mut message.body),
            None if without_length == NoLength::Empty => Ok(()),
            None => self.until_close(message),
        }
    }

    fn chunks(&mut self, message: &mut Message) -> Result<(), Broken> {
        loop {
            let line = self.line(&message.body)?;
            let size = usize::from_str_radix(&line, 16)
                .map_err(|_| Broken::Malformed(format!("chunk size {line:?}")))?;
            if size == 0 {
                break;
            }
            self.exactly(size, &mut message.body)?;
            if !self.line(&message.body)?.is_empty() {
                return Err(Broken::Malformed("no CRLF after a chunk".to_owned()));
            }
        }
        loop {
            let line = self.line(&message.body)?;
            match line.split_once(':') {
                None if line.is_empty() => return Ok(()),
                None => return Err(Broken::Malformed(format!("trailer {line:?}"))),
                Some((name, value)) => message.trailers.push((name.to_owned(), value.trim().to_owned())),
            }
        }
    }

    /// A line without its CRLF. `before`: what there is of the body, in case it ends here.
    fn line(&mut self, before: &[u8]) -> Result<String, Broken> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            self.fill().map_err(|broken| within(broken, before))?;
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
        String::from_utf8(line).map_err(|_| Broken::Malformed("a line is not text".to_owned()))
    }

    fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> Result<(), Broken> {
        let mut left = length;
        loop {
            let take = left.min(self.buffer.len());
            into.extend(self.buffer.drain(..take));
            left -= take;
            if left == 0 {
                return Ok(());
            }
            self.fill().map_err(|broken| within(broken, into))?;
        }
    }

    fn until_close(&mut self, message: &mut Message) -> Result<(), Broken> {
        loop {
            message.body.append(&mut self.buffer);
            match self.fill() {
                Ok(()) => {}
                Err(Broken::Closed) => return Ok(()),
                Err(broken) => return Err(within(broken, &message.body)),
            }
        }
    }

    fn fill(&mut self) -> Result<(), Broken> {
        let started = !self.buffer.is_empty();
        let mut bytes = [0; 65536];
        let end = match self.stream.read(&mut bytes) {
            Ok(n) if n > 0 => {
                self.buffer.extend_from_slice(&bytes[..n]);
                return Ok(());
            }
            Ok(_) => Broken::Closed,
            Err(error) => of_error(&error),
        };
        let lost = started && matches!(end, Broken::Closed | Broken::Reset);
        Err(if lost { Broken::Truncated(Vec::new()) } else { end })
    }
}

/// The connection ended after a part of the body.
fn within(broken: Broken, body: &[u8]) -> Broken {
    match broken {
        Broken::Closed | Broken::Reset | Broken::Truncated(_) => Broken::Truncated(body.to_owned()),
        other => other,
    }
}

pub(crate) fn of_error(error: &io::Error) -> Broken {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Broken::Silent,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Broken::Reset,
        _ => Broken::Malformed(error.to_string()),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Message, Broken> {
    let head = String::from_utf8_lossy(bytes).into_owned();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let mut fields = Vec::new();
    for field in lines {
        let Some((name, value)) = field.split_once(':') else {
            return Err(Broken::Malformed(format!("field {field:?}")));
        };
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Message {
        line,
        head,
        fields,
        ..Message::default()
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}
