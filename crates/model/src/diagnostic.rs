//! What is wrong with a config, told so that it can be put right: place, offending text, cause, suggestion.
//!
//! Rendered in the manner of rustc. Secrets and terminal control characters of the source never get through,
//! and a long line is shown only around the place meant.

use std::cell::RefCell;
use std::ops::Range;

use serde::Serialize;

use crate::config::{HASH_PREFIX, TOKEN_PREFIX};
use crate::schema::tables_with_key;

/// One thing that is wrong with a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// File, as it was named.
    pub file: String,
    /// Line, from 1; 0 when no place in the text is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 when no place in the text is meant.
    pub column: u32,
    /// The offending text; cut after 80 characters, `<secret>` where it would show one.
    pub text: String,
    /// Path of the key, e.g. `load_balancers.shop.algorithm`; empty for errors of syntax.
    pub key: String,
    /// What is wrong.
    pub cause: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// The line of the source, or the part of it around the place meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Excerpt {
    text: String,
    /// Characters before the caret.
    indent: usize,
    /// Carets.
    width: usize,
}

/// Offending text is shown up to this many characters.
const MAX_SHOWN_TEXT: usize = 80;
/// Lines longer than this many characters are cut around the place meant.
const MAX_SHOWN_LINE: usize = 120;
/// Characters kept before the place meant when a line is cut.
const KEPT_BEFORE: usize = 40;
/// Digits after which what begins like a token is taken for one.
const SURE_DIGITS: usize = 16;

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.cause)?;
        } else {
            let Excerpt { text, indent, width } = &self.excerpt;
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.cause)?;
            writeln!(f, " {number} | {text}")?;
            write!(f, " {gutter} | {}{}", " ".repeat(*indent), "^".repeat(*width))?;
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "\nhelp: {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

impl Diagnostic {
    /// What is wrong with something that `key` names outside of the text, such as a file.
    pub fn about_key(file: &str, key: &str, cause: String) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            text: String::new(),
            key: key.to_owned(),
            cause: format!("{key}: {cause}"),
            suggestion: None,
            excerpt: Excerpt::default(),
        }
    }
}

/// The text that diagnostics point into.
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    /// The line last asked for and where a token starts in it: a whole document may be one line.
    token_in_line: RefCell<(usize, Option<usize>)>,
}

/// What is wrong, before it is known where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) cause: String,
    pub(crate) suggestion: Option<String>,
}

impl Fault {
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(self, suggestion: impl Into<String>) -> Self {
        Self {
            suggestion: Some(suggestion.into()),
            ..self
        }
    }

