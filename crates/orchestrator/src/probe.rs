//! One check of one backend: connect, ask, judge, close.
//!
//! Every check opens its own connection and closes it, because a kept one would not notice that nothing new can
//! connect. The check's timeout covers all of it. A response is read to its end or to [`BODY_LIMIT`], whichever
//! comes first: a backend that stalls within the body of its health page is not well, and closing on unread bytes
//! would look like a failure of ours in the backend's log. An unexpected status ends the check at once.

mod http2;
mod tls;

use std::io;
use std::net::SocketAddr;

use http::chunked::{ChunkDecoder, ChunkEvent};
use http::{Framing, Method, Parsed, ResponseHead};
use memchr::memmem;
use model::config::{CheckKind, HealthCheck, HttpCheck};
use model::reason::Reason;
use model::units::format_duration;
use reconcile::health::ProbeResult;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use self::tls::Clients;

/// Bytes of a body that are looked at; the rest is not read.
const BODY_LIMIT: usize = 64 * 1024;
/// Bytes asked for in one read.
const READ_SIZE: usize = 8 * 1024;
/// Characters of the expected text that a reason repeats.
const QUOTE_LIMIT: usize = 64;

/// How a check names itself.
const USER_AGENT: &str = concat!("evenkeel-health/", env!("CARGO_PKG_VERSION"));

const CONNECTION_REFUSED: &str = "connection refused";
const CLOSED_BEFORE_RESPONSE: &str = "closed before a response";

/// `EMFILE` and `ENFILE`, the same on Linux, macOS and the BSDs: no file descriptor left in the process, or in
/// the system. `std::io::ErrorKind` has no name for them.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

/// Checks `backend` once. Ends within the check's timeout.
pub(crate) async fn probe(backend: SocketAddr, check: &HealthCheck, clients: &Clients) -> ProbeResult {
    let mut address = backend;
    if let Some(port) = check.port {
        address.set_port(port);
    }
    match tokio::time::timeout(check.timeout, attempt(address, check, clients)).await {
        Ok(Ok(reason)) => ProbeResult::Success(reason),
        Ok(Err(Failed::Backend(reason))) => ProbeResult::Failure(reason),
        Ok(Err(Failed::Here(reason))) => ProbeResult::Inconclusive(reason),
        Err(_) => ProbeResult::Failure(format!("timeout after {}", format_duration(check.timeout))),
    }
}

/// Whose fault a failed check is, and why in words.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    Backend(String),
    Here(String),
}

impl Failed {
    fn backend(reason: &str) -> Self {
        Self::Backend(reason.to_owned())
    }
}

async fn attempt(address: SocketAddr, check: &HealthCheck, clients: &Clients) -> Result<String, Failed> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| connect_failed(&e))?;
    // Connecting to a closed local port can pick that very port as its source and so meet itself.
    if stream.local_addr().is_ok_and(|local| local == address) {
        return Err(Failed::backend(CONNECTION_REFUSED));
    }
    match &check.tls {
        None => ask(stream, "http", address, &check.kind).await,
        Some(tls) => {
            let stream = clients.connect(stream, address, check, tls).await?;
            ask(stream, "https", address, &check.kind).await
        }
    }
}

async fn ask<S>(stream: S, scheme: &str, address: SocketAddr, kind: &CheckKind) -> Result<String, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match kind {
        CheckKind::Tcp => Ok("connected".to_owned()),
        CheckKind::Http(check) if check.http2 => http2::ask(stream, scheme, address, check).await,
        CheckKind::Http(check) => Exchange::new(stream).run(address, check).await,
        CheckKind::Grpc(check) => http2::call(stream, scheme, address, check).await,
    }
}

fn connect_failed(error: &io::Error) -> Failed {
    let ours = matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
    ) || error
        .raw_os_error()
        .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code));
    if ours {
        return Failed::Here(format!("cannot connect from here: {error}"));
    }
    Failed::Backend(match error.kind() {
        io::ErrorKind::ConnectionRefused => CONNECTION_REFUSED.to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connect timed out".to_owned(),
        _ => format!("connect failed: {error}"),
    })
}

