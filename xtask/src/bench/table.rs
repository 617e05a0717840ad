//! The tables: medians with their spread, ratios to the better of nginx and HAProxy, the budget beside them.

use anyhow::{Context, Result};

use super::{Row, Sample, Series};
use crate::process::root;

/// Between these two lines of docs/performance.md the tables stand.
const BEGIN: &str = "<!-- tables: begin, written by `cargo xtask bench --update-docs` -->";
const END: &str = "<!-- tables: end -->";

/// Best peers: what ratios are taken to.
const REFERENCES: [&str; 2] = ["nginx", "haproxy"];

impl Row {
    fn title(self) -> &'static str {
        match self {
            Self::Small => "HTTP/1.1 keep-alive, 128-byte responses, 64 connections, one worker",
            Self::Large => "1 MiB responses, 16 connections, one worker",
            Self::Paced => {
                "Latency at 70 % of nginx's full rate, 128-byte responses, 64 connections, one worker"
            }
            Self::TwoWorkers => {
                "As the first, two workers on two cores (on a machine of two, beside load and origins)"
            }
            Self::AccessLog => "As the first, with a JSON access log into a file",
            Self::Tls => "As the first over TLS 1.3 (P-256 certificate)",
            Self::Handshake => "TLS 1.3 handshakes (P-256 certificate), one request each, one worker",
            Self::Http2 => {
                "HTTP/2 over TLS 1.3 to HTTP/1.1, 32 connections of 32 streams, 128-byte responses, one worker"
            }
            Self::Idle => "Memory per idle keep-alive connection, 4,000 of them after one request each",
            Self::IdleTls => "The same over TLS 1.3",
            Self::Overload => {
                "Overload: 2,000 requests/s for backends that can do 1,000 (two, 25 at once each, 50 ms), one worker"
            }
            Self::Push => {
                "From `apply` to served: 100 changes, twenty LB servers, an orchestrator and one etcd on this machine"
            }
            Self::PushBroken => "The same with the push broken: etcd refuses the watch; 20 changes",
            Self::Names => {
                "1,000 names of the DNS with two addresses each, TTL 10 s, one Knot DNS on this machine"
            }
        }
    }

    /// What must hold of Evenkeel.
    fn budget(self) -> &'static str {
        match self {
            Self::Small => "ratio ≤ 0.90, user part ≤ 2.5 µs",
            Self::Large => "ratio ≤ 0.75",
            Self::Paced => "p99 no worse than nginx",
            Self::TwoWorkers => "≥ 1.8 × one core",
            Self::AccessLog => "ratio ≤ 0.95",
            Self::Tls => "ratio ≤ 0.80",
            Self::Handshake => "ratio ≤ 0.60",
            Self::Http2 => "ratio ≤ 0.90",
            Self::Idle => "≤ 1,024 bytes",
            Self::IdleTls => "≤ 8 KiB",
            Self::Overload => "goodput ≥ 90 %, p99 ≤ 1.1 s (the queue's 1 s and the work)",
            Self::Push => "p99 ≤ 100 ms",
            Self::PushBroken => "p99 ≤ 36 s",
            Self::Names => "at most 500 questions in a second, at the start, too",
        }
    }

    /// The figure that ratios compare; less is better.
    fn figure(self, sample: &Sample) -> f64 {
        match self {
            Self::Paced | Self::Overload | Self::Push | Self::PushBroken => sample.p99_us,
            Self::Names => sample.known_ms,
            Self::Idle | Self::IdleTls => sample.idle_bytes,
            _ => sample.total_us(),
        }
    }

    fn headings(self) -> &'static [&'static str] {
        match self {
            Self::Idle | Self::IdleTls => &["proxy", "bytes each", "ratio", "RSS MB"],
            Self::Overload => &[
                "proxy",
                "goodput %",
                "p50 ms",
                "p99 ms",
                "refused %",
                "offered/s",
                "RSS MB",
            ],
            Self::Push | Self::PushBroken => &[
                "proxy",
                "p99 ms",
                "p50 ms",
                "longest ms",
                "within the bound %",
                "CPU ms/change and node",
                "RSS MB each",
            ],
            Self::Names => &[
                "proxy",
                "all known after s",
                "most questions/s until then",
                "questions/s after",
                "most questions/s after",
                "CPU µs/question",
                "KiB/name more than declared",
                "RSS MB",
            ],
            Self::Paced => &[
                "proxy",
                "p99 µs",
                "ratio",
                "p50 µs",
                "requests/s",
                "CPU µs/request",
            ],
            Self::Http2 => &[
                "proxy",
                "CPU µs/request",
                "ratio",
                "user µs",
                "system µs",
                "requests/s",
                "RSS MB",
            ],
            Self::Small | Self::AccessLog | Self::Tls | Self::Handshake | Self::Large => &[
                "proxy",
                "CPU µs/request",
                "ratio",
                "user µs",
                "system µs",
                "requests/s",
                "p50 µs",
                "p99 µs",
                "RSS MB",
            ],
            Self::TwoWorkers => &[
                "proxy",
                "CPU µs/request",
                "ratio",
                "times one core",
                "user µs",
                "system µs",
                "requests/s",
            ],
        }
    }

    fn cells(self, series: &Series, all: &[Series]) -> Vec<String> {
        let figure = spread(&series.samples, |s| self.figure(s));
        let whole = |of: fn(&Sample) -> f64| format!("{:.0}", median(&series.samples, of));
        let tenths = |of: fn(&Sample) -> f64| format!("{:.1}", median(&series.samples, of));
        let ratio = ratio(self, series, all).map_or_else(|| "–".into(), |r| format!("{r:.2}"));
        let megabytes = format!(
            "{:.0}",
            median(&series.samples, |s| s.resident_kib as f64 / 1024.0)
        );
        let (user, system, rate) = (tenths(|s| s.user_us), tenths(|s| s.system_us), whole(|s| s.rate));
        let name = series.proxy.to_owned();
        match self {
            Self::Idle | Self::IdleTls => vec![name, figure, ratio, megabytes],
            Self::Overload => vec![
                name,
                spread(&series.samples, |s| s.goodput),
                whole(|s| s.p50_us / 1000.0),
                whole(|s| s.p99_us / 1000.0),
                tenths(|s| s.refused),
                rate,
                megabytes,
            ],
            Self::Push | Self::PushBroken => vec![
                name,
                spread(&series.samples, |s| s.p99_us / 1000.0),
                spread(&series.samples, |s| s.p50_us / 1000.0),
                spread(&series.samples, |s| s.longest_us / 1000.0),
                spread(&series.samples, |s| s.in_time),
                spread(&series.samples, |s| s.total_us() / 1000.0),
                megabytes,
            ],
            Self::Names => vec![
                name,
                spread(&series.samples, |s| s.known_ms / 1000.0),
                spread(&series.samples, |s| s.busiest_at_start),
                spread(&series.samples, |s| s.rate),
                spread(&series.samples, |s| s.busiest),
                spread(&series.samples, Sample::total_us),
                spread(&series.samples, |s| s.idle_bytes / 1024.0),
                megabytes,
            ],
            Self::Http2 => vec![name, figure, ratio, user, system, rate, megabytes],
            Self::Paced => vec![
                name,
                figure,
                ratio,
                whole(|s| s.p50_us),
                rate,
                tenths(Sample::total_us),
            ],
            Self::Small | Self::AccessLog | Self::Tls | Self::Handshake | Self::Large => {
                vec![
                    name,
                    figure,
                    ratio,
                    user,
                    system,
                    rate,
                    whole(|s| s.p50_us),
                    whole(|s| s.p99_us),
                    megabytes,
                ]
            }
            Self::TwoWorkers => vec![name, figure, ratio, scaling(series, all), user, system, rate],
        }
    }
}

