//! Request ids, trace context, and what `evenkeel why` tells afterwards.

use serde_json::Value;

use crate::support::{
    Backend, Evenkeel, Message, QUIET, free_address, shop, shop_on, shop_with_listener, wait_for,
};

/// The id that an answer carries: exactly one.
fn id_of(answer: &Message) -> String {
    let ids = answer.all("x-request-id");
    assert_eq!(ids.len(), 1, "{}", answer.head);
    ids[0].to_owned()
}

fn is_uuid(id: &str) -> bool {
    id.len() == 36 && id.as_bytes()[14] == b'7' && id.matches('-').count() == 4
}

/// A new id for each request: the same for backend and client, on errors too, even where the backend echoes one.
#[test]
fn every_request_has_an_id_of_its_own() {
    let echo = Backend::saying("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nok");
    let evenkeel = Evenkeel::start(&shop(&[&echo], QUIET));
    let mut client = evenkeel.client();
    let (first, second) = (id_of(&client.get("/")), id_of(&client.get("/")));
    assert!(is_uuid(&first) && is_uuid(&second), "{first} {second}");
    assert!(first != second && first[..13] <= second[..13], "{first} {second}");
    assert_eq!(echo.last().all("x-request-id"), [second.as_str()]);
    let refused = evenkeel.client().ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(refused.status(), 400);
    assert!(is_uuid(&id_of(&refused)));
}

/// A client's id is replaced; that of a trusted proxy is kept, when it can stand anywhere.
#[test]
fn an_id_is_taken_over_from_trusted_proxies_only() {
    let one = Backend::named("one");
    let ask = |evenkeel: &Evenkeel, id: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nx-request-ID: {id}\r\n\r\n");
        let answer = evenkeel.client().ask(&request);
        assert_eq!(one.last().all("x-request-id"), [id_of(&answer)]);
        id_of(&answer)
    };
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    assert!(is_uuid(&ask(&evenkeel, "mine")));
    let listener = "trusted_proxies = [\"127.0.0.0/8\"]";
    let trusting = shop_with_listener(&[&one], listener, QUIET);
    let evenkeel = Evenkeel::start(&trusting);
    assert_eq!(ask(&evenkeel, "Root=1-5759e988-bd86"), "Root=1-5759e988-bd86");
    assert!(is_uuid(&ask(&evenkeel, "two words")));
    evenkeel.reload(&format!(
        "[request_id]\nheader = \"X-Trace\"\ntrust = \"nobody\"\n{trusting}"
    ));
    let answer = evenkeel
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a\r\nX-Trace: mine\r\nX-Request-Id: other\r\n\r\n");
    assert!(is_uuid(answer.field("x-trace").unwrap()));
    assert_eq!(
        one.last().field("x-request-id"),
        Some("other"),
        "a field like any other now"
    );
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(more: &str) -> String {
    format!("[tracing]\nendpoint = \"http://{}\"\n{more}\n", free_address())
}

fn ask_with(evenkeel: &Evenkeel, fields: &str) {
    let answer = evenkeel
        .client()
        .ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(answer.status(), 200);
}

/// Without `[tracing]` the fields are the application's own.
#[test]
fn trace_context_passes_untouched_where_traces_are_off() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    ask_with(
        &evenkeel,
        &format!("traceparent: {PARENT}\r\ntracestate: a=b\r\n"),
    );
    assert_eq!(one.last().all("traceparent"), [PARENT]);
    assert_eq!(one.last().all("tracestate"), ["a=b"]);
}

/// The trace goes on with a span of ours, its state and its decision kept.
#[test]
fn a_trace_is_continued() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&format!("{}{}", traced(""), shop(&[&one], QUIET)));
    for flags in ["00", "01"] {
        let parent = format!("{}{flags}", &PARENT[..53]);
        ask_with(
            &evenkeel,
            &format!("Traceparent: {parent}\r\ntracestate: a=b\r\n"),
        );
        let got = one.last();
        let ours = got.all("traceparent");
        assert_eq!(ours.len(), 1, "{}", got.head);
        assert_eq!(ours[0][..36], parent[..36], "the same trace");
        assert_ne!(ours[0][36..52], parent[36..52], "another span");
        assert_eq!(&ours[0][53..], flags);
        assert_eq!(got.all("tracestate"), ["a=b"]);
    }
}

/// Malformed, doubled, or of somebody who is not believed: a trace begins here, without their state.
#[test]
fn a_trace_is_begun_where_there_is_none_to_continue() {
    let one = Backend::named("one");
    let base = shop(&[&one], QUIET);
    let evenkeel = Evenkeel::start(&format!("{}{base}", traced("sample = \"100%\"")));
    let begun = |fields: &str| {
        ask_with(&evenkeel, fields);
        let got = one.last();
        let ours = got.all("traceparent");
        assert_eq!(ours.len(), 1, "{}", got.head);
        assert!(ours[0].len() == 55 && ours[0].starts_with("00-"), "{}", ours[0]);
        assert_ne!(ours[0][..36], PARENT[..36], "{fields}");
        assert_eq!(got.field("tracestate"), None, "{fields}");
        ours[0].to_owned()
    };
    assert!(begun("").ends_with("-01"));
    begun(&format!(
        "traceparent: {}\r\ntracestate: a=b\r\n",
        PARENT.to_uppercase()
    ));
    begun(&format!("traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n"));
    begun("traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n");
    evenkeel.reload(&format!(
        "{}{base}",
        traced("trust = \"nobody\"\nsample = \"0%\"")
    ));
    let ours = begun(&format!("traceparent: {PARENT}\r\ntracestate: a=b\r\n"));
    assert!(ours.ends_with("-00"), "{ours}");
}