fn expect_status(check: &HttpCheck, status: u16) -> Result<(), Failed> {
    let mut expected = check.expected_status.iter();
    if expected.any(|(low, high)| (*low..=*high).contains(&status)) {
        Ok(())
    } else {
        Err(Failed::Backend(format!("status {status}")))
    }
}

/// One request and its response on one connection.
struct Exchange<S> {
    stream: S,
    /// Bytes read and not yet used.
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    async fn run(mut self, address: SocketAddr, check: &HttpCheck) -> Result<String, Failed> {
        // A backend that closes at once shows as an end, a reset or a broken pipe, as chance has it: one reason.
        self.stream
            .write_all(&request(address, check))
            .await
            .map_err(|_| Failed::backend(CLOSED_BEFORE_RESPONSE))?;
        let head = self.head(Method::of(check.method.as_bytes())).await?;
        expect_status(check, head.status)?;
        let wanted = check.body_contains.as_deref().unwrap_or_default();
        let found = self.body_contains(head.framing, wanted.as_bytes()).await?;
        if !found && !wanted.is_empty() {
            return Err(Failed::Backend(format!("body lacks {}", quoted(wanted))));
        }
        Ok(format!("status {}", head.status))
    }

    /// Reads the head of the final response; the buffer then starts at the body.
    async fn head(&mut self, method: Method) -> Result<ResponseHead, Failed> {
        let mut head = ResponseHead::new();
        loop {
            match head.parse(&self.buffer, method) {
                Ok(Parsed::Complete) => {
                    self.buffer.drain(..head.head_len.min(self.buffer.len()));
                    // 101 ends HTTP on this connection; other 1xx announce the response to come.
                    if head.status >= 200 || head.status == 101 {
                        return Ok(head);
                    }
                    head.reset();
                }
                Ok(Parsed::Incomplete) => {
                    if !self.read().await.unwrap_or(false) {
                        return Err(Failed::backend(CLOSED_BEFORE_RESPONSE));
                    }
                }
                Err(Reason::ResponseHeaderTooLarge) => {
                    return Err(Failed::backend("response header too large"));
                }
                Err(_) => return Err(Failed::backend("malformed response")),
            }
        }
    }

    /// Reads the body to its end or to [`BODY_LIMIT`], or until `wanted` has been seen.
    async fn body_contains(&mut self, framing: Framing, wanted: &[u8]) -> Result<bool, Failed> {
        let mut body = Body::new(framing);
        let mut searched = 0;
        loop {
            let used = body.take(&self.buffer).map_err(Failed::backend)?;
            self.buffer.drain(..used);
            let from = searched.min(body.bytes.len());
            if !wanted.is_empty() && memmem::find(&body.bytes[from..], wanted).is_some() {
                return Ok(true);
            }
            searched = body.bytes.len().saturating_sub(wanted.len());
            if body.complete || body.bytes.len() >= BODY_LIMIT {
                return Ok(false);
            }
            match self.read().await {
                Ok(true) => {}
                Ok(false) if framing == Framing::UntilClose => return Ok(false),
                Ok(false) => return Err(Failed::backend("closed within the body")),
                Err(_) => return Err(Failed::backend("connection reset within the body")),
            }
        }
    }

    /// Reads more into the buffer; false at the end.
    async fn read(&mut self) -> io::Result<bool> {
        self.buffer.reserve(READ_SIZE);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }
}

/// The part of a body that is kept, decoded.
struct Body {
    framing: Framing,
    decoder: ChunkDecoder,
    /// At most [`BODY_LIMIT`] of them.
    bytes: Vec<u8>,
    complete: bool,
}

impl Body {
    fn new(framing: Framing) -> Self {
        Self {
            framing,
            decoder: ChunkDecoder::new(),
            bytes: Vec::new(),
            complete: matches!(framing, Framing::None | Framing::Length(0)),
        }
    }

