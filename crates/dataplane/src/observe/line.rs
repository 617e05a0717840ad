//! A line of the access log: what happened to one request, as JSON or in the combined log format.
//!
//! Written straight into the bytes that wait for the writer: no allocation, no intermediate text. Whatever came
//! from a network is escaped and cut, so that a line is one line, of at most [`MAX_LINE`] bytes, whatever a client
//! sends.

use std::net::{IpAddr, SocketAddr};

use http::{RequestId, TraceContext};
use model::config::LogFormat;
use model::reason::Reason;

use super::clock::WallClock;
use super::escape;
use crate::tls::TlsFacts;

/// No line is longer than this: the bounds below, all at once, with the names of all fields.
pub(super) const MAX_LINE: usize = 8 * 1024;

/// Bytes of a path with its query, as they are written.
const MAX_TARGET: usize = 2048;
/// Bytes of any other text of a client, as they are written.
const MAX_TEXT: usize = 512;

/// What a line tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// When the request's head was there, as Unix time in microseconds.
    pub(crate) unix_us: u64,
    pub(crate) id: &'a RequestId,
    pub(crate) trace: Option<TraceContext>,
    /// The client's address: behind trusted proxies the one they report.
    pub(crate) client: IpAddr,
    pub(crate) method: &'a [u8],
    pub(crate) host: &'a [u8],
    /// Path, with the query where that is wanted.
    pub(crate) target: &'a [u8],
    pub(crate) protocol: &'static str,
    pub(crate) user_agent: &'a [u8],
    pub(crate) referer: &'a [u8],
    /// 0: no response could be sent.
    pub(crate) status: u16,
    pub(crate) reason: Option<Reason>,
    pub(crate) load_balancer: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) route: Option<&'a str>,
    pub(crate) pool: Option<&'a str>,
    pub(crate) backend: Option<SocketAddr>,
    pub(crate) attempts: u8,
    /// Whether the last attempt used a kept connection.
    pub(crate) reused: bool,
    /// What became of its session, where the pool is sticky.
    pub(crate) session: Option<&'static str>,
    /// Place in the pool's queue, from 1, for a request that had to wait.
    pub(crate) queue_position: Option<u32>,
    pub(crate) wait_us: Option<u64>,
    pub(crate) connect_us: Option<u64>,
    /// From the last attempt's beginning to the head of its response.
    pub(crate) first_byte_us: Option<u64>,
    pub(crate) total_us: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) tls: Option<TlsLine<'a>>,
}

/// What a line tells of the client's TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TlsLine<'a> {
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    pub(crate) group: Option<&'static str>,
    pub(crate) resumed: bool,
    pub(crate) alpn: Option<&'static str>,
    pub(crate) sni: Option<&'a str>,
    pub(crate) client_subject: Option<&'a str>,
}

