//! What is known about a TLS connection of a client, for logs and for backends.

use http::{FieldKind, FieldList, RequestHead};
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};
use tls::ClientIdentity;

/// Facts of a TLS connection, from the end of its handshake on.
#[derive(Debug)]
pub(crate) struct TlsFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Name of the cipher suite.
    pub(crate) cipher: &'static str,
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
            cipher: suite.and_then(|s| s.suite().as_str()).unwrap_or_default(),
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
