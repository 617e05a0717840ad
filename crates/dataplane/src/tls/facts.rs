//! What is known about a TLS connection of a client, for logs and for backends.

use http::{FieldKind, FieldList, RequestHead};
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion, ServerConnection};
use tls::ClientIdentity;

/// Facts of a TLS connection, from the end of its handshake on.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Name of the cipher suite, as IANA registers it.
    pub(crate) cipher: &'static str,
    /// Name of the group that the key was agreed in; `None` where a session was resumed without a new agreement.
    pub(crate) group: Option<&'static str>,
    /// The protocol chosen by ALPN.
    pub(crate) alpn: Option<&'static str>,
    /// The name asked for, in lower case.
    pub(crate) sni: Option<Box<str>>,
    /// Whether it is an authority that has seen what it asked for, and not a client (RFC 8737).
    pub(crate) is_challenge: bool,
    /// Whether a session was resumed.
    pub(crate) resumed: bool,
    /// Whether the listener asks for client certificates.
    asks: bool,
    /// What the client has shown, verified.
    client: Option<Box<ClientIdentity>>,
}

impl TlsFacts {
    /// Reads them from a connection whose handshake is done.
    pub(crate) fn of(connection: &ServerConnection, asks: bool) -> Self {
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let suite = connection.negotiated_cipher_suite();
        Self {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher: suite.map(|s| cipher_name(s.suite())).unwrap_or_default(),
            group: connection
                .negotiated_key_exchange_group()
                .and_then(|group| group.name().as_str()),
            alpn: connection.alpn_protocol().and_then(alpn_name),
            sni: connection
                .server_name()
                .map(|name| name.to_ascii_lowercase().into()),
            is_challenge: connection.alpn_protocol() == Some(tls::ACME_TLS),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            asks,
            client: certificate.map(|certificate| Box::new(ClientIdentity::of(certificate))),
        }
    }

    pub(crate) fn is_1_3(&self) -> bool {
        self.version == "TLSv1.3"
    }

    /// Distinguished name of the client's certificate, when it has shown one.
    pub(crate) fn client_subject(&self) -> Option<&str> {
        self.client.as_ref().map(|client| client.subject.as_str())
    }

    /// Tells the backend who the client is: fields of ours in the place of any that came.
    pub(crate) fn write_identity(&self, head: &mut RequestHead, bytes: &[u8], extra: &mut FieldList) {
        if !self.asks {
            return;
        }
        for field in &mut head.fields {
            let name = field.name.of(bytes);
            if field.kind == FieldKind::Identity && begins_client_cert(name) {
                field.kind = FieldKind::Dropped;
            }
        }
        let Some(client) = &self.client else {
            extra.push(b"X-Client-Cert-Verified", b"NONE");
            return;
        };
        extra.push(b"Client-Cert", client.certificate.as_bytes());
        extra.push(b"X-Client-Cert-Verified", b"SUCCESS");
        extra.push(b"X-Client-Cert-Fingerprint", client.fingerprint.as_bytes());
        extra.push(b"X-Client-Cert-Subject", client.subject.as_bytes());
    }
}

/// The registered name: `rustls` calls those of 1.3 by names of its own.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or_default(),
    }
}

/// One of those that a listener offers.
fn alpn_name(chosen: &[u8]) -> Option<&'static str> {
    ["h2", "http/1.1"]
        .into_iter()
        .find(|name| name.as_bytes() == chosen)
}

/// `Client-Cert…`, `X-Client-Cert…`, `SSL-Client…` and `X-SSL-Client…`: what peers and frameworks read.
fn begins_client_cert(name: &[u8]) -> bool {
    let bare = match name.get(..2) {
        Some(x) if x.eq_ignore_ascii_case(b"x-") => name.get(2..).unwrap_or_default(),
        _ => name,
    };
    let begins = |with: &[u8]| {
        bare.get(..with.len())
            .is_some_and(|b| b.eq_ignore_ascii_case(with))
    };
    begins(b"client-cert") || begins(b"ssl-client")
}
