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
    let why = evenkeel.cli_ok(&["why", moved.field("x-request-id").unwrap()]);
    assert!(why.contains("its session moved"), "{why}");
}