    /// Suggests this where nothing better is suggested.
    pub(crate) fn or_suggest(self, suggestion: impl FnOnce() -> Option<String>) -> Self {
        Self {
            suggestion: self.suggestion.or_else(suggestion),
            ..self
        }
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file,
            text,
            line_starts: std::iter::once(0).chain(after_breaks).collect(),
            token_in_line: RefCell::new((0, None)),
        }
    }

    /// Line, from 1, that holds this byte.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// The text of a span; empty when out of range.
    pub(crate) fn slice(&self, span: Range<usize>) -> &'a str {
        self.text.get(span).unwrap_or("")
    }

    /// The text of a line, from 1, without its break.
    pub(crate) fn line_text(&self, line: usize) -> &'a str {
        let start = self.line_starts.get(line.saturating_sub(1)).copied();
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let text = start.and_then(|s| self.text.get(s..end)).unwrap_or("");
        text.trim_end_matches(['\n', '\r'])
    }

    /// A diagnostic without a place.
    pub(crate) fn about_all(&self, fault: Fault) -> Diagnostic {
        Diagnostic {
            file: self.file.to_owned(),
            line: 0,
            column: 0,
            text: String::new(),
            key: String::new(),
            cause: fault.cause,
            suggestion: fault.suggestion,
            excerpt: Excerpt::default(),
        }
    }

    /// A diagnostic about `span`, which belongs to the key path `key`.
    pub(crate) fn diagnose(&self, span: Range<usize>, key: &str, fault: Fault) -> Diagnostic {
        let at = self.floor_boundary(span.start);
        let line = self.line(at);
        let line_text = self.line_text(line);
        let line_start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let in_line = (at - line_start).min(line_text.len());
        let before = line_text.get(..in_line).unwrap_or("").chars().count();
        let on_line = span.end.min(line_start + line_text.len());
        let marked = self.slice(at..on_line.max(at));
        let of_secret = is_secret(key);
        let secret_from = [self.secret_start(line, key), of_secret.then_some(in_line)];
        let secret_from = secret_from.into_iter().flatten().min();
        let hidden = secret_from.is_some_and(|from| in_line >= from) || key == "admin.token";
        let text = match hidden {
            true => "<secret>".to_owned(),
            false => open_part(
                self.slice(at..span.end.max(at)),
                secret_from.map(|from| from - in_line),
            ),
        };
        let open = secret_from.and_then(|from| line_text.get(..from));
        let mut excerpt = Excerpt::cut(open.unwrap_or(line_text), in_line, marked);
        if open.is_some() {
            excerpt.text.push_str("<secret>");
        }
        Diagnostic {
            file: self.file.to_owned(),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(before + 1).unwrap_or(u32::MAX),
            text,
            key: key.to_owned(),
            cause: fault.cause,
            suggestion: fault.suggestion,
            excerpt,
        }
    }

    /// Where in a line a secret may start: after the separator that follows `token` or `secret`, or, for what is
    /// wrong with a key of `[admin]` that is not known to be harmless, after the first separator.
    fn secret_start(&self, line: usize, key: &str) -> Option<usize> {
        let text = self.line_text(line);
        let mut cached = self.token_in_line.borrow_mut();
        if cached.0 != line {
            let within_key = self.is_in_private_key(line).then_some(0);
            *cached = (line, within_key.or_else(|| token_start(text)));
        }
        let of_admin = ((key.starts_with("admin.") && !is_harmless(key)) || is_nearly_secret(key))
            .then(|| text.find(['=', ':']).map(|at| at + 1))
            .flatten();
        let from = [cached.1, of_admin].into_iter().flatten().min()?;
        let rest = text.get(from..)?;
        Some(text.len() - rest.trim_start().len())
    }

    /// Whether a line stands within a private key in PEM.
    fn is_in_private_key(&self, line: usize) -> bool {
        let start = self.line_starts.get(line.saturating_sub(1)).copied();
        let before = start.and_then(|at| self.text.get(..at)).unwrap_or("");
        let open = before.rfind("-----BEGIN ").and_then(|at| before.get(at..));
        open.is_some_and(|block| {
            let heading = block.lines().next().unwrap_or("");
            heading.contains("PRIVATE KEY-----") && !block.contains("-----END ")
        })
    }

    fn floor_boundary(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        (0..=at)
            .rev()
            .find(|i| self.text.is_char_boundary(*i))
            .unwrap_or(0)
    }
}

impl Excerpt {
    /// The line, or what lies around its byte `at`, where the text `marked` starts.
    fn cut(line: &str, at: usize, marked: &str) -> Self {
        let (before, after) = line.split_at_checked(at).unwrap_or((line, ""));
        let short = line.len() <= 4 * MAX_SHOWN_LINE && line.chars().count() <= MAX_SHOWN_LINE;
        let start_of_kept = before.char_indices().rev().take(KEPT_BEFORE).last();
        let from = match start_of_kept {
            Some((from, _)) if !short => from,
            _ => 0,
        };
        let lead = if from > 0 { "…" } else { "" };
        let head = printable(before.get(from..).unwrap_or(""), MAX_SHOWN_LINE);
        let indent = lead.chars().count() + head.chars().count();
        let tail = printable(after, MAX_SHOWN_LINE.saturating_sub(indent));
        let width = marked.chars().take(tail.chars().count()).count();
        Self {
            text: format!("{lead}{head}{tail}"),
            indent,
            width: width.max(1),
        }
    }
}

