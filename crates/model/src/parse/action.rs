//! What a route does besides choosing a pool: rewriting, header fields, redirects, answers of its own, error pages,
//! mirroring, compression, buffering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::route::{pattern, report_unknown_pool};
use super::section::{Findings, Section, cut, item_text, narrow, parsed};
use super::text;
use super::tree::{Entry, Value};
use crate::config::{
    Actions, BufferRequests, BufferResponses, Compression, Content, DEFAULT_BUFFER_MEMORY,
    DEFAULT_MIRROR_BODY, DEFAULT_MIRROR_IN_FLIGHT, DEFAULT_MIRROR_TIMEOUT, Encoding, ErrorPages, HeaderRules,
    MAX_ERROR_PAGES, MAX_HEADER_RULES, Mirror, Name, PathRewrite, Piece, Redirect, Respond, Rewrite,
    Template, TemplateError, Variable,
};
use crate::diagnostic::Fault;
use crate::schema::{self, Form};

/// Most bytes of a body that stands in the config itself.
const MAX_BODY_TEXT: usize = 64 * 1024;
/// Most content types of a compression.
const MAX_TYPES: usize = 64;

/// Variables of an address that clients are sent to: nothing that only a backend should see.
const LOCATION_VARIABLES: [Variable; 5] = [
    Variable::Scheme,
    Variable::Host,
    Variable::Path,
    Variable::Query,
    Variable::Route,
];

