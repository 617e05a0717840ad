//! The keys of the config, declared once: the parser knows its keys, types and ranges from here, the JSON Schema
//! and the tables of `docs/config.md` are written from here, so that the three cannot drift apart.

mod action_keys;
mod admin_keys;
mod alert_keys;
mod backend_http2_keys;
mod http2_keys;
mod json;
mod keys;
mod limit_keys;
mod markdown;
mod membership_keys;
mod observe_keys;
mod overload_keys;
mod pool_keys;
mod route_keys;
mod sticky_keys;
mod store_keys;
mod tls_keys;

pub(crate) use action_keys::{
    BUFFER_REQUESTS, BUFFER_RESPONSES, COMPRESSION, HEADER_RULES, MIRROR, REDIRECT, RESPOND, REWRITE,
};
pub(crate) use admin_keys::{ADMIN, ADMIN_CERTIFICATE, ADMIN_TLS, ADMIN_TOKEN};
pub(crate) use alert_keys::{ALERTMANAGER, ALERTS, WEBHOOK};
pub(crate) use backend_http2_keys::BACKEND_HTTP2;
pub(crate) use http2_keys::HTTP2;
pub use json::json_schema;
pub(crate) use keys::{LIMITS, LISTENER, LISTENER_TIMEOUTS, LOAD_BALANCER, NODE, ROOT};
pub(crate) use limit_keys::{RATE_LIMIT, ROUTE_TIMEOUTS};
pub use markdown::{key_tables, rewrite};
pub(crate) use membership_keys::{DISCOVERY, DNS, HEARTBEAT, REGISTRATION};
pub(crate) use observe_keys::{ACCESS_LOG, RECORDER, REQUEST_ID, TRACING};
pub(crate) use pool_keys::{
    BACKEND, CONNECTIONS, HASH, HEALTH, HTTP_CHECK_KEYS, PASSIVE, POOL, POOL_TIMEOUTS, RETRIES,
};
pub(crate) use route_keys::{MATCH, PATTERN, ROUTE, SPLIT};

pub(crate) use overload_keys::{CIRCUIT_BREAKER, QUEUE};
pub(crate) use sticky_keys::STICKY;
use store_keys::{NOTIFY, STORE};
pub(crate) use tls_keys::{
    ACME, BACKEND_TLS, CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_CERTIFICATES, LISTENER_TLS,
};

use crate::config::MAX_WEIGHT;
use crate::units;

/// A table of the config: which keys it has and which go together.
#[derive(Debug)]
pub(crate) struct Table {
    /// Name in the schema's `$defs`.
    pub(crate) id: &'static str,
    /// Heading in the documentation, as it stands in TOML.
    pub(crate) heading: &'static str,
    /// What it is for, in a sentence.
    pub(crate) about: &'static str,
    /// Its keys, in groups that tables share.
    pub(crate) keys: &'static [&'static [Key]],
    /// What must hold between keys, in groups that tables share.
    pub(crate) rules: &'static [&'static [Rule]],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: Default,
    /// What it means: one or two sentences.
    pub(crate) about: &'static str,
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    /// This value, as TOML.
    Is(&'static str),
    /// In words.
    Means(&'static str),
    /// It must be given.
    Required,
}

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    Text(Form),
    /// In milliseconds, both ends included; `or_zero` takes 0 too, below the range.
    Duration {
        min: u64,
        max: u64,
        or_zero: bool,
    },
    /// In bytes, both ends included.
    Size {
        min: u64,
        max: u64,
    },
    /// Both ends included.
    Percent {
        min: u16,
        max: u16,
    },
    /// Both ends included.
    Integer {
        min: u64,
        max: u64,
    },
    /// `true` or `false`.
    Bool,
    OneOf(&'static [&'static str]),
    Table(&'static Table),
    TableOrFalse(&'static Table),
    /// At least `min` items.
    List {
        of: &'static Self,
        min: usize,
    },
    /// One item, or a list of at least one.
    OneOrList(&'static Self),
    Either(&'static [Self]),
    /// Tables by name, at least one.
    Named(&'static Table),
    /// Values of header fields by name.
    Fields,
    /// Files by status.
    Pages,
    /// Values of labels by name.
    Labels,
    /// What must hold of values, by name: a text to equal, `true` or `false` for being there, or a
    /// [`PATTERN`].
    Conditions {
        names: Form,
        values: Form,
    },
}

/// What must hold between the keys of a table.
#[derive(Debug)]
pub(crate) enum Rule {
    /// The two may not both be given; `instead` says what to do.
    NotTogether {
        key: &'static str,
        other: &'static str,
        instead: &'static str,
    },
    /// One of the two must be given.
    OneOf(&'static str, &'static str),
    /// One of these at least must be given. That any one of them will do is not said: the parser knows when.
    AnyOf(&'static [&'static str]),
    /// One of these must be given, and no other of them.
    ExactlyOne(&'static [&'static str]),
    /// `key` may be given only where `other` has this value.
    OnlyWith {
        key: &'static str,
        other: &'static str,
        value: &'static str,
    },
    /// `key` must be given where `other` has this value.
    NeededWith {
        key: &'static str,
        other: &'static str,
        value: &'static str,
    },
    /// `key` may be given only where `other` is.
    Requires { key: &'static str, other: &'static str },
    /// Where `other` has this value, none of the keys may be given.
    NoneWith {
        keys: &'static [&'static str],
        other: &'static str,
        value: &'static str,
    },
}

/// What a text must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Name,
    Account,
    Words,
    File,
    Token,
    TokenHash,
    ListenAddress,
    BackendAddress,
    Network,
    Host,
    RouteHost,
    HostField,
    RoutePath,
    Pattern,
    Method,
    Language,
    Country,
    Continent,
    CookieValue,
    QueryName,
    QueryValue,
    Location,
    PathTemplate,
    MediaType,
    Body,
    CheckPath,
    HashKey,
    StatusRange,
    Protocol,
    Domain,
    RecordName,
    DirectoryUrl,
    FieldName,
    FieldValue,
    LogTarget,
    CollectorUrl,
    EndpointUrl,
    RedisUrl,
    StorePrefix,
    Ip,
    ReceiverUrl,
    CookieName,
    LimitKey,
    RetryCause,
    Secret,
    Pem,
}