impl<'a> TlsLine<'a> {
    pub(super) fn of(facts: &'a TlsFacts) -> Self {
        Self {
            version: facts.version,
            cipher: facts.cipher,
            group: facts.group,
            resumed: facts.resumed,
            alpn: facts.alpn,
            sni: facts.sni.as_deref(),
            client_subject: facts.client_subject(),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        plain(out, b",\"tls_version\":\"", self.version.as_bytes());
        plain(out, b"\",\"tls_cipher\":\"", self.cipher.as_bytes());
        for (name, value) in [
            (&b"\",\"tls_group\":\""[..], self.group),
            (b"\",\"alpn\":\"", self.alpn),
        ] {
            if let Some(value) = value {
                plain(out, name, value.as_bytes());
            }
        }
        let resumed: &[u8] = match self.resumed {
            true => b"\",\"tls_resumed\":true",
            false => b"\",\"tls_resumed\":false",
        };
        out.extend_from_slice(resumed);
        for (name, value) in [
            (&b",\"sni\":\""[..], self.sni),
            (b",\"client_subject\":\"", self.client_subject),
        ] {
            if let Some(value) = value {
                text(out, name, value.as_bytes(), MAX_TEXT);
                out.push(b'"');
            }
        }
    }
}

impl Line<'_> {
    /// Writes the line with its end.
    pub(super) fn write(&self, out: &mut Vec<u8>, format: LogFormat, clock: &WallClock) {
        match format {
            LogFormat::Json => self.write_json(out, clock),
            LogFormat::Common => self.write_common(out, clock),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>, clock: &WallClock) {
        out.extend_from_slice(b"{\"time\":\"");
        clock.write_rfc3339(out, self.unix_us);
        plain(out, b"\",\"request_id\":\"", self.id.as_bytes());
        if let Some(trace) = &self.trace {
            let text = trace.text();
            plain(out, b"\",\"trace_id\":\"", text.get(3..35).unwrap_or_default());
        }
        out.extend_from_slice(b"\",\"client\":\"");
        address(out, self.client);
        text(out, b"\",\"method\":\"", self.method, MAX_TEXT);
        text(out, b"\",\"host\":\"", self.host, MAX_TEXT);
        text(out, b"\",\"path\":\"", self.target, MAX_TARGET);
        plain(out, b"\",\"protocol\":\"", self.protocol.as_bytes());
        number(out, b"\",\"status\":", u64::from(self.status));
        if let Some(reason) = self.reason {
            plain(out, b",\"reason\":\"", reason.code().as_bytes());
            out.push(b'"');
        }
        plain(out, b",\"load_balancer\":\"", self.load_balancer.as_bytes());
        plain(out, b"\",\"listener\":\"", self.listener.as_bytes());
        for (name, value) in [
            (&b"\",\"route\":\""[..], self.route),
            (b"\",\"pool\":\"", self.pool),
        ] {
            if let Some(value) = value {
                plain(out, name, value.as_bytes());
            }
        }
        if let Some(backend) = self.backend {
            out.extend_from_slice(b"\",\"backend\":\"");
            server(out, backend);
        }
        number(out, b"\",\"attempts\":", u64::from(self.attempts));
        if self.attempts > 0 {
            let reused: &[u8] = if self.reused {
                b",\"reused\":true"
            } else {
                b",\"reused\":false"
            };
            out.extend_from_slice(reused);
        }
        self.write_timers(out);
        number(out, b",\"received_bytes\":", self.received);
        number(out, b",\"sent_bytes\":", self.sent);
        if let Some(tls) = &self.tls {
            tls.write_json(out);
        }
        for (name, value) in [
            (&b",\"user_agent\":\""[..], self.user_agent),
            (b",\"referer\":\"", self.referer),
        ] {
            if !value.is_empty() {
                text(out, name, value, MAX_TEXT);
                out.push(b'"');
            }
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_timers(&self, out: &mut Vec<u8>) {
        if let Some(session) = self.session {
            out.extend_from_slice(b",\"session\":\"");
            out.extend_from_slice(session.as_bytes());
            out.push(b'"');
        }
        if let Some(position) = self.queue_position {
            number(out, b",\"queue_position\":", u64::from(position));
        }
        for (name, value) in [
            (&b",\"wait_ms\":"[..], self.wait_us),
            (b",\"connect_ms\":", self.connect_us),
            (b",\"first_byte_ms\":", self.first_byte_us),
            (b",\"total_ms\":", Some(self.total_us)),
        ] {
            if let Some(value) = value {
                out.extend_from_slice(name);
                escape::milliseconds(out, value);
            }
        }
    }

    fn write_common(&self, out: &mut Vec<u8>, clock: &WallClock) {
        address(out, self.client);
        out.extend_from_slice(b" - - [");
        clock.write_common(out, self.unix_us);
        out.extend_from_slice(b"] \"");
        escape::common(out, self.method, MAX_TEXT);
        out.push(b' ');
        escape::common(out, self.target, MAX_TARGET);
        plain(out, b" ", self.protocol.as_bytes());
        number(out, b"\" ", u64::from(self.status));
        number(out, b" ", self.sent);
        out.extend_from_slice(b" \"");
        escape::common(out, self.referer, MAX_TEXT);
        out.extend_from_slice(b"\" \"");
        escape::common(out, self.user_agent, MAX_TEXT);
        out.extend_from_slice(b"\"\n");
    }
}

/// A name and a value that needs no escape.
fn plain(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, name: &[u8], value: &[u8], most: usize) {
    out.extend_from_slice(name);
    escape::json(out, value, most);
}

fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    escape::decimal(out, value);
}

/// An address and port.
fn server(out: &mut Vec<u8>, server: SocketAddr) {
    if server.is_ipv6() {
        return escape::display(out, server);
    }
    address(out, server.ip());
    out.push(b':');
    escape::decimal(out, u64::from(server.port()));
}

/// An address, IPv4-mapped ones as IPv4.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            for (i, octet) in v4.octets().into_iter().enumerate() {
                if i > 0 {
                    out.push(b'.');
                }
                escape::decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(v6) => escape::display(out, v6),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn line(id: &RequestId) -> Line<'_> {
        Line {
            unix_us: 1_795_246_200_123_456,
            id,
            trace: None,
            client: "203.0.113.7".parse().unwrap(),
            method: b"GET",
            host: b"shop.example",
            target: b"/cart?id=7",
            protocol: "HTTP/1.1",
            user_agent: b"",
            referer: b"",
            status: 200,
            reason: None,
            load_balancer: "shop",
            listener: "http",
            route: Some("default"),
            pool: Some("web"),
            backend: Some("10.0.0.1:9001".parse().unwrap()),
            attempts: 1,
            reused: true,
            session: None,
            queue_position: None,
            wait_us: None,
            connect_us: None,
            first_byte_us: Some(1_500),
            total_us: 2_001,
            received: 80,
            sent: 1234,
            tls: None,
        }
    }

