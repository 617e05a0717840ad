//! Whether what a route matches holds of a request, and in words why not.

use std::borrow::Cow;

use model::config::{HostMatch, PathMatch, RouteMatch, ValueMatch};
use model::geography::Code;

use super::facts::{Facts, decoded};
use super::language::negotiate;

/// A request seen by the routes of one load balancer.
pub(super) struct View<'v, 'a> {
    pub(super) facts: &'v Facts<'a>,
    /// Languages on offer, in lower case.
    pub(super) languages: &'v [String],
    /// Whether the first of them is the default.
    pub(super) default_language: bool,
}

impl<'v> View<'v, '_> {
    /// The language negotiated.
    pub(super) fn language(&self) -> Option<&'v str> {
        let chosen = self.facts.language.get_or_init(|| {
            negotiate(
                self.facts.accept_language(),
                self.languages,
                self.default_language,
            )
        });
        chosen.and_then(|i| self.languages.get(i)).map(String::as_str)
    }
}

/// Whether all of `wanted` holds.
pub(super) fn holds(wanted: &RouteMatch, view: &View<'_, '_>) -> bool {
    wanted
        .host
        .as_ref()
        .is_none_or(|host| host_is(host, view.facts.host()))
        && wanted
            .path
            .as_ref()
            .is_none_or(|path| path_is(path, view.facts.path()))
        && further_holds(wanted, view)
}

/// Whether all of `wanted` holds beside host and path.
pub(super) fn further_holds(wanted: &RouteMatch, view: &View<'_, '_>) -> bool {
    let RouteMatch {
        host: _,
        path: _,
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
    } = wanted;
    let facts = view.facts;
    let known = |code: Option<Code>, wanted: &[String]| {
        code.is_some_and(|code| wanted.iter().any(|wanted| wanted == code.as_str()))
    };
    (methods.is_empty() || methods.iter().any(|method| method.as_bytes() == facts.method()))
        && headers
            .iter()
            .all(|(name, wanted)| value_is(wanted, facts.header(name)))
        && cookies
            .iter()
            .all(|(name, wanted)| value_is(wanted, facts.cookie(name)))
        && query
            .iter()
            .all(|(name, wanted)| parameter_is(wanted, facts.parameter(name)))
        && (client_address.is_empty() || client_address.iter().any(|net| net.contains(facts.client())))
        && (languages.is_empty()
            || view
                .language()
                .is_some_and(|tag| languages.iter().any(|wanted| wanted == tag)))
        && (countries.is_empty() || known(facts.geography().country, countries))
        && (continents.is_empty() || known(facts.geography().continent, continents))
        && (any.is_empty() || any.iter().any(|each| holds(each, view)))
        && all.iter().all(|each| holds(each, view))
        && not.as_ref().is_none_or(|not| !holds(not, view))
}

fn host_is(wanted: &HostMatch, host: &[u8]) -> bool {
    match wanted {
        HostMatch::Exact(name) => name.as_bytes().eq_ignore_ascii_case(host),
        HostMatch::Under(suffix) => {
            let label = host.len().checked_sub(suffix.len()).filter(|label| *label > 0);
            label
                .and_then(|label| host.get(label..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
        }
    }
}

pub(super) fn path_is(wanted: &PathMatch, path: &[u8]) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact.as_bytes(),
        PathMatch::Prefix(prefix) => is_everything(prefix) || is_under(path, prefix.as_bytes()),
        PathMatch::Pattern(pattern) => pattern.matches(path),
    }
}

/// Every path is under this, and `*` too.
pub(super) fn is_everything(prefix: &str) -> bool {
    prefix == "/" || prefix.is_empty()
}

/// Whether `path` starts with `prefix` at a segment border.
pub(super) fn is_under(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.ends_with(b"/") || matches!(rest.first(), None | Some(b'/')))
}

fn value_is<'a>(wanted: &ValueMatch, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
    match wanted {
        ValueMatch::Present => values.next().is_some(),
        ValueMatch::Absent => values.next().is_none(),
        ValueMatch::Exact(wanted) => values.any(|value| value == wanted.as_bytes()),
        ValueMatch::Pattern(pattern) => values.any(|value| pattern.matches(value)),
    }
}

