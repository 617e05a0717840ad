//! No text makes the parser panic, hang or say nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::{MAX_DIAGNOSTICS, MAX_TEXT_BYTES, check_json, parse_toml};
use proptest::prelude::*;

const EXAMPLES: [&str; 3] = [
    include_str!("../../../examples/evenkeel.toml"),
    include_str!("../../../examples/full.toml"),
    include_str!("../../../examples/shop.json"),
];

/// Whatever was said, it can be shown and counted, and something is said.
fn check(found: Result<evenkeel_model::config::Config, Vec<Diagnostic>>, text: &str) {
    let Err(found) = found else { return };
    assert!(!found.is_empty() && found.len() <= MAX_DIAGNOSTICS + 1);
    for diagnostic in &found {
        let shown = diagnostic.to_string();
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?} of {text:?}"
        );
        assert!(shown.len() < 8_000, "{} bytes", shown.len());
        assert!(serde_json::to_string(diagnostic).is_ok());
    }
}

fn both(text: &str) {
    check(parse_toml(text, "a.toml"), text);
    check(check_json(text, "a.json").map(|checked| checked.config), text);
}

/// Pieces that a mutation puts in.
fn piece() -> impl Strategy<Value = String> {
    let known = [
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "=",
        ",",
        ".",
        "\n",
        "\r",
        "\u{0}",
        "#",
        "\"\"\"",
        "5s",
        "1e9",
        "-1",
        "99999999999999999999999999999999999999999",
        "0x10",
        "true",
        "null",
        "é",
        "\u{feff}",
        "\\u0000",
        "\\ud800",
        "1979-05-27",
        "[[load_balancers.shop.routes]]",
        "token = ",
        "inf",
        "{}",
        "[]",
        "[[[[",
        "listen",
        "pools",
    ];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(str::to_owned),
        "\\PC{0,6}",
        any::<char>().prop_map(String::from),
    ]
}

/// An example with some pieces cut out and others put in.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), 0..12usize, piece());
    (
        prop::sample::select(EXAMPLES.to_vec()),
        prop::collection::vec(edit, 1..6),
    )
        .prop_map(|(example, edits)| {
            let mut chars: Vec<char> = example.chars().collect();
            for (at, cut, piece) in edits {
                let at = at.index(chars.len() + 1);
                let end = (at + cut).min(chars.len());
                chars.splice(at..end, piece.chars());
            }
            chars.into_iter().collect()
        })
}

/// Scenario: headings, dotted keys and braces, each within the bound of the parser, make levels by the thousand. They
/// must not be walked, not even to be dropped: that takes more stack than there is.
#[test]
fn a_text_that_nests_without_end_is_refused() {
    let keys = vec!["a"; 79].join(".");
    let braces = |levels: usize| format!("{}1{}", format!("{{{keys} = ").repeat(levels), "}".repeat(levels));
    let lists = |levels: usize| {
        format!(
            "{}1{}",
            format!("[{{{keys} = ").repeat(levels),
            "}]".repeat(levels)
        )
    };
    let deep = braces(78);
    for text in [
        format!("{keys} = {deep}"),
        format!("[{keys}]\n{keys} = {deep}"),
        format!("[[{keys}]]\n{keys} = {}", lists(39)),
        // What is dropped in an error, and what is torn.
        format!("b = {deep}\nb = {deep}"),
        format!("b = {{c = 1, c = {deep}}}"),
        format!("b = {}", format!("{{{keys} = ").repeat(78)),
        format!("[{keys}\nb = {deep}"),
        format!("b = {deep} {deep}"),
    ] {
        let found = parse_toml(&text, "a.toml").unwrap_err();
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].cause, "nested deeper than 128 tables and lists",
            "{text:.200}"
        );
    }
    let json = format!("{}1{}", "{\"a\":[".repeat(255), "]}".repeat(255));
    both(&json);
}

/// As deep as may be is not too deep, and a long text is not a deep one.
#[test]
fn a_text_of_many_lines_is_not_a_deep_one() {
    let line = "a.b.c = [{ d.e = [1.5, 2.5], f = { g.h = 1 } }, { d.e = [], f = {} }] # x.y.z = {\n";
    let heading = "[[a.b.c.d]]\n[a.b.c.d.e.f]\n";
    let most = format!("a = {}1{}\n", "[".repeat(79), "]".repeat(79));
    for text in [
        line.repeat(300),
        heading.repeat(300),
        most,
        "a = 'x.y.z[[{{'\n".repeat(300),
    ] {
        let found = parse_toml(&text, "a.toml").unwrap_err();
        assert!(
            found.iter().all(|d| !d.cause.starts_with("nested deeper")),
            "{}",
            found[0]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_text(text in "\\PC*|(?s).{0,200}") {
        both(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(piece(), 0..40)) {
        both(&pieces.concat());
    }

    #[test]
    fn any_mutation_of_an_example(text in mutated()) {
        both(&text);
    }

    /// What is JSON for another parser is never "not JSON" here, and the other way round. A number too great for
    /// the other parser is JSON nonetheless.
    #[test]
    fn json_is_what_others_call_json(text in mutated()) {
        let other = serde_json::from_str::<serde_json::Value>(&text);
        let not_json = |found: &[Diagnostic]| found.iter().any(|d| d.cause.starts_with("not JSON"));
        let refused = check_json(&text, "a.json").is_err_and(|found| not_json(&found));
        match other {
            Ok(_) => prop_assert!(!refused, "{text}"),
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Err(_) => prop_assert!(check_json(&text, "a.json").is_err(), "{text}"),
        }
    }
}

/// Nesting without end is refused, not followed.
#[test]
fn deep_nesting() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{a=", "}")] {
        let depth = 100_000;
        let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        both(&text);
        both(&format!("x = {text}"));
        both(&open.repeat(depth));
    }
    both(&format!("{} = 1", vec!["a"; 50_000].join(".")));
}

/// A text beyond the limit is not looked at.
#[test]
fn too_long_a_text() {
    let text = " ".repeat(MAX_TEXT_BYTES + 1);
    let found = parse_toml(&text, "a.toml").unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "a.toml: the text is 16777217 bytes long; at most 16MiB are read"
    );
}

/// A thousand errors are counted, not all told, and told in one pass: also where all of them stand in one line.
#[test]
fn very_many_errors() {
    let keys: Vec<String> = (0..20_000).map(|i| format!("\"k{i}\": 1")).collect();
    let json = format!("{{\"load_balancers\": {{\"x\": {{{}}}}}}}", keys.join(", "));
    let found = check_json(&json, "a.json").unwrap_err();
    assert_eq!(found.len(), MAX_DIAGNOSTICS + 1);
    assert!(found.last().unwrap().cause.contains("more errors"));

    let found = parse_toml(&"a = 1\n".repeat(20_000), "a.toml").unwrap_err();
    assert_eq!(found.len(), MAX_DIAGNOSTICS + 1);
}