/// A request that failed on both backends: every attempt is told, with its reason and what followed.
#[test]
fn why_tells_the_attempts_behind_a_502() {
    let (dead, closing) = (
        free_address(),
        Backend::scripted(|conversation| {
            conversation.request();
        }),
    );
    let config = shop_on("127.0.0.1:0", &[dead, closing.address], QUIET);
    let evenkeel = Evenkeel::start(&config);
    let answer = evenkeel.client().get("/cart?id=7");
    assert_eq!(answer.status(), 502);
    let id = id_of(&answer);
    evenkeel.until_known(&id);
    let told: Value = serde_json::from_str(&evenkeel.cli_ok(&["why", "--json", &id])).unwrap();
    let request = &told["requests"][0];
    assert_eq!(request["target"], "/cart?id=7");
    assert_eq!(request["reason"], answer.reason());
    let attempts = request["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{request}");
    let reason_at = |backend: &str| {
        let attempt = attempts
            .iter()
            .find(|a| a["backend"] == backend)
            .expect("an attempt");
        attempt["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason_at(&dead.to_string()), "connect_refused");
    assert_eq!(reason_at(&closing.address.to_string()), "backend_reset");
    assert_eq!(attempts[0]["then"], "tried again");
    assert_eq!(attempts[1]["then"], "no further attempt is allowed");
    assert_eq!(request["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(request["routes"][0]["matched"], true);
    let text = evenkeel.cli_ok(&["why", &id]);
    for part in [
        "GET shop.test/cart?id=7",
        "connect_refused",
        "tried again",
        "answered 502",
        &id,
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let list = evenkeel.cli_ok(&["why"]);
    assert!(list.contains(&id) && list.contains(answer.reason()), "{list}");
}

/// The only backend is dead: it says so, and not that another one was tried.
#[test]
fn why_tells_that_there_was_no_other_backend() {
    let evenkeel = Evenkeel::start(&shop_on("127.0.0.1:0", &[free_address()], QUIET));
    let id = id_of(&evenkeel.client().get("/"));
    evenkeel.until_known(&id);
    let text = evenkeel.cli_ok(&["why", &id]);
    assert!(text.contains("no other backend takes requests"), "{text}");
    assert!(!text.contains("tried again"), "{text}");
}

/// A request that could not be read, one that nobody took, one that nobody remembers.
#[test]
fn why_tells_of_refusals_and_says_what_it_does_not_know() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let refused = id_of(
        &evenkeel
            .client()
            .ask("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    );
    evenkeel.until_known(&refused);
    let text = evenkeel.cli_ok(&["why", &refused]);
    assert!(
        text.contains("400 bad_host") && text.contains("GET /x HTTP/1.1"),
        "{text}"
    );
    let unknown = evenkeel.cli(&["why", "no-such-request"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("`no-such-request` is not remembered"), "{said}");
}

/// Failures, refusals and sampled successes are kept apart: a flood of one kind pushes none of another out.
#[test]
fn neither_successes_nor_refusals_push_failures_out() {
    let one = Backend::named("one");
    let recorder =
        "[recorder]\nfailures = 4\nrefusals = 2\nsuccesses = 8\nsample = \"100%\"\n[node]\nthreads = 1\n";
    let evenkeel = Evenkeel::start(&format!("{recorder}{}", shop(&[&one], QUIET)));
    one.kill();
    let failed = id_of(&evenkeel.client().get("/"));
    one.start();
    let refused: Vec<String> = (0..5)
        .map(|_| id_of(&evenkeel.client().ask("GET / HTTP/1.1\r\nHost: \"\r\n\r\n")))
        .collect();
    let mut client = evenkeel.client();
    let ids: Vec<String> = (0..20).map(|_| id_of(&client.get("/"))).collect();
    let known = |id: &str| evenkeel.get(&format!("/api/v1/requests/{id}")).status() == 200;
    wait_for("the last success is known", || known(&ids[19]).then_some(()));
    assert!(known(&failed));
    assert!(!known(&refused[2]) && known(&refused[3]) && known(&refused[4]));
    assert!(!known(&ids[0]) && !known(&ids[11]) && known(&ids[12]));
    let listed = |query: &str| {
        let answer = evenkeel.get(&format!("/api/v1/requests?last={query}"));
        let answer: Value = serde_json::from_slice(&answer.body).unwrap();
        let requests = answer["requests"].as_array().unwrap().clone();
        let id = |request: &Value| request["id"].as_str().unwrap().to_owned();
        requests.iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(listed("1000"), [failed.as_str()], "failures");
    assert_eq!(listed("1000&all=true").len(), 11);
    assert_eq!(listed("1&all=true"), [ids[19].as_str()], "the newest");
    let overwritten = evenkeel.metric("evenkeel_recorder_overwritten_total", &[]);
    assert_eq!(overwritten, 3.0 + 12.0);
    let nothing = "[recorder]\nfailures = 0\nrefusals = 0\nsuccesses = 0\n[node]\nthreads = 1\n";
    evenkeel.reload(&format!("{nothing}{}", shop(&[&one], QUIET)));
    assert!(!known(&failed));
}