fn parameter_is<'a>(wanted: &ValueMatch, mut values: impl Iterator<Item = &'a [u8]>) -> bool {
    match wanted {
        ValueMatch::Exact(wanted) => values.any(|value| decoded(value).eq(wanted.bytes())),
        ValueMatch::Pattern(pattern) => values.any(|value| {
            let coded = value.iter().any(|b| matches!(b, b'%' | b'+'));
            let value = match coded {
                true => Cow::Owned(decoded(value).collect::<Vec<u8>>()),
                false => Cow::Borrowed(value),
            };
            pattern.matches(&value)
        }),
        _ => value_is(wanted, values),
    }
}

// ---- in words ----

/// The first condition that does not hold, in words; `None` when all do.
pub(super) fn failing(wanted: &RouteMatch, view: &View<'_, '_>) -> Option<String> {
    let facts = view.facts;
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let Some(host) = wanted.host.as_ref().filter(|host| !host_is(host, facts.host())) {
        return Some(format!("host `{}` is not `{host}`", shown(facts.host())));
    }
    if let Some(path) = wanted.path.as_ref().filter(|path| !path_is(path, facts.path())) {
        let found = shown(facts.path());
        return Some(match path {
            PathMatch::Exact(exact) => format!("path `{found}` is not `{exact}`"),
            PathMatch::Prefix(prefix) => format!("path `{found}` is not under `{prefix}`"),
            PathMatch::Pattern(pattern) => format!("path `{found}` does not match `{}`", pattern.as_str()),
        });
    }
    if !wanted.methods.is_empty() && !wanted.methods.iter().any(|m| m.as_bytes() == facts.method()) {
        return Some(format!(
            "method {} is not {}",
            shown(facts.method()),
            or_list(&wanted.methods)
        ));
    }
    failing_value(wanted, facts)
        .or_else(|| failing_client(wanted, view))
        .or_else(|| failing_nested(wanted, view))
}

fn failing_value(wanted: &RouteMatch, facts: &Facts<'_>) -> Option<String> {
    let headers = wanted.headers.iter().map(|(name, value)| {
        let mut found = facts.header(name);
        (
            "header",
            name,
            value,
            value_is(value, facts.header(name)),
            found.next(),
        )
    });
    let cookies = wanted.cookies.iter().map(|(name, value)| {
        let mut found = facts.cookie(name);
        (
            "cookie",
            name,
            value,
            value_is(value, facts.cookie(name)),
            found.next(),
        )
    });
    let query = wanted.query.iter().map(|(name, value)| {
        let mut found = facts.parameter(name);
        (
            "query parameter",
            name,
            value,
            parameter_is(value, facts.parameter(name)),
            found.next(),
        )
    });
    let mut failing = headers
        .chain(cookies)
        .chain(query)
        .filter(|(.., holds, _)| !holds);
    let (kind, name, wanted, _, found) = failing.next()?;
    let Some(found) = found else {
        return Some(format!("{kind} {name} is absent"));
    };
    if kind == "cookie" || (kind == "header" && is_credential(name)) {
        return Some(match wanted {
            ValueMatch::Exact(value) => format!("{kind} {name} is another than `{value}`"),
            ValueMatch::Pattern(pattern) => format!("{kind} {name} does not match `{}`", pattern.as_str()),
            ValueMatch::Absent | ValueMatch::Present => format!("{kind} {name} is there"),
        });
    }
    let found = String::from_utf8_lossy(found);
    Some(match wanted {
        ValueMatch::Exact(value) => format!("{kind} {name} is `{found}`, not `{value}`"),
        ValueMatch::Pattern(pattern) => format!(
            "{kind} {name} is `{found}`, which does not match `{}`",
            pattern.as_str()
        ),
        ValueMatch::Absent | ValueMatch::Present => format!("{kind} {name} is there"),
    })
}

/// Whether a field of this name lets somebody in, so that its value is told to nobody.
pub fn is_credential(name: &str) -> bool {
    let fields = ["authorization", "proxy-authorization", "cookie"];
    fields.iter().any(|field| name.eq_ignore_ascii_case(field))
}

