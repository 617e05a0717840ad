//! The session cookie as its users send it, filed by section of RFC 6265: odd ones made by hand, real ones kept in
//! curl's jar, over HTTP/1.1 and HTTP/2. And what is told of a session afterwards.

use crate::support::{Backend, Client, Evenkeel, Message, QUIET, curl, shop, wait_for, wait_until};

const COOKIE: &str = "sticky = { cookie = \"evk\" }\n";

fn evenkeel(backends: &[&Backend], sticky: &str) -> Evenkeel {
    Evenkeel::start(&shop(backends, &format!("{QUIET}{sticky}")))
}

fn ask(client: &mut Client, fields: &str) -> Message {
    client.ask(&format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"))
}

/// The value of the cookie that a response sets.
fn value(response: &Message) -> Option<String> {
    let field = response.field("set-cookie")?.strip_prefix("evk=")?;
    field.split(';').next().map(str::to_owned)
}

/// Section 4.2.1, and what is sent beside it: as long as name and value stand between semicolons they are found.
#[test]
fn rfc6265_section_4_2_1_odd_cookie_fields() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = evenkeel(&[&one, &two], COOKIE);
    let mut client = evenkeel.client();
    let first = ask(&mut client, "");
    let (home, v) = (first.text().to_owned(), value(&first).unwrap());
    for kept in [
        format!("Cookie: a=1;evk={v}"),
        format!("Cookie:evk={v}"),
        format!("Cookie: evk={v};"),
        format!("Cookie: ;;  evk={v} ;"),
        format!("Cookie: \tevk={v}\t"),
        format!("Cookie: a=\"b c\"; evk={v}; d=\"e\""),
        format!("Cookie: a; =b; evk={v}"),
        format!("Cookie: a=evk=foreign; evk={v}"),
        format!("cookie: a=1\r\nCOOKIE: evk={v}\r\nCookie: b=2"),
    ] {
        // Two in a row: by turns they would not both be at home.
        for _ in 0..2 {
            let answer = ask(&mut client, &format!("{kept}\r\n"));
            assert_eq!((answer.text(), value(&answer)), (&*home, None), "{kept}");
        }
    }
    for new in [
        format!("Cookie: EVK={v}"),
        format!("Cookie: xevk={v}"),
        // Quotes are a part of the value (section 5.2), and ours has none.
        format!("Cookie: evk=\"{v}\""),
        format!("Cookie: a=\"; evk={v}x\""),
    ] {
        let answer = ask(&mut client, &format!("{new}\r\n"));
        assert!(value(&answer).is_some(), "{new}");
    }
}

/// Section 5: what a user agent makes of the attributes that we set.
#[test]
fn rfc6265_section_5_the_jar_of_a_user_agent() {
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let (one, two) = (Backend::named("one"), Backend::named("two"));
        let sticky = "sticky = { cookie = \"evk\", ttl = \"1h\", path = \"/app\" }\n";
        let evenkeel = evenkeel(&[&one, &two], sticky);
        let dir = tempfile::tempdir().unwrap();
        let jar = dir.path().join("jar").display().to_string();
        let get = |path: &str| {
            let url = format!("http://{}{path}", evenkeel.address());
            let got = curl(&[protocol, "--cookie", &jar, "--cookie-jar", &jar, &url]);
            String::from_utf8(got.stdout).unwrap()
        };
        let home = get("/app/first");
        for _ in 0..4 {
            assert_eq!(get("/app/again"), home, "{protocol}");
        }
        let kept = std::fs::read_to_string(&jar).unwrap();
        let fields: Vec<&str> = kept
            .lines()
            .find_map(|line| line.strip_prefix("#HttpOnly_"))
            .unwrap_or_else(|| panic!("it is HttpOnly: {kept}"))
            .split('\t')
            .collect();
        // Domain, whether subdomains have it too, path, secure, expiry, name, value.
        assert_eq!(
            (fields[1], fields[2], fields[3]),
            ("FALSE", "/app", "FALSE"),
            "{kept}"
        );
        assert!(fields[4].parse::<u64>().unwrap() > 0, "it has an end: {kept}");
        assert_eq!(fields[5], "evk");
        let outcome =
            |outcome| evenkeel.metric("evenkeel_pool_session_requests_total", &[("outcome", outcome)]);
        wait_until("all are counted", || outcome("kept") == 4.0);
        // Outside of its path it is not sent.
        get("/elsewhere");
        wait_until("it is counted", || outcome("new") == 2.0);
    }
}

/// RFC 9113 section 8.2.3: cookies may come in fields of their own, and are one to the backend.
#[test]
fn cookies_in_crumbs_are_joined() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = evenkeel(&[&one, &two], COOKIE);
    let first = ask(&mut evenkeel.client(), "");
    let (home, v) = (first.text().to_owned(), value(&first).unwrap());
    let backend = if home == "one" { &one } else { &two };
    let url = format!("http://{}/", evenkeel.address());
    let ours = format!("Cookie: evk={v}");
    for _ in 0..3 {
        let crumbs = ["-H", "Cookie: a=1", "-H", &ours, "-H", "Cookie: b=2"];
        let mut args = vec!["--http2-prior-knowledge", &url];
        args.extend(crumbs);
        assert_eq!(String::from_utf8(curl(&args).stdout).unwrap(), home);
        let last = backend.last();
        assert_eq!(last.all("cookie"), [format!("a=1; evk={v}; b=2")]);
    }
}

