//! How deep a text of TOML nests, found out before a tree is made of it.
//!
//! Headings, dotted keys and braces each have a bound in the parser. Together they make thousands of levels out of a
//! few kilobytes, and whoever walks such a tree, or only drops it, runs out of stack: that ends the process, and
//! whoever may ask for a plan can send such a text. So the events of that same parser are counted first. What is
//! counted is never less than what the parser makes of them; in a text with errors it may be more.

use toml_parser::decoder::Encoding;
use toml_parser::parser::{EventReceiver, parse_document};
use toml_parser::{ErrorSink, Source, Span};

/// Most tables and lists in one another.
pub(super) const MAX_DEPTH: usize = 128;

/// The byte at which a text first nests deeper than [`MAX_DEPTH`].
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let tokens = Source::new(text).lex().into_vec();
    let mut nesting = Nesting {
        depth: 0,
        in_heading: false,
        heading_keys: 0,
        open: vec![0],
        exceeded: None,
    };
    parse_document(&tokens, &mut nesting, &mut ());
    nesting.exceeded
}

struct Nesting {
    /// All keys of the heading and of what is open, and what is open itself.
    depth: usize,
    in_heading: bool,
    /// Keys of the last heading.
    heading_keys: usize,
    /// Keys since the last separator: of the line, and of each list and table in braces that is open.
    open: Vec<usize>,
    exceeded: Option<usize>,
}

impl Nesting {
    fn heading(&mut self) {
        self.depth -= std::mem::take(&mut self.heading_keys);
        self.in_heading = true;
    }

    /// Whether there may be another level.
    fn deeper(&mut self, span: Span) -> bool {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.exceeded.get_or_insert_with(|| span.start());
        }
        self.exceeded.is_none()
    }

    fn open(&mut self, span: Span) -> bool {
        self.open.push(0);
        self.deeper(span)
    }

    fn close(&mut self) {
        // The line itself stays.
        if self.open.len() > 1
            && let Some(keys) = self.open.pop()
        {
            self.depth -= keys + 1;
        }
    }

    fn next(&mut self) {
        if let Some(keys) = self.open.last_mut() {
            self.depth -= std::mem::take(keys);
        }
    }
}

impl EventReceiver for Nesting {
    fn std_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.heading();
    }

    fn std_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.in_heading = false;
    }

    fn array_table_open(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.heading();
    }

    fn array_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.in_heading = false;
    }

    fn inline_table_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.open(span)
    }

    fn inline_table_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.close();
    }

    fn array_open(&mut self, span: Span, _: &mut dyn ErrorSink) -> bool {
        self.open(span)
    }

    fn array_close(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.close();
    }

    fn simple_key(&mut self, span: Span, _: Option<Encoding>, _: &mut dyn ErrorSink) {
        match self.open.last_mut() {
            Some(keys) if !self.in_heading => *keys += 1,
            _ => self.heading_keys += 1,
        }
        self.deeper(span);
    }

    fn value_sep(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.next();
    }

    fn newline(&mut self, _: Span, _: &mut dyn ErrorSink) {
        self.in_heading = false;
        if self.open.len() == 1 {
            self.next();
        }
    }
}