/// Fields of which a message has those that its connection needs (RFC 9110 sections 7.6.1 and 8.6, RFC 9112).
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields of a request that are written anew from what is known about it.
const WRITTEN: [&str; 5] = [
    "forwarded",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

pub(super) fn actions(f: &mut Findings<'_>, s: &Section<'_>, known: &BTreeSet<&Name>) -> Actions {
    Actions {
        rewrite: s.section(f, "rewrite").map(|s| rewrite(f, &s)),
        request_headers: header_rules(f, s, "request_headers", request_field),
        response_headers: header_rules(f, s, "response_headers", response_field),
        error_pages: Arc::new(error_pages(f, s)),
        max_body: s.size(f, "max_body"),
        mirror: s.section(f, "mirror").and_then(|s| mirror(f, &s, known)),
        compression: s.section(f, "compression").map(|s| compression(f, &s)),
        buffer_requests: s.section(f, "buffer_requests").map(|s| buffer_requests(f, &s)),
        buffer_responses: s.section(f, "buffer_responses").map(|s| BufferResponses {
            memory: s.size(f, "memory").unwrap_or(DEFAULT_BUFFER_MEMORY),
        }),
    }
}

// ---- instead of a pool ----

/// `groups` are those of the pattern that the route compares paths with; `None` without one.
pub(super) fn redirect(f: &mut Findings<'_>, s: &Section<'_>, groups: Option<usize>) -> Option<Redirect> {
    let to = s.text(f, "to", |text| location(text, groups));
    let status = s.integer(f, "status").map_or(308, narrow);
    if let Some(entry) = s
        .entry("status")
        .filter(|_| !matches!(status, 301..=303 | 307 | 308))
    {
        let fault = Fault::new(format!("{status} is no redirect"))
            .suggest("use 308 (for good) or 307 (for now), which keep the method; or 301, 302, 303");
        f.report(entry.node.span.clone(), &s.path_of("status"), fault);
    }
    Some(Redirect { to: to?, status })
}

/// The address that a redirect names.
fn location(text: &str, groups: Option<usize>) -> Result<Template, Fault> {
    text::bounded(text, 1024)?;
    if text
        .bytes()
        .any(|b| !b.is_ascii_graphic() || b"\"<>\\^`|".contains(&b))
    {
        return Err(Fault::new(format!(
            "`{}` has a character that an address may not have",
            cut(text)
        ))
        .suggest("write other than visible ASCII characters in percent coding such as `%20`"));
    }
    let template = Template::parse(text, &LOCATION_VARIABLES, groups).map_err(|error| match &error {
        TemplateError::Unknown(name) if name.parse::<u8>().is_ok() => Fault::new(format!(
            "`{{{name}}}` names a group, but the `match` of this route has no `path_regex`"
        ))
        .suggest("write the path as a pattern: `match = { path_regex = \"/old/(.*)\" }`"),
        _ => template_fault(text, &LOCATION_VARIABLES, error),
    })?;
    if has_group_in_host(template.pieces()) {
        return Err(Fault::new(format!(
            "`{}` lets clients choose the host that they are sent to",
            cut(text)
        ))
        .suggest("write a `/` before the first group"));
    }
    let leads = match template.pieces() {
        [Piece::Variable(Variable::Scheme), Piece::Text(next), rest @ ..] => next
            .strip_prefix("://")
            .is_some_and(|after| names_host(after, rest)),
        [Piece::Variable(Variable::Path), ..] => true,
        [Piece::Text(start), rest @ ..] => {
            let after = start
                .strip_prefix("https://")
                .or_else(|| start.strip_prefix("http://"));
            after.is_some_and(|after| names_host(after, rest))
                || (start.starts_with('/') && !start.starts_with("//"))
        }
        _ => false,
    };
    match leads {
        true => Ok(template),
        false => Err(Fault::new(format!("`{}` is no address to send clients to", cut(text))).suggest(
            "write it as `https://new.example{path}{query}`, `{scheme}://{host}/new{query}` or `/new{query}`",
        )),
    }
}

/// Whether a group stands before the path of the address: it may hold anything that a path may.
fn has_group_in_host(pieces: &[Piece]) -> bool {
    let ends_host = |piece: &Piece| match piece {
        Piece::Text(text) => text
            .split_once("://")
            .map_or(text.as_str(), |(_, rest)| rest)
            .contains(['/', '?', '#']),
        Piece::Variable(variable) => *variable == Variable::Path,
        Piece::Group(_) => false,
    };
    let mut host = pieces.iter().take_while(|piece| !ends_host(piece));
    host.any(|piece| matches!(piece, Piece::Group(_)))
}

/// Whether what follows `://` begins with a host. Without one, browsers take what comes behind the slashes for it.
fn names_host(after: &str, rest: &[Piece]) -> bool {
    match after.is_empty() {
        true => matches!(rest.first(), Some(Piece::Variable(Variable::Host))),
        false => !after.starts_with(['/', '?', '#']),
    }
}

pub(super) fn respond(f: &mut Findings<'_>, s: &Section<'_>) -> Respond {
    let status = s.integer(f, "status").map_or(200, narrow);
    let inline =
        s.text(f, "body", |text| match text.len() > MAX_BODY_TEXT {
            true => Err(Fault::new("a body in the config has at most 64 KiB")
                .suggest("put it into a file: `body_file`")),
            false => Ok(Content::inline(text)),
        });
    let file = s
        .text(f, "body_file", text::file)
        .map(|path| Content::of_file(&path));
    let bodiless = matches!(status, 204 | 205 | 304);
    for key in ["body", "body_file", "content_type"] {
        if let Some(entry) = s.entry(key).filter(|_| bodiless) {
            let fault = Fault::new(format!("a response with status {status} has no body"));
            f.report(entry.key_span.clone(), &s.path_of(key), fault);
        }
    }
    let content_type = s.text(f, "content_type", text::field_value);
    let body = inline.or(file);
    let by_name = body.as_ref().map(|body| body.content_type().to_owned());
    Respond {
        status,
        content_type: content_type.or(by_name),
        body: body.unwrap_or_default(),
    }
}

// ---- requests ----

fn rewrite(f: &mut Findings<'_>, s: &Section<'_>) -> Rewrite {
    let prefix = s
        .text(f, "path_prefix", text::route_path)
        .map(PathRewrite::Prefix);
    let pattern = s.text(f, "path_regex", pattern);
    f.count_pattern(s, "path_regex");
    let by_pattern = pattern.and_then(|pattern| {
        let to = s.text(f, "path_to", |text| path_template(text, pattern.groups()))?;
        Some(PathRewrite::Pattern { pattern, to })
    });
    Rewrite {
        host: s.text(f, "host", text::host_field),
        path: prefix.or(by_pattern),
    }
}

fn path_template(text: &str, groups: usize) -> Result<Template, Fault> {
    text::check_path(text)?;
    template(text, &[], Some(groups))
}

fn header_rules(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    key: &str,
    name: fn(&str) -> Result<String, Fault>,
) -> HeaderRules {
    let Some(section) = s.section(f, key) else {
        return HeaderRules::default();
    };
    let remove = section.items(f, "remove").unwrap_or_default();
    let expected = Form::FieldName.expected();
    let remove: Vec<String> = remove
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, name))
        .collect();
    let rules = HeaderRules {
        set: field_templates(f, &section, "set", name),
        add: field_templates(f, &section, "add", name),
        remove,
    };
    let count = rules.set.len() + rules.add.len() + rules.remove.len();
    if count > MAX_HEADER_RULES {
        let fault = Fault::new(format!(
            "`{key}` names at most {MAX_HEADER_RULES} fields; here are {count}"
        ));
        f.report(section.span.clone(), &section.path, fault);
    }
    rules
}