impl Sample {
    fn total_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// One row as a Markdown table, aligned for people.
pub(crate) fn of_row(row: Row, all: &[Series]) -> String {
    let mut lines: Vec<Vec<String>> = vec![row.headings().iter().map(|h| (*h).to_owned()).collect()];
    let (shown, left_out): (Vec<&Series>, Vec<&Series>) = all
        .iter()
        .filter(|s| s.row == row)
        .partition(|s| s.left_out.is_none());
    lines.extend(shown.iter().map(|series| row.cells(series, all)));
    let mut text = format!(
        "### {}\n\nBudget: {}.\n\n{}",
        row.title(),
        row.budget(),
        aligned(&lines)
    );
    for series in left_out {
        let why = series.left_out.as_deref().unwrap_or_default();
        text.push_str(&format!("\n{} is left out: {why}.\n", series.proxy));
    }
    text
}

/// Writes all tables between the marks of docs/performance.md.
pub(crate) fn update_docs(about: &str, all: &[Series]) -> Result<()> {
    let path = root().join("docs/performance.md");
    let text = std::fs::read_to_string(&path).context("cannot read docs/performance.md")?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("docs/performance.md lacks its begin mark")?;
    let (_, after) = rest
        .split_once(END)
        .context("docs/performance.md lacks its end mark")?;
    let (old, _) = rest.split_once(END).unwrap_or_default();
    let tables = merged(about, old, all);
    let text = format!("{before}{BEGIN}\n\n{tables}\n{END}{after}");
    std::fs::write(&path, text).context("cannot write docs/performance.md")
}

/// The tables of all rows: new ones of those measured, the others as they stand. A run of some rows does not say of
/// the others when and on what they were measured, so what it was stands behind each of its own.
fn merged(about: &str, old: &str, all: &[Series]) -> String {
    let is_new = |row: &Row| all.iter().any(|series| series.row == *row);
    let mut sections = old.trim().split("\n### ");
    let (whole, head) = (Row::ALL.iter().all(is_new), sections.next().unwrap_or_default());
    let sections: Vec<&str> = sections.collect();
    let tables = Row::ALL.iter().filter_map(|row| {
        let kept = sections
            .iter()
            .find(|text| text.lines().next() == Some(row.title()));
        match (is_new(row), kept) {
            (true, _) if whole => Some(of_row(*row, all)),
            (true, _) => Some(format!("{}\n{about}\n", of_row(*row, all))),
            (false, Some(kept)) => Some(format!("### {}\n", kept.trim_end())),
            (false, None) => None,
        }
    });
    let tables: Vec<String> = tables.collect();
    let about = if whole { about } else { head.trim() };
    format!("{about}\n\n{}", tables.join("\n"))
}

/// Evenkeel's figure by the better of the references (for latency: by nginx).
fn ratio(row: Row, series: &Series, all: &[Series]) -> Option<f64> {
    let references: &[&str] = if row == Row::Paced {
        &REFERENCES[..1]
    } else {
        &REFERENCES
    };
    let best = all
        .iter()
        .filter(|s| s.row == row && references.contains(&s.proxy) && !s.samples.is_empty())
        .map(|s| median(&s.samples, |sample| row.figure(sample)))
        .min_by(f64::total_cmp)?;
    Some(median(&series.samples, |sample| row.figure(sample)) / best)
}

/// How many times the work of one core two do, by processor time per request.
fn scaling(two: &Series, all: &[Series]) -> String {
    let one = all
        .iter()
        .find(|s| s.row == Row::Small && s.proxy == two.proxy && !s.samples.is_empty());
    one.map_or_else(
        || "–".into(),
        |one| {
            let times = 2.0 * median(&one.samples, Sample::total_us) / median(&two.samples, Sample::total_us);
            format!("{times:.2}")
        },
    )
}

/// `14.2 (13.8–15.1)`.
fn spread(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> String {
    let values = sorted(samples, &of);
    let (low, high) = (
        values.first().copied().unwrap_or(0.0),
        values.last().copied().unwrap_or(0.0),
    );
    let digits = usize::from(high < 100.0);
    format!(
        "{:.digits$} ({low:.digits$}–{high:.digits$})",
        median(samples, of)
    )
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let values = sorted(samples, &of);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn sorted(samples: &[Sample], of: &impl Fn(&Sample) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Lines of cells as a Markdown table: the first is the heading, the first column is left-aligned.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|l| l.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            let (left, right) = if column == 0 {
                ("", &*padding)
            } else {
                (&*padding, "")
            };
            text.push_str(&format!("| {left}{cell}{right} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(*width);
                text.push_str(&if column == 0 {
                    format!("|-{dashes}-")
                } else {
                    format!("|-{dashes}:")
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Row, Sample, Series, aligned, median, merged, of_row, spread};

    fn series(proxy: &'static str, totals: &[f64]) -> Series {
        let samples = totals
            .iter()
            .map(|&user_us| Sample {
                user_us,
                ..Sample::default()
            })
            .collect();
        Series {
            row: Row::Small,
            proxy,
            samples,
            left_out: None,
        }
    }

    #[test]
    fn the_median_and_the_spread_are_of_the_samples() {
        let three = series("nginx", &[16.0, 14.0, 15.0]).samples;
        assert_eq!(median(&three, |s| s.user_us), 15.0);
        assert_eq!(spread(&three, |s| s.user_us), "15.0 (14.0–16.0)");
        let two = series("nginx", &[14.0, 15.0]).samples;
        assert_eq!(median(&two, |s| s.user_us), 14.5);
    }

    #[test]
    fn the_ratio_is_to_the_better_of_nginx_and_haproxy_and_to_no_other() {
        let all = [
            series("evenkeel", &[9.0]),
            series("nginx", &[12.0]),
            series("haproxy", &[10.0]),
            series("caddy", &[1.0]),
        ];
        let text = of_row(Row::Small, &all);
        let line = text
            .lines()
            .find(|line| line.contains("evenkeel"))
            .unwrap_or_default();
        assert!(line.contains("| 0.90 |") || line.contains("  0.90 |"), "{text}");
    }

    #[test]
    fn a_run_of_one_row_leaves_the_tables_of_others() {
        let whole = |row| of_row(row, &[]);
        let old = format!("then\n\n{}\n{}", whole(Row::Small), whole(Row::Large));
        let text = merged("now", &old, &[series("nginx", &[16.0])]);
        assert!(text.starts_with("then\n\n### HTTP/1.1"), "{text}");
        assert_eq!(
            (text.matches("### ").count(), text.matches("nginx").count()),
            (2, 1),
            "{text}"
        );
        let (small, large) = text.split_once("### 1 MiB").unwrap();
        assert!(
            small.trim_end().ends_with("now") && !large.contains("now"),
            "{text}"
        );
        let again = merged("later", &text, &[series("nginx", &[15.0])]);
        assert_eq!(
            again.matches("now").count() + again.matches("later").count(),
            1,
            "{again}"
        );
    }

    #[test]
    fn cells_line_up() {
        let lines = [
            vec!["proxy".to_owned(), "µs".to_owned()],
            vec!["a".to_owned(), "12.5".to_owned()],
        ];
        assert_eq!(
            aligned(&lines),
            "| proxy |   µs |\n|-------|-----:|\n| a     | 12.5 |\n"
        );
    }
}
