//! What listener and route would do with a request besides choosing a pool, in words, and how long they wait for it.

use std::net::IpAddr;
use std::time::Duration;

use http::template::{self, Values};
use http::{Framing, RequestHead};
use model::config::{HeaderRules, PathMatch, Pool, RetryOn, Route, RouteTarget, Template};
use model::reason::Reason;
use model::units::{format_duration, format_size};

use crate::actions;
use crate::serving::ListenerServing;

/// What is done, a line each; and whether that is an answer, or why the request is refused.
pub(crate) struct Told {
    pub(crate) lines: Vec<String>,
    pub(crate) answers: Result<bool, Reason>,
}

/// Tells what becomes of a request of `client` on `listener`, which takes this route.
pub(crate) fn tell(
    listener: &ListenerServing,
    route: Option<&Route>,
    head: &RequestHead,
    bytes: &[u8],
    client: IpAddr,
) -> Told {
    let values = Values {
        client,
        host: head.host_name(bytes),
        method: head.method_bytes(bytes),
        path: head.path(bytes),
        query: head.query(bytes),
        // It has one only once it is there.
        request_id: b"{request_id}",
        route: route.map_or("", |route| route.name.as_str()).as_bytes(),
        scheme: listener.tls.as_ref().map_or(b"http", |_| b"https"),
    };
    let mut told = Told {
        lines: Vec::new(),
        answers: Ok(false),
    };
    if let Some(port) = listener.config.redirect_to_https {
        told.redirected(308, actions::https_address(port, &values));
        return told;
    }
    told.limit_body(listener, route, head);
    let Some(route) = route else {
        return told;
    };
    match &route.target {
        RouteTarget::Pool(_) | RouteTarget::Split(_) => told.for_backend(route, head, bytes, &values),
        RouteTarget::Redirect(redirect) => {
            let mut out = Vec::new();
            let filled = template::location(&redirect.to, &values, route.matches.path.as_ref(), &mut out);
            told.redirected(redirect.status, filled.map(|()| out));
        }
        RouteTarget::Respond(respond) => {
            let (status, length) = (respond.status, respond.body.bytes.len());
            told.lines
                .push(format!("answers with {status} and {length} bytes"));
            told.answers = Ok(true);
        }
    }
    told.for_client(route, &values);
    told
}

/// How long a backend may take, and what is tried again.
pub(crate) fn patience(route: Option<&Route>, pool: &Pool) -> [String; 2] {
    let own = route.map(|route| &route.timeouts);
    let first_byte = own
        .and_then(|own| own.first_byte)
        .unwrap_or(pool.timeouts.first_byte);
    let total = own.and_then(|own| own.total).unwrap_or(pool.timeouts.total);
    let total = match total {
        Duration::ZERO => "none".to_owned(),
        total => format_duration(total),
    };
    let times = format!(
        "timeouts: connect {}, first_byte {}, stream_idle {}, total {total}",
        format_duration(pool.timeouts.connect),
        format_duration(first_byte),
        format_duration(pool.timeouts.stream_idle),
    );
    let retries = &pool.retries;
    let again = match retries.attempts {
        0 => "retries: none".to_owned(),
        times => format!("retries: up to {times}, on {}", causes(&retries.on)),
    };
    [times, again]
}

fn causes(on: &RetryOn) -> String {
    let named = [
        (on.connect, "connect"),
        (on.reset, "reset"),
        (on.timeout, "timeout"),
    ];
    let named = named
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| (*name).to_owned());
    let statuses = on.statuses.iter().map(|range| match range {
        (400, 499) => "4xx".to_owned(),
        (500, 599) => "5xx".to_owned(),
        (status, _) => status.to_string(),
    });
    named.chain(statuses).collect::<Vec<_>>().join(", ")
}

impl Told {
    fn redirected(&mut self, status: u16, address: Result<Vec<u8>, Reason>) {
        self.answers = address.map(|address| {
            let address = String::from_utf8_lossy(&address);
            self.lines.push(format!("redirects with {status} to {address}"));
            true
        });
    }

    /// Refuses a body that is known to be too large for the route, or for what it takes whole.
    fn limit_body(&mut self, listener: &ListenerServing, route: Option<&Route>, head: &RequestHead) {
        let own = route.and_then(|route| route.actions.max_body);
        let whole = route.and_then(|route| route.actions.buffer_requests.as_ref());
        let whole = whole.map(|buffer| buffer.memory.saturating_add(buffer.disk));
        let limits = own.or(listener.body_limit).into_iter().chain(whole);
        if let (Framing::Length(length), Some(limit)) = (head.framing, limits.min())
            && length > limit
        {
            self.answers = Err(Reason::BodyTooLarge);
        }
    }

    fn for_backend(&mut self, route: &Route, head: &RequestHead, bytes: &[u8], values: &Values<'_>) {
        let actions = &route.actions;
        if let Some(rule) = actions.rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()) {
            let prefix = match &route.matches.path {
                Some(PathMatch::Prefix(prefix)) => Some(prefix.as_str()),
                _ => None,
            };
            let (mut target, mut outgoing) = (Vec::new(), RequestHead::new());
            outgoing.copy_from(head);
            if template::rewrite(rule, prefix, head, bytes, &mut target) {
                match outgoing.set_target(&target) {
                    Ok(()) => {
                        let target = String::from_utf8_lossy(outgoing.target(bytes)).into_owned();
                        self.lines.push(format!("asks the backend for {target}"));
                    }
                    Err(reason) => self.answers = Err(reason),
                }
            }
        }
        if let Some(host) = actions.rewrite.as_ref().and_then(|rewrite| rewrite.host.as_ref()) {
            self.lines.push(format!("asks the backend for the host {host}"));
        }
        self.rules("request", &actions.request_headers, values);
        if let Some(mirror) = &actions.mirror {
            let line = format!("copies {}% to the pool {}", mirror.share, mirror.pool);
            self.lines.push(line);
        }
        if actions.buffer_requests.is_some() {
            self.lines.push("takes the whole body first".to_owned());
        }
        if actions.buffer_responses.is_some() {
            self.lines
                .push("frees the backend before the client has read".to_owned());
        }
        if let Some(compression) = &actions.compression {
            let codings: Vec<&str> = compression.encodings.iter().map(|e| e.as_str()).collect();
            self.lines.push(format!(
                "compresses what may be, with {} as the client accepts",
                codings.join(", ")
            ));
        }
    }

    fn for_client(&mut self, route: &Route, values: &Values<'_>) {
        self.rules("response", &route.actions.response_headers, values);
        let pages = &route.actions.error_pages;
        if !pages.pages.is_empty() {
            let whose = match pages.intercept {
                true => "for failures, the backends' too",
                false => "for failures",
            };
            self.lines.push(format!("own pages {whose}"));
        }
        if let Some(bytes) = route.actions.max_body {
            self.lines.push(format!("bodies up to {}", format_size(bytes)));
        }
    }

    fn rules(&mut self, of: &str, rules: &HeaderRules, values: &Values<'_>) {
        let filled = |value: &Template| {
            let mut out = Vec::new();
            template::fill(value, values, &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let fields = |fields: &[(String, Template)]| {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", filled(value)));
            fields.collect::<Vec<_>>().join(", ")
        };
        let done = [
            ("removes", rules.remove.join(", ")),
            ("sets", fields(&rules.set)),
            ("adds", fields(&rules.add)),
        ];
        for (what, names) in done.into_iter().filter(|(_, names)| !names.is_empty()) {
            self.lines.push(format!("{what} in the {of}: {names}"));
        }
    }
}
