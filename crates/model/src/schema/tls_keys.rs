//! The keys of TLS, towards clients and towards backends.

use super::Default::{Is, Means, Required};
use super::Kind::{Bool, List, OneOf, Text};
use super::keys::key;
use super::{Form, Key, Kind, Rule, Table};

const VERSIONS: &[&str] = &["1.2", "1.3"];

pub(crate) static LISTENER_TLS: Table = Table {
    id: "listener_tls",
    heading: "tls of a listener",
    about: "TLS towards clients, with `protocol = \"https\"`. Relative paths start from where the process was started. Files that change are read again within seconds; what cannot be used is left, and the one before stays.",
    keys: &[&[
        key(
            "certificates",
            List {
                of: &Kind::Table(&CERTIFICATE),
                min: 1,
            },
            Means("that of `acme`"),
            "What it can show. The name that a client asks for (SNI) decides: the same name first, then a wildcard, then the first of the list. Of several for one name, one that the client can verify is shown, ECDSA before RSA.",
        ),
        key(
            "acme",
            Kind::Table(&ACME),
            Means("no certificate is ordered"),
            "A certificate that is ordered from an authority, kept in the data directory and renewed in time; it comes after those of `certificates`.",
        ),
        key(
            "min_version",
            OneOf(VERSIONS),
            Is("\"1.2\""),
            "Least version of TLS.",
        ),
        key(
            "client_certificates",
            Kind::Table(&CLIENT_CERTIFICATES),
            Means("none are asked for"),
            "Certificates that clients show.",
        ),
    ]],
    rules: &[&[Rule::OneOf("certificates", "acme")]],
};

pub(crate) static ACME: Table = Table {
    id: "acme",
    heading: "acme of tls of a listener",
    about: "A certificate by ACME (RFC 8555), from Let's Encrypt or any other authority that speaks it. Whoever writes this agrees to the authority's terms of service.",
    keys: &[&[
        key(
            "domains",
            List {
                of: &Text(Form::Domain),
                min: 1,
            },
            Required,
            "Names that the certificate is for. The authority must reach this load balancer under each of them.",
        ),
        key(
            "email",
            Text(Form::Words),
            Means("none"),
            "Whom the authority writes to.",
        ),
        key(
            "directory",
            Text(Form::DirectoryUrl),
            Is("\"https://acme-v02.api.letsencrypt.org/directory\""),
            "The authority's directory.",
        ),
        key(
            "directory_ca",
            Text(Form::File),
            Means("those that the system trusts"),
            "File with certificates (PEM) to verify the directory with.",
        ),
        key(
            "challenge",
            OneOf(&["tls-alpn-01", "http-01"]),
            Is("\"tls-alpn-01\""),
            "How control of the names is shown: over TLS to port 443, or over plain HTTP to port 80. Any listener of this process answers.",
        ),
    ]],
    rules: &[],
};

/// A certificate and its key, from files or in place.
const KEY_PAIR: &[Key] = &[
    key(
        "cert",
        Text(Form::File),
        Required,
        "File with the certificate, then those that lead to its root; PEM.",
    ),
    key(
        "cert_pem",
        Text(Form::Pem),
        Means("`cert`"),
        "The same, right here.",
    ),
    key(
        "key",
        Text(Form::File),
        Required,
        "File with its private key, not encrypted; PEM.",
    ),
    key(
        "key_pem",
        Text(Form::Pem),
        Means("`key`"),
        "The same, right here. It is never shown.",
    ),
];

const KEY_PAIR_RULES: &[Rule] = &[
    Rule::OneOf("cert", "cert_pem"),
    Rule::OneOf("key", "key_pem"),
    Rule::NotTogether {
        key: "cert_pem",
        other: "cert",
        instead: "keep one of them",
    },
    Rule::NotTogether {
        key: "key_pem",
        other: "key",
        instead: "keep one of them",
    },
];

pub(crate) static CERTIFICATE: Table = Table {
    id: "certificate",
    heading: "an entry of certificates",
    about: "A certificate of a listener with its key.",
    keys: &[
        KEY_PAIR,
        &[key(
            "ocsp",
            Text(Form::File),
            Means("none"),
            "File with an OCSP response in DER, sent along with the certificate.",
        )],
    ],
    rules: &[KEY_PAIR_RULES],
};

pub(crate) static CLIENT_CERTIFICATES: Table = Table {
    id: "client_certificates",
    heading: "client_certificates of a listener",
    about: "Certificates that clients show. Backends are told in `Client-Cert` (RFC 9440) and `X-Client-Cert-*`, which clients cannot forge.",
    keys: &[&[
        key(
            "mode",
            OneOf(&["require", "optional"]),
            Is("\"require\""),
            "Whether every client must have one. A wrong one ends the handshake in either case.",
        ),
        key(
            "ca",
            Text(Form::File),
            Required,
            "File with the authorities that may have issued them; PEM.",
        ),
        key("ca_pem", Text(Form::Pem), Means("`ca`"), "The same, right here."),
        key(
            "crl",
            Text(Form::File),
            Means("none"),
            "File with lists of revoked certificates, one for each issuer; PEM. An issuer without a list revokes nothing.",
        ),
    ]],
    rules: &[&[
        Rule::OneOf("ca", "ca_pem"),
        Rule::NotTogether {
            key: "ca_pem",
            other: "ca",
            instead: "keep one of them",
        },
    ]],
};

pub(crate) static BACKEND_TLS: Table = Table {
    id: "backend_tls",
    heading: "tls of a pool",
    about: "TLS towards the backends. `tls = true` is short for a table with all defaults. Certificate and name are verified.",
    keys: &[&[
        key(
            "ca",
            Text(Form::File),
            Means("those that the system trusts"),
            "File with the authorities that may have issued the backends' certificates; PEM.",
        ),
        key("ca_pem", Text(Form::Pem), Means("`ca`"), "The same, right here."),
        key(
            "server_name",
            Text(Form::Host),
            Means("the backend's IP address"),
            "The name that is asked for (SNI) and must be in the certificate.",
        ),
        key(
            "client_certificate",
            Kind::Table(&CLIENT_CERTIFICATE),
            Means("none"),
            "What the backends are shown.",
        ),
        key(
            "min_version",
            OneOf(VERSIONS),
            Is("\"1.2\""),
            "Least version of TLS.",
        ),
        key(
            "insecure",
            Bool,
            Is("false"),
            "`true`: any certificate is taken, so that whoever is on the way can read and change everything. Warned of wherever the pool is shown.",
        ),
    ]],
    rules: &[&[Rule::NotTogether {
        key: "ca_pem",
        other: "ca",
        instead: "keep one of them",
    }]],
};

pub(crate) static CLIENT_CERTIFICATE: Table = Table {
    id: "client_certificate",
    heading: "client_certificate of a pool",
    about: "The certificate that backends are shown, with its key.",
    keys: &[KEY_PAIR],
    rules: &[KEY_PAIR_RULES],
};