impl Table {
    /// All keys.
    pub(crate) fn all_keys(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().flat_map(|group| group.iter())
    }

    /// The key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<&'static Key> {
        self.all_keys().find(|key| key.name == name)
    }

    /// All rules.
    pub(crate) fn all_rules(&self) -> impl Iterator<Item = &'static Rule> {
        self.rules.iter().flat_map(|group| group.iter())
    }
}

impl Rule {
    /// Whether the key of this name need not be given although it is required, because another will do.
    pub(crate) fn is_alternative(&self, name: &str) -> bool {
        match self {
            Self::OneOf(key, _) => *key == name,
            Self::AnyOf(keys) => keys.contains(&name),
            _ => false,
        }
    }
}

impl Key {
    /// An assignment to show, as TOML, where the value fits on a line.
    pub(crate) fn example(&self) -> Option<String> {
        let value = match (&self.default, &self.kind) {
            (Default::Is(value), _) => (*value).to_owned(),
            (_, Kind::Text(Form::File)) => format!("\"{}\"", example_file(self.name)),
            (_, Kind::Text(Form::Name)) if self.name == "pool" => "\"default\"".to_owned(),
            (_, kind) => kind.example()?,
        };
        Some(format!("{} = {value}", self.name))
    }
}

impl Kind {
    /// What is expected, in words that follow "must be".
    pub(crate) fn expected(&self) -> String {
        match self {
            Self::Text(form) => form.expected().to_owned(),
            Self::Duration { .. } => "a duration such as `\"5s\"`".to_owned(),
            Self::Size { .. } => "a size such as `\"64KiB\"`".to_owned(),
            Self::Percent { .. } => "a percentage such as `\"20%\"`".to_owned(),
            Self::Integer { .. } => "a whole number".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::OneOf(values) => {
                let quoted: Vec<String> = values.iter().map(|v| format!("`\"{v}\"`")).collect();
                match quoted.as_slice() {
                    [only] => only.clone(),
                    _ => format!("one of {}", quoted.join(", ")),
                }
            }
            Self::Table(_) => "a table".to_owned(),
            Self::TableOrFalse(_) => "a table or `false`".to_owned(),
            Self::List { of, .. } => format!("a list, each entry {}", of.expected()),
            Self::OneOrList(of) => format!("{}, or a list of such", of.expected()),
            Self::Either(kinds) => kinds.iter().map(Self::expected).collect::<Vec<_>>().join(", or "),
            Self::Named(_) => "a table of tables by name".to_owned(),
            Self::Pages => {
                "a table of files by status such as `{ \"5xx\" = \"/etc/evenkeel/5xx.html\" }`".to_owned()
            }
            Self::Labels => "a table of labels such as `{ team = \"web\" }`".to_owned(),
            Self::Fields => "a table of header fields such as `{ \"X-Check\" = \"1\" }`".to_owned(),
            Self::Conditions { .. } => {
                "a table of names such as `{ \"X-Beta\" = \"1\", \"X-User\" = true }`".to_owned()
            }
        }
    }

