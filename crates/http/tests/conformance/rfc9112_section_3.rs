//! RFC 9112 section 3: request line, forms of the target, Host.

use super::*;

fn line(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

#[test]
fn a_request_line_has_three_words_with_one_space_between() {
    for bad in [
        "GET",
        "GET ",
        "GET /",
        "GET / ",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET HTTP/1.1",
    ] {
        assert_eq!(refused(line(bad)), Reason::BadRequestLine, "{bad:?}");
    }
}

#[test]
fn http_0_9_is_refused() {
    assert_eq!(refused("GET /\r\n"), Reason::BadRequestLine);
}

#[test]
fn a_method_is_a_token() {
    for bad in [
        "GE\tT / HTTP/1.1",
        "G(T / HTTP/1.1",
        "G\u{e4}T / HTTP/1.1",
        "G/T / HTTP/1.1",
        "G:T / HTTP/1.1",
        "\"GET\" / HTTP/1.1",
    ] {
        assert_eq!(refused(line(bad)), Reason::BadMethod, "{bad:?}");
    }
    let request = accepted(line("PROPFIND / HTTP/1.1"));
    assert_eq!(request.head.method, Method::Other);
    assert!(request.forwarded().starts_with("PROPFIND / HTTP/1.1\r\n"));
}

#[test]
fn connect_and_trace_are_not_allowed() {
    for method in ["CONNECT a:443", "CONNECT /", "TRACE /", "TRACE *"] {
        assert_eq!(
            refused(line(&format!("{method} HTTP/1.1"))),
            Reason::MethodNotAllowed,
            "{method}"
        );
    }
}

#[test]
fn a_target_has_no_control_space_fragment_backslash_or_high_byte() {
    for target in [
        "/\x01",
        "/\x7f",
        "/a#b",
        "/a\\b",
        "/\u{e4}",
        "/?a#b",
        "/?\\",
        "/?\u{e4}",
        "/\0",
        "http://a/#b",
    ] {
        assert_eq!(
            refused(line(&format!("GET {target} HTTP/1.1"))),
            Reason::BadTarget,
            "{target:?}"
        );
    }
}

#[test]
fn bytes_outside_the_uri_grammar_are_forwarded_percent_encoded() {
    let request = accepted(line("GET /\"<>^`{|}?\"<>^`{|} HTTP/1.1"));
    assert_eq!(
        request.target(),
        "/%22%3C%3E%5E%60%7B%7C%7D?%22%3C%3E%5E%60%7B%7C%7D"
    );
}

#[test]
fn a_target_is_a_path_or_absolute_or_a_star() {
    for target in [
        "a",
        "a:80",
        "a/b",
        "?q",
        "http:/a/b",
        "http:a",
        "ftp://a/",
        "://a",
        "**",
        "%2F",
        "a.example:443",
    ] {
        assert_eq!(
            refused(line(&format!("GET {target} HTTP/1.1"))),
            Reason::BadTarget,
            "{target}"
        );
    }
}

#[test]
fn the_star_is_for_options_only() {
    let request = accepted(line("OPTIONS * HTTP/1.1"));
    assert_eq!((request.target(), request.head.query(&request.buf)), ("*", None));
    assert_eq!(request.head.path(&request.buf), b"*");
    for method in ["GET", "POST", "OPTION"] {
        assert_eq!(refused(line(&format!("{method} * HTTP/1.1"))), Reason::BadTarget);
    }
}

#[test]
fn an_absolute_target_is_forwarded_as_a_path_with_its_authority_as_host() {
    for (target, host, forwarded) in [
        ("http://a.example/x?y", "a.example", "/x?y"),
        ("HTTP://a.example:81/x", "a.example:81", "/x"),
        ("https://a.example", "a.example", "/"),
        ("http://a.example?q", "a.example", "/?q"),
        ("http://a.example/../%7e", "a.example", "/~"),
        ("http://[::1]:80/", "[::1]:80", "/"),
    ] {
        let request = accepted(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((request.target(), request.host()), (forwarded, host), "{target}");
        let sent = request.forwarded();
        assert!(
            sent.starts_with(&format!("GET {forwarded} HTTP/1.1\r\nHost: {host}\r\n")),
            "{sent}"
        );
    }
}

#[test]
fn an_absolute_target_without_path_means_the_server_for_options() {
    assert_eq!(
        accepted("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").target(),
        "*"
    );
    assert_eq!(
        accepted("OPTIONS http://a?q HTTP/1.1\r\nHost: a\r\n\r\n").target(),
        "/?q"
    );
    assert_eq!(
        accepted("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").target(),
        "/"
    );
}

#[test]
fn an_absolute_target_that_differs_from_host_is_refused() {
    for host in ["b", "a:80", "a.", "xa"] {
        let bytes = format!("GET http://a/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(refused(bytes), Reason::BadHost, "{host}");
    }
    assert_eq!(accepted("GET http://a/ HTTP/1.1\r\nHost: A\r\n\r\n").host(), "a");
    assert_eq!(refused("GET http://a/ HTTP/1.1\r\n\r\n"), Reason::BadHost);
    assert_eq!(accepted("GET http://a/ HTTP/1.0\r\n\r\n").host(), "a");
}

#[test]
fn an_absolute_target_with_a_bad_authority_is_refused() {
    for target in [
        "http:///x",
        "http://?q",
        "http://u@a/",
        "http://u:p@a/",
        "http://a:x/",
        "http://a:/",
        "http://a,b/",
        "http://a%41/",
        "http://",
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(refused(bytes), Reason::BadTarget, "{target}");
    }
}

#[test]
fn host_is_required_once_and_well_formed() {
    for (scenario, fields) in [
        ("missing", ""),
        ("empty", "Host:\r\n"),
        ("repeated", "Host: a\r\nHost: b\r\n"),
        ("repeated and equal", "Host: a\r\nHost: a\r\n"),
        ("repeated in other case", "Host: a\r\nhOST: a\r\n"),
        ("list", "Host: a, b\r\n"),
        ("user information", "Host: u@a\r\n"),
        ("path", "Host: a/b\r\n"),
        ("port not a number", "Host: a:http\r\n"),
        ("port empty", "Host: a:\r\n"),
        ("port too large", "Host: a:65536\r\n"),
        ("two ports", "Host: a:1:2\r\n"),
        ("space", "Host: a b\r\n"),
        ("quoted", "Host: \"a\"\r\n"),
        ("open bracket", "Host: [::1\r\n"),
        ("not an address", "Host: [x]\r\n"),
        ("not ASCII", "Host: \u{e4}\r\n"),
    ] {
        assert_eq!(
            refused(format!("GET / HTTP/1.1\r\n{fields}\r\n")),
            Reason::BadHost,
            "{scenario}"
        );
    }
}

#[test]
fn http_1_0_may_lack_host_but_not_malform_it() {
    let request = accepted("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(request.host(), "");
    let sent = request.forwarded();
    assert!(
        sent.starts_with("GET / HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n"),
        "{sent}"
    );
    assert!(!sent.contains("X-Forwarded-Host"), "{sent}");
    assert_eq!(refused("GET / HTTP/1.0\r\nHost: a/b\r\n\r\n"), Reason::BadHost);
}

#[test]
fn the_host_name_has_no_port_and_keeps_its_brackets() {
    for (host, name) in [
        ("a", "a"),
        ("a:80", "a"),
        ("[::1]", "[::1]"),
        ("[::1]:8080", "[::1]"),
        ("A.b", "A.b"),
    ] {
        let request = accepted(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(request.head.host_name(&request.buf), name.as_bytes());
    }
}

#[test]
fn a_target_over_its_limit_is_refused_before_its_line_ends() {
    let limits = ListenerLimits {
        target_bytes: 16,
        ..ListenerLimits::default()
    };
    let fits = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(15));
    assert!(parse_with(fits, &limits).unwrap().is_some());
    assert_eq!(
        refused_with(format!("GET /{}", "a".repeat(16)), &limits),
        Reason::TargetTooLong
    );
    assert_eq!(
        refused_with(line(&format!("GET /{} HTTP/9.9", "a".repeat(16))), &limits),
        Reason::TargetTooLong
    );
}

#[test]
fn query_parameters_and_cookies_are_found_by_name() {
    let request = accepted(
        "GET /?a=1&ab=2&c&b=&a=3 HTTP/1.1\r\nHost: a\r\nCookie: x=1; yx=2;y=3\r\nCookie: z=\"4\"\r\n\r\n",
    );
    let (head, buf) = (&request.head, &request.buf);
    assert_eq!(head.query_parameter(buf, "a"), Some(&b"1"[..]));
    assert_eq!(head.query_parameter(buf, "ab"), Some(&b"2"[..]));
    assert_eq!(head.query_parameter(buf, "b"), Some(&b""[..]));
    assert_eq!(head.query_parameter(buf, "c"), None);
    assert_eq!(head.cookie(buf, "x"), Some(&b"1"[..]));
    assert_eq!(head.cookie(buf, "y"), Some(&b"3"[..]));
    assert_eq!(head.cookie(buf, "z"), Some(&b"\"4\""[..]));
    assert_eq!(head.cookie(buf, "X"), None);
}
