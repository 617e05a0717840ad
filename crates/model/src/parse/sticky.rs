//! Stickiness of a pool.

use std::sync::Arc;

use super::section::{Findings, Section, item_text, narrow};
use super::text;
use super::tree::Value;
use crate::config::{
    DEFAULT_DRAIN_TIMEOUT, DEFAULT_LEARNED_TTL, DEFAULT_MAX_SESSIONS, Learned, Listener, SameSite, Secret,
    Secure, SessionKey, Sticky, StickyBy, StickyCookie,
};
use crate::diagnostic::Fault;
use crate::schema;

pub(super) fn sticky(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Sticky> {
    let drain_timeout = s.duration(f, "drain_timeout").unwrap_or(DEFAULT_DRAIN_TIMEOUT);
    let ttl = s.duration(f, "ttl");
    let cookie = cookie(f, s, ttl);
    let app_cookie = s.text(f, "app_cookie", text::cookie_name);
    let header = s.text(f, "header", text::field_name);
    let by_address = s.boolean(f, "client_address").unwrap_or(false);
    let max_sessions = s.integer(f, "max_sessions").map_or(DEFAULT_MAX_SESSIONS, narrow);
    let ways = ["cookie", "app_cookie", "header"];
    if !by_address && ways.iter().all(|key| s.entry(key).is_none()) {
        let fault = Fault::new("`sticky` does not say what a session is");
        let fault = fault.suggest("add for example `cookie = \"evk\"`, or one of `app_cookie`, `header` and `client_address = true`");
        f.report(s.span.clone(), &s.path, fault);
        return None;
    }
    let key = app_cookie
        .map(SessionKey::AppCookie)
        .or_else(|| header.map(|name| SessionKey::Header(name.to_ascii_lowercase())))
        .or_else(|| by_address.then_some(SessionKey::ClientAddress));
    let learned = key.map(|key| {
        StickyBy::Learned(Learned {
            key,
            ttl: ttl.unwrap_or(DEFAULT_LEARNED_TTL),
            max_sessions,
        })
    });
    Some(Sticky {
        by: cookie.map(StickyBy::Cookie).or(learned)?,
        drain_timeout,
    })
}

fn cookie(f: &mut Findings<'_>, s: &Section<'_>, ttl: Option<std::time::Duration>) -> Option<StickyCookie> {
    let name = s.text(f, "cookie", text::cookie_name);
    let secure = secure(f, s);
    let same_site = match s.choice(f, "same_site") {
        Some("strict") => SameSite::Strict,
        Some("none") => SameSite::None,
        _ => SameSite::Lax,
    };
    let cookie = StickyCookie {
        name: name.unwrap_or_default(),
        ttl,
        secure,
        same_site,
        http_only: s.boolean(f, "http_only").unwrap_or(true),
        path: s
            .text(f, "path", text::route_path)
            .unwrap_or_else(|| "/".to_owned()),
        domain: s.text(f, "domain", text::host),
        secrets: secrets(f, s),
    };
    if let Some(entry) = s
        .entry("same_site")
        .filter(|_| same_site == SameSite::None && secure == Secure::Auto)
    {
        let place = (entry.node.span.clone(), s.path_of("same_site"));
        f.secure_over_tls.push(place);
    }
    if same_site == SameSite::None && secure == Secure::Never {
        report(
            f,
            s,
            "same_site",
            "browsers drop a cookie with `SameSite=None` that is not `Secure`",
            "remove `secure = false`, or choose another `same_site`",
        );
    }
    if cookie.path.contains(';') {
        report(
            f,
            s,
            "path",
            "a `;` would end the attribute `Path`",
            "write it as `%3B`",
        );
    }
    let host_only = cookie.path == "/" && cookie.domain.is_none() && secure == Secure::Always;
    if cookie.name.starts_with("__Host-") && !host_only {
        report(
            f,
            s,
            "cookie",
            "browsers drop a cookie `__Host-…` unless it is `Secure`, for the path `/` and without a domain",
            "add `secure = true`, and remove `path` and `domain`",
        );
    }
    if cookie.name.starts_with("__Secure-") && secure != Secure::Always {
        report(
            f,
            s,
            "cookie",
            "browsers drop a cookie `__Secure-…` unless it is `Secure`",
            "add `secure = true`",
        );
    }
    s.entry("cookie")
        .filter(|_| !cookie.name.is_empty())
        .map(|_| cookie)
}

/// Warns of cookies that browsers drop because one of these listeners hears requests in clear text. Behind a
/// trusted proxy it is the proxy that says how they came.
pub(super) fn warn_of_clear_text(f: &mut Findings<'_>, listeners: &[Arc<Listener>]) {
    let places = std::mem::take(&mut f.secure_over_tls);
    let in_clear = |listener: &&Arc<Listener>| {
        listener.tls.is_none() && listener.redirect_to_https.is_none() && listener.trusted_proxies.is_empty()
    };
    let Some(listener) = listeners.iter().find(in_clear) else {
        return;
    };
    for (span, path) in places {
        let fault = Fault::new(format!(
            "browsers drop a cookie with `SameSite=None` that is not `Secure`, as it is for requests over clear \
             HTTP, which the listener `{}` takes",
            listener.name
        ));
        let help = "add `secure = true` where something before Evenkeel speaks HTTPS, or let that listener \
                    `redirect_to_https`, or choose another `same_site`";
        f.warn(span, &path, fault.suggest(help));
    }
}

fn secure(f: &mut Findings<'_>, s: &Section<'_>) -> Secure {
    match s.entry("secure").map(|entry| &entry.node.value) {
        None => Secure::Auto,
        Some(Value::Bool(true)) => Secure::Always,
        Some(Value::Bool(false)) => Secure::Never,
        Some(Value::Text(text)) if text == "auto" => Secure::Auto,
        Some(_) => {
            s.report_wrong_type(f, "secure");
            Secure::Auto
        }
    }
}

fn report(f: &mut Findings<'_>, s: &Section<'_>, key: &str, cause: &str, help: &str) {
    if let Some(entry) = s.entry(key) {
        let fault = Fault::new(cause).suggest(help);
        f.report(entry.node.span.clone(), &s.path_of(key), fault);
    }
}

/// `secret`: one, or a list of which the first signs.
pub(super) fn secrets(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<Secret> {
    let items = s.items(f, "secret").unwrap_or_default();
    if items.len() > MAX_SECRETS {
        let cause = format!("there are more than {MAX_SECRETS} secrets");
        report(
            f,
            s,
            "secret",
            &cause,
            "keep the one that signs and those that were in use lately",
        );
    }
    let expected = schema::Form::Secret.expected();
    let secrets = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::secret));
    secrets.collect()
}

/// Most secrets of one key: each is tried on a cookie that the ones before did not sign.
const MAX_SECRETS: usize = 4;
