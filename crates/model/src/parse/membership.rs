//! Members of a pool that are not declared, and how members tell that they live.

use std::net::{IpAddr, SocketAddr};

use super::section::{Findings, Section, cut, item_text, narrow};
use super::text;
use crate::config::{
    AddressFamily, DEFAULT_DNS_ATTEMPTS, DEFAULT_DNS_TIMEOUT, DEFAULT_MAX_REGISTERED, DEFAULT_MAX_TTL,
    DEFAULT_MIN_TTL, DEFAULT_SILENCE, Discovery, DnsLookup, DnsRecords, Heartbeat, MAX_RESOLVERS, Membership,
    Registration,
};
use crate::diagnostic::Fault;
use crate::schema;

pub(super) fn membership(f: &mut Findings<'_>, s: &Section<'_>) -> Membership {
    Membership {
        discovery: s.section(f, "discovery").and_then(|s| discovery(f, &s)),
        registration: s.section(f, "registration").and_then(|s| registration(f, &s)),
        heartbeat: s.section(f, "heartbeat").and_then(|s| heartbeat(f, &s)),
    }
}

fn discovery(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Discovery> {
    let file = s.text(f, "file", text::file);
    let dns = s.section(f, "dns").and_then(|s| dns(f, &s));
    match (file, dns) {
        (Some(file), _) => Some(Discovery::File(file.into())),
        (None, dns) => dns.map(Discovery::Dns),
    }
}

fn dns(f: &mut Findings<'_>, s: &Section<'_>) -> Option<DnsLookup> {
    let name = s.text(f, "name", record_name);
    let kind = s.choice(f, "type");
    let port = s.integer(f, "port").map(narrow);
    let addresses = |family| Some(DnsRecords::Addresses(family, port?));
    let records = match kind {
        Some("srv") => Some(DnsRecords::Srv),
        Some("a") => addresses(AddressFamily::V4),
        Some("aaaa") => addresses(AddressFamily::V6),
        _ => addresses(AddressFamily::Both),
    };
    if records.is_none() && !s.is_given("port") {
        let fault = Fault::new("the records of `type = \"ip\"` have no port, so `port` is needed")
            .suggest("say where the members listen, as in `port = 8080`; or choose `type = \"srv\"`");
        f.report_missing(s.span.clone(), &s.path_of("port"), fault);
    }
    let resolvers = resolvers(f, s);
    let (min_ttl, max_ttl) = (s.duration(f, "min_ttl"), s.duration(f, "max_ttl"));
    if let (Some(min), Some(max), Some(entry)) = (min_ttl, max_ttl, s.entry("min_ttl"))
        && min > max
    {
        let fault = Fault::new("`min_ttl` is greater than `max_ttl`").suggest("exchange them");
        f.report(entry.node.span.clone(), &s.path_of("min_ttl"), fault);
    }
    let timeout = s.duration(f, "timeout").unwrap_or(DEFAULT_DNS_TIMEOUT);
    let attempts = s.integer(f, "attempts").map_or(DEFAULT_DNS_ATTEMPTS, narrow);
    let lookup = DnsLookup {
        name: name?,
        records: records?,
        resolvers,
        // One of them that is given moves the other one's default along.
        min_ttl: min_ttl.unwrap_or_else(|| DEFAULT_MIN_TTL.min(max_ttl.unwrap_or(DEFAULT_MIN_TTL))),
        max_ttl: max_ttl.unwrap_or_else(|| DEFAULT_MAX_TTL.max(min_ttl.unwrap_or(DEFAULT_MAX_TTL))),
        timeout,
        attempts,
    };
    warn_of_the_name(f, s, &lookup);
    Some(lookup)
}

fn resolvers(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<SocketAddr> {
    let Some(entry) = s.entry("resolvers") else {
        return Vec::new();
    };
    let items = s.items(f, "resolvers").unwrap_or_default();
    if items.len() > MAX_RESOLVERS {
        let fault = Fault::new(format!("`resolvers` has at most {MAX_RESOLVERS} entries"));
        f.report(entry.key_span.clone(), &s.path_of("resolvers"), fault);
    }
    let expected = schema::Form::BackendAddress.expected();
    let read = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, resolver));
    read.collect()
}

fn resolver(text: &str) -> Result<SocketAddr, Fault> {
    let address = text.parse::<SocketAddr>().ok();
    let address = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    address.ok_or_else(|| {
        Fault::new(format!(
            "`{}` is not the address and port of a resolver",
            cut(text)
        ))
        .suggest("write it as `10.0.0.2:53`")
    })
}

/// What a name seems to be, against what is asked of it.
fn warn_of_the_name(f: &mut Findings<'_>, s: &Section<'_>, lookup: &DnsLookup) {
    let Some(entry) = s.entry("name") else {
        return;
    };
    let name = &lookup.name;
    let is_service = name.starts_with('_');
    let fault = match lookup.records {
        DnsRecords::Srv if !is_service => {
            Fault::new(format!("`{name}` does not look like a name with SRV records")).suggest(format!(
                "they are usually under a name such as `_http._tcp.{name}`"
            ))
        }
        DnsRecords::Addresses(..) if is_service => Fault::new(format!(
            "`{name}` looks like a name with SRV records, and is asked for addresses"
        ))
        .suggest("choose `type = \"srv\"`, and leave `port` out"),
        _ if !name.contains('.') => Fault::new(format!("`{name}` is asked for as it is, and has no dot"))
            .suggest("write the whole name: what `search` in /etc/resolv.conf says is not added"),
        _ => return,
    };
    f.warn(entry.node.span.clone(), &s.path_of("name"), fault);
}

/// A name that may have records; in lower case, without the dot at its end.
fn record_name(text: &str) -> Result<String, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.parse::<IpAddr>().is_ok() {
        return Err(Fault::new(format!("`{name}` is an IP address, not a DNS name"))
            .suggest("addresses that are known stand in `backend_servers`"));
    }
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(Fault::new(format!("`{}` is not a DNS name", cut(text)))
            .suggest("write it as in `shop.internal`; the port stands in `port`")),
    }
}

fn registration(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Registration> {
    let token = s.text(f, "token_hash", text::token_hash);
    let ttl = s.duration(f, "ttl").unwrap_or(DEFAULT_SILENCE);
    let max = s.integer(f, "max").map_or(DEFAULT_MAX_REGISTERED, narrow);
    let expected = schema::Form::Network.expected();
    let items = match s.entry("allow") {
        Some(_) => s.items(f, "allow").unwrap_or_default(),
        None => Vec::new(),
    };
    let networks = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::network));
    let allow = networks.collect();
    Some(Registration {
        token: token?,
        ttl,
        max,
        allow,
    })
}

fn heartbeat(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Heartbeat> {
    let token = s.text(f, "token_hash", text::token_hash);
    let timeout = s.duration(f, "timeout").unwrap_or(DEFAULT_SILENCE);
    Some(Heartbeat {
        token: token?,
        timeout,
    })
}
