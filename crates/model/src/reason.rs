//! Reason codes: every failure a user can meet has exactly one, the same in response, log, metrics and `explain`.

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent something that must be refused.
    Client,
    /// The backend failed.
    Backend,
    /// The operator's configuration or orders leave nowhere to go.
    Operator,
    /// A limit of the load balancer itself.
    Proxy,
}

macro_rules! reasons {
    ($($variant:ident $code:literal $status:literal $fault:ident $retry:literal $text:literal;)*) => {
        /// Why a request was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $(#[doc = $text] $variant,)* }

        impl Reason {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub fn code(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// Status answered to the client; 0 where no response can be sent.
            pub fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }

            /// Whose fault it is.
            pub fn fault(self) -> Fault { match self { $(Self::$variant => Fault::$fault,)* } }

            /// Whether the same request may succeed later.
            pub fn retry_helps(self) -> bool { match self { $(Self::$variant => $retry,)* } }

            /// One sentence for people.
            pub fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

reasons! {
    BadRequestLine "bad_request_line" 400 Client false "The request line is not `METHOD SP target SP HTTP/1.x CRLF` (RFC 9112 section 3).";
    BadMethod "bad_method" 400 Client false "The method is not a token.";
    BadTarget "bad_target" 400 Client false "The request target has a forbidden character or form (RFC 9112 section 3.2).";
    BadPath "bad_path" 400 Client false "The path has an encoded slash, backslash, NUL or dot segment, or is not UTF-8.";
    BadVersion "bad_version" 400 Client false "The protocol version is malformed.";
    BadHeader "bad_header" 400 Client false "A header field is malformed: name, colon, white space or control character.";
    BadLineEnding "bad_line_ending" 400 Client false "A line ends in a bare CR or LF.";
    ObsoleteFolding "obsolete_folding" 400 Client false "A header line starts with white space (RFC 9112 section 5.2).";
    BadHost "bad_host" 400 Client false "Host is missing, repeated, malformed, or differs from the absolute target (RFC 9112 section 3.2).";
    BadContentLength "bad_content_length" 400 Client false "Content-Length is malformed or repeated (RFC 9110 section 8.6).";
    BadTransferEncoding "bad_transfer_encoding" 400 Client false "Transfer-Encoding is malformed, not `chunked`, or used with HTTP/1.0 (RFC 9112 section 6.1).";
    AmbiguousLength "ambiguous_length" 400 Client false "Both Transfer-Encoding and Content-Length are present (RFC 9112 section 6.3).";
    BadWebsocketKey "bad_websocket_key" 400 Client false "A WebSocket client of HTTP/1.1 has sent no Sec-WebSocket-Key, or one that is not 16 bytes in base64 (RFC 6455 section 4.2.1), and its backend speaks HTTP/2.";
    BadChunk "bad_chunk" 400 Client false "The chunked body is malformed (RFC 9112 section 7.1).";
    BadTrailer "bad_trailer" 400 Client false "A trailer field is malformed or over the limits.";
    TruncatedRequest "truncated_request" 400 Client true "The client closed before the request was complete.";
    PlainHttpOnTlsPort "plain_http_on_tls_port" 400 Client false "The client speaks HTTP in the clear to a listener with TLS; the address begins with `https://`.";
    MethodNotAllowed "method_not_allowed" 405 Client false "CONNECT and TRACE are refused.";
    RequestHeaderTimeout "request_header_timeout" 408 Client true "The request header took longer than `timeouts.request_headers`.";
    RequestBodyTimeout "request_body_timeout" 408 Client true "The request body paused longer than `timeouts.request_body_idle`.";
    RequestBodyTooSlow "request_body_too_slow" 408 Client true "The request body came slower than `timeouts.request_body_min_rate`.";
    BodyTooLarge "body_too_large" 413 Client false "The request body is over `limits.body_bytes` of the listener or `max_body` of the route, or an HTTP/1.0 request other than POST and PUT has one.";
    TargetTooLong "target_too_long" 414 Client false "The request target is over `limits.target_bytes`.";
    ExpectationFailed "expectation_failed" 417 Client false "Expect holds something other than `100-continue` (RFC 9110 section 10.1.1).";
    MisdirectedRequest "misdirected_request" 421 Client true "The request is for another host than the TLS connection was opened for, and that host has another certificate, or clients must show theirs (RFC 9110 section 15.5.20).";
    RateLimited "rate_limited" 429 Client true "A rate limit of the route (`rate_limit`) has no token left for this request; `Retry-After` says when.";
    HeaderTooLarge "header_too_large" 431 Client false "The header is over `limits.header_bytes`.";
    TooManyHeaders "too_many_headers" 431 Client false "The header has more fields than `limits.header_fields`.";
    UnknownTransferCoding "unknown_transfer_coding" 501 Client false "Transfer-Encoding names a coding other than `chunked`.";
    UpgradeUnsupported "upgrade_unsupported" 501 Client false "The request asks to switch to a protocol that `upgrades` of the listener does not name, or has a body.";
    UpgradeDeclined "upgrade_declined" 501 Client false "The request asks over HTTP/2 to switch to another protocol, and the backend answered with an ordinary success, which the client would take for agreement (RFC 8441 section 4).";
    ExtendedConnectUnsupported "extended_connect_unsupported" 501 Operator false "The request asks to switch to another protocol, and the backend, which speaks HTTP/2, has not offered that (RFC 8441 section 3).";
    VersionUnsupported "version_unsupported" 505 Client false "The protocol version is not HTTP/1.0 or HTTP/1.1.";
    NoRoute "no_route" 404 Operator false "No route of the load balancer matches the request.";
    NoBackend "no_backend" 503 Operator true "No backend of the pool takes requests.";
    CircuitOpen "circuit_open" 503 Proxy true "Too many requests to the pool failed lately (`circuit_breaker`); they are refused until some that try succeed.";
    QueueFull "queue_full" 503 Proxy true "Every backend has as many requests as it may, and `queue.size` requests wait already.";
    QueueTimeout "queue_timeout" 503 Proxy true "The request waited for a backend for `queue.timeout`.";
    QueueOverload "queue_overload" 503 Proxy true "More requests came for longer than the pool can serve, so the newest were served first; this one had waited for `queue.target`.";
    QueueDeadline "queue_deadline" 503 Proxy true "The request waited for a backend and could not be answered within its own time any more.";
    QueueAbandoned "queue_abandoned" 503 Client true "The client left while its request waited in the queue; over HTTP/1.0 also one that only ended its side of the connection, which can read this.";
    ConnectRefused "connect_refused" 502 Backend true "The backend refused the connection.";
    ConnectTimeout "connect_timeout" 504 Backend true "Connecting took longer than `timeouts.connect`.";
    ConnectFailed "connect_failed" 502 Backend true "The connection to the backend could not be made.";
    BackendTlsFailed "backend_tls_failed" 502 Backend true "The TLS handshake with the backend failed: its certificate is not trusted, not for this name or out of date, or the two have nothing in common; the log tells which.";
    BackendTlsTimeout "backend_tls_timeout" 504 Backend true "The TLS handshake with the backend took longer than `timeouts.tls`.";
    BackendReset "backend_reset" 502 Backend true "The backend closed or reset the connection before a response.";
    StreamRefused "stream_refused" 503 Backend true "The backend refused the request's HTTP/2 stream (REFUSED_STREAM), so without having looked at it.";
    StreamLimit "stream_limit" 503 Proxy true "Every HTTP/2 connection to the backend carries as many requests as it may (`http2` of the pool).";
    BackendTruncated "backend_truncated" 502 Backend true "The backend closed in the middle of the response; the client's connection is closed too.";
    FirstByteTimeout "first_byte_timeout" 504 Backend true "The response header took longer than `timeouts.first_byte`.";
    TryTimeout "try_timeout" 504 Backend true "An attempt took longer than `retries.per_try_timeout`.";
    BackendStatus "backend_status" 502 Backend true "The backend answered with a status that `retries.on` tries elsewhere, and nobody else answered.";
    BackendStreamTimeout "backend_stream_timeout" 504 Backend true "The backend paused longer than `timeouts.stream_idle` within a body.";
    TotalTimeout "total_timeout" 504 Backend true "The request took longer than `timeouts.total`.";
    BadResponse "bad_response" 502 Backend false "The backend's response is malformed or its length ambiguous.";
    ResponseHeaderTooLarge "response_header_too_large" 502 Backend false "The backend's response header is over 64 KiB or 256 fields.";
    ClientGone "client_gone" 0 Client true "The client closed or reset before the response was complete.";
    ClientWriteTimeout "client_write_timeout" 0 Client true "The client did not read for longer than `timeouts.response_write_idle`, or over HTTP/2 left its window closed for `http2.window_idle`.";
    ConnectionLimit "connection_limit" 0 Proxy true "A connection limit (`node.max_connections` or the listener's) is reached; the new connection is closed, and the log says so.";
    LocalResources "local_resources" 503 Proxy true "The load balancer is out of file descriptors, ports or memory for another connection; no backend is blamed.";
    BufferFull "buffer_full" 503 Proxy true "The bodies that the route keeps are over `buffer_requests.disk_total`, or over `buffer_requests.memory_total` where none goes to disk.";
}

impl Reason {
    /// Whether the queue of a pool refused the request.
    pub fn is_of_queue(self) -> bool {
        use Reason::{QueueAbandoned, QueueDeadline, QueueFull, QueueOverload, QueueTimeout};
        matches!(
            self,
            QueueFull | QueueTimeout | QueueOverload | QueueDeadline | QueueAbandoned
        )
    }

    /// The code as words for logs and ejection reasons: `connect refused`.
    pub fn words(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimeout => "connect timeout",
            Self::ConnectFailed => "connection failed",
            Self::BackendTlsFailed => "TLS failed",
            Self::BackendTlsTimeout => "TLS timeout",
            Self::BackendReset => "connection closed before a response",
            Self::BackendTruncated => "connection closed within a response",
            Self::StreamRefused => "stream refused",
            Self::FirstByteTimeout => "first byte timeout",
            Self::TryTimeout => "attempt timeout",
            Self::BackendStreamTimeout => "stream timeout",
            Self::TotalTimeout => "total timeout",
            Self::BadResponse | Self::ResponseHeaderTooLarge => "bad response",
            other => other.code(),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}