/// Values by name, each name once whatever its letters.
fn field_templates(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    key: &str,
    name: fn(&str) -> Result<String, Fault>,
) -> Vec<(String, Template)> {
    let entries = s.fields(f, key).unwrap_or_default();
    let mut found: Vec<(String, Template)> = Vec::new();
    for entry in entries {
        let path = format!("{}.{}", s.path_of(key), entry.key);
        let expected = Form::FieldValue.expected();
        let value = item_text(f, (&path, &entry.node), expected, field_template);
        let name = name(&entry.key).and_then(|name| match found.iter().any(|(n, _)| *n == name) {
            true => Err(Fault::new(format!("`{}` is given twice", cut(&name)))),
            false => Ok(name),
        });
        match name {
            Ok(name) => found.extend(value.map(|value| (name, value))),
            Err(fault) => f.report(entry.key_span.clone(), &path, fault),
        }
    }
    found
}

fn field_template(text: &str) -> Result<Template, Fault> {
    text::field_value(text)?;
    template(text, &Variable::ALL, None)
}

fn template(text: &str, variables: &[Variable], groups: Option<usize>) -> Result<Template, Fault> {
    Template::parse(text, variables, groups).map_err(|error| template_fault(text, variables, error))
}

fn template_fault(text: &str, variables: &[Variable], error: TemplateError) -> Fault {
    let fault = Fault::new(format!("`{}`: {error}", cut(text)));
    match error {
        TemplateError::Unpaired(_) => fault.suggest("write `{{` or `}}` for a brace that means itself"),
        TemplateError::Unknown(_) if variables.is_empty() => {
            fault.suggest("the groups of `path_regex` are `{1}`, `{2}` and so on")
        }
        TemplateError::Unknown(_) => {
            let known: Vec<String> = variables
                .iter()
                .map(|v| format!("`{{{}}}`", v.as_str()))
                .collect();
            fault.suggest(format!("there are {}", known.join(", ")))
        }
        TemplateError::NoGroup(..) | TemplateError::TooMany => fault,
    }
}

fn request_field(text: &str) -> Result<String, Fault> {
    let name = own_field(text)?;
    let fault = |cause: &str| Err(Fault::new(format!("`{}` {cause}", cut(text))));
    match name.as_str() {
        "host" => fault("is part of where a request goes")
            .map_err(|f: Fault| f.suggest("use `rewrite = { host = \"…\" }`")),
        "expect" => fault("is answered by the connection itself, and cannot be changed"),
        written if WRITTEN.contains(&written) => {
            fault("is written anew for every request").map_err(|f: Fault| {
                f.suggest("what clients say in it is dropped, but for `trusted_proxies` of the listener")
            })
        }
        _ => Ok(name),
    }
}

fn response_field(text: &str) -> Result<String, Fault> {
    own_field(text)
}

/// The name of a field that does not belong to the connection, in lower case.
fn own_field(text: &str) -> Result<String, Fault> {
    let name = text::field_name(text)?.to_ascii_lowercase();
    match FRAMING.contains(&name.as_str()) || name.starts_with("proxy-") {
        true => Err(Fault::new(format!(
            "`{}` belongs to the connection between two machines, which Evenkeel keeps by itself",
            cut(text)
        ))
        .suggest("leave it out")),
        false => Ok(name),
    }
}

fn mirror(f: &mut Findings<'_>, s: &Section<'_>, known: &BTreeSet<&Name>) -> Option<Mirror> {
    let pool = s.text(f, "pool", text::name);
    if let Some(pool) = &pool {
        report_unknown_pool(f, pool, known, s);
    }
    Some(Mirror {
        share: s.percent(f, "share").map_or(100, narrow),
        max_body: s.size(f, "max_body").unwrap_or(DEFAULT_MIRROR_BODY),
        max_in_flight: s
            .integer(f, "max_in_flight")
            .map_or(DEFAULT_MIRROR_IN_FLIGHT, narrow),
        timeout: s.duration(f, "timeout").unwrap_or(DEFAULT_MIRROR_TIMEOUT),
        pool: pool?,
    })
}

