//! `docs/metrics.md` lists exactly the metrics of the data plane. `UPDATE_DOCS=1` rewrites its table.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use evenkeel_dataplane::METRICS;

const BEGIN: &str = "<!-- begin: data plane -->\n";
const END: &str = "<!-- end: data plane -->\n";

#[test]
fn the_page_lists_exactly_the_metrics_of_the_data_plane() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    let mut wanted = String::from("\n| Metric | Kind | Labels | Meaning |\n| --- | --- | --- | --- |\n");
    for metric in METRICS {
        let labels = match metric.labels {
            "" => "–".to_owned(),
            labels => labels
                .split(", ")
                .map(|l| format!("`{l}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        wanted += &format!(
            "| `{}` | {} | {labels} | {} |\n",
            metric.name, metric.kind, metric.help
        );
    }
    wanted += "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            table, wanted,
            "run this test with UPDATE_DOCS=1 to rewrite the table"
        );
    }
}