    /// The range that a number must lie in, in words.
    pub(crate) fn range(&self) -> Option<String> {
        let duration = |ms| units::format_duration(std::time::Duration::from_millis(ms));
        match self {
            Self::Duration { min, max, or_zero } => {
                let zero = if *or_zero && *min > 0 { "0, or " } else { "" };
                Some(format!("{zero}{} to {}", duration(*min), duration(*max)))
            }
            Self::Size { min, max } => Some(format!(
                "{} to {}",
                units::format_size(*min),
                units::format_size(*max)
            )),
            Self::Percent { min, max } => Some(format!("{min}% to {max}%")),
            Self::Integer { min, max } => Some(format!("{min} to {max}")),
            _ => None,
        }
    }

    fn example(&self) -> Option<String> {
        match self {
            Self::Text(form) => Some(format!("\"{}\"", form.example())),
            Self::Duration { .. } => Some("\"5s\"".to_owned()),
            Self::Size { .. } => Some("\"1MiB\"".to_owned()),
            Self::Percent { .. } => Some("\"20%\"".to_owned()),
            Self::Integer { min, .. } => Some(min.to_string()),
            Self::Bool => Some("true".to_owned()),
            Self::OneOf(values) => values.first().map(|v| format!("\"{v}\"")),
            Self::List { of, .. } => of.example().map(|e| format!("[{e}]")),
            Self::OneOrList(of) => of.example(),
            Self::Either(kinds) => kinds.iter().find_map(Self::example),
            Self::Pages => Some("{ \"5xx\" = \"/etc/evenkeel/5xx.html\" }".to_owned()),
            Self::Labels => Some("{ team = \"web\" }".to_owned()),
            Self::Fields => Some("{ \"X-Check\" = \"1\" }".to_owned()),
            Self::Conditions { .. } => Some("{ \"X-Beta\" = \"1\" }".to_owned()),
            Self::Table(_) | Self::TableOrFalse(_) | Self::Named(_) => None,
        }
    }
}

/// A file to show for the key of this name.
fn example_file(key: &str) -> &'static str {
    match key {
        "password_file" => "/etc/evenkeel/etcd-password",
        "cert" => "/etc/evenkeel/shop.pem",
        "key" => "/etc/evenkeel/shop.key",
        "ca" | "directory_ca" => "/etc/evenkeel/ca.pem",
        "crl" => "/etc/evenkeel/revoked.pem",
        "ocsp" => "/etc/evenkeel/shop.ocsp",
        "geoip" => "/var/lib/evenkeel/GeoLite2-Country.mmdb",
        "data_dir" => "/var/lib/evenkeel",
        "body_file" => "/etc/evenkeel/closed.html",
        "url_file" => "/etc/evenkeel/alerts-url",
        "secret_file" => "/etc/evenkeel/alerts-secret",
        "headers_file" => "/etc/evenkeel/collector-headers",
        _ => "/etc/evenkeel/token",
    }
}

/// Part of the name of a host.
const HOST_LABEL: &str = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
/// Part of a name that may have records: `_http` too.
const LABEL: &str = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";

/// Octet of an IPv4 address without leading zeros.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