    /// Decodes what it can of `input` and says how much that was.
    fn take(&mut self, input: &[u8]) -> Result<usize, &'static str> {
        match self.framing {
            Framing::None => Ok(0),
            Framing::Length(length) => {
                let left = length.saturating_sub(self.bytes.len() as u64);
                let part = &input[..usize::try_from(left).unwrap_or(usize::MAX).min(input.len())];
                self.keep(part);
                self.complete = self.bytes.len() as u64 >= length;
                Ok(part.len())
            }
            Framing::Chunked => self.take_chunks(input),
            Framing::UntilClose => {
                self.keep(input);
                Ok(input.len())
            }
        }
    }

    fn take_chunks(&mut self, input: &[u8]) -> Result<usize, &'static str> {
        let mut used = 0;
        while !self.complete && self.bytes.len() < BODY_LIMIT {
            let rest = input.get(used..).unwrap_or_default();
            let (consumed, event) = self.decoder.next(rest).map_err(|_| "malformed response")?;
            used += consumed;
            match event {
                ChunkEvent::NeedMore => break,
                ChunkEvent::Data(range) => self.keep(rest.get(range).unwrap_or_default()),
                ChunkEvent::End => self.complete = true,
            }
        }
        Ok(used.min(input.len()))
    }

    fn keep(&mut self, part: &[u8]) {
        let room = BODY_LIMIT - self.bytes.len();
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
}

fn request(address: SocketAddr, check: &HttpCheck) -> Vec<u8> {
    let mut names = check.headers.iter().map(|(name, _)| name);
    let names_agent = names.any(|name| name.eq_ignore_ascii_case("user-agent"));
    let mut text = format!("{} {} HTTP/1.1\r\n", check.method, check.path);
    let mut field = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    };
    match &check.host {
        Some(host) => field("Host", host),
        None => field("Host", &address.to_string()),
    }
    if !names_agent {
        field("User-Agent", USER_AGENT);
    }
    for (name, value) in &check.headers {
        field(name, value);
    }
    if check.method == "POST" {
        field("Content-Length", "0");
    }
    field("Connection", "close");
    text.push_str("\r\n");
    text.into_bytes()
}

/// `text` in quotes, escaped, shortened to [`QUOTE_LIMIT`].
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_LIMIT) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(error: &io::Error) -> (bool, String) {
        match connect_failed(error) {
            Failed::Backend(reason) => (true, reason),
            Failed::Here(reason) => (false, reason),
        }
    }

    /// What an unreachable backend is called; a sandbox has no such routes to try, so the kernel's errors stand in.
    #[test]
    fn network_errors_are_the_backends_and_have_plain_words() {
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "connection refused"),
            (io::ErrorKind::HostUnreachable, "no route to host"),
            (io::ErrorKind::NetworkUnreachable, "network unreachable"),
            (io::ErrorKind::ConnectionReset, "connection reset"),
            (io::ErrorKind::TimedOut, "connect timed out"),
        ] {
            assert_eq!(failed(&kind.into()), (true, words.to_owned()));
        }
    }

    /// When this process has no descriptor or local port left, no backend is to blame.
    #[test]
    fn a_lack_on_this_side_is_not_the_backends_fault() {
        for code in OUT_OF_DESCRIPTORS {
            let (backend, reason) = failed(&io::Error::from_raw_os_error(code));
            assert!(!backend, "{reason}");
            assert!(reason.contains("Too many open files"), "{reason}");
        }
        assert!(!failed(&io::ErrorKind::AddrNotAvailable.into()).0);
    }

    #[test]
    fn a_long_text_is_quoted_in_part() {
        assert_eq!(quoted("ok"), "\"ok\"");
        let long = "ä".repeat(QUOTE_LIMIT + 1);
        assert_eq!(quoted(&long), format!("\"{}\"…", "ä".repeat(QUOTE_LIMIT)));
    }
}
