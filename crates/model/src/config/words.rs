//! Routes and pools in words, for whoever wants to see on a screen what a config means.

use super::{
    Learned, LimitKey, PathMatch, Pool, RateLimit, Redirect, Respond, Route, RouteMatch, RouteTarget,
    SessionKey, Split, StickyBy, ValueMatch,
};
use crate::units::{format_duration, format_size};

/// Longest description of what a route matches, in characters; what is longer is cut.
const MAX_MATCH_WORDS: usize = 200;

impl Route {
    /// What it matches: `host *.shop.example, path /api/…, not (header x-robot)`.
    pub fn match_words(&self) -> String {
        let words = match_words(&self.matches);
        match words.char_indices().nth(MAX_MATCH_WORDS) {
            Some((end, _)) => format!("{}…", words.get(..end).unwrap_or("")),
            None => words,
        }
    }

    /// Where it leads: `pool web`, `split web 95, canary 5 by cookie:user`, `redirect 301 to https://…`.
    pub fn target_words(&self) -> String {
        match &self.target {
            RouteTarget::Pool(pool) => format!("pool {pool}"),
            RouteTarget::Split(Split { parts, key }) => {
                let shares = parts.iter().map(|part| format!("{} {}", part.pool, part.weight));
                let shares = shares.collect::<Vec<_>>().join(", ");
                match key {
                    Some(key) => format!("split {shares} by {key}"),
                    None => format!("split {shares}"),
                }
            }
            RouteTarget::Redirect(Redirect { to, status }) => format!("redirect {status} to {to}"),
            RouteTarget::Respond(Respond { status, .. }) => format!("answer {status}"),
        }
    }

    /// What it does besides, a few words each.
    pub fn action_words(&self) -> Vec<String> {
        let Self {
            name: _,
            priority,
            matches: _,
            target: _,
            rate_limits,
            timeouts,
            actions,
        } = self;
        let mut words = Vec::new();
        if *priority > 0 {
            words.push(format!("priority {priority}"));
        }
        words.extend(rate_limits.iter().map(limit_words));
        for (name, time) in [("first_byte", timeouts.first_byte), ("total", timeouts.total)] {
            words.extend(time.map(|time| format!("{name} {}", format_duration(time))));
        }
        let done = [
            (actions.rewrite.is_some(), "rewrites"),
            (!actions.request_headers.is_empty(), "request headers"),
            (!actions.response_headers.is_empty(), "response headers"),
            (!actions.error_pages.pages.is_empty(), "error pages"),
            (actions.compression.is_some(), "compresses"),
            (actions.buffer_requests.is_some(), "buffers requests"),
            (actions.buffer_responses.is_some(), "buffers responses"),
        ];
        let done = done.iter().filter(|(is_done, _)| *is_done);
        words.extend(done.map(|(_, name)| (*name).to_owned()));
        let mirror = actions.mirror.as_ref();
        words.extend(mirror.map(|mirror| format!("mirrors {}% to {}", mirror.share, mirror.pool)));
        words.extend(
            actions
                .max_body
                .map(|bytes| format!("bodies up to {}", format_size(bytes))),
        );
        words
    }
}

impl Pool {
    /// How it speaks to its backends and keeps sessions, a few words each; nothing of what is as everywhere.
    pub fn setting_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.http2.is_some() {
            words.push("HTTP/2".to_owned());
        }
        if self.tls.is_some() {
            words.push("TLS".to_owned());
        }
        words.extend(self.sticky.as_ref().map(|sticky| match &sticky.by {
            StickyBy::Cookie(cookie) => format!("sticky by cookie {}", cookie.name),
            StickyBy::Learned(Learned { key, .. }) => match key {
                SessionKey::AppCookie(name) => format!("sticky by the application's cookie {name}"),
                SessionKey::Header(name) => format!("sticky by header {name}"),
                SessionKey::ClientAddress => "sticky by client address".to_owned(),
            },
        }));
        words
    }
}

fn limit_words(limit: &RateLimit) -> String {
    let each = match limit.key {
        LimitKey::Route => "in all".to_owned(),
        _ => format!("by {}", limit.key),
    };
    format!("{} in {} {each}", limit.requests, format_duration(limit.per))
}

fn match_words(matches: &RouteMatch) -> String {
    let RouteMatch {
        host,
        path,
        methods,
        headers,
        cookies,
        query,
        client_address,
        languages,
        countries,
        continents,
        any,
        all,
        not,
    } = matches;
    let mut words: Vec<String> = Vec::new();
    words.extend(host.iter().map(|host| format!("host {host}")));
    words.extend(path.iter().map(|path| match path {
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(prefix) => format!("path {}/…", prefix.trim_end_matches('/')),
        PathMatch::Pattern(pattern) => format!("path ~ {}", pattern.as_str()),
    }));
    words.extend(one_of("method", methods));
    for (kind, conditions) in [("header", headers), ("cookie", cookies), ("query", query)] {
        words.extend(conditions.iter().map(|(name, value)| match value {
            ValueMatch::Present => format!("{kind} {name}"),
            ValueMatch::Absent => format!("no {kind} {name}"),
            ValueMatch::Exact(text) => format!("{kind} {name} = {text}"),
            ValueMatch::Pattern(pattern) => format!("{kind} {name} ~ {}", pattern.as_str()),
        }));
    }
    words.extend(one_of("client", client_address));
    words.extend(one_of("language", languages));
    words.extend(one_of("country", countries));
    words.extend(one_of("continent", continents));
    words.extend(all.iter().map(|each| format!("({})", match_words(each))));
    let nested: Vec<String> = any.iter().map(match_words).collect();
    match nested.as_slice() {
        [] => {}
        [one] => words.push(format!("({one})")),
        several => words.push(format!("({})", several.join(") or ("))),
    }
    words.extend(not.iter().map(|not| format!("not ({})", match_words(not))));
    match words.is_empty() {
        true => "everything".to_owned(),
        false => words.join(", "),
    }
}

