//! The config of what is told about requests: what it means, and what is said about wrong values.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::config::{LogFormat, LogTarget, Observe, Recorder, Trust};
use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::parse_toml;

fn read(lines: &str) -> Result<Observe, Vec<Diagnostic>> {
    let text = format!("{lines}\n[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n");
    parse_toml(&text, "evenkeel.toml").map(|config| config.observe)
}

#[track_caller]
fn says(lines: &str, cause: &str, help: &str) {
    let found = read(lines).unwrap_err();
    let [only] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(only.cause.contains(cause), "{only}");
    assert!(only.suggestion.as_deref().unwrap_or("").contains(help), "{only}");
}

/// Nothing written: no access log and no traces, but ids and a recorder.
#[test]
fn without_a_word_requests_have_ids_and_failures_are_kept() {
    let observe = read("").unwrap();
    assert_eq!(observe, Observe::default());
    assert_eq!((observe.access_log, observe.tracing), (None, None));
    assert_eq!(observe.request_id.header, "X-Request-Id");
    assert_eq!(observe.recorder, Recorder::default());
}

#[test]
fn each_place_of_an_access_log_is_read() {
    let to = |text: &str| {
        let log = read(&format!("[access_log]\nto = \"{text}\""))
            .unwrap()
            .access_log;
        log.unwrap().to
    };
    assert_eq!(to("stdout"), LogTarget::Stdout);
    assert_eq!(to("file:/a b.log"), LogTarget::File("/a b.log".into()));
    assert_eq!(to("syslog"), LogTarget::Syslog("/dev/log".into()));
    assert_eq!(to("syslog:/run/log"), LogTarget::Syslog("/run/log".into()));
    assert_eq!(
        to("syslog:udp://[::1]:514"),
        LogTarget::SyslogUdp("[::1]:514".into())
    );
    let log = read("[access_log]\nformat = \"common\"\nsample = \"5%\"\nquery = false").unwrap();
    let log = log.access_log.unwrap();
    assert_eq!((log.format, log.sample, log.query), (LogFormat::Common, 5, false));
}

#[test]
fn trust_is_read_where_it_stands() {
    let observe = read(
        "[request_id]\ntrust = \"all\"\n[tracing]\nendpoint = \"https://otel.example/x\"\ntrust = \"nobody\"",
    )
    .unwrap();
    assert_eq!(observe.request_id.trust, Trust::All);
    assert_eq!(observe.tracing.unwrap().trust, Trust::Nobody);
    assert!(Trust::TrustedProxies.believes(true) && !Trust::TrustedProxies.believes(false));
}

#[test]
fn wrong_values_are_named_with_what_to_write() {
    says(
        "[access_log]\nto = \"/var/log/access.log\"",
        "`/var/log/access.log` is no place",
        "file:/var",
    );
    says(
        "[access_log]\nto = \"syslog:tcp://a:1\"",
        "is no place",
        "syslog:udp://",
    );
    says(
        "[access_log]\nquery = \"no\"",
        "`query` must be `true` or `false`",
        "",
    );
    says("[access_log]\nqueue = \"1KiB\"", "out of its range: 64KiB to", "");
    says("[access_log]\nformat = \"comon\"", "must be one of", "common");
    says(
        "[request_id]\nheader = \"Host\"",
        "has a meaning of its own",
        "X-Request-Id",
    );
    says(
        "[request_id]\nheader = \"X-Forwarded-For\"",
        "has a meaning of its own",
        "X-Request-Id",
    );
    says(
        "[tracing]\nsample = \"1%\"",
        "needs the key `endpoint`",
        "endpoint = ",
    );
    says(
        "[tracing]\nendpoint = \"127.0.0.1:4318\"",
        "is not the URL of a collector",
        "http://127.0.0.1:4318",
    );
    says("[recorder]\nsample = \"101%\"", "0% to 100%", "");
}
