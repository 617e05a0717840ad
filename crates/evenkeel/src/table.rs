//! Aligned tables for terminals, coloured only where a person looks.

use std::fmt::Write;

/// Colours by meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
    Title,
}

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// Colours for a terminal that has not asked for none (`NO_COLOR`).
    pub(crate) fn for_terminal(is_terminal: bool) -> Self {
        Self(is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
    }

    /// The text in a tone. Control characters become `?`: what a remote side said must not steer a terminal.
    pub(crate) fn text(self, tone: Tone, text: &str) -> String {
        let safe: String = text
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect();
        let code = match tone {
            Tone::Plain => return safe,
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Title => "1",
        };
        if self.0 {
            format!("\x1b[{code}m{safe}\x1b[0m")
        } else {
            safe
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Plain text, to the left.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Text with a meaning.
    pub(crate) fn tone(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
            right: false,
        }
    }

    /// A number, to the right.
    pub(crate) fn number(number: impl std::fmt::Display) -> Self {
        Self {
            text: number.to_string(),
            tone: Tone::Plain,
            right: true,
        }
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With a heading; a column whose heading ends in `>` is headed to the right, over numbers.
    pub(crate) fn new(heading: &[&str]) -> Self {
        let heading = heading.iter().map(|text| Cell {
            text: text.trim_end_matches('>').to_owned(),
            tone: Tone::Faint,
            right: text.ends_with('>'),
        });
        Self {
            rows: vec![heading.collect()],
        }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The lines, each behind `indent` spaces, without trailing spaces.
    pub(crate) fn render(&self, indent: usize, paint: Paint) -> String {
        let mut widths = vec![0; self.rows.iter().map(Vec::len).max().unwrap_or(0)];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            let mut gap = indent;
            for (cell, width) in row.iter().zip(&widths) {
                let pad = width - cell.text.chars().count();
                let (before, after) = if cell.right { (gap + pad, 0) } else { (gap, pad) };
                let text = paint.text(cell.tone, &cell.text);
                // Writing into a String cannot fail.
                let _ = write!(line, "{:before$}{text}", "");
                gap = after + 2;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(&["NAME", "N>", "WHY"]);
        table.row(vec![Cell::text("a"), Cell::number(7), Cell::text("")]);
        table.row(vec![Cell::text("longer"), Cell::number(123), Cell::text("ü b")]);
        assert_eq!(
            table.render(2, Paint(false)),
            "  NAME      N  WHY\n  a         7\n  longer  123  ü b\n"
        );
    }

    #[test]
    fn colours_do_not_shift_columns() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec![Cell::tone("up", Tone::Good), Cell::text("x")]);
        assert_eq!(
            table.render(0, Paint(true)),
            "\x1b[2mA\x1b[0m   \x1b[2mB\x1b[0m\n\x1b[32mup\x1b[0m  x\n"
        );
    }

    /// A backend's reason or an operator's name that holds escape codes is shown, not obeyed.
    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(Paint(false).text(Tone::Plain, "a\x1b[2Jb\n"), "a?[2Jb?");
    }
}