fn one_of(kind: &str, values: &[impl ToString]) -> Option<String> {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    (!values.is_empty()).then(|| format!("{kind} {}", values.join("|")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use crate::parse::parse_toml;

    /// Match, target and the rest of the only route with these lines.
    fn words(lines: &str) -> (String, String, String) {
        let text = format!(
            "[node]\ngeoip = \"x\"\n[load_balancers.x.pools.a]\nbackend_servers = [\"10.0.0.1:1\"]\n\
             [load_balancers.x.pools.b]\nbackend_servers = [\"10.0.0.2:1\"]\n\
             [[load_balancers.x.routes]]\nmatch.path = \"/b\"\npool = \"b\"\n\
             [[load_balancers.x.routes]]\nname = \"it\"\n{lines}\n\
             [[load_balancers.x.routes]]\nname = \"last\"\nmatch.path = \"/a\"\npool = \"a\"\n"
        );
        let config = parse_toml(&text, "x.toml").unwrap();
        let routes = &config.load_balancers.values().next().unwrap().routes;
        let route = routes.iter().find(|route| route.name.as_str() == "it").unwrap();
        let besides = route.action_words().join("; ");
        (route.match_words(), route.target_words(), besides)
    }

    #[test]
    fn what_matches_is_told_as_it_is_combined() {
        let (matches, target, besides) = words(
            "match = { host = \"*.x.test\", path_prefix = \"/api\", method = [\"GET\", \"HEAD\"], country = \"CH\", \
             headers = { X-A = true, X-B = false, X-C = \"1\" }, cookies = { g = { regex = \"b.*\" } }, \
             not = { client_address = \"10.0.0.0/8\" } }\npool = \"a\"",
        );
        assert_eq!(
            matches,
            "host *.x.test, path /api/…, method GET|HEAD, header x-a, no header x-b, header x-c = 1, \
             cookie g ~ b.*, country CH, not (client 10.0.0.0/8)"
        );
        assert_eq!((target.as_str(), besides.as_str()), ("pool a", ""));
        let (matches, ..) =
            words("match.any = [{ query = { a = \"1\" } }, { language = \"de\" }]\npool = \"a\"");
        assert_eq!(matches, "(query a = 1) or (language de)");
    }

    #[test]
    fn what_a_route_does_is_told_in_a_few_words() {
        let (matches, target, besides) = words(
            "split = [{ pool = \"a\", weight = 95 }, { pool = \"b\", weight = 5 }]\nsplit_key = \"cookie:user\"\n\
             priority = 3\nrate_limit = [{ requests = 5, per = \"1m\" }, { requests = 9, key = \"route\" }]\n\
             timeouts = { total = \"20s\" }\nrewrite = { path_prefix = \"/v2\" }\ncompression = {}\n\
             mirror = { pool = \"b\", share = \"10%\" }\nmax_body = \"1MiB\"",
        );
        assert_eq!(matches, "everything");
        assert_eq!(target, "split a 95, b 5 by cookie:user");
        assert_eq!(
            besides,
            "priority 3; 5 in 1m by client_address; 9 in 1s in all; total 20s; rewrites; compresses; \
             mirrors 10% to b; bodies up to 1MiB"
        );
        let (_, target, _) = words("redirect = { to = \"https://{host}/x\", status = 301 }");
        assert_eq!(target, "redirect 301 to https://{host}/x");
        assert_eq!(words("respond = { status = 503 }").1, "answer 503");
    }

    #[test]
    fn what_is_not_as_everywhere_is_told_of_a_pool() {
        for (lines, words) in [
            ("", ""),
            ("protocol = \"http2\"\ntls = true", "HTTP/2, TLS"),
            ("sticky.cookie = \"evk\"", "sticky by cookie evk"),
            (
                "sticky.app_cookie = \"SID\"",
                "sticky by the application's cookie SID",
            ),
            ("sticky.header = \"X-S\"", "sticky by header x-s"),
            ("sticky.client_address = true", "sticky by client address"),
        ] {
            let text = format!("[load_balancers.x]\nbackend_servers = [\"10.0.0.1:1\"]\n{lines}\n");
            let config = parse_toml(&text, "x.toml").unwrap();
            let balancer = config.load_balancers.values().next().unwrap();
            let pool = balancer.pools.values().next().unwrap();
            assert_eq!(pool.setting_words().join(", "), words);
        }
    }

    #[test]
    fn long_conditions_are_cut() {
        let hosts: Vec<String> = (0..60).map(|i| format!("{{ path = \"/path-{i}\" }}")).collect();
        let (matches, ..) = words(&format!("match.any = [{}]\npool = \"a\"", hosts.join(", ")));
        assert_eq!(matches.chars().count(), 201);
    }
}