/// What became of a request's session stands in the access log and in `why`.
#[test]
fn what_became_of_a_session_is_told() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let config = shop(&[&one, &two], &format!("{QUIET}{COOKIE}"));
    let evenkeel = Evenkeel::start(&format!(
        "{config}[access_log]\nto = \"file:{}\"\n[recorder]\nsample = \"100%\"\n",
        log.display()
    ));
    let mut client = evenkeel.client();
    let first = ask(&mut client, "");
    let cookie = format!("Cookie: evk={}\r\n", value(&first).unwrap());
    ask(&mut client, &cookie);
    ask(&mut client, "Cookie: evk=foreign\r\n");
    let home = if first.text() == "one" { &one } else { &two };
    evenkeel.cli_ok(&["backend", "maintenance", "shop", &home.address.to_string()]);
    let moved = ask(&mut client, &cookie);
    let told = wait_for("all are logged", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        (lines.len() == 4).then_some(lines)
    });
    let sessions: Vec<&str> = told.iter().filter_map(|line| line["session"].as_str()).collect();
    assert_eq!(sessions, ["new", "kept", "rejected", "moved"]);
    let id = moved.field("x-request-id").unwrap();
    evenkeel.until_known(id);
    let why = evenkeel.cli_ok(&["why", id]);
    assert!(why.contains("its session moved"), "{why}");
}

/// Answers with the status that the target asks for, and begins a session of the application's.
fn failing(name: &'static str) -> Backend {
    Backend::answering(move |request| {
        let status = request.target().trim_start_matches('/');
        format!("HTTP/1.1 {status} X\r\nSet-Cookie: SID={name}\r\nContent-Length: 5\r\n\r\ninner")
            .into_bytes()
    })
}

/// Own pages in the place of what two backends answer, with sessions kept as told.
fn intercepting(backends: &[&Backend], sticky: &str) -> (Evenkeel, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    std::fs::write(&page, "own page").unwrap();
    let page = page.display();
    let route = format!(
        "[[load_balancers.shop.routes]]\npool = \"default\"\nintercept_errors = true\n\
         error_pages = {{ \"4xx\" = \"{page}\", \"5xx\" = \"{page}\" }}\n"
    );
    (evenkeel(backends, &format!("{sticky}{route}")), dir)
}

fn failure(client: &mut Client, status: u16, fields: &str) -> Message {
    let answer = client.ask(&format!("GET /{status} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!((answer.status(), answer.text()), (status, "own page"));
    answer
}

/// A session that begins with a failure is told of, although an own page stands in the place of the response; what is
/// known already is not said again, and where no backend answered there is no session.
#[test]
fn a_page_in_the_place_of_a_failure_sets_the_cookie() {
    let (one, two) = (failing("one"), failing("two"));
    let (evenkeel, _dir) = intercepting(&[&one, &two], COOKIE);
    let mut client = evenkeel.client();
    for (status, fields) in [(404, ""), (500, "Cookie: evk=forged\r\n"), (503, "")] {
        let first = failure(&mut client, status, fields);
        let cookies = first.all("set-cookie");
        assert!(
            cookies.len() == 2 && cookies[1].starts_with("evk="),
            "{cookies:?}"
        );
        // That of the backend says where it was.
        let home = cookies[0].to_owned();
        assert_eq!(first.field("cache-control"), Some("private"));
        let ours = cookies[1].split(';').next().unwrap();
        for status in [500, 404, 503] {
            let again = failure(&mut client, status, &format!("Cookie: {ours}\r\n"));
            assert_eq!(again.all("set-cookie"), [&*home]);
        }
    }
    let silent = Backend::scripted(|_| {});
    let (alone, _dir) = intercepting(&[&silent], COOKIE);
    let failed = failure(&mut alone.client(), 502, "");
    assert_eq!(
        (failed.reason(), failed.all("set-cookie")),
        ("backend_reset", vec![])
    );
}

/// A session of the application's is learned from a failure in the place of which an own page is answered.
#[test]
fn a_session_that_begins_with_an_intercepted_failure_is_learned() {
    let (one, two) = (failing("one"), failing("two"));
    let (evenkeel, _dir) = intercepting(&[&one, &two], "sticky = { app_cookie = \"SID\" }\n");
    let mut client = evenkeel.client();
    let began = failure(&mut client, 401, "");
    let home = began.field("set-cookie").expect("the application's").to_owned();
    for _ in 0..6 {
        let again = failure(&mut client, 404, &format!("Cookie: {home}\r\n"));
        assert_eq!(again.all("set-cookie"), [&*home]);
    }
    evenkeel.wait_for_metric(
        "evenkeel_pool_session_requests_total",
        &[("outcome", "kept")],
        6.0,
    );
}