    fn written(line: &Line<'_>, format: LogFormat) -> String {
        let mut out = Vec::new();
        line.write(&mut out, format, &WallClock::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plain_request_is_one_object() {
        let id = RequestId::accept(b"abc").unwrap();
        assert_eq!(
            written(&line(&id), LogFormat::Json),
            "{\"time\":\"2026-11-21T07:30:00.123Z\",\"request_id\":\"abc\",\"client\":\"203.0.113.7\",\
             \"method\":\"GET\",\"host\":\"shop.example\",\"path\":\"/cart?id=7\",\"protocol\":\"HTTP/1.1\",\
             \"status\":200,\"load_balancer\":\"shop\",\"listener\":\"http\",\"route\":\"default\",\
             \"pool\":\"web\",\"backend\":\"10.0.0.1:9001\",\"attempts\":1,\"reused\":true,\
             \"first_byte_ms\":1.500,\"total_ms\":2.001,\"received_bytes\":80,\"sent_bytes\":1234}\n"
        );
    }

    #[test]
    fn the_common_format_is_the_combined_one() {
        let id = RequestId::accept(b"abc").unwrap();
        let line = Line {
            user_agent: b"curl/8 \"x\"",
            ..line(&id)
        };
        assert_eq!(
            written(&line, LogFormat::Common),
            "203.0.113.7 - - [21/Nov/2026:07:30:00 +0000] \"GET /cart?id=7 HTTP/1.1\" 200 1234 \"-\" \
             \"curl/8 \\x22x\\x22\"\n"
        );
    }

    #[test]
    fn what_is_known_of_tls_is_told() {
        let id = RequestId::accept(b"abc").unwrap();
        let full = TlsLine {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            group: Some("X25519MLKEM768"),
            resumed: false,
            alpn: Some("h2"),
            sni: Some("shop.example"),
            client_subject: Some("CN=alice"),
        };
        let bare = TlsLine {
            version: "TLSv1.2",
            group: None,
            resumed: true,
            alpn: None,
            sni: None,
            client_subject: None,
            ..full
        };
        let told = |tls| {
            let line = Line {
                tls: Some(tls),
                ..line(&id)
            };
            let written = written(&line, LogFormat::Json);
            serde_json::from_str::<serde_json::Value>(&written).unwrap();
            let at = written.find("\"tls_version\"").unwrap();
            written[at..].to_owned()
        };
        assert_eq!(
            told(full),
            "\"tls_version\":\"TLSv1.3\",\"tls_cipher\":\"TLS_AES_256_GCM_SHA384\",\
             \"tls_group\":\"X25519MLKEM768\",\"alpn\":\"h2\",\"tls_resumed\":false,\
             \"sni\":\"shop.example\",\"client_subject\":\"CN=alice\"}\n"
        );
        assert_eq!(
            told(bare),
            "\"tls_version\":\"TLSv1.2\",\"tls_cipher\":\"TLS_AES_256_GCM_SHA384\",\"tls_resumed\":true}\n"
        );
    }

    /// Everything there is, as long and as hostile as it gets: still one line, within the bound, and JSON.
    #[test]
    fn nothing_breaks_a_line_or_its_bound() {
        let id = RequestId::accept(&[b'x'; 128]).unwrap();
        let hostile: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let (name, subject) = ("n".repeat(63), "\\C3".repeat(400));
        let line = Line {
            trace: TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            client: "2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(),
            method: &hostile,
            host: &hostile,
            target: &hostile,
            user_agent: &hostile,
            referer: &hostile,
            status: 599,
            reason: Some(Reason::ResponseHeaderTooLarge),
            load_balancer: &name,
            listener: &name,
            route: Some(&name),
            pool: Some(&name),
            backend: Some("[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap()),
            attempts: 255,
            session: Some("rejected"),
            queue_position: Some(u32::MAX),
            wait_us: Some(u64::MAX),
            connect_us: Some(u64::MAX),
            first_byte_us: Some(u64::MAX),
            total_us: u64::MAX,
            received: u64::MAX,
            sent: u64::MAX,
            tls: Some(TlsLine {
                version: "TLSv1.3",
                cipher: "TLS_CHACHA20_POLY1305_SHA256",
                group: Some("X25519MLKEM768"),
                resumed: false,
                alpn: Some("http/1.1"),
                sni: Some("sni.example\"\n"),
                client_subject: Some(&subject),
            }),
            ..line(&id)
        };
        let json = written(&line, LogFormat::Json);
        assert!(json.len() < MAX_LINE, "{}", json.len());
        assert_eq!(json.matches('\n').count(), 1);
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(object["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(object["sni"], "sni.example\"\n");
        assert_eq!(
            object["backend"],
            "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"
        );
        assert_eq!(object["reason"], "response_header_too_large");
        let common = written(&line, LogFormat::Common);
        assert!(common.len() < MAX_LINE, "{}", common.len());
        assert_eq!(common.matches('\n').count(), 1);
        assert_eq!(common.matches('"').count(), 6);
    }
}
