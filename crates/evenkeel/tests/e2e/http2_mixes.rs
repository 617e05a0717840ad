//! One meaning over every mix of protocols: the same scenarios run by clients of HTTP/1.1 and HTTP/2 against backends
//! of both, and what arrives on the other side is compared with one table. RFC 9110 (sections 6.5, 7.6, 10.1.1, 15.2),
//! RFC 9112 (sections 6, 7), RFC 9113 (sections 8.1, 8.2, 8.3), RFC 7239.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::*;

/// A backend of HTTP/1.1 that does for a path what `h2server.py` does.
fn http1_backend() -> Backend {
    Backend::scripted(|conversation| {
        while let Some(mut request) = conversation.head() {
            if request.field("expect").is_some() {
                conversation.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            if !conversation.body(&mut request) {
                return;
            }
            let path = request.target().split('?').next().unwrap_or_default().to_owned();
            let sent = match path.as_str() {
                "/hints" => conversation.send(
                    "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
                     HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhinted",
                ),
                "/trailers" if request.method() == "HEAD" => {
                    conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                }
                "/trailers" => conversation.send(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 7\r\n\r\n",
                ),
                "/cookies" => {
                    conversation.send("HTTP/1.1 204 No Content\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n")
                }
                "/broken" => {
                    conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
                    return;
                }
                _ => {
                    let seen = seen(&request).to_string();
                    let length = seen.len();
                    conversation.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{seen}"
                    ))
                }
            };
            if !sent {
                return;
            }
        }
    })
}

/// What a backend of HTTP/1.1 saw, in the form of one of HTTP/2.
fn seen(request: &Message) -> Value {
    let lower = |fields: &[(String, String)]| -> Vec<(String, String)> {
        let fields = fields.iter();
        fields.map(|(n, v)| (n.to_lowercase(), v.clone())).collect()
    };
    let mut headers = vec![
        (":method".to_owned(), request.method().to_owned()),
        (":path".to_owned(), request.target().to_owned()),
    ];
    for (name, value) in lower(&request.fields) {
        match name.as_str() {
            "host" => headers.push((":authority".to_owned(), value)),
            // What belongs to a connection of HTTP/1.1.
            "connection" | "transfer-encoding" => {}
            _ => headers.push((name, value)),
        }
    }
    json!({ "headers": headers, "body": request.text(), "trailers": lower(&request.trailers) })
}

/// Answers by the name of their scenario.
fn answers(evenkeel: &Evenkeel, client: &str) -> BTreeMap<String, Value> {
    let scenarios = include_str!("support/mixes.py");
    let out = http2_client(scenarios, &[&evenkeel.address().to_string(), "", client]);
    let lines = out.lines().map(|line| {
        let at = line.find(" {").expect("a name and what came");
        let came = serde_json::from_str(&line[at..]).expect("JSON");
        (line[..at].to_owned(), came)
    });
    lines.collect()
}

/// All values of a field.
fn all<'a>(fields: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = fields.as_array().expect("fields").iter();
    let of_name = fields.filter(|field| field[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
    of_name.map(|field| field[1].as_str().expect("a value")).collect()
}

/// The value of a field that must be there once.
#[track_caller]
fn one<'a>(fields: &'a Value, name: &str) -> &'a str {
    let values = all(fields, name);
    assert_eq!(values.len(), 1, "{name}: {fields}");
    values[0]
}

/// What the backend saw of a request that it tells of.
fn told(answer: &Value) -> Value {
    assert_eq!(answer["status"], 200, "{answer}");
    serde_json::from_str(answer["body"].as_str().expect("a body")).expect("what it saw")
}

#[test]
fn every_mix_of_protocols_means_the_same() {
    let (http1, http2) = (http1_backend(), http2_server(&[]));
    for (backend, protocol) in [(http1.address, "http1"), (http2.address(), "http2")] {
        for client in ["1", "2"] {
            let evenkeel = Evenkeel::start(&shop_on(
                "127.0.0.1:0",
                &[backend],
                &format!("protocol = \"{protocol}\"\n{QUIET}"),
            ));
            eprintln!("a client of HTTP/{client}, a backend of {protocol}");
            let answers = answers(&evenkeel, client);
            assert_eq!(answers.len(), 13);
            requests_arrive(&answers);
            provenance_is_ours(&answers);
            responses_arrive(&answers);
        }
    }
}

