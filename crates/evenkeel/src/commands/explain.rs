//! `evenkeel explain`: the decision about one request, told step by step.

use std::fmt::Write;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use model::explain::{Candidate, ExplainQuery, Explanation};
use model::geography::{Code, Geography};

use crate::cli::ExplainArgs;
use crate::client::Client;
use crate::table::{Cell, Paint, Table, Tone};

pub(crate) fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let (target, headers) = as_sent(args.target, args.headers);
    let query = ExplainQuery {
        listener: args.listener,
        method: args.method,
        target,
        headers,
        client: args.client_address,
    };
    let answer = Client::new(&args.client)?.post("/api/v1/explain", &serde_json::to_value(&query)?)?;
    if args.json {
        super::print(&format!("{}\n", answer.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let explanation: Explanation = serde_json::from_str(&answer)
        .context("the admin API's answer is not an explanation: are both sides of one version?")?;
    let paint = Paint::for_terminal(std::io::stdout().is_terminal());
    super::print(&render(&query, &explanation, paint))?;
    Ok(ExitCode::SUCCESS)
}

/// A whole URL as browsers send it: its host in a field of its own. With a `Host` given too, it is left as it is: the
/// form that proxies are sent.
fn as_sent(target: String, mut headers: Vec<(String, String)>) -> (String, Vec<(String, String)>) {
    let Some((_, rest)) = target
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        return (target, headers);
    };
    if headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        return (target, headers);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    headers.push(("Host".to_owned(), authority.to_owned()));
    let slash = if path.starts_with('/') { "" } else { "/" };
    (format!("{slash}{path}"), headers)
}

fn render(query: &ExplainQuery, explanation: &Explanation, paint: Paint) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} {} on {}/{}",
        paint.text(Tone::Plain, &query.method),
        paint.text(Tone::Plain, &query.target),
        explanation.load_balancer,
        explanation.listener
    );
    let host = match explanation.host.as_str() {
        "" => "no host".to_owned(),
        host => format!("host {host}"),
    };
    let _ = writeln!(
        out,
        "  routing sees {}, path {}",
        paint.text(Tone::Plain, &host),
        paint.text(Tone::Plain, &explanation.path)
    );
    if let Some(language) = &explanation.language {
        let _ = writeln!(out, "  language: {}", paint.text(Tone::Plain, language));
    }
    if let Some(Geography { country, continent }) = &explanation.geography {
        let named = |code: &Option<Code>| code.map_or_else(|| "unknown".to_owned(), String::from);
        let _ = writeln!(
            out,
            "  country {}, continent {}",
            named(country),
            named(continent)
        );
    }
    for step in &explanation.routes {
        let (mark, tone) = if step.matched {
            ("taken", Tone::Good)
        } else {
            ("passed over", Tone::Faint)
        };
        let why = paint.text(Tone::Plain, &step.why);
        let _ = writeln!(out, "  route {}: {}: {why}", step.route, paint.text(tone, mark));
    }
    if let Some(split) = &explanation.split {
        let _ = writeln!(out, "  split: {}", paint.text(Tone::Plain, split));
    }
    for limit in &explanation.limits {
        let _ = writeln!(out, "  limit {}", paint.text(Tone::Plain, limit));
    }
    for action in &explanation.actions {
        let _ = writeln!(out, "  {}", paint.text(Tone::Plain, action));
    }
    if let Some(pool) = &explanation.pool {
        let algorithm = explanation.algorithm.as_deref().unwrap_or("no algorithm");
        let _ = write!(out, "  pool {pool}: {}", paint.text(Tone::Plain, algorithm));
        if let Some(key) = &explanation.hash_key {
            let _ = write!(out, " of {}", paint.text(Tone::Plain, key));
        }
        out.push('\n');
    }
    if let Some(session) = &explanation.session {
        let _ = writeln!(out, "  session: {}", paint.text(Tone::Plain, session));
    }
    if !explanation.candidates.is_empty() {
        out.push_str(&candidates(&explanation.candidates, true).render(4, paint));
    }
    verdict(&mut out, explanation, paint);
    out
}

/// The backends that could have been taken, or not, and why; `scores` are known while an algorithm is asked.
pub(super) fn candidates(candidates: &[Candidate], scores: bool) -> Table {
    let mut columns = vec!["BACKEND", "CANDIDATE", "WEIGHT>", "IN FLIGHT>", "WHY"];
    if scores {
        columns.insert(4, "SCORE");
    }
    let mut table = Table::new(&columns);
    for c in candidates {
        let (yes, tone) = if c.eligible {
            ("yes", Tone::Good)
        } else {
            ("no", Tone::Warning)
        };
        let mut cells = vec![
            Cell::text(c.address.to_string()),
            Cell::tone(yes, tone),
            Cell::number(format!("{:.2}", c.weight)),
            Cell::number(c.in_flight),
        ];
        cells.extend(scores.then(|| Cell::text(c.score.clone())));
        cells.push(Cell::text(c.why.clone()));
        table.row(cells);
    }
    table
}

