//! Finding the lines of a head as its bytes arrive.
//!
//! A position is kept between calls, so a peer that sends one byte at a time costs no more than one that sends
//! all at once. Every line must end in CRLF: a parser that took a bare LF would see other lines than one that
//! does not (RFC 9112 section 2.2 permits taking it; refusing is the safe choice).

use memchr::memchr;
use model::reason::Reason;

/// Progress through a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    line_start: usize,
    scanned: usize,
}

impl Lines {
    /// Begins at this offset.
    pub(crate) fn starting_at(offset: usize) -> Self {
        Self {
            line_start: offset,
            scanned: offset,
        }
    }

    /// The next complete line as `(start, end)` without its CRLF, or `None` when its end has not arrived.
    ///
    /// # Errors
    /// [`Reason::BadLineEnding`] for a LF without a CR before it.
    #[inline]
    pub(crate) fn next(&mut self, window: &[u8]) -> Result<Option<(usize, usize)>, Reason> {
        let unseen = window.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr(b'\n', unseen) else {
            self.scanned = self.scanned.max(window.len());
            return Ok(None);
        };
        let start = self.line_start;
        let feed = self.scanned + at;
        if feed == start || window.get(feed - 1) != Some(&b'\r') {
            return Err(Reason::BadLineEnding);
        }
        self.line_start = feed + 1;
        self.scanned = feed + 1;
        Ok(Some((start, feed - 1)))
    }

    /// Offset behind the last line returned.
    pub(crate) fn position(&self) -> usize {
        self.line_start
    }
}
