//! What a route does with a request and its response, besides choosing a pool.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Name, Pattern, Template};

/// Most fields that one rule of a route sets, adds or removes.
pub const MAX_HEADER_RULES: usize = 64;
/// Greatest body of a fixed response, and of an error page, in bytes.
pub const MAX_PAGE_BYTES: u64 = 1024 * 1024;
/// Most error pages of a route.
pub const MAX_ERROR_PAGES: usize = 32;
/// Content types that are compressed where the config names none.
pub const DEFAULT_COMPRESSED_TYPES: [&str; 12] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/manifest+json",
    "application/xml",
    "application/wasm",
    "image/svg+xml",
];
/// Default of `compression.minimum_size`.
pub const DEFAULT_COMPRESSION_MINIMUM: u64 = 1024;
/// Default of `mirror.max_body`.
pub const DEFAULT_MIRROR_BODY: u64 = 64 * 1024;
/// Default of `mirror.max_in_flight`.
pub const DEFAULT_MIRROR_IN_FLIGHT: u32 = 100;
/// Default of `mirror.timeout`.
pub const DEFAULT_MIRROR_TIMEOUT: Duration = Duration::from_secs(10);
/// Default of `buffer_requests.memory`.
pub const DEFAULT_BUFFER_MEMORY: u64 = 64 * 1024;
/// Default of `buffer_requests.memory_total`: 4,096 bodies of the default size.
pub const DEFAULT_BUFFER_MEMORY_TOTAL: u64 = 256 * 1024 * 1024;
/// Default of `buffer_requests.disk_total`.
pub const DEFAULT_BUFFER_DISK_TOTAL: u64 = 1024 * 1024 * 1024;

/// What a route does besides choosing a pool. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Where the backend is asked for something else than the client asked for.
    pub rewrite: Option<Rewrite>,
    /// Fields of the request, as the backend gets it.
    pub request_headers: HeaderRules,
    /// Fields of the response, whoever gives it.
    pub response_headers: HeaderRules,
    /// What stands in the place of answers that tell of a failure.
    pub error_pages: Arc<ErrorPages>,
    /// Greatest request body in bytes, instead of the listener's.
    pub max_body: Option<u64>,
    /// Where copies of requests go.
    pub mirror: Option<Mirror>,
    /// How responses are compressed.
    pub compression: Option<Compression>,
    /// Whether request bodies are taken whole first.
    pub buffer_requests: Option<BufferRequests>,
    /// Whether responses are taken from the backend faster than the client reads.
    pub buffer_responses: Option<BufferResponses>,
}

/// What the backend is asked for, instead of what the client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// `Host` for the backend.
    pub host: Option<String>,
    /// What happens to the path.
    pub path: Option<PathRewrite>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// This stands in the place of the route's `path_prefix`, or before the path of a route without one.
    Prefix(String),
    /// A path that the pattern matches as a whole becomes this; others stay.
    Pattern {
        /// What it must match.
        pattern: Pattern,
        /// Path, and a query perhaps, with the groups of the pattern.
        to: Template,
    },
}

/// Fields that are set, added and removed, by name in lower case; no name more than once in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// In the place of all fields of this name.
    pub set: Vec<(String, Template)>,
    /// Beside those that are there.
    pub add: Vec<(String, Template)>,
    /// Taken away.
    pub remove: Vec<String>,
}

impl HeaderRules {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A redirect instead of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The address that the client is sent to.
    pub to: Template,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// An answer of our own instead of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// 200 to 599.
    pub status: u16,
    /// `Content-Type`; none without a body.
    pub content_type: Option<String>,
    /// What is sent.
    pub body: Content,
}

/// Bytes that stand in the config, or in a file that is read with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The file; `None` for what the config says itself.
    pub file: Option<PathBuf>,
    /// At most [`MAX_PAGE_BYTES`]. Empty for a file until it is read.
    pub bytes: Arc<[u8]>,
}

