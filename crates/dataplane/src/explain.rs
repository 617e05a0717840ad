//! `explain`: the decisions of a request, made without one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use balance::Rng;
use http::{Parsed, RequestHead};
use model::config::HashKey;
use model::explain::{ExplainQuery, Explanation, Refusal};
use model::reason::Reason;

use crate::exchange::hash_address;
use crate::serving::{ListenerServing, PoolServing, Serving};

/// Any seed will do: an explanation of a random choice shows one of its outcomes.
const SEED: u64 = 1;

/// Explains `query` against what is in force. `bound` tells the real address of a listener.
pub(crate) fn explain(
    serving: &Serving,
    bound: impl Fn(&SocketAddr) -> SocketAddr,
    query: &ExplainQuery,
    now_us: u64,
) -> Result<Explanation, String> {
    let listener = find_listener(serving, bound, &query.listener)?;
    let text = request_text(query)?;
    let mut head = RequestHead::new();
    let mut explanation = Explanation {
        load_balancer: listener.lb.config.name.clone(),
        listener: listener.config.name.clone(),
        host: String::new(),
        path: String::new(),
        routes: Vec::new(),
        pool: None,
        algorithm: None,
        hash_key: None,
        candidates: Vec::new(),
        chosen: None,
        refused: None,
    };
    match head.parse(&text, &listener.config.limits) {
        Ok(Parsed::Complete) => {}
        Ok(Parsed::Incomplete) => return Err("the request is incomplete: a field holds a line break".into()),
        Err(reason) => {
            explanation.refused = Some(refusal(reason));
            return Ok(explanation);
        }
    }
    let (host, path) = (head.host_name(&text), head.path(&text));
    explanation.host = String::from_utf8_lossy(host).into_owned();
    explanation.path = String::from_utf8_lossy(path).into_owned();
    explanation.routes = listener.lb.router.explain(host, path);
    let route = listener.lb.router.find(host, path);
    let pool = route
        .and_then(|r| listener.lb.route_pools.get(r))
        .and_then(|p| listener.lb.pools.get(*p));
    let Some(pool) = pool else {
        explanation.refused = Some(refusal(Reason::NoRoute));
        return Ok(explanation);
    };
    let client = query.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let (key, words) = hash_key(pool, &head, &text, client);
    let (candidates, chosen) = pool.balancer.explain(key, now_us, &mut Rng::new(SEED));
    explanation.pool = Some(pool.config.name.clone());
    explanation.algorithm = Some(pool.config.algorithm.as_str().to_owned());
    explanation.hash_key = words;
    explanation.candidates = candidates;
    if chosen.is_none() {
        explanation.refused = Some(refusal(Reason::NoBackend));
    }
    explanation.chosen = chosen;
    Ok(explanation)
}

fn refusal(reason: Reason) -> Refusal {
    Refusal {
        status: reason.status(),
        reason: reason.code().to_owned(),
        detail: reason.text().to_owned(),
    }
}

fn find_listener<'a>(
    serving: &'a Serving,
    bound: impl Fn(&SocketAddr) -> SocketAddr,
    wanted: &str,
) -> Result<&'a ListenerServing, String> {
    let all = || serving.listeners.iter();
    let full = |l: &ListenerServing| format!("{}/{}", l.lb.config.name, l.config.name);
    let address: Option<SocketAddr> = wanted.parse().ok();
    let found: Vec<_> = all()
        .filter(|l| {
            Some(bound(&l.config.address)) == address
                || full(l) == wanted
                || l.lb.config.name.as_str() == wanted
        })
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let known: Vec<_> = all()
                .map(|l| format!("{} ({})", full(l), bound(&l.config.address)))
                .collect();
            Err(format!("no listener `{wanted}`; there are: {}", known.join(", ")))
        }
        several => {
            let names: Vec<_> = several.iter().map(|l| full(l)).collect();
            Err(format!("`{wanted}` has several listeners: {}", names.join(", ")))
        }
    }
}

/// The request as its client would send it, so that the real parser judges it.
fn request_text(query: &ExplainQuery) -> Result<Vec<u8>, String> {
    let lines = [&query.method, &query.target].into_iter();
    let fields = query.headers.iter().flat_map(|(name, value)| [name, value]);
    if lines.chain(fields).any(|text| text.contains(['\r', '\n'])) {
        return Err("method, target and header fields must not hold line breaks".into());
    }
    let mut text = format!("{} {} HTTP/1.1\r\n", query.method, query.target);
    if !query
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in &query.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    Ok(text.into_bytes())
}

fn hash_key(pool: &PoolServing, head: &RequestHead, bytes: &[u8], client: IpAddr) -> (u64, Option<String>) {
    let Some(key) = pool.balancer.hash_key() else {
        return (0, None);
    };
    let (what, value) = match key {
        HashKey::ClientAddress => ("client address".to_owned(), None),
        HashKey::Header(name) => (format!("header {name}"), head.field(bytes, name)),
        HashKey::Cookie(name) => (format!("cookie {name}"), head.cookie(bytes, name)),
        HashKey::Path => ("path".to_owned(), Some(head.path(bytes))),
        HashKey::Query(name) => (
            format!("query parameter {name}"),
            head.query_parameter(bytes, name),
        ),
    };
    match value {
        Some(value) => (
            balance::hash(value),
            Some(format!("{what} = {:?}", String::from_utf8_lossy(value))),
        ),
        None if *key == HashKey::ClientAddress => (hash_address(client), Some(format!("{what} = {client}"))),
        None => (
            hash_address(client),
            Some(format!("{what} is absent: client address = {client}")),
        ),
    }
}
