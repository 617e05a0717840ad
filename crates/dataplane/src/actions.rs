//! What a route does with a request and its response besides choosing a pool.
//!
//! Requests of routes that do nothing never come here. The head that goes to the backend is a copy, so that logs,
//! keys and the answer go by what the client sent.

use std::sync::Arc;

use http::answer::Answer;
use http::encoding::{self, Coding};
use http::template::{self, Values};
use http::{FieldList, Framing, RequestHead, ResponseHead, forward};
use model::config::{HeaderRules, Listener, PathMatch, Redirect, Route, RouteTarget, Template};
use model::reason::Reason;

use crate::attempt::Body;
use crate::compress::{Encoder, Encoders};
use crate::exchange::{Arrived, Client};
use crate::origin::Origin;
use crate::story::Story;

/// Fields of a backend's failure that are kept beside an own page: what the client is to do about it.
const KEPT_BESIDE_PAGE: [&str; 4] = ["WWW-Authenticate", "Retry-After", "Allow", "Set-Cookie"];

/// What is filled for a request before a backend is chosen.
pub(crate) struct Edited<'a> {
    pub(crate) request_extra: &'a mut FieldList,
    pub(crate) response_extra: &'a mut FieldList,
    /// The head for the backend.
    pub(crate) outgoing: &'a mut RequestHead,
}

/// Whether requests of this route come here at all.
pub(crate) fn acts(route: &Route) -> bool {
    let answers = matches!(route.target, RouteTarget::Redirect(_) | RouteTarget::Respond(_));
    answers || route.actions != model::config::Actions::default()
}

/// Does what a route does before a backend is chosen: header rules, and the head for the backend.
///
/// # Errors
/// Why the request cannot be sent as the route says.
fn begin(
    arrived: &Arrived<'_>,
    origin: &Origin,
    story: &Story,
    route: &Route,
    edited: &mut Edited<'_>,
) -> Result<(), Reason> {
    let (head, bytes, actions) = (arrived.head, arrived.bytes, &route.actions);
    let id = story.id.get();
    let values = Values {
        request_id: id.as_ref().map(http::RequestId::as_bytes).unwrap_or_default(),
        ..values(arrived, origin, route.name.as_str())
    };
    add_fields(&actions.response_headers, &values, edited.response_extra);
    let outgoing = &mut *edited.outgoing;
    outgoing.copy_from(head);
    add_fields(&actions.request_headers, &values, edited.request_extra);
    for name in taken_away(&actions.request_headers) {
        outgoing.drop_fields(bytes, name);
    }
    let Some(rewrite) = &actions.rewrite else {
        return Ok(());
    };
    if let Some(host) = &rewrite.host {
        outgoing.set_host(host.as_bytes());
    }
    if let Some(rule) = &rewrite.path {
        let prefix = match &route.matches.path {
            Some(PathMatch::Prefix(prefix)) => Some(prefix.as_str()),
            _ => None,
        };
        let mut target = Vec::new();
        if template::rewrite(rule, prefix, head, bytes, &mut target) {
            if target.len() > template::MAX_REWRITTEN {
                return Err(Reason::TargetTooLong);
            }
            outgoing.set_target(&target)?;
        }
    }
    Ok(())
}

fn values<'a>(arrived: &Arrived<'a>, origin: &'a Origin, route: &'a str) -> Values<'a> {
    let (head, bytes, listener) = (arrived.head, arrived.bytes, &arrived.serving.config);
    let peer = origin.peer.ip();
    Values {
        client: match arrived.trusted {
            true => forward::client_address(bytes, head, peer, &listener.trusted_proxies),
            false => peer,
        },
        host: head.host_name(bytes),
        method: head.method_bytes(bytes),
        path: head.path(bytes),
        query: head.query(bytes),
        request_id: b"",
        route: route.as_bytes(),
        scheme: origin.scheme(),
    }
}

/// The names whose fields are taken away from what came.
fn taken_away(rules: &HeaderRules) -> impl Iterator<Item = &str> {
    let set = rules.set.iter().map(|(name, _)| name);
    rules.remove.iter().chain(set).map(String::as_str)
}

fn add_fields(rules: &HeaderRules, values: &Values<'_>, extra: &mut FieldList) {
    for name in taken_away(rules) {
        extra.remove(name.as_bytes());
    }
    for (name, value) in rules.set.iter().chain(&rules.add) {
        extra.push_with(name.as_bytes(), |out| template::fill(value, values, out));
    }
}

/// The listener as its parser needs it: a body that some route allows is refused by the others only once it is
/// known which it is.
pub(crate) fn raise_body_limit(listener: &Arc<Listener>, routes: &[Route]) -> Arc<Listener> {
    let allowed = routes.iter().filter_map(|route| route.actions.max_body).max();
    match (listener.limits.body_bytes, allowed) {
        (Some(own), Some(allowed)) if allowed > own => {
            let mut raised = Listener::clone(listener);
            raised.limits.body_bytes = Some(allowed);
            Arc::new(raised)
        }
        _ => listener.clone(),
    }
}

