//! Alerts and those who are told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::section::{Findings, Section, cut, item_text, narrow};
use super::text;
use super::tree::Node;
use crate::alert::RESERVED_LABELS;
use crate::config::{
    Alerts, MAX_ALERT_LABELS, MAX_LABEL_CHARS, MAX_RECEIVERS, Name, Receiver, ReceiverKind, ReceiverUrl,
};
use crate::diagnostic::Fault;
use crate::schema::{self, Table};

pub(super) fn alerts(f: &mut Findings<'_>, s: &Section<'_>) -> Alerts {
    let defaults = Alerts::default();
    let kept = |read: Option<_>, default| read.unwrap_or(default);
    Alerts {
        receivers: receivers(f, s),
        labels: labels(f, s),
        backend_down_for: kept(s.duration(f, "backend_down_for"), defaults.backend_down_for),
        pool_unhealthy_for: kept(s.duration(f, "pool_unhealthy_for"), defaults.pool_unhealthy_for),
        healthy_share: s
            .percent(f, "healthy_share")
            .map_or(defaults.healthy_share, narrow),
        certificate_expires_within: kept(
            s.duration(f, "certificate_expires_within"),
            defaults.certificate_expires_within,
        ),
        group_wait: kept(s.duration(f, "group_wait"), defaults.group_wait),
        group_interval: kept(s.duration(f, "group_interval"), defaults.group_interval),
        repeat_interval: kept(s.duration(f, "repeat_interval"), defaults.repeat_interval),
        timeout: kept(s.duration(f, "timeout"), defaults.timeout),
    }
}

fn receivers(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<Receiver> {
    let mut receivers = Vec::new();
    let mut names = BTreeSet::new();
    let lists = [
        ("webhooks", &schema::WEBHOOK, ReceiverKind::Webhook),
        ("alertmanagers", &schema::ALERTMANAGER, ReceiverKind::Alertmanager),
    ];
    for (key, table, kind) in lists {
        let items = s.items(f, key).unwrap_or_default();
        for (place, item) in items.into_iter().enumerate() {
            let (path, node) = &item;
            if names.len() == MAX_RECEIVERS {
                let fault = Fault::new(format!("there are more than {MAX_RECEIVERS} receivers of alerts"));
                f.report(node.span.clone(), path, fault);
                return receivers;
            }
            let default = format!("{}-{}", kind.as_str(), place + 1);
            let Some((name, rest)) = receiver(f, (path, node), (table, kind), &default) else {
                continue;
            };
            if !names.insert(name.clone()) {
                let fault = Fault::new(format!("two receivers of alerts have the name `{name}`"))
                    .suggest("give each a `name` of its own");
                f.report_missing(node.span.clone(), path, fault);
            }
            receivers.extend(rest);
        }
    }
    receivers
}

/// A receiver with its name; the name alone when the rest is wrong.
fn receiver(
    f: &mut Findings<'_>,
    (path, node): (&str, &Node),
    (table, kind): (&'static Table, ReceiverKind),
    default: &str,
) -> Option<(Name, Option<Receiver>)> {
    let s = Section::open(f, node, path.to_owned(), table)?;
    let name = match s.entry("name") {
        Some(_) => s.text(f, "name", text::name)?,
        None => Name::parse(default).ok()?,
    };
    let url = s.text(f, "url", receiver_url).map(ReceiverUrl::Url);
    let file = |f: &mut Findings<'_>, key| s.text(f, key, text::file).map(PathBuf::from);
    let url_file = file(f, "url_file").map(ReceiverUrl::File);
    let token_file = file(f, "token_file");
    let ca = file(f, "ca");
    let secret_file = match kind {
        ReceiverKind::Webhook => file(f, "secret_file"),
        ReceiverKind::Alertmanager => None,
    };
    let receiver = url.or(url_file).map(|url| Receiver {
        name: name.clone(),
        kind,
        url,
        token_file,
        secret_file,
        ca,
    });
    Some((name, receiver))
}

fn labels(f: &mut Findings<'_>, s: &Section<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for entry in s.fields(f, "labels").unwrap_or_default() {
        let path = s.path_of("labels");
        if let Err(fault) = label_name(&entry.key) {
            f.report(entry.key_span.clone(), &path, fault);
        }
        let value = item_text(f, (&path, &entry.node), "text", |value| {
            text::bounded(value, MAX_LABEL_CHARS)?;
            Ok(value.to_owned())
        });
        labels.extend(value.map(|value| (entry.key.clone(), value)));
    }
    if let Some(entry) = s.entry("labels").filter(|_| labels.len() > MAX_ALERT_LABELS) {
        let fault = Fault::new(format!("there are more than {MAX_ALERT_LABELS} labels"));
        f.report(entry.key_span.clone(), &s.path_of("labels"), fault);
    }
    labels
}

/// The name of a label as Prometheus has it, that is not one of an alert's own.
fn label_name(text: &str) -> Result<(), Fault> {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let fits = (1..=63).contains(&text.len())
        && text.bytes().next().is_some_and(letter)
        && text.bytes().all(|b| letter(b) || b.is_ascii_digit());
    if !fits {
        return Err(Fault::new(format!("`{}` is not the name of a label", cut(text)))
            .suggest("use letters, digits and `_`, as in `labels = { team = \"web\" }`"));
    }
    match RESERVED_LABELS.contains(&text) {
        true => Err(Fault::new(format!("alerts have a label `{text}` of their own"))
            .suggest(format!("use another name, as in `our_{text}`"))),
        false => Ok(()),
    }
}

/// `http://` or `https://`, a host, perhaps a port and a path. A user or a query may be secrets.
fn receiver_url(text: &str) -> Result<String, Fault> {
    if text.contains(['?', '@', '#']) {
        return Err(
            Fault::new("a URL with a user, a query or a fragment may hold a secret")
                .suggest("write it into a file of its own and name that as `url_file`"),
        );
    }
    let Some(rest) = ["http://", "https://"].iter().find_map(|s| text.strip_prefix(s)) else {
        return Err(Fault::new(format!(
            "`{}` is not an `http://` or `https://` URL",
            cut(text)
        )));
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let fits = text.len() <= 1024
        && text::host_field(authority).is_ok()
        && path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b));
    match fits {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(format!("`{}` is not a URL", cut(text)))),
    }
}
