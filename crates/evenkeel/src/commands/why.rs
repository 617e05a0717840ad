//! `evenkeel why`: what became of a request, and why, from the recorder of a running process.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use model::reason::Reason;
use model::record::{AttemptRecord, Records, RequestRecord, TlsRecord};

use crate::cli::WhyArgs;
use crate::client::Client;
use crate::commands::explain::candidates;
use crate::table::{Cell, Paint, Table, Tone};
use crate::text::utc;

pub(crate) fn run(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    let path = match &args.id {
        Some(id) => format!("/api/v1/requests/{}", encoded(id)),
        None => format!("/api/v1/requests?last={}&all={}", args.last, args.all),
    };
    let answer = Client::new(&args.client)?.get(&path)?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let records: Records = serde_json::from_str(&answer)
        .context("the admin API's answer is no list of requests: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    let text = match args.id {
        Some(_) => records
            .requests
            .iter()
            .map(|r| told(r, paint))
            .collect::<Vec<_>>()
            .join("\n"),
        None => list(&records, paint),
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// An id as a segment of a path.
fn encoded(id: &str) -> String {
    let mut text = String::new();
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

fn list(records: &Records, paint: Paint) -> String {
    if records.requests.is_empty() {
        return "no request is remembered\n".to_owned();
    }
    let mut table = Table::new(&[
        "TIME",
        "STATUS>",
        "REASON",
        "REQUEST",
        "LOAD BALANCER",
        "ATTEMPTS>",
        "ID",
    ]);
    for record in &records.requests {
        let reason = record.reason.clone().unwrap_or_default();
        table.row(vec![
            Cell::text(utc(record.time)),
            Cell::number(status(record.status)),
            Cell::tone(reason, Tone::Bad),
            Cell::text(format!("{} {}{}", record.method, record.host, record.target)),
            Cell::text(record.load_balancer.to_string()),
            Cell::number(record.attempts.len()),
            Cell::text(record.id.clone()),
        ]);
    }
    table.render(0, paint)
}

/// One request, step by step.
fn told(record: &RequestRecord, paint: Paint) -> String {
    let mut out = String::new();
    let request = format!("{} {}{}", record.method, record.host, record.target);
    let _ = writeln!(
        out,
        "{} {} from {}, {}",
        paint.text(Tone::Title, &request),
        paint.text(Tone::Plain, &record.protocol),
        record.client,
        utc(record.time)
    );
    let _ = writeln!(out, "  request id {}", paint.text(Tone::Plain, &record.id));
    if let Some(trace) = &record.trace_id {
        let _ = writeln!(out, "  trace id {}", paint.text(Tone::Plain, trace));
    }
    let _ = writeln!(out, "  listener {}/{}", record.load_balancer, record.listener);
    if let Some(tls) = &record.tls {
        encryption(&mut out, tls, paint);
    }
    routing(&mut out, record, paint);
    if let Some(session) = &record.session {
        let text = match session.as_str() {
            "kept" => "its session was kept at its backend",
            "new" => "it began a session",
            "moved" => "its session moved: the backend where it was took it no more",
            _ => "its session's cookie was not ours or had expired: it began a new session",
        };
        let _ = writeln!(out, "  {text}");
    }
    if let Some(queued) = record.queued {
        let _ = writeln!(
            out,
            "  waited {} in the pool's queue, at place {} on arrival",
            ms(queued.waited_us),
            queued.position
        );
    }
    if !record.attempts.is_empty() {
        out.push_str(&attempts(&record.attempts, paint));
    }
    if !record.candidates.is_empty() {
        let _ = writeln!(out, "  members of the pool at the end of the request");
        out.push_str(&candidates(&record.candidates, false).render(4, paint));
        if record.more_candidates > 0 {
            let _ = writeln!(out, "    and {} more", record.more_candidates);
        }
    }
    verdict(&mut out, record, paint);
    out
}

fn encryption(out: &mut String, tls: &TlsRecord, paint: Paint) {
    let mut facts = tls.version.clone();
    if let Some(name) = &tls.sni {
        let _ = write!(facts, " for {name}");
    }
    let _ = write!(facts, ": {}", tls.cipher);
    if let Some(group) = &tls.group {
        let _ = write!(facts, ", {group}");
    }
    facts.push_str(match tls.resumed {
        true => ", session resumed",
        false => ", full handshake",
    });
    if let Some(protocol) = &tls.alpn {
        let _ = write!(facts, ", ALPN {protocol}");
    }
    let _ = writeln!(out, "  {}", paint.text(Tone::Plain, &facts));
    if let Some(subject) = &tls.client_subject {
        let _ = writeln!(out, "  client certificate {}", paint.text(Tone::Plain, subject));
    }
}

fn routing(out: &mut String, record: &RequestRecord, paint: Paint) {
    for step in record.routes.iter().filter(|step| !step.matched) {
        let why = paint.text(Tone::Plain, &step.why);
        let mark = paint.text(Tone::Faint, "passed over");
        let _ = writeln!(out, "  route {}: {mark}: {why}", step.route);
    }
    if let Some(route) = &record.route {
        let why = record.routes.iter().find(|step| step.matched);
        let why = why.map_or_else(String::new, |step| {
            format!(": {}", paint.text(Tone::Plain, &step.why))
        });
        let _ = writeln!(out, "  route {route}: {}{why}", paint.text(Tone::Good, "taken"));
    }
    if let Some(pool) = &record.pool {
        let _ = writeln!(out, "  pool {pool}");
    }
}

fn attempts(attempts: &[AttemptRecord], paint: Paint) -> String {
    let mut table = Table::new(&[
        "ATTEMPT",
        "BEGAN>",
        "CONNECTION",
        "FIRST BYTE>",
        "ENDED>",
        "RESULT",
        "THEN",
    ]);
    for attempt in attempts {
        let connection = match (attempt.reused, attempt.connect_us) {
            (true, _) => "kept".to_owned(),
            (false, Some(us)) => format!("new, {}", ms(us)),
            (false, None) => "none".to_owned(),
        };
        let result = match (&attempt.reason, attempt.status) {
            (Some(reason), Some(status)) => Cell::tone(format!("status {status}, {reason}"), Tone::Bad),
            (Some(reason), None) => Cell::tone(reason.clone(), Tone::Bad),
            (None, Some(status)) if status >= 500 => Cell::tone(format!("status {status}"), Tone::Warning),
            (None, Some(status)) => Cell::tone(format!("status {status}"), Tone::Good),
            (None, None) => Cell::text("nothing"),
        };
        table.row(vec![
            Cell::text(attempt.backend.to_string()),
            Cell::number(ms(attempt.began_us)),
            Cell::text(connection),
            Cell::number(attempt.first_byte_us.map(ms).unwrap_or_default()),
            Cell::number(ms(attempt.ended_us)),
            result,
            Cell::text(attempt.then.clone().unwrap_or_default()),
        ]);
    }
    table.render(2, paint)
}

fn verdict(out: &mut String, record: &RequestRecord, paint: Paint) {
    let tone = match record.reason {
        Some(_) => Tone::Bad,
        None if record.status >= 500 => Tone::Warning,
        None => Tone::Good,
    };
    let code = record
        .reason
        .as_deref()
        .map_or_else(String::new, |reason| format!(" {reason}"));
    let answered = paint.text(tone, &format!("{}{code}", status(record.status)));
    let bytes = format!("{} bytes in, {} out", record.received_bytes, record.sent_bytes);
    let _ = writeln!(
        out,
        "  answered {answered} after {}; {bytes}",
        ms(record.total_us)
    );
    if let Some(detail) = &record.detail {
        let _ = writeln!(out, "  {}", paint.text(Tone::Plain, detail));
    }
    let retry = |code: &str| Reason::ALL.iter().find(|reason| reason.code() == code);
    if let Some(reason) = record.reason.as_deref().and_then(retry) {
        let helps = if reason.retry_helps() {
            "the same request may succeed later"
        } else {
            "the same request fails again until something changes"
        };
        let _ = writeln!(out, "  {}", paint.text(Tone::Faint, helps));
    }
}

fn status(status: u16) -> String {
    match status {
        0 => "nothing".to_owned(),
        status => status.to_string(),
    }
}

/// A time to read: milliseconds with as many places as say something.
fn ms(us: u64) -> String {
    let time = Duration::from_micros(us).as_secs_f64() * 1000.0;
    match us {
        0..1_000 => format!("{time:.2} ms"),
        1_000..100_000 => format!("{time:.1} ms"),
        _ => format!("{time:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::config::Name;
    use model::explain::{Candidate, RouteStep};
    use model::record::QueueRecord;
    use model::state::Timestamp;

    fn record() -> RequestRecord {
        let name = |text| Name::parse(text).unwrap();
        let attempt = |port, began_us, then: Option<&str>| AttemptRecord {
            backend: ([10, 0, 0, 1], port).into(),
            began_us,
            reused: then.is_none(),
            connect_us: None,
            first_byte_us: None,
            ended_us: began_us + 900,
            status: None,
            reason: Some("backend_reset".into()),
            then: then.map(str::to_owned),
        };
        RequestRecord {
            id: "abc".into(),
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            time: Timestamp(1_795_246_200_123),
            client: "203.0.113.7".parse().unwrap(),
            method: "GET".into(),
            host: "shop.example".into(),
            target: "/cart\u{1b}[31m".into(),
            protocol: "HTTP/1.1".into(),
            tls: Some(TlsRecord {
                version: "TLSv1.3".into(),
                cipher: "TLS_AES_256_GCM_SHA384".into(),
                group: Some("X25519MLKEM768".into()),
                resumed: false,
                alpn: Some("h2".into()),
                sni: Some("shop.example".into()),
                client_subject: Some("CN=alice".into()),
            }),
            load_balancer: name("shop"),
            listener: name("http"),
            route: Some(name("default")),
            pool: Some(name("web")),
            status: 502,
            reason: Some("backend_reset".into()),
            detail: Some("The backend closed or reset the connection before a response.".into()),
            session: Some("kept".into()),
            queued: Some(QueueRecord {
                position: 3,
                waited_us: 1_500,
            }),
            attempts: vec![attempt(9001, 0, Some("tried again")), attempt(9002, 1_000, None)],
            total_us: 2_000,
            received_bytes: 80,
            sent_bytes: 120,
            routes: vec![RouteStep {
                route: name("default"),
                matched: true,
                why: "matches every request".into(),
            }],
            candidates: vec![Candidate {
                address: ([10, 0, 0, 1], 9001).into(),
                eligible: false,
                why: "down: connection refused".into(),
                weight: 1.0,
                in_flight: 0,
                score: String::new(),
            }],
            more_candidates: 2,
        }
    }

    #[test]
    fn a_failure_is_told_from_route_to_verdict() {
        let text = told(&record(), Paint(false));
        let expected = "\
GET shop.example/cart?[31m HTTP/1.1 from 203.0.113.7, 2026-11-21 07:30:00Z
  request id abc
  trace id 0af7651916cd43dd8448eb211c80319c
  listener shop/http
  TLSv1.3 for shop.example: TLS_AES_256_GCM_SHA384, X25519MLKEM768, full handshake, ALPN h2
  client certificate CN=alice
  route default: taken: matches every request
  pool web
  its session was kept at its backend
  waited 1.5 ms in the pool's queue, at place 3 on arrival
  ATTEMPT          BEGAN  CONNECTION  FIRST BYTE    ENDED  RESULT         THEN
  10.0.0.1:9001  0.00 ms  none                    0.90 ms  backend_reset  tried again
  10.0.0.1:9002   1.0 ms  kept                     1.9 ms  backend_reset
  members of the pool at the end of the request
    BACKEND        CANDIDATE  WEIGHT  IN FLIGHT  WHY
    10.0.0.1:9001  no           1.00          0  down: connection refused
    and 2 more
  answered 502 backend_reset after 2.0 ms; 80 bytes in, 120 out
  The backend closed or reset the connection before a response.
  the same request may succeed later
";
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let text = list(
            &Records {
                requests: vec![record(), record()],
            },
            Paint(false),
        );
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("backend_reset"), "{text}");
        let none = Records { requests: vec![] };
        assert_eq!(list(&none, Paint(false)), "no request is remembered\n");
    }

    #[test]
    fn an_id_of_another_becomes_one_segment_of_a_path() {
        assert_eq!(encoded("Root=1-2/x+y~"), "Root%3D1-2%2Fx%2By~");
    }
}