impl Form {
    /// What is expected, in words that follow "must be".
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Name => "a name of 1 to 63 letters, digits, `_`, `-` or `.`",
            Self::Account => "the name of a user or group",
            Self::Words => "text of 1 to 1024 characters",
            Self::File => "a path",
            Self::Token => "a token of 1 to 1024 visible ASCII characters",
            Self::TokenHash => "`sha256:` and 64 hexadecimal digits in lower case",
            Self::ListenAddress => "an IP address and port such as `\"0.0.0.0:8080\"`",
            Self::BackendAddress => "an IP address and port such as `\"10.0.0.1:9001\"`",
            Self::Network => "an IP network such as `\"10.0.0.0/8\"`, or an IP address",
            Self::Host => "a host name such as `\"shop.example.com\"`",
            Self::RouteHost => "a host name such as `\"shop.example.com\"` or `\"*.example.com\"`",
            Self::HostField => "a host such as `\"shop.example.com\"` or `\"shop.example.com:8080\"`",
            Self::RoutePath => "a path such as `\"/api\"`",
            Self::Pattern => "a regular expression such as `\"/v[0-9]+/.*\"`",
            Self::Method => "a method such as `\"GET\"`",
            Self::Language => "a language tag such as `\"de\"` or `\"pt-BR\"`",
            Self::Country => "a country code such as `\"DE\"`",
            Self::Continent => "one of `\"AF\"`, `\"AN\"`, `\"AS\"`, `\"EU\"`, `\"NA\"`, `\"OC\"`, `\"SA\"`",
            Self::CookieValue => "the value of a cookie",
            Self::QueryName => "the name of a query parameter",
            Self::QueryValue => "the value of a query parameter",
            Self::Location => "an address such as `\"https://new.example{path}{query}\"`",
            Self::PathTemplate => "a path such as `\"/new/{1}\"`",
            Self::MediaType => "a content type such as `\"text/html\"` or `\"text/*\"`",
            Self::Body => "text",
            Self::CheckPath => "a path such as `\"/health\"`",
            Self::HashKey => {
                "`\"client_address\"`, `\"path\"`, `\"header:NAME\"`, `\"cookie:NAME\"` or `\"query:NAME\"`"
            }
            Self::StatusRange => "a range of statuses such as `\"200-299\"`",
            Self::Domain => "a DNS name such as `\"shop.example.com\"`",
            Self::RecordName => "a DNS name such as `\"shop.internal\"`",
            Self::DirectoryUrl => "an `https://` URL",
            Self::Protocol => "a protocol such as `\"websocket\"`, other than HTTP",
            Self::FieldName => "the name of a header field",
            Self::FieldValue => "the value of a header field",
            Self::LogTarget => {
                "`\"stdout\"`, `\"file:PATH\"`, `\"syslog\"`, `\"syslog:PATH\"` or `\"syslog:udp://HOST:PORT\"`"
            }
            Self::ReceiverUrl => "a URL such as `\"https://alerts.example.com/evenkeel\"`",
            Self::CollectorUrl => "a URL such as `\"http://127.0.0.1:4318\"`",
            Self::RedisUrl => "a URL such as `\"redis://10.0.0.1:6379\"`",
            Self::EndpointUrl => "a URL such as `\"https://10.0.0.1:2379\"`",
            Self::Ip => "an IP address such as `\"10.0.0.5\"`",
            Self::StorePrefix => "a prefix of keys such as `\"/evenkeel/\"`",
            Self::CookieName => "the name of a cookie",
            Self::LimitKey => "`\"client_address\"`, `\"header:NAME\"`, `\"cookie:NAME\"` or `\"route\"`",
            Self::RetryCause => {
                "`\"connect\"`, `\"reset\"`, `\"timeout\"`, a status such as `503`, or `\"5xx\"`"
            }
            Self::Secret => "a secret of 16 to 1024 visible ASCII characters",
            Self::Pem => "PEM, from `-----BEGIN …` to `-----END …`",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Name => "shop",
            Self::Account => "evenkeel",
            Self::Words => "ok",
            Self::File => "/etc/evenkeel/token",
            Self::Token => "a-long-random-text",
            Self::TokenHash => "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            Self::ListenAddress => "0.0.0.0:8080",
            Self::BackendAddress => "10.0.0.1:9001",
            Self::Network => "10.0.0.0/8",
            Self::Host | Self::RouteHost | Self::HostField => "shop.example.com",
            Self::Pattern => "/v[0-9]+/.*",
            Self::Method => "GET",
            Self::Language => "de",
            Self::Country => "DE",
            Self::Continent => "EU",
            Self::CookieValue | Self::QueryName | Self::QueryValue => "beta",
            Self::Location => "https://new.example{path}{query}",
            Self::PathTemplate => "/new/{1}",
            Self::MediaType => "text/html",
            Self::Body => "ok",
            Self::RoutePath => "/api",
            Self::CheckPath => "/health",
            Self::HashKey => "header:X-User",
            Self::StatusRange => "200-299",
            Self::Domain => "shop.example.com",
            Self::RecordName => "shop.internal",
            Self::DirectoryUrl => "https://ca.example.com/directory",
            Self::Protocol => "websocket",
            Self::FieldName => "X-Check",
            Self::FieldValue => "1",
            Self::LogTarget => "file:/var/log/evenkeel/access.log",
            Self::CollectorUrl => "http://127.0.0.1:4318",
            Self::RedisUrl => "redis://10.0.0.1:6379",
            Self::EndpointUrl => "https://10.0.0.1:2379",
            Self::Ip => "10.0.0.5",
            Self::StorePrefix => "/evenkeel/",
            Self::ReceiverUrl => "https://alerts.example.com/evenkeel",
            Self::CookieName => "evk",
            Self::LimitKey => "header:X-User",
            Self::RetryCause => "timeout",
            Self::Secret => "a-long-random-text",
            Self::Pem => "-----BEGIN … -----END …",
        }
    }

    /// Pattern (ECMA 262) for the schema: takes all that the parser takes, and refuses what has the wrong
    /// shape. Figures within the shape (a port, the length of a prefix) are the parser's alone.
    fn pattern(self) -> String {
        let v4 = format!("{OCTET}([.]{OCTET}){{3}}");
        let v6 = "[0-9A-Fa-f:.]+";
        match self {
            Self::Name => "^[A-Za-z0-9_.-]{1,63}$".to_owned(),
            Self::Account => "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$".to_owned(),
            Self::Words => "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,1024}$".to_owned(),
            Self::File => "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,4096}$".to_owned(),
            Self::Token => "^[!-~]{1,1024}$".to_owned(),
            Self::TokenHash => "^sha256:[0-9a-f]{64}$".to_owned(),
            Self::ListenAddress | Self::BackendAddress => {
                format!("^({v4}|\\[{v6}(%[0-9]+)?\\]):[0-9]{{1,5}}$")
            }
            Self::Network => format!("^({v4}|{v6})(/[0-9]{{1,3}})?$"),
            Self::Host => "^([A-Za-z0-9_.-]{1,253}|\\[[0-9A-Fa-f:.]+\\])$".to_owned(),
            Self::RouteHost => {
                "^([A-Za-z0-9_.-]{1,253}|[*][.][A-Za-z0-9_.-]{1,251}|\\[[0-9A-Fa-f:.]+\\])$".to_owned()
            }
            Self::Pattern => "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,1024}$".to_owned(),
            Self::Method => format!("^{TOKEN}{{1,32}}$"),
            Self::Language => "^[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,7}$".to_owned(),
            Self::Country => "^[A-Za-z]{2}$".to_owned(),
            Self::Continent => "^([Aa][FfNnSs]|[Ee][Uu]|[Nn][Aa]|[Oo][Cc]|[Ss][Aa])$".to_owned(),
            Self::CookieValue => "^[!-:<-~]{1,1024}$".to_owned(),
            Self::QueryName => "^[!-\"$%'-<>-~]{1,128}$".to_owned(),
            Self::Location => "^(https?://[!$-.0-;=@-\\[\\]_a-{}~][!#-;=?-\\[\\]_a-{}~]{0,1023}|/|/[!#-.0-;=?-\\[\\]_a-{}~][!#-;=?-\\[\\]_a-{}~]{0,1022}|\\{scheme\\}://[!$-.0-;=@-\\[\\]_a-{}~][!#-;=?-\\[\\]_a-{}~]{0,999}|\\{path\\}[!#-;=?-\\[\\]_a-{}~]{0,1000})$".to_owned(),
            Self::PathTemplate => "^/[!-\"$-~]{0,1023}$".to_owned(),
            Self::MediaType => {
                let part = "[A-Za-z0-9!#$&^_.+-]{1,64}";
                format!("^{part}/({part}|\\*)$")
            }
            Self::Body => "^[\\s\\S]*$".to_owned(),
            Self::QueryValue => "^[^\\u0000-\\u001f\\u007f-\\u009f]{0,1024}$".to_owned(),
            Self::HostField => "^([A-Za-z0-9_.-]{1,253}|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$".to_owned(),
            Self::RoutePath => "^/[!-\"$->@-~]{0,1023}$".to_owned(),
            Self::CheckPath => "^/[!-\"$-~]{0,1023}$".to_owned(),
            Self::HashKey => {
                format!(
                    "^(client_address|path|(header|cookie):{TOKEN}{{1,128}}|query:[!-\"$%'-<>-~]{{1,128}})$"
                )
            }
            Self::StatusRange => "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$".to_owned(),
            Self::Domain => format!("^{HOST_LABEL}([.]{HOST_LABEL}){{0,126}}$"),
            Self::RecordName => format!("^{LABEL}([.]{LABEL}){{0,126}}[.]?$"),
            Self::DirectoryUrl => "^https://[!-~]{1,1016}$".to_owned(),
            Self::RedisUrl => "^rediss?://([A-Za-z0-9_.-]{1,253}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$".to_owned(),
            Self::EndpointUrl => "^https?://([A-Za-z0-9_.-]{1,253}|\\[[0-9A-Fa-f:.]+\\]):[0-9]{1,5}$".to_owned(),
            Self::Ip => format!("^({v4}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$"),
            Self::StorePrefix => "^/([A-Za-z0-9._-]+/)*$".to_owned(),
            Self::Protocol => format!("^{TOKEN}{{1,64}}(/{TOKEN}{{1,64}})?$"),
            Self::FieldName => format!("^{TOKEN}{{1,128}}$"),
            Self::FieldValue => "^([!-~]|[!-~][ -~\\t]{0,1022}[!-~])$".to_owned(),
            Self::LogTarget => format!(
                "^(stdout|syslog|file:{PRINTED}{{1,4096}}|syslog:/{PRINTED}{{0,4095}}|syslog:udp://{HOST}:[0-9]{{1,5}})$"
            ),
            Self::ReceiverUrl => {
                format!("^https?://{HOST}(:[0-9]{{1,5}})?(/[!$-;=@-\\[\\]_a-z~]*)?$")
            }
            Self::CollectorUrl => format!("^https?://{HOST}(:[0-9]{{1,5}})?(/[A-Za-z0-9/._~-]*)?$"),
            Self::CookieName => format!("^{TOKEN}{{1,128}}$"),
            Self::LimitKey => format!("^(client_address|route|(header|cookie):{TOKEN}{{1,128}})$"),
            Self::RetryCause => "^(connect|reset|timeout|[45]xx|[45][0-9]{2})$".to_owned(),
            Self::Secret => "^[!-~]{16,1024}$".to_owned(),
            Self::Pem => "-----BEGIN [\\s\\S]*-----END ".to_owned(),
        }
    }
}

