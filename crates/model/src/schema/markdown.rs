//! The tables of keys in the documentation.

use super::{ALL, Default, Key, Kind, Table};

/// Each table of keys as Markdown, with the name of the marker that it stands between.
pub fn key_tables() -> Vec<(&'static str, String)> {
    ALL.iter().map(|table| (table.id, key_table(table))).collect()
}

/// The document with every table of keys written anew between its markers `<!-- keys NAME -->` and
/// `<!-- end of keys -->`.
///
/// # Errors
/// The name of the first table that has no pair of markers.
pub fn rewrite(document: &str) -> Result<String, String> {
    let mut text = document.to_owned();
    for (id, table) in key_tables() {
        let start = format!("<!-- keys {id} -->\n");
        let missing = || format!("no markers for the table `{id}`");
        let (before, rest) = text.split_once(&start).ok_or_else(missing)?;
        let (_, after) = rest.split_once(END).ok_or_else(missing)?;
        text = format!("{before}{start}\n{table}\n{END}{after}");
    }
    Ok(text)
}

const END: &str = "<!-- end of keys -->";

fn key_table(table: &Table) -> String {
    let mut text = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n".to_owned();
    for key in table.all_keys() {
        let default = match key.default {
            Default::Is(value) => format!("`{value}`"),
            Default::Means(words) => words.to_owned(),
            Default::Required => "**required**".to_owned(),
        };
        let cells = [
            format!("`{}`", key.name),
            kind(key),
            default,
            key.about.to_owned(),
        ];
        let escaped = cells.map(|cell| cell.replace('|', "\\|"));
        text.push_str(&format!("| {} |\n", escaped.join(" | ")));
    }
    text
}

fn kind(key: &Key) -> String {
    let range = key
        .kind
        .range()
        .map_or_else(String::new, |range| format!(", {range}"));
    match &key.kind {
        Kind::Duration { .. } => format!("duration{range}"),
        Kind::Size { .. } => format!("size{range}"),
        Kind::Percent { .. } => format!("percentage{range}"),
        Kind::Integer { .. } => format!("whole number{range}"),
        Kind::Table(table) => format!("table: {}", link(table)),
        Kind::TableOrFalse(table) => format!("table: {}, or `false`", link(table)),
        Kind::Named(table) => format!("tables by name: {}", link(table)),
        Kind::List {
            of: Kind::Table(table),
            ..
        } => format!("list of tables: {}", link(table)),
        Kind::List {
            of: Kind::Either([first, Kind::Table(table)]),
            ..
        } => format!(
            "list, each entry {}, or a table: {}",
            first.expected(),
            link(table)
        ),
        Kind::OneOf(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`\"{value}\"`")).collect();
            values.join(", ")
        }
        other => other.expected(),
    }
}

fn link(table: &Table) -> String {
    format!(
        "[{}](#{})",
        table.id.replace('_', " "),
        table.id.replace('_', "-")
    )
}