impl Content {
    /// What the config says itself.
    pub fn inline(text: &str) -> Self {
        Self {
            file: None,
            bytes: text.as_bytes().into(),
        }
    }

    /// What a file holds, not read yet.
    pub fn of_file(path: &str) -> Self {
        Self {
            file: Some(PathBuf::from(path)),
            bytes: Arc::default(),
        }
    }

    /// Type by the end of the file's name.
    pub fn content_type(&self) -> &'static str {
        let extension = self.file.as_deref().and_then(Path::extension);
        match extension.and_then(|e| e.to_str()) {
            Some("html" | "htm") => "text/html; charset=utf-8",
            Some("json") => "application/json",
            Some("svg") => "image/svg+xml",
            Some("xml") => "application/xml",
            _ => "text/plain; charset=utf-8",
        }
    }
}

/// Own pages for answers that tell of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPages {
    /// Statuses, first to last, with their page; a single status stands before its class.
    pub pages: Vec<((u16, u16), Content)>,
    /// Whether they stand in the place of what backends answer, too.
    pub intercept: bool,
}

impl ErrorPages {
    /// The page for a status.
    pub fn page(&self, status: u16) -> Option<&Content> {
        let mut pages = self.pages.iter();
        pages
            .find(|((first, last), _)| (*first..=*last).contains(&status))
            .map(|(_, page)| page)
    }

    /// The statuses of a page as they are written: `404`, `5xx`.
    pub fn written(statuses: (u16, u16)) -> String {
        match statuses {
            (400, 499) => "4xx".to_owned(),
            (500, 599) => "5xx".to_owned(),
            (status, _) => status.to_string(),
        }
    }
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The pool that gets them; what it answers is thrown away.
    pub pool: Name,
    /// Requests copied, in percent.
    pub share: u8,
    /// Greatest body copied, in bytes; requests with a greater one are not copied.
    pub max_body: u64,
    /// Copies on their way over all shards; beyond it none is made.
    pub max_in_flight: u32,
    /// The longest that a copy may take.
    pub timeout: Duration,
}

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Encoding {
    /// The name in HTTP and in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The coding of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Brotli, Self::Zstd]
            .into_iter()
            .find(|encoding| encoding.as_str() == name)
    }
}

/// How responses are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Offered, most wanted first: of those that the client likes equally, the first is taken.
    pub encodings: Vec<Encoding>,
    /// Types compressed, in lower case, without parameters; `text/*` stands for all of `text`.
    pub types: Vec<String>,
    /// Responses known to be smaller are left alone.
    pub minimum_size: u64,
    /// Whether responses that may hold secrets are compressed, too.
    pub with_credentials: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            encodings: vec![Encoding::Zstd, Encoding::Brotli, Encoding::Gzip],
            types: DEFAULT_COMPRESSED_TYPES.map(str::to_owned).into(),
            minimum_size: DEFAULT_COMPRESSION_MINIMUM,
            with_credentials: false,
        }
    }
}

/// Whole request bodies are taken before a backend is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferRequests {
    /// Bytes of a body kept in memory; what is more goes to disk.
    pub memory: u64,
    /// Bytes in memory over all requests of the route; what is more goes to disk, and without one it is 503.
    pub memory_total: u64,
    /// Bytes of a body kept on disk; beyond both, 413.
    pub disk: u64,
    /// Bytes on disk over all requests of the route; beyond it, 503.
    pub disk_total: u64,
}

impl Default for BufferRequests {
    fn default() -> Self {
        Self {
            memory: DEFAULT_BUFFER_MEMORY,
            memory_total: DEFAULT_BUFFER_MEMORY_TOTAL,
            disk: 0,
            disk_total: DEFAULT_BUFFER_DISK_TOTAL,
        }
    }
}

/// Responses are taken from the backend faster than the client reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BufferResponses {
    /// Bytes of a response kept; a greater one is streamed.
    pub memory: u64,
}

impl Default for BufferResponses {
    fn default() -> Self {
        Self {
            memory: DEFAULT_BUFFER_MEMORY,
        }
    }
}