/// Headings of the tables that have a key of this name, for whoever wrote it elsewhere.
pub(crate) fn tables_with_key(name: &str) -> Vec<&'static str> {
    let homes = ALL.iter().filter(|table| table.key(name).is_some());
    homes.map(|table| table.heading).collect()
}

/// Every table, in the order of the documentation.
static ALL: &[&Table] = &[
    &ROOT,
    &NODE,
    &ADMIN,
    &ADMIN_TLS,
    &ADMIN_TOKEN,
    &ADMIN_CERTIFICATE,
    &ACCESS_LOG,
    &REQUEST_ID,
    &TRACING,
    &RECORDER,
    &STORE,
    &NOTIFY,
    &ALERTS,
    &WEBHOOK,
    &ALERTMANAGER,
    &LOAD_BALANCER,
    &LISTENER,
    &LIMITS,
    &LISTENER_TIMEOUTS,
    &LISTENER_TLS,
    &ACME,
    &CERTIFICATE,
    &CLIENT_CERTIFICATES,
    &HTTP2,
    &ROUTE,
    &MATCH,
    &PATTERN,
    &SPLIT,
    &REDIRECT,
    &RESPOND,
    &REWRITE,
    &HEADER_RULES,
    &MIRROR,
    &COMPRESSION,
    &BUFFER_REQUESTS,
    &BUFFER_RESPONSES,
    &RATE_LIMIT,
    &ROUTE_TIMEOUTS,
    &POOL,
    &BACKEND,
    &DISCOVERY,
    &DNS,
    &REGISTRATION,
    &HEARTBEAT,
    &HASH,
    &HEALTH,
    &PASSIVE,
    &BACKEND_HTTP2,
    &QUEUE,
    &CIRCUIT_BREAKER,
    &CONNECTIONS,
    &POOL_TIMEOUTS,
    &RETRIES,
    &STICKY,
    &BACKEND_TLS,
    &CLIENT_CERTIFICATE,
];

/// Characters of a token (RFC 9110 section 5.6.2), as a class of a pattern.
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";

/// A character that is no control character, as a class of a pattern.
const PRINTED: &str = "[^\\u0000-\\u001f\\u007f-\\u009f]";

/// A host: a name, an IPv4 address, or an IPv6 address in brackets.
const HOST: &str = "([A-Za-z0-9_.-]{1,253}|\\[[0-9A-Fa-f:.]+\\])";

/// Greatest weight of a backend, as a range needs it.
const WEIGHT: u64 = MAX_WEIGHT as u64;

#[cfg(test)]
mod tests;
