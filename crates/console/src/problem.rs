//! Errors as problem documents (RFC 9457), each with a stable reason code.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

macro_rules! kinds {
    ($($variant:ident $reason:literal $status:ident $title:literal;)*) => {
        /// Kinds of problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $(#[doc = $title] $variant,)* }

        impl Kind {
            /// The stable code.
            pub(crate) fn reason(self) -> &'static str { match self { $(Self::$variant => $reason,)* } }

            fn status(self) -> StatusCode { match self { $(Self::$variant => StatusCode::$status,)* } }

            fn title(self) -> &'static str { match self { $(Self::$variant => $title,)* } }
        }

        #[cfg(test)]
        const ALL: &[Kind] = &[$(Kind::$variant,)*];
    };
}

kinds! {
    BadJson "bad_json" BAD_REQUEST "The body is not the JSON expected";
    BadAddress "bad_address" BAD_REQUEST "Not an IP address and port";
    PlainHttp "plain_http" BAD_REQUEST "The admin API speaks TLS here";
    Unauthorized "unauthorized" UNAUTHORIZED "A valid login is needed";
    NeedsOperator "needs_operator" FORBIDDEN "The role operator is needed";
    NeedsAdmin "needs_admin" FORBIDDEN "The role admin is needed";
    HostNotAllowed "host_not_allowed" FORBIDDEN "Without a token only local names are served";
    CrossOrigin "cross_origin" FORBIDDEN "Without a token no other web page may ask";
    NotFound "not_found" NOT_FOUND "No such path";
    UnknownLoadBalancer "unknown_load_balancer" NOT_FOUND "No such load balancer";
    UnknownBackend "unknown_backend" NOT_FOUND "No such backend";
    UnknownPool "unknown_pool" NOT_FOUND "No such pool, or it takes no such requests";
    UnknownMember "unknown_member" NOT_FOUND "No such member";
    UnknownRoute "unknown_route" NOT_FOUND "No such route";
    NoAuditLog "no_audit_log" NOT_FOUND "No audit log is kept";
    UnknownRequest "unknown_request" NOT_FOUND "No such request is remembered";
    UnknownRevision "unknown_revision" NOT_FOUND "No such revision is kept";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED "The path has another method";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT "The request took too long";
    Conflict "conflict" CONFLICT "Somebody else was faster";
    NothingPending "nothing_pending" CONFLICT "Nothing awaits confirmation";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE "The body is too large";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body must be JSON";
    TooManyFailures "too_many_failures" TOO_MANY_REQUESTS "Too many failed logins from this address";
    TooManyMembers "too_many_members" TOO_MANY_REQUESTS "The pool has as many members as may register";
    BadMember "bad_member" UNPROCESSABLE_ENTITY "The member makes no sense, or may not be one";
    BadOrder "bad_order" UNPROCESSABLE_ENTITY "The order makes no sense";
    BadQuery "bad_query" UNPROCESSABLE_ENTITY "The question makes no sense";
    BadConfig "bad_config" UNPROCESSABLE_ENTITY "The config has errors";
    DeclaredInFile "declared_in_file" UNPROCESSABLE_ENTITY "The node's own file declares it";
    ReloadRefused "reload_refused" UNPROCESSABLE_ENTITY "The new config has errors; the old one stays in force";
    Internal "internal" INTERNAL_SERVER_ERROR "A fault of Evenkeel";
    StoreFailed "store_failed" INTERNAL_SERVER_ERROR "The order could not be stored";
    StoreDamaged "store_damaged" INTERNAL_SERVER_ERROR "What stands in the store cannot be read";
    NotReady "not_ready" SERVICE_UNAVAILABLE "Not every listener is open";
    NoAnswer "no_answer" SERVICE_UNAVAILABLE "The process is shutting down or overloaded";
    StoreUnavailable "store_unavailable" SERVICE_UNAVAILABLE "The store cannot be asked";
    OutcomeUnknown "outcome_unknown" SERVICE_UNAVAILABLE "It is not known whether the change was made";
}

/// One occurrence of a problem.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<String>,
    /// In seconds.
    retry_after: Option<u64>,
}

/// A problem as it is sent.
#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    errors: &'a [String],
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds the single errors of which the problem consists.
    pub(crate) fn with_errors(self, errors: Vec<String>) -> Self {
        Self { errors, ..self }
    }

    /// Adds when it is worth trying again, in seconds.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }
}

impl Problem {
    fn document(&self) -> Document<'_> {
        Document {
            r#type: format!("urn:evenkeel:problem:{}", self.kind.reason()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            reason: self.kind.reason(),
            errors: &self.errors,
        }
    }

    /// As it is sent, for where there is no request to answer.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.document()).unwrap_or_default()
    }
}

/// The reason code of a response, for whoever stands between the route and the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reason(pub(crate) &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.document())).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response.extensions_mut().insert(Reason(self.kind.reason()));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.kind == Kind::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"evenkeel\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in `docs/api.md` has a row with reason and status for every kind.
    #[test]
    fn every_reason_is_documented() {
        let docs = include_str!("../../../docs/api.md");
        for kind in ALL {
            let row = format!("| `{}` | {} |", kind.reason(), kind.status().as_u16());
            assert!(docs.contains(&row), "docs/api.md lacks the row {row}");
        }
    }

    /// The contract's list of reasons is the list of kinds.
    #[test]
    fn the_openapi_document_names_every_reason() {
        let document: serde_json::Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        let listed = &document["components"]["schemas"]["Problem"]["properties"]["reason"]["enum"];
        let kinds: Vec<_> = ALL.iter().map(|kind| kind.reason()).collect();
        assert_eq!(*listed, serde_json::json!(kinds));
    }
}
