//! RFC 3986 section 6: the one form of a path that routing sees and the backend gets.

use super::*;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_path_is_forwarded_in_normal_form() {
    for (from, to) in [
        ("/", "/"),
        ("/%41%5a%61%7A%30%39%2D%5F%7E", "/AZaz09-_~"),
        ("/%20%3f%23", "/%20%3F%23"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/a/./b/../c", "/a/c"),
        ("/../../etc/passwd", "/etc/passwd"),
        ("/a/..", "/"),
        ("/a//b", "/a//b"),
        ("//a", "//a"),
        ("/a/..?x=/../y", "/?x=/../y"),
        ("/.hidden/..x/...", "/.hidden/..x/..."),
        ("/a;b=c/:@!$&'()*+,=", "/a;b=c/:@!$&'()*+,="),
    ] {
        let request = accepted(get(from));
        assert_eq!(request.target(), to);
        assert!(request.forwarded().starts_with(&format!("GET {to} HTTP/1.1\r\n")));
    }
}

#[test]
fn path_and_query_are_those_of_the_normal_form() {
    let request = accepted(get("/x/../%7Eb?c=%2F&d"));
    assert_eq!(request.head.path(&request.buf), b"/~b");
    assert_eq!(request.head.query(&request.buf), Some(&b"c=%2F&d"[..]));
    assert_eq!(accepted(get("/a?")).head.query(b""), None);
    let empty = accepted(get("/a?"));
    assert_eq!(empty.head.query(&empty.buf), Some(&b""[..]));
}

#[test]
fn an_escaped_separator_nul_or_dot_segment_is_refused() {
    for path in [
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a%5Cb",
        "/a%00b",
        "/%2e%2e/x",
        "/%2E%2e",
        "/.%2e/x",
        "/%2e./x",
        "/a/%2e%2e",
        "/%2e",
        "/%2e/x",
        "/..%2fx",
        "/..%5cx",
    ] {
        assert_eq!(refused(get(path)), Reason::BadPath, "{path}");
    }
}

#[test]
fn an_escaped_dot_within_a_name_is_just_a_dot() {
    assert_eq!(accepted(get("/index%2ehtml")).target(), "/index.html");
    assert_eq!(accepted(get("/%2e%2e%2e")).target(), "/...");
}

#[test]
fn a_path_that_is_not_utf8_is_refused() {
    for (scenario, path) in [
        ("lone continuation", "/%80"),
        ("overlong slash", "/%c0%af"),
        ("overlong dot", "/%c0%ae%c0%ae/x"),
        ("overlong in three bytes", "/%e0%80%af"),
        ("overlong in four bytes", "/%f0%80%80%af"),
        ("surrogate", "/%ed%a0%80"),
        ("beyond Unicode", "/%f4%90%80%80"),
        ("never in UTF-8", "/%ff"),
        ("truncated at the end", "/%e2%82"),
        ("truncated before text", "/%e2%82x"),
        ("truncated before an escape", "/%c3%41"),
        ("across segments", "/%c3/%a4"),
    ] {
        assert_eq!(refused(get(path)), Reason::BadPath, "{scenario}");
    }
}

#[test]
fn an_escape_in_the_path_is_two_hexadecimal_digits() {
    for path in [
        "/%", "/%4", "/%4g", "/%g4", "/%%41", "/%u0041", "/a%/b", "/%c3%", "/%c3%a",
    ] {
        assert_eq!(refused(get(path)), Reason::BadTarget, "{path}");
    }
}

#[test]
fn the_query_keeps_its_escapes() {
    for target in ["/?100%", "/?%2e%2e/%2F", "/?%zz", "/?a=%e4&b=/../.."] {
        assert_eq!(accepted(get(target)).target(), target);
    }
}

#[test]
fn a_double_escape_is_not_unescaped_twice() {
    assert_eq!(accepted(get("/%252e%252e%252f")).target(), "/%252e%252e%252f");
}
