//! Templates filled in with what a request says: values of header fields, targets for the backend, addresses to
//! send clients to.
//!
//! What is put in comes from parsed requests: a host is a host, a path and a query have no control characters,
//! spaces or backslashes. So nothing that is written here can end a field, or lead a client to another host than
//! the operator's template says.

use std::net::IpAddr;

use memchr::memchr;
use model::config::{PathMatch, PathRewrite, Piece, Template, Variable};
use model::reason::Reason;
use regex::bytes::Captures;

use crate::request::RequestHead;

/// Longest target that rewriting may come to, in bytes.
pub const MAX_REWRITTEN: usize = 64 * 1024;

/// What a request says.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Host without port.
    pub host: &'a [u8],
    /// Method.
    pub method: &'a [u8],
    /// Path in normal form.
    pub path: &'a [u8],
    /// Query without its `?`.
    pub query: Option<&'a [u8]>,
    /// Name of the request.
    pub request_id: &'a [u8],
    /// Name of its route.
    pub route: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a [u8],
}

impl Values<'_> {
    fn push(&self, variable: Variable, out: &mut Vec<u8>) {
        match variable {
            Variable::ClientAddress => {
                out.extend_from_slice(self.client.to_canonical().to_string().as_bytes());
            }
            Variable::Host => out.extend(self.host.iter().map(u8::to_ascii_lowercase)),
            Variable::Method => out.extend_from_slice(self.method),
            Variable::Path => out.extend_from_slice(self.path),
            Variable::Query => push_query(self.query, out),
            Variable::RequestId => out.extend_from_slice(self.request_id),
            Variable::Route => out.extend_from_slice(self.route),
            Variable::Scheme => out.extend_from_slice(self.scheme),
        }
    }
}

fn push_query(query: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
}

/// Appends a template filled in.
pub fn fill(template: &Template, values: &Values<'_>, out: &mut Vec<u8>) {
    fill_with(template, Some(values), None, out);
}

/// With the variables and groups that there are; reading the config left no others in the template.
fn fill_with(
    template: &Template,
    values: Option<&Values<'_>>,
    groups: Option<&Captures<'_>>,
    out: &mut Vec<u8>,
) {
    for piece in template.pieces() {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Variable(variable) => values.iter().for_each(|values| values.push(*variable, out)),
            Piece::Group(number) => {
                let group = groups.and_then(|groups| groups.get(usize::from(*number)));
                out.extend_from_slice(group.map(|group| group.as_bytes()).unwrap_or_default());
            }
        }
    }
}

/// Appends the address that a client is sent to. `matched` is how the route compares paths: the groups of its
/// pattern may be named.
///
/// # Errors
/// [`Reason::BadHost`] when the address needs a host and the request has none (HTTP/1.0).
pub fn location(
    to: &Template,
    values: &Values<'_>,
    matched: Option<&PathMatch>,
    out: &mut Vec<u8>,
) -> Result<(), Reason> {
    let wants_host = to.pieces().contains(&Piece::Variable(Variable::Host));
    if wants_host && values.host.is_empty() {
        return Err(Reason::BadHost);
    }
    let path = match values.path {
        // `OPTIONS *` is about no path.
        b"*" => b"/",
        path => path,
    };
    let start = out.len();
    let names_groups = to.pieces().iter().any(|piece| matches!(piece, Piece::Group(_)));
    let groups = match matched {
        Some(PathMatch::Pattern(pattern)) if names_groups => pattern.captures(path),
        _ => None,
    };
    fill_with(to, Some(&Values { path, ..*values }), groups.as_ref(), out);
    // A path may begin with several slashes, and an address that does would name a host.
    let slashes = out.iter().skip(start).take_while(|&&b| b == b'/').count();
    if slashes > 1 {
        out.drain(start + 1..start + slashes);
    }
    Ok(())
}

/// Appends what the backend is asked for instead of the request's target, and says so; false when the request
/// stays as it is. `prefix` is the route's own.
pub fn rewrite(
    rule: &PathRewrite,
    prefix: Option<&str>,
    head: &RequestHead,
    buf: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let path = head.path(buf);
    if path.first() != Some(&b'/') {
        return false;
    }
    let begin = out.len();
    match rule {
        PathRewrite::Prefix(new) => {
            let rest = prefix.and_then(|old| path.strip_prefix(old.as_bytes()));
            let rest = rest.unwrap_or(path);
            out.extend_from_slice(new.trim_end_matches('/').as_bytes());
            if rest.first() != Some(&b'/') && (!rest.is_empty() || out.len() == begin) {
                out.push(b'/');
            }
            out.extend_from_slice(rest);
        }
        PathRewrite::Pattern { pattern, to } => {
            let Some(groups) = pattern.captures(path) else {
                return false;
            };
            fill_with(to, None, Some(&groups), out);
        }
    }
    let has_query = memchr(b'?', out.get(begin..).unwrap_or_default()).is_some();
    match head.query(buf) {
        Some(query) if has_query => {
            out.push(b'&');
            out.extend_from_slice(query);
        }
        query => push_query(query, out),
    }
    true
}