fn failing_client(wanted: &RouteMatch, view: &View<'_, '_>) -> Option<String> {
    let facts = view.facts;
    if !wanted.client_address.is_empty()
        && !wanted
            .client_address
            .iter()
            .any(|net| net.contains(facts.client()))
    {
        let nets: Vec<String> = wanted.client_address.iter().map(ToString::to_string).collect();
        return Some(format!("client {} is not in {}", facts.client(), or_list(&nets)));
    }
    let unlike = |found: Option<&str>, wanted: &[String]| {
        !wanted.is_empty() && !found.is_some_and(|found| wanted.iter().any(|wanted| wanted == found))
    };
    if unlike(
        if wanted.languages.is_empty() {
            None
        } else {
            view.language()
        },
        &wanted.languages,
    ) {
        return Some(format!(
            "language {} is not {}",
            view.language().unwrap_or("(none)"),
            or_list(&wanted.languages)
        ));
    }
    let (countries, continents) = (&wanted.countries, &wanted.continents);
    if countries.is_empty() && continents.is_empty() {
        return None;
    }
    let geography = facts.geography();
    for (what, code, wanted) in [
        ("country", geography.country, countries),
        ("continent", geography.continent, continents),
    ] {
        let found = code.as_ref().map(Code::as_str);
        if unlike(found, wanted) {
            let found = found.unwrap_or("(unknown)");
            return Some(format!(
                "{what} {found} of {} is not {}",
                facts.client(),
                or_list(wanted)
            ));
        }
    }
    None
}

fn failing_nested(wanted: &RouteMatch, view: &View<'_, '_>) -> Option<String> {
    if !wanted.any.is_empty() && !wanted.any.iter().any(|each| holds(each, view)) {
        let why: Vec<String> = wanted.any.iter().filter_map(|each| failing(each, view)).collect();
        return Some(format!("nothing of `any` holds: {}", why.join("; ")));
    }
    if let Some(why) = wanted.all.iter().find_map(|each| failing(each, view)) {
        return Some(why);
    }
    let not = wanted.not.as_ref().filter(|not| holds(not, view))?;
    Some(format!("what `not` excludes holds: {}", holding(not, view)))
}

/// What holds of a match, in words.
pub(super) fn holding(wanted: &RouteMatch, view: &View<'_, '_>) -> String {
    let facts = view.facts;
    let mut parts = Vec::new();
    parts.extend(wanted.host.iter().map(|host| match host {
        HostMatch::Exact(_) => format!("host is `{host}`"),
        HostMatch::Under(_) => format!(
            "host `{}` is under `{host}`",
            String::from_utf8_lossy(facts.host())
        ),
    }));
    let path = String::from_utf8_lossy(facts.path());
    parts.extend(wanted.path.iter().filter_map(|wanted| match wanted {
        PathMatch::Exact(exact) => Some(format!("path is `{exact}`")),
        PathMatch::Prefix(prefix) if is_everything(prefix) => None,
        PathMatch::Prefix(prefix) => Some(format!("path `{path}` is under `{prefix}`")),
        PathMatch::Pattern(pattern) => Some(format!("path `{path}` matches `{}`", pattern.as_str())),
    }));
    if !wanted.methods.is_empty() {
        parts.push(format!("method is {}", String::from_utf8_lossy(facts.method())));
    }
    for (kind, values) in [
        ("header", &wanted.headers),
        ("cookie", &wanted.cookies),
        ("query parameter", &wanted.query),
    ] {
        parts.extend(values.iter().map(|(name, value)| match value {
            ValueMatch::Present => format!("{kind} {name} is there"),
            ValueMatch::Absent => format!("{kind} {name} is absent"),
            ValueMatch::Exact(value) => format!("{kind} {name} is `{value}`"),
            ValueMatch::Pattern(pattern) => format!("{kind} {name} matches `{}`", pattern.as_str()),
        }));
    }
    if !wanted.client_address.is_empty() {
        let net = wanted
            .client_address
            .iter()
            .find(|net| net.contains(facts.client()));
        parts.extend(net.map(|net| format!("client {} is in {net}", facts.client())));
    }
    if !wanted.languages.is_empty() {
        parts.extend(view.language().map(|language| format!("language is {language}")));
    }
    if !wanted.countries.is_empty() {
        parts.extend(
            facts
                .geography()
                .country
                .map(|country| format!("country is {country}")),
        );
    }
    if !wanted.continents.is_empty() {
        parts.extend(
            facts
                .geography()
                .continent
                .map(|continent| format!("continent is {continent}")),
        );
    }
    parts.extend(
        wanted
            .any
            .iter()
            .find(|each| holds(each, view))
            .map(|each| holding(each, view)),
    );
    parts.extend(wanted.all.iter().map(|each| holding(each, view)));
    parts.extend(wanted.not.iter().filter_map(|not| failing(not, view)));
    parts.join(", ")
}

fn or_list(words: &[String]) -> String {
    words.join(" or ")
}
