//! `explain`: the decisions of a request, made without one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use balance::{Circuit, Rng};
use http::route::Facts;
use http::{Parsed, RequestHead};
use model::explain::{Chosen, ExplainQuery, Explanation, Refusal};
use model::reason::Reason;

use crate::explain_actions;
use crate::geo::Geo;
use crate::keys::Sender;
use crate::serving::{ListenerServing, PoolServing, Serving};
use crate::{limits, routing, sticky};

/// Any seed will do: an explanation of a random choice shows one of its outcomes.
const SEED: u64 = 1;

/// Explains `query` against what is in force. `bound` tells the real address of a listener.
pub(crate) fn explain(
    serving: &Serving,
    geo: &Geo,
    bound: impl Fn(&SocketAddr) -> SocketAddr,
    query: &ExplainQuery,
    now_us: u64,
) -> Result<Explanation, String> {
    let listener = find_listener(serving, bound, &query.listener)?;
    let text = request_text(query)?;
    let mut head = RequestHead::new();
    let mut explanation = blank(listener);
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
    let client = query.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let look_up = |address| geo.look_up(address);
    let facts = Facts::new(&head, &text, client, &listener.config.trusted_proxies, &look_up);
    let client = facts.client();
    let router = &listener.lb.router;
    explanation.routes = router.explain(&facts);
    explanation.language = router.language(&facts);
    explanation.geography = router.asks_geography().then(|| facts.geography());
    let (route, pool) = routing::pick(&listener.lb, &head, &text, &facts, &mut Rng::new(SEED));
    // A listener that sends everything to HTTPS asks no pool.
    let target = route.filter(|_| listener.config.redirect_to_https.is_none());
    explanation.split = target
        .and_then(|route| listener.lb.targets.get(route))
        .and_then(|target| target.words(&head, &text, client));
    let sender = Sender {
        head: &head,
        bytes: &text,
        listener: &listener.config,
        peer: client,
        trusted: false,
    };
    if is_refused(&mut explanation, listener, route, &sender, now_us) {
        return Ok(explanation);
    }
    let acting = route.and_then(|route| listener.lb.acting(route));
    let told = explain_actions::tell(listener, acting, &head, &text, client);
    explanation.actions = told.lines;
    match told.answers {
        Ok(false) => {}
        Ok(true) => return Ok(explanation),
        Err(reason) => {
            explanation.refused = Some(refusal(reason));
            return Ok(explanation);
        }
    }
    let Some(pool) = pool.and_then(|pool| listener.lb.pools.get(pool)) else {
        explanation.refused = Some(refusal(Reason::NoRoute));
        return Ok(explanation);
    };
    let route = route.and_then(|route| listener.lb.config.routes.get(route));
    let patience = explain_actions::patience(route, &pool.config);
    explanation.actions.extend(patience);
    choose(&mut explanation, pool, &sender, now_us);
    Ok(explanation)
}

/// Which backend of the pool would take the request.
fn choose(explanation: &mut Explanation, pool: &PoolServing, sender: &Sender<'_>, now_us: u64) {
    let (key, words) = hash_key(pool, sender.head, sender.bytes, sender.peer);
    let (candidates, mut chosen) = pool.balancer.explain(key, now_us, &mut Rng::new(SEED));
    explanation.pool = Some(pool.config.name.clone());
    explanation.algorithm = Some(pool.config.algorithm.as_str().to_owned());
    explanation.hash_key = words;
    explanation.candidates = candidates;
    if let Some((words, member)) = sticky::explain(pool, sender, now_us) {
        if let Some(backend) = member.and_then(|m| pool.backends.get(m)) {
            chosen = Some(Chosen {
                address: backend.id.address,
                why: "the session is there".to_owned(),
            });
        }
        explanation.session = Some(words);
    }
    if pool.balancer.pool().circuit(now_us) == Circuit::Open {
        chosen = None;
        explanation.refused = Some(refusal(Reason::CircuitOpen));
    } else if chosen.is_none() && pool.balancer.anyone(&[], now_us) {
        match would_wait(pool) {
            Ok(words) => explanation.queue = Some(words),
            Err(reason) => explanation.refused = Some(refusal(reason)),
        }
    } else if chosen.is_none() {
        explanation.refused = Some(refusal(Reason::NoBackend));
    }
    explanation.chosen = chosen;
}

/// Asks the rate limits of the route; whether one refuses the request.
fn is_refused(
    explanation: &mut Explanation,
    listener: &ListenerServing,
    route: Option<usize>,
    sender: &Sender<'_>,
    now_us: u64,
) -> bool {
    let Some(limits) = route.and_then(|r| listener.lb.route_limits.get(r)) else {
        return false;
    };
    let (words, refused) = limits::explain(limits, sender, now_us);
    explanation.limits = words;
    if refused {
        explanation.refused = Some(refusal(Reason::RateLimited));
    }
    refused
}

/// An explanation that says nothing yet.
fn blank(listener: &ListenerServing) -> Explanation {
    Explanation {
        load_balancer: listener.lb.config.name.clone(),
        listener: listener.config.name.clone(),
        host: String::new(),
        path: String::new(),
        routes: Vec::new(),
        language: None,
        geography: None,
        split: None,
        limits: Vec::new(),
        actions: Vec::new(),
        pool: None,
        algorithm: None,
        hash_key: None,
        session: None,
        candidates: Vec::new(),
        chosen: None,
        queue: None,
        refused: None,
    }
}

/// That a request would wait for a slot, in words.
///
/// # Errors
/// There is no room to wait.
fn would_wait(pool: &PoolServing) -> Result<String, Reason> {
    let (waiting, size) = (pool.balancer.pool().waiting(), pool.config.overload.queue.size);
    match waiting < size {
        true => Ok(format!(
            "every backend is full: it would wait, {waiting} of at most {size} do now"
        )),
        false => Err(Reason::QueueFull),
    }
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
    let words = routing::key_words(key, head, bytes, client);
    (routing::hash_of(key, head, bytes, || client), Some(words))
}