/// Does what listener and route do before a backend is chosen: the answer, when that is all.
///
/// # Errors
/// Why the request is refused.
pub(crate) fn act<'a>(
    arrived: &Arrived<'_>,
    route: Option<&'a Route>,
    client: &mut Client<'_>,
    story: &Story,
    edited: &mut Edited<'_>,
    location: &'a mut Vec<u8>,
) -> Result<Option<Answer<'a>>, Reason> {
    if let Some(port) = arrived.serving.config.redirect_to_https {
        return to_https(arrived, client.origin, port, location).map(Some);
    }
    if let Some(route) = route.filter(|route| !route.actions.error_pages.pages.is_empty()) {
        client.reply.use_pages(&route.actions.error_pages);
    }
    let own = route.and_then(|route| route.actions.max_body);
    let limit = own.or(arrived.serving.body_limit);
    match (&mut client.body, arrived.head.framing) {
        (_, Framing::Length(length)) if limit.is_some_and(|limit| length > limit) => {
            return Err(Reason::BodyTooLarge);
        }
        (Body::Streaming(body), _) => body.limit_to(limit),
        (Body::Whole(_), _) => {}
    }
    let Some(route) = route else {
        return Ok(None);
    };
    begin(arrived, client.origin, story, route, edited)?;
    answer(arrived, client.origin, route, location)
}

// ---- answers without a backend ----

/// The answer of a route that has no pool; `None` when it has one.
///
/// # Errors
/// Why there is none.
fn answer<'a>(
    arrived: &Arrived<'_>,
    origin: &Origin,
    route: &'a Route,
    location: &'a mut Vec<u8>,
) -> Result<Option<Answer<'a>>, Reason> {
    match &route.target {
        RouteTarget::Pool(_) | RouteTarget::Split(_) => Ok(None),
        RouteTarget::Redirect(Redirect { to, status }) => {
            let values = values(arrived, origin, route.name.as_str());
            template::location(to, &values, route.matches.path.as_ref(), location)?;
            Ok(Some(Answer {
                status: *status,
                location: Some(location),
                ..Answer::default()
            }))
        }
        RouteTarget::Respond(respond) => Ok(Some(Answer {
            status: respond.status,
            content_type: respond.content_type.as_deref().map(str::as_bytes),
            body: &respond.body.bytes,
            ..Answer::default()
        })),
    }
}

/// The answer of a listener that sends everything to HTTPS.
///
/// # Errors
/// Why there is none: the request names no host.
fn to_https<'a>(
    arrived: &Arrived<'_>,
    origin: &Origin,
    port: u16,
    location: &'a mut Vec<u8>,
) -> Result<Answer<'a>, Reason> {
    *location = https_address(port, &values(arrived, origin, ""))?;
    Ok(Answer {
        status: 308,
        location: Some(location),
        ..Answer::default()
    })
}

/// The same address over HTTPS.
///
/// # Errors
/// [`Reason::BadHost`] when the request names no host.
pub(crate) fn https_address(port: u16, values: &Values<'_>) -> Result<Vec<u8>, Reason> {
    use model::config::{DEFAULT_HTTPS_PORT, Variable};
    let text = match port {
        DEFAULT_HTTPS_PORT => "https://{host}{path}{query}".to_owned(),
        port => format!("https://{{host}}:{port}{{path}}{{query}}"),
    };
    let to = Template::parse(&text, &Variable::ALL, None).map_err(|_| Reason::BadHost)?;
    let mut address = Vec::new();
    template::location(&to, values, None, &mut address)?;
    Ok(address)
}

// ---- responses of backends ----

/// Takes away what the rules of the route take away or set anew.
pub(crate) fn drop_ruled(route: &Route, response: &mut ResponseHead, answered: &[u8]) {
    for name in taken_away(&route.actions.response_headers) {
        response.drop_fields(answered, name);
    }
}

/// Edits a backend's response, and begins to encode it where the route and the client want that.
pub(crate) fn edit_response(
    route: &Route,
    (request, asked): (&RequestHead, &[u8]),
    (response, answered): (&mut ResponseHead, &[u8]),
    extra: &mut FieldList,
    encoders: &Encoders,
) -> Option<Encoder> {
    drop_ruled(route, response, answered);
    let config = route.actions.compression.as_ref()?;
    let mut coding = encoding::decide(config, (request, asked), (response, answered));
    let encoder = match coding {
        Coding::Encode(wanted) => encoders.begin(wanted),
        Coding::Plain | Coding::Never(_) => None,
    };
    if encoder.is_none() && matches!(coding, Coding::Encode(_)) {
        coding = Coding::Plain;
    }
    encoding::edit(coding, response, answered, extra);
    encoder
}

/// Keeps what is to be kept of a failure in whose place an own page is answered. False: there is none.
pub(crate) fn intercept(
    route: &Route,
    response: &ResponseHead,
    answered: &[u8],
    extra: &mut FieldList,
) -> bool {
    let pages = &route.actions.error_pages;
    if !pages.intercept || pages.page(response.status).is_none() {
        return false;
    }
    for name in KEPT_BESIDE_PAGE {
        let removed = taken_away(&route.actions.response_headers).any(|n| n.eq_ignore_ascii_case(name));
        for value in response.values(answered, name).filter(|_| !removed) {
            extra.push(name.as_bytes(), value);
        }
    }
    true
}

/// Whether a response may be held back until it is whole: not a stream of events.
pub(crate) fn may_hold(response: &ResponseHead, answered: &[u8]) -> bool {
    let content_type = response.field(answered, "content-type").unwrap_or_default();
    let start = content_type.get(..b"text/event-stream".len()).unwrap_or_default();
    !start.eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether nothing of a response is left to come over its connection, given what came behind its head.
pub(crate) fn is_whole(response: &ResponseHead, behind: u64) -> bool {
    match response.framing {
        Framing::None => behind == 0,
        Framing::Length(length) => behind == length,
        Framing::Chunked | Framing::UntilClose => false,
    }
}