/// The beginning of `text`, up to where a secret may start: `from`, or anywhere after it.
fn open_part(text: &str, from: Option<usize>) -> String {
    let mut secret_at = from;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if secret_at.is_some() || start > 4 * MAX_SHOWN_TEXT {
            break;
        }
        secret_at = token_start(line).map(|at| start + at);
        start += line.len();
    }
    match secret_at.and_then(|at| text.get(..at)) {
        Some(open) => format!("{}<secret>", printable(open, MAX_SHOWN_TEXT)),
        None => printable(text, MAX_SHOWN_TEXT),
    }
}

/// At most `limit` characters of `text`, without control characters, so that what stands in a file cannot
/// command the terminal that shows it.
fn printable(text: &str, limit: usize) -> String {
    let mut rest = text.chars();
    let mut shown: String = rest
        .by_ref()
        .take(limit)
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a key of `[admin]` is known to hold no secret.
fn is_harmless(key: &str) -> bool {
    let harmless = [
        "admin.listen",
        "admin.token_file",
        "admin.tls",
        "admin.certificates",
        "admin.open_metrics",
        "admin.metrics_backends",
        "admin.audit_log",
    ];
    let of_token = key.starts_with("admin.tokens[") && (key.ends_with(".name") || key.ends_with(".role"));
    of_token || harmless.iter().any(|k| key.starts_with(k))
}

/// Where the value of a key `token`, `secret` or `key_pem` starts in a line, after its separator; or where something
/// that looks like a token of the admin API does.
fn token_start(line: &str) -> Option<usize> {
    let tokens = line.match_indices("token");
    let secrets = line.match_indices("secret");
    let keys = line.match_indices("key_pem");
    let starts = tokens.chain(secrets).chain(keys).filter_map(|(at, word)| {
        let after = at + word.len();
        let rest = line.get(after..)?;
        let gap = rest.trim_start_matches(['s', '"', '\'', ' ', '\t']);
        let skipped = rest.len() - gap.len();
        gap.starts_with(['=', ':']).then_some(after + skipped + 1)
    });
    let marks = line
        .match_indices(TOKEN_PREFIX)
        .chain(line.match_indices(HASH_PREFIX));
    let generated = marks.filter_map(|(at, prefix)| {
        let digits = line.get(at + prefix.len()..)?.bytes();
        let count = digits.take_while(u8::is_ascii_hexdigit).take(SURE_DIGITS).count();
        (count == SURE_DIGITS).then_some(at)
    });
    starts.chain(generated).chain(credentials_start(line)).min()
}

/// Where a URL with a user, and perhaps a password, starts in a line: with the quote before it, where there is one.
fn credentials_start(line: &str) -> Option<usize> {
    let urls = line.match_indices("://").filter(|(at, separator)| {
        let rest = line.get(at + separator.len()..).unwrap_or("");
        let end = rest.find(['"', '\'', ' ', '\t']).unwrap_or(rest.len());
        rest.get(..end).is_some_and(|url| url.contains('@'))
    });
    let starts = urls.map(|(at, _)| {
        let before = line.get(..at).unwrap_or("");
        let scheme = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+.-".contains(c));
        scheme.strip_suffix(['"', '\'']).unwrap_or(scheme).len()
    });
    starts.min()
}

/// Whether a key that there is not was probably meant to be one of a secret.
fn is_nearly_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let mut secrets = ["secret", "secrets", "token", "key_pem", "password"].iter();
    secrets.any(|word| strsim::damerau_levenshtein(last, word) <= 2) && tables_with_key(last).is_empty()
}

