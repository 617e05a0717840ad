//! Compression of responses, decoded by curl.

use crate::support::{Backend, Evenkeel, Nginx, QUIET, curl, free_ip, shop, shop_on};

const COMPRESSED: &str =
    "[[load_balancers.shop.routes]]\npool = \"default\"\n[load_balancers.shop.routes.compression]\n";

fn text() -> String {
    (0..20_000).map(|i| format!("<p>{}</p>\n", i % 700)).collect()
}

/// curl decodes each coding to the bytes of the file, over HTTP/1.1 and HTTP/2; what it says about them is right.
#[test]
fn curl_decodes_each_coding_to_the_same_bytes() {
    let nginx = Nginx::start("one");
    let text = text();
    nginx.file("page.html", text.as_bytes());
    let config = shop_on(
        &format!("{}:0", free_ip()),
        &[nginx.address],
        &format!("{QUIET}{COMPRESSED}"),
    );
    let evenkeel = Evenkeel::start(&config);
    let url = format!("http://{}/files/page.html", evenkeel.address());
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        for (coding, accepted) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("zstd", "gzip;q=0.5, br;q=0.9, zstd"),
        ] {
            let header = format!("Accept-Encoding: {accepted}");
            let got = curl(&[protocol, "--compressed", "-D", "-", "-H", &header, &url]).stdout;
            let at = got.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let head = String::from_utf8_lossy(&got[..at]).to_lowercase();
            assert!(got[at..] == *text.as_bytes(), "{coding} {protocol}\n{head}");
            assert!(
                head.contains(&format!("content-encoding: {coding}\r\n")),
                "{head}"
            );
            assert!(head.contains("vary: accept-encoding\r\n"), "{head}");
            assert!(head.contains("\r\netag: w/\""), "{head}");
            assert!(
                !head.contains("content-length") && !head.contains("accept-ranges"),
                "{head}"
            );
        }
    }
    evenkeel.wait_for_metric("evenkeel_compressed_responses_total", &[], 6.0);
    let before = evenkeel.metric("evenkeel_compression_input_bytes_total", &[]);
    let after = evenkeel.metric("evenkeel_compression_output_bytes_total", &[]);
    assert!(
        before == 6.0 * text.len() as f64 && after < before / 4.0,
        "{before} {after}"
    );
}

/// An HTTP/1.0 client gets it too, ended by the connection.
#[test]
fn an_old_client_gets_it_ended_by_the_connection() {
    let nginx = Nginx::start("one");
    nginx.file("page.html", text().as_bytes());
    let config = shop_on(
        &format!("{}:0", free_ip()),
        &[nginx.address],
        &format!("{QUIET}{COMPRESSED}"),
    );
    let evenkeel = Evenkeel::start(&config);
    let url = format!("http://{}/files/page.html", evenkeel.address());
    let got = curl(&["--http1.0", "--compressed", "-H", "Accept-Encoding: gzip", &url]).stdout;
    assert!(got == text().as_bytes());
}

/// What must not be compressed is passed on byte for byte.
#[test]
fn what_must_not_be_compressed_is_left_alone() {
    let body = "x".repeat(5000);
    let one = Backend::answering(move |request| {
        let more = match request.target() {
            "/image" => "Content-Type: image/png\r\n",
            "/encoded" => "Content-Type: text/html\r\nContent-Encoding: br\r\n",
            "/no-transform" => "Content-Type: text/html\r\nCache-Control: public, no-transform\r\n",
            "/digest" => "Content-Type: text/html\r\nContent-Digest: sha-256=:x:\r\n",
            "/set-cookie" => "Content-Type: text/html\r\nSet-Cookie: a=b\r\n",
            _ => "Content-Type: text/html; charset=utf-8\r\n",
        };
        let status = match request.target() {
            "/part" => "206 Partial Content\r\nContent-Range: bytes 0-4999/9000",
            _ => "200 OK",
        };
        let body = if request.target() == "/small" { "x" } else { &body };
        let body = if request.method() == "HEAD" { "" } else { body };
        let length = if request.target() == "/small" { 1 } else { 5000 };
        format!("HTTP/1.1 {status}\r\n{more}ETag: \"e\"\r\nContent-Length: {length}\r\n\r\n{body}")
            .into_bytes()
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{QUIET}{COMPRESSED}")));
    let mut client = evenkeel.client();
    let mut ask = |method: &str, path: &str, more: &str| {
        client.ask(&format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n"))
    };
    let plain = "Accept-Encoding: gzip\r\n";
    assert_eq!(ask("GET", "/", plain).field("content-encoding"), Some("gzip"));
    for path in [
        "/image",
        "/encoded",
        "/no-transform",
        "/digest",
        "/set-cookie",
        "/part",
        "/small",
    ] {
        let got = ask("GET", path, plain);
        assert_ne!(got.field("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(
            (got.field("etag"), got.field("vary")),
            (Some("\"e\""), None),
            "{path}"
        );
    }
    for secret in ["Cookie: a=b\r\n", "Authorization: Basic x\r\n"] {
        let got = ask("GET", "/", &format!("{plain}{secret}"));
        assert_eq!(
            (got.field("content-encoding"), got.body.len()),
            (None, 5000),
            "{secret}"
        );
    }
    for accepted in [
        "",
        "Accept-Encoding: identity\r\n",
        "Accept-Encoding: gzip;q=0, *;q=0\r\n",
    ] {
        let got = ask("GET", "/", accepted);
        assert_eq!(
            (got.field("content-encoding"), got.field("vary")),
            (None, Some("Accept-Encoding"))
        );
    }
    client.send(format!("HEAD / HTTP/1.1\r\nHost: a\r\n{plain}\r\n"));
    let head = client.head();
    assert_eq!(
        (head.field("content-encoding"), head.field("content-length")),
        (None, Some("5000"))
    );
}

/// Secrets are compressed only for who asks for it.
#[test]
fn credentials_are_compressed_when_asked() {
    let one = Backend::answering(|_| {
        let body = "x".repeat(5000);
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\nContent-Length: 5000\r\n\r\n{body}").into_bytes()
    });
    let evenkeel = Evenkeel::start(&shop(
        &[&one],
        &format!("{QUIET}{COMPRESSED}with_credentials = true\n"),
    ));
    let got = evenkeel
        .client()
        .ask("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nAccept-Encoding: br\r\n\r\n");
    assert_eq!(got.field("content-encoding"), Some("br"));
}

/// A stream of lines: each arrives while the backend waits for a sign that it did.
#[test]
fn a_stream_is_given_as_it_comes() {
    let one = Backend::scripted(|conversation| {
        if conversation.request().is_none() {
            return;
        }
        conversation
            .send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
        conversation.send("6\r\nfirst\n\r\n");
        conversation.hold();
    });
    let evenkeel = Evenkeel::start(&shop(&[&one], &format!("{QUIET}{COMPRESSED}minimum_size = 0\n")));
    let mut client = evenkeel.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("content-encoding"), Some("gzip"));
    let mut got = Vec::new();
    // The size of the first chunk, its head of ten bytes, and a block that ends at a byte.
    while !got.windows(4).any(|w| w == [0, 0, 0xff, 0xff]) {
        let more = client.read_some(1000);
        assert!(!more.is_empty(), "the stream ended: {got:?}");
        got.extend(more);
    }
}