fn verdict(out: &mut String, explanation: &Explanation, paint: Paint) {
    if let Some(chosen) = &explanation.chosen {
        let address = paint.text(Tone::Good, &chosen.address.to_string());
        let why = paint.text(Tone::Plain, &chosen.why);
        let _ = writeln!(out, "  goes to {address}: {why}");
    }
    if let Some(queue) = &explanation.queue {
        let waits = paint.text(Tone::Bad, "waits");
        let _ = writeln!(out, "  {waits}: {}", paint.text(Tone::Plain, queue));
    }
    if let Some(refusal) = &explanation.refused {
        let code = format!("refused with {} {}", refusal.status, refusal.reason);
        let code = paint.text(Tone::Bad, &code);
        let detail = paint.text(Tone::Plain, &refusal.detail);
        let _ = writeln!(out, "  {code}: {detail}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::config::Name;
    use model::explain::{Candidate, Chosen, Refusal, RouteStep};

    /// Scenario: someone pastes the address out of the browser.
    #[test]
    fn a_whole_url_is_asked_for_as_browsers_do() {
        let sent = |target: &str| as_sent(target.to_owned(), vec![]);
        let host = |host: &str| vec![("Host".to_owned(), host.to_owned())];
        assert_eq!(
            sent("https://shop.test/a?b=1"),
            ("/a?b=1".into(), host("shop.test"))
        );
        assert_eq!(
            sent("http://shop.test:8080"),
            ("/".into(), host("shop.test:8080"))
        );
        assert_eq!(sent("https://shop.test?b"), ("/?b".into(), host("shop.test")));
        assert_eq!(sent("/a?u=http://b/"), ("/a?u=http://b/".into(), vec![]));
        let both = as_sent("http://a.test/".into(), host("b.test"));
        assert_eq!(both, ("http://a.test/".into(), host("b.test")));
    }

    fn query() -> ExplainQuery {
        ExplainQuery {
            listener: "shop".into(),
            method: "GET".into(),
            target: "/cart?id=7".into(),
            headers: vec![],
            client: None,
        }
    }

    fn explanation() -> Explanation {
        let name = |n| Name::parse(n).unwrap();
        let step = |route, matched, why: &str| RouteStep {
            route: name(route),
            matched,
            why: why.into(),
        };
        let candidate = |port, eligible, why: &str| Candidate {
            address: ([10, 0, 0, 1], port).into(),
            eligible,
            why: why.into(),
            weight: if eligible { 1.0 } else { 0.0 },
            in_flight: 2,
            score: String::new(),
        };
        Explanation {
            load_balancer: name("shop"),
            listener: name("http"),
            host: "shop.example".into(),
            path: "/cart".into(),
            routes: vec![
                step("api", false, "path /cart is not below /api"),
                step("default", true, "matches everything"),
            ],
            language: None,
            geography: None,
            split: None,
            actions: Vec::new(),
            limits: vec!["limit by client_address: passes, 9 of 10 left".into()],
            pool: Some(name("default")),
            algorithm: Some("consistent_hash".into()),
            hash_key: Some("header x-user = \"7\"".into()),
            session: Some("no session yet, by cookie evk: the algorithm chooses".into()),
            candidates: vec![
                candidate(9001, true, "up: status 200"),
                candidate(9002, false, "drain by alice"),
            ],
            chosen: Some(Chosen {
                address: ([10, 0, 0, 1], 9001).into(),
                why: "owns the hash".into(),
            }),
            queue: None,
            refused: None,
        }
    }

    #[test]
    fn a_decision_is_told_from_route_to_backend() {
        let expected = "\
GET /cart?id=7 on shop/http
  routing sees host shop.example, path /cart
  route api: passed over: path /cart is not below /api
  route default: taken: matches everything
  limit limit by client_address: passes, 9 of 10 left
  pool default: consistent_hash of header x-user = \"7\"
  session: no session yet, by cookie evk: the algorithm chooses
    BACKEND        CANDIDATE  WEIGHT  IN FLIGHT  SCORE  WHY
    10.0.0.1:9001  yes          1.00          2         up: status 200
    10.0.0.1:9002  no           0.00          2         drain by alice
  goes to 10.0.0.1:9001: owns the hash
";
        let text = render(&query(), &explanation(), Paint(false));
        assert_eq!(text, expected, "\n{text}");
    }

    #[test]
    fn a_refusal_has_its_code_and_its_words() {
        let refused = Explanation {
            chosen: None,
            refused: Some(Refusal {
                status: 503,
                reason: "no_backend".into(),
                detail: "No backend of the pool takes requests.".into(),
            }),
            ..explanation()
        };
        let text = render(&query(), &refused, Paint(false));
        assert!(
            text.ends_with("  refused with 503 no_backend: No backend of the pool takes requests.\n"),
            "{text}"
        );
    }
}
