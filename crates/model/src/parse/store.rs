//! The store, and the roles of a node.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::section::{Findings, Section, cut, item_text, parsed};
use super::text;
use super::tree::Value;
use crate::config::{
    DEFAULT_STORE_PREFIX, EtcdStore, MAX_STORE_ENDPOINTS, Name, NotifyConfig, Role, StoreConfig,
};
use crate::diagnostic::Fault;
use crate::schema;

/// The store; `root` tells whether the node has a name of its own.
pub(super) fn store(f: &mut Findings<'_>, root: &Section<'_>) -> StoreConfig {
    let Some(s) = root.section(f, "store") else {
        return StoreConfig::Embedded;
    };
    if s.choice(f, "kind") != Some("etcd") {
        return StoreConfig::Embedded;
    }
    require_name(f, root, &s);
    let file = |f: &mut Findings<'_>, key| s.text(f, key, text::file).map(PathBuf::from);
    StoreConfig::Etcd(EtcdStore {
        endpoints: endpoints(f, &s),
        prefix: s
            .text(f, "prefix", store_prefix)
            .unwrap_or_else(|| DEFAULT_STORE_PREFIX.to_owned()),
        user: s.text(f, "user", text::words),
        password_file: file(f, "password_file"),
        ca: file(f, "ca"),
        cert: file(f, "cert"),
        key: file(f, "key"),
    })
}

/// Hints over Redis; only nodes that share a store have anybody to tell.
pub(super) fn notify(f: &mut Findings<'_>, root: &Section<'_>, store: &StoreConfig) -> Option<NotifyConfig> {
    let s = root.section(f, "notify")?;
    if *store == StoreConfig::Embedded {
        let fault = Fault::new("nobody shares an embedded store, so there is nobody to tell of changes")
            .suggest("remove `[notify]`, or share a store: `kind = \"etcd\"` in `[store]`");
        f.report(s.span.clone(), "notify", fault);
    }
    let file = |f: &mut Findings<'_>, key| s.text(f, key, text::file).map(PathBuf::from);
    let url = s.text(f, "url", redis_url);
    let (user, password_file, ca) = (
        s.text(f, "user", text::words),
        file(f, "password_file"),
        file(f, "ca"),
    );
    Some(NotifyConfig {
        url: url?,
        user,
        password_file,
        ca,
    })
}

/// `redis://HOST:PORT` or `rediss://HOST:PORT`.
fn redis_url(text: &str) -> Result<String, Fault> {
    let authority = text
        .strip_prefix("redis://")
        .or_else(|| text.strip_prefix("rediss://"));
    match authority {
        Some(authority) if text::host_and_port(authority) => Ok(text.to_owned()),
        _ => Err(Fault::new(format!("`{}` is no URL of Redis", cut(text)))
            .suggest("write it as `redis://10.0.0.1:6379`; a password goes into `password_file`")),
    }
}

/// Nodes are told apart by their names, which are parts of keys.
fn require_name(f: &mut Findings<'_>, root: &Section<'_>, s: &Section<'_>) {
    let node = root.entry("node").and_then(|entry| match &entry.node.value {
        Value::Table(entries) => entries.iter().find(|entry| entry.key == "name"),
        _ => None,
    });
    match node.map(|entry| &entry.node) {
        None => {
            let fault = Fault::new("a node that shares its store needs a name of its own")
                .suggest("add it to `[node]`: `name = \"edge-1\"`");
            f.report(s.span.clone(), &s.path_of("kind"), fault);
        }
        Some(node) => {
            if let Value::Text(name) = &node.value
                && Name::parse(name).is_err()
            {
                let fault = Fault::new(format!("`{}` cannot be a part of a key in the store", cut(name)))
                    .suggest("use 1 to 63 letters, digits, `_`, `-` or `.`");
                f.report(node.span.clone(), "node.name", fault);
            }
        }
    }
}

fn endpoints(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<String> {
    let items = s.items(f, "endpoints").unwrap_or_default();
    if items.len() > MAX_STORE_ENDPOINTS {
        let fault = Fault::new(format!("`endpoints` has at most {MAX_STORE_ENDPOINTS} entries"));
        f.report(s.span.clone(), &s.path_of("endpoints"), fault);
    }
    let expected = schema::Form::EndpointUrl.expected();
    let read = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, endpoint_url));
    read.collect()
}

/// `http://HOST:PORT` or `https://HOST:PORT`.
fn endpoint_url(text: &str) -> Result<String, Fault> {
    let authority = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match authority {
        Some(authority) if text::host_and_port(authority) => Ok(text.to_owned()),
        _ => Err(Fault::new(format!("`{}` is no endpoint of etcd", cut(text)))
            .suggest("write it as `https://10.0.0.1:2379`")),
    }
}

/// Begins and ends with a slash.
fn store_prefix(text: &str) -> Result<String, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    let fits = text.len() <= 128
        && text.bytes().all(plain)
        && text.starts_with('/')
        && text.ends_with('/')
        && !text.contains("//");
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(format!("`{}` cannot be a prefix of keys", cut(text)))
            .suggest("begin and end it with a slash, as in `/evenkeel/`; at most 128 letters, digits, `/`, `.`, `_` and `-`")),
    }
}

/// `node.roles`; all of them where none are given.
pub(super) fn roles(f: &mut Findings<'_>, s: &Section<'_>) -> BTreeSet<Role> {
    if s.entry("roles").is_none() {
        return Role::ALL.into();
    }
    let mut roles = BTreeSet::new();
    for (path, node) in s.items(f, "roles").unwrap_or_default() {
        let Value::Text(text) = &node.value else {
            let fault = Fault::new(format!("an entry must be text, not {}", node.value.kind()));
            f.report(node.span.clone(), &path, fault);
            continue;
        };
        let role = Role::of(text).ok_or_else(|| {
            Fault::new(format!("`{}` is no role", cut(text)))
                .suggest("there are `lb`, `orchestrator` and `console`")
        });
        let role = role.and_then(|role| match roles.contains(&role) {
            true => Err(Fault::new(format!("`{text}` is given twice")).suggest("remove one of them")),
            false => Ok(role),
        });
        roles.extend(parsed(f, node, &path, role));
    }
    roles
}

/// `node.bind`: an address of this machine.
pub(super) fn bind(text: &str) -> Result<IpAddr, Fault> {
    match text.parse::<IpAddr>() {
        Ok(ip) if !ip.is_unspecified() => Ok(ip),
        _ => Err(Fault::new(format!("`{}` is no address of a machine", cut(text)))
            .suggest("write an IP address without a port, as in `10.0.0.5`")),
    }
}