/// RFC 9112 sections 6 and 7, RFC 9113 sections 8.1 to 8.3: target, fields, body and trailers of requests.
fn requests_arrive(answers: &BTreeMap<String, Value>) {
    let plain = told(&answers["plain"]);
    let fields = &plain["headers"];
    assert_eq!(one(fields, ":method"), "GET");
    assert_eq!(one(fields, ":path"), "/b?c=d");
    assert_eq!(one(fields, ":authority"), "shop.test");
    assert_eq!((one(fields, "x-one"), one(fields, "accept")), ("1", "*/*"));
    assert_eq!(one(fields, "te"), "trailers");
    assert!(all(fields, "content-length").is_empty() && plain["body"] == "");

    let cookies = told(&answers["cookies"]);
    assert_eq!(one(&cookies["headers"], "cookie"), "a=1; b=2");

    let length = told(&answers["length"]);
    assert_eq!(one(&length["headers"], "content-length"), "11");
    assert_eq!(length["body"], "hello world");

    let chunks = told(&answers["chunks"]);
    assert!(all(&chunks["headers"], "content-length").is_empty());
    assert_eq!(chunks["body"], "hello world");

    let large = told(&answers["large"]);
    assert_eq!(large["body"].as_str().map(str::len), Some(640_000));

    // RFC 9110 section 6.5.1: what frames or routes a message has no place there.
    let trailers = told(&answers["request trailers"]);
    assert_eq!(trailers["trailers"], json!([["x-up", "1"]]));

    // RFC 9110 section 10.1.1: the body came only after the backend had asked for it.
    let expectation = &answers["expectation"];
    assert_eq!(expectation["interim"][0][0], 100, "{expectation}");
    assert_eq!(told(expectation)["body"], "hello");
}

/// RFC 7239, and its forerunners: what we say of the client, and nothing that the client says itself.
fn provenance_is_ours(answers: &BTreeMap<String, Value>) {
    for name in ["plain", "forged"] {
        let seen = told(&answers[name]);
        let fields = &seen["headers"];
        assert_eq!(
            one(fields, "forwarded"),
            "for=127.0.0.1;proto=http;host=shop.test"
        );
        assert_eq!(one(fields, "x-forwarded-for"), "127.0.0.1");
        assert_eq!(one(fields, "x-forwarded-proto"), "http");
        assert_eq!(one(fields, "x-forwarded-host"), "shop.test");
        assert!(all(fields, "x-real-ip").is_empty());
    }
}

/// RFC 9110 sections 6.5 and 15.2, RFC 9113 section 8.1: interim responses, trailers, what has no body, and an end
/// that is none.
fn responses_arrive(answers: &BTreeMap<String, Value>) {
    let hints = &answers["hints"];
    assert_eq!(hints["interim"][0][0], 103, "{hints}");
    assert_eq!(one(&hints["interim"][0][1], "link"), "</a.css>");
    assert_eq!(
        (&hints["status"], &hints["body"]),
        (&json!(200), &json!("hinted"))
    );

    let trailers = &answers["response trailers"];
    assert_eq!(trailers["body"], "body");
    assert_eq!(one(&trailers["trailers"], "x-sum"), "7");

    let cookies = &answers["set-cookie"];
    assert_eq!(cookies["status"], 204);
    assert_eq!(all(&cookies["headers"], "set-cookie"), ["a=1", "b=2"]);

    let head = &answers["head"];
    assert_eq!((&head["status"], &head["body"]), (&json!(200), &json!("")));
    assert_eq!(head["broken"], false);

    // RFC 9113 section 5.4.2: a reset may overtake what was on its way; that it is no end is what counts.
    let broken = &answers["broken"];
    let body = broken["body"].as_str().expect("a body");
    assert!(["", "half"].contains(&body), "{broken}");
    assert_eq!(broken["broken"], true, "{broken}");
    for (name, answer) in answers.iter().filter(|(name, _)| *name != "broken") {
        assert_eq!(answer["broken"], false, "{name}: {answer}");
    }
}

/// A client that leaves while its request runs: the backend is left alone too, whatever either speaks.
#[test]
fn a_client_that_leaves_ends_its_request_over_every_mix() {
    let http1 = Backend::scripted(|conversation| {
        conversation.request();
        conversation.hold();
    });
    let http2 = http2_server(&[]);
    for (backend, protocol) in [(http1.address, "http1"), (http2.address(), "http2")] {
        let evenkeel = Evenkeel::start(&shop_on(
            "127.0.0.1:0",
            &[backend],
            &format!("protocol = \"{protocol}\"\n{QUIET}"),
        ));
        let in_flight = || evenkeel.metric("evenkeel_backend_in_flight", &[]);
        let mut client = evenkeel.client();
        client.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
        wait_until("the first is at the backend", || in_flight() == 1.0);
        let out = http2_client(
            "link = Http2()\nstream = link.request(path='/held')\nlink.reset(stream)\nprint('left')",
            &[&evenkeel.address().to_string()],
        );
        assert_eq!(out, "left\n");
        client.reset();
        wait_until("nothing runs any more", || in_flight() == 0.0);
        evenkeel.wait_for_failures("client_gone", 2);
    }
}
