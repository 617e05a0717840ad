//! Why a handshake failed: one of a few kinds, for counting, and in words, for people.

use std::io;

use rustls::{AlertDescription, CertificateError, PeerIncompatible};

/// The kinds of failure; their names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It took too long.
    Timeout,
    /// The other side closed or reset the connection.
    Closed,
    /// The other side spoke HTTP without TLS.
    PlainHttp,
    /// What came is not TLS.
    NotTls,
    /// No version in common.
    Version,
    /// No cipher, group or signature scheme in common.
    NoCommonAlgorithm,
    /// No application protocol in common (ALPN).
    Alpn,
    /// The other side showed no certificate, or we have none to show.
    NoCertificate,
    /// Issued by nobody we trust.
    UnknownIssuer,
    /// For another name.
    NameMismatch,
    /// Out of date.
    Expired,
    /// Not valid yet.
    NotYetValid,
    /// Revoked.
    Revoked,
    /// Wrong in another way.
    BadCertificate,
    /// The other side ended it with an alert.
    Alert,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Timeout,
        Self::Closed,
        Self::PlainHttp,
        Self::NotTls,
        Self::Version,
        Self::NoCommonAlgorithm,
        Self::Alpn,
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::NameMismatch,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::BadCertificate,
        Self::Alert,
        Self::Other,
    ];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::NoCommonAlgorithm => "no_common_algorithm",
            Self::Alpn => "alpn",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::NameMismatch => "name_mismatch",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::BadCertificate => "bad_certificate",
            Self::Alert => "alert",
            Self::Other => "other",
        }
    }
}

/// A handshake that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind.
    pub kind: FailureKind,
    /// In words.
    pub words: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: FailureKind, words: impl Into<String>) -> Self {
        Self {
            kind,
            words: words.into(),
        }
    }

    /// What an error of a handshake means.
    pub fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match inner {
            Some(error) => of_tls(error),
            None => Self::new(FailureKind::Closed, format!("the connection ended: {error}")),
        }
    }
}

fn of_tls(error: &rustls::Error) -> Failure {
    use rustls::Error as E;
    let kind = match error {
        E::InvalidCertificate(error) => return of_certificate(error),
        E::InvalidCertRevocationList(_) => FailureKind::BadCertificate,
        E::NoCertificatesPresented => FailureKind::NoCertificate,
        E::AlertReceived(alert) => {
            let words = format!("the other side ended it: {}", alert_words(*alert));
            return Failure::new(FailureKind::Alert, words);
        }
        E::InvalidMessage(_) | E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
            FailureKind::NotTls
        }
        E::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
        | E::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
        | E::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)
        | E::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
        | E::PeerIncompatible(PeerIncompatible::SupportedVersionsExtensionRequired)
        | E::PeerIncompatible(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig)
        // What clients before 1.2 do not send is looked for before their version is.
        | E::PeerIncompatible(PeerIncompatible::SignatureAlgorithmsExtensionRequired) => FailureKind::Version,
        E::PeerIncompatible(_) => FailureKind::NoCommonAlgorithm,
        E::NoApplicationProtocol => FailureKind::Alpn,
        // Raised when the resolver has nothing to show.
        E::General(text) if text.contains("certificate") => FailureKind::NoCertificate,
        _ => FailureKind::Other,
    };
    Failure::new(kind, error.to_string())
}

/// A common one: `openssl req -x509` makes such certificates when nothing else is said.
const AUTHORITY: &str = "its certificate is one of an authority (CA:TRUE), which is not taken from a server: make it one \
                         without, for example with `-addext basicConstraints=critical,CA:FALSE` of `openssl req -x509`";

fn of_certificate(error: &CertificateError) -> Failure {
    use CertificateError as C;
    let kind = match error {
        C::UnknownIssuer => FailureKind::UnknownIssuer,
        C::Expired | C::ExpiredContext { .. } => FailureKind::Expired,
        C::NotValidYet | C::NotValidYetContext { .. } => FailureKind::NotYetValid,
        C::Revoked => FailureKind::Revoked,
        C::NotValidForName | C::NotValidForNameContext { .. } => FailureKind::NameMismatch,
        _ => FailureKind::BadCertificate,
    };
    let words = match kind {
        _ if format!("{error:?}").contains("CaUsedAsEndEntity") => AUTHORITY.to_owned(),
        FailureKind::UnknownIssuer => "its certificate was issued by nobody who is trusted".to_owned(),
        FailureKind::Revoked => "its certificate is revoked".to_owned(),
        _ => format!("its certificate: {error}"),
    };
    Failure::new(kind, words)
}

fn alert_words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::CertificateUnknown => {
            "it does not trust our certificate".to_owned()
        }
        AlertDescription::BadCertificate => "it takes our certificate for a bad one".to_owned(),
        AlertDescription::CertificateRequired => "it wants a certificate of ours".to_owned(),
        AlertDescription::ProtocolVersion => "no version of TLS in common".to_owned(),
        AlertDescription::HandshakeFailure => "nothing in common that is safe enough".to_owned(),
        AlertDescription::UnrecognisedName => "it does not know the name it is asked for".to_owned(),
        other => format!("alert {other:?}"),
    }
}