fn buffer_requests(f: &mut Findings<'_>, s: &Section<'_>) -> BufferRequests {
    let defaults = BufferRequests::default();
    BufferRequests {
        memory: s.size(f, "memory").unwrap_or(defaults.memory),
        memory_total: s.size(f, "memory_total").unwrap_or(defaults.memory_total),
        disk: s.size(f, "disk").unwrap_or(defaults.disk),
        disk_total: s.size(f, "disk_total").unwrap_or(defaults.disk_total),
    }
}

// ---- responses ----

fn error_pages(f: &mut Findings<'_>, s: &Section<'_>) -> ErrorPages {
    let entries = s.fields(f, "error_pages").unwrap_or_default();
    let mut pages: BTreeMap<(u16, u16), Content> = BTreeMap::new();
    for entry in entries {
        let path = format!("{}.{}", s.path_of("error_pages"), entry.key);
        let file = item_text(f, (&path, &entry.node), Form::File.expected(), text::file);
        let fault = match failing_statuses(entry) {
            Ok(statuses) if pages.contains_key(&statuses) => {
                Fault::new(format!("there are two pages for `{}`", cut(&entry.key)))
            }
            Ok(statuses) => {
                pages.extend(file.map(|file| (statuses, Content::of_file(&file))));
                continue;
            }
            Err(fault) => fault,
        };
        f.report(entry.key_span.clone(), &path, fault);
    }
    if pages.len() > MAX_ERROR_PAGES {
        let fault = Fault::new(format!(
            "a route has at most {MAX_ERROR_PAGES} error pages; here are {}",
            pages.len()
        ));
        f.report(s.span.clone(), &s.path_of("error_pages"), fault);
    }
    let mut pages: Vec<_> = pages.into_iter().collect();
    pages.sort_by_key(|((first, last), _)| last - first);
    ErrorPages {
        pages,
        intercept: s.boolean(f, "intercept_errors").unwrap_or(false),
    }
}

fn failing_statuses(entry: &Entry) -> Result<(u16, u16), Fault> {
    text::failing_status(&entry.key).map_err(|_| {
        Fault::new(format!(
            "`{}` is no status that tells of a failure",
            cut(&entry.key)
        ))
        .suggest("write a status from 400 to 599, `4xx` or `5xx`")
    })
}

fn compression(f: &mut Findings<'_>, s: &Section<'_>) -> Compression {
    let defaults = Compression::default();
    Compression {
        encodings: encodings(f, s).unwrap_or(defaults.encodings),
        types: types(f, s).unwrap_or(defaults.types),
        minimum_size: s.size(f, "minimum_size").unwrap_or(defaults.minimum_size),
        with_credentials: s.boolean(f, "with_credentials").unwrap_or(false),
    }
}

fn encodings(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Vec<Encoding>> {
    let mut encodings = Vec::new();
    for (path, node) in s.items(f, "encodings")? {
        let Value::Text(text) = &node.value else {
            let fault = Fault::new(format!("an entry must be text, not {}", node.value.kind()));
            f.report(node.span.clone(), &path, fault);
            continue;
        };
        let encoding = Encoding::of(text).ok_or_else(|| {
            Fault::new(format!("`{}` is no coding that Evenkeel makes", cut(text)))
                .suggest("there are `zstd`, `br` and `gzip`")
        });
        let encoding = encoding.and_then(|encoding| match encodings.contains(&encoding) {
            true => Err(Fault::new(format!("`{text}` is given twice"))),
            false => Ok(encoding),
        });
        encodings.extend(parsed(f, node, &path, encoding));
    }
    Some(encodings)
}

fn types(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Vec<String>> {
    let items = s.items(f, "types")?;
    if items.len() > MAX_TYPES {
        let fault = Fault::new(format!("`types` has at most {MAX_TYPES} entries"));
        f.report(s.span.clone(), &s.path_of("types"), fault);
    }
    let expected = schema::Form::MediaType.expected();
    let types = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, media_type));
    Some(types.collect())
}

/// A media type without parameters (RFC 9110 section 8.3.1), in lower case.
fn media_type(text: &str) -> Result<String, Fault> {
    let name = |part: &str| {
        (1..=64).contains(&part.len())
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, sub)) if name(kind) && (name(sub) || sub == "*") => Ok(text.to_ascii_lowercase()),
        _ => Err(Fault::new(format!("`{}` is no content type", cut(text)))
            .suggest("write it without parameters, as `text/html` or `text/*`")),
    }
}