/// Whether what stands there is a secret, or one of several. The URL of a receiver may be one.
fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let of_receiver = last == "url" && key.starts_with("alerts.");
    of_receiver || last == "secret" || last == "key_pem" || last.starts_with("secret[")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: passwords in URLs, where they may not be. Neither the excerpt nor the text shows them, on whichever key
    /// of the line the mistake is.
    #[test]
    fn passwords_in_urls_are_not_shown() {
        for (text, key) in [
            ("url = \"redis://:s3cret@10.0.0.1:6379\"", "notify.url"),
            (
                "endpoints = [\"http://a:1\", 'https://root:s3/cr@et@b:1']",
                "store.endpoints[1]",
            ),
            (
                "store = { endpoints = [\"http://u:s3cret@b:1\"], kind = 5 }",
                "store.kind",
            ),
            ("url = \"https://a/?key=s3cret\"", "alerts.webhooks[0].url"),
        ] {
            let value = text.find(['"', '\'']).unwrap();
            let shown = Source::new("a", text).diagnose(value..text.len(), key, Fault::new("no"));
            assert!(!format!("{shown} {}", shown.text).contains("s3"), "{shown}");
        }
        let plain = "url = \"redis://10.0.0.1:6379\" # by alice@example.org";
        let shown = Source::new("a", plain).diagnose(6..30, "notify.url", Fault::new("no"));
        assert!(shown.to_string().contains("10.0.0.1:6379"), "{shown}");
    }

    #[test]
    fn the_place_is_underlined_and_help_follows() {
        let source = Source::new("a.toml", "x = 1\nalgoritm = \"random\"\n");
        let fault =
            Fault::new("unknown key `algoritm` in load_balancers.shop").suggest("did you mean `algorithm`?");
        let shown = source
            .diagnose(6..14, "load_balancers.shop.algoritm", fault)
            .to_string();
        assert_eq!(
            shown,
            "a.toml:2:1: unknown key `algoritm` in load_balancers.shop\n \
             2 | algoritm = \"random\"\n   \
               | ^^^^^^^^\n\
             help: did you mean `algorithm`?"
        );
    }

    #[test]
    fn a_column_counts_characters_and_no_control_character_is_shown() {
        let source = Source::new("a.toml", "é\u{1b}[31m = x");
        let diagnostic = source.diagnose(8..11, "", Fault::new("no"));
        assert_eq!((diagnostic.line, diagnostic.column), (1, 8));
        assert!(!diagnostic.to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}WRONG{}", "a".repeat(5000), "b".repeat(5000));
        let diagnostic = Source::new("a.json", &text).diagnose(5000..5005, "", Fault::new("no"));
        assert_eq!(diagnostic.column, 5001);
        let shown = diagnostic.to_string();
        assert!(shown.len() < 500, "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().nth(caret), Some('W'));
    }

    #[test]
    fn a_token_is_never_shown() {
        for (text, key, span) in [
            ("token = \"hunter2\"", "admin.token", 8..17),
            ("token = hunter2", "", 8..15),
            ("tokn = \"hunter2\"", "admin.tokn", 0..4),
            ("secrt = [\"hunter2\"]", "node.secrt", 0..5),
            ("y = \"sha256:0123456789abcdef-hunter2\"\"", "", 0..1),
            (
                "x = \"ek_0123456789abcdef-hunter2\"",
                "load_balancers.shop.x",
                0..1,
            ),
            ("{\"admin\":{\"token\" : [\"hunter2\"]}}", "admin.token", 20..31),
            ("admin = { tkn = \"hunter2\" }", "admin.tkn", 10..13),
            ("key_pem = \"hunter2\"", "x.key_pem", 10..19),
            ("x = -----BEGIN PRIVATE KEY-----\nhunter2\n", "", 32..39),
        ] {
            let diagnostic = Source::new("a", text).diagnose(span, key, Fault::new("no"));
            let json = serde_json::to_string(&diagnostic).unwrap();
            assert!(!diagnostic.to_string().contains("hunter2"), "{diagnostic}");
            assert!(!json.contains("hunter2"), "{json}");
        }
        let file = Source::new("a", "token_file = 5").diagnose(13..14, "admin.token_file", Fault::new("no"));
        assert_eq!(file.text, "5");
    }

    #[test]
    fn a_span_outside_the_text_does_no_harm() {
        let source = Source::new("a", "é");
        for span in [0..99, 1..1, 2..2, 50..60, Range { start: 5, end: 1 }] {
            assert!(!source.diagnose(span, "", Fault::new("no")).to_string().is_empty());
        }
    }
}
