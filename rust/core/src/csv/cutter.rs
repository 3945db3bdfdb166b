//! Finds where records end, so that a file can be cut into chunks of whole records. No fields, no I/O, no allocation.
//!
//! The caller keeps the bytes. A [`Cutter`] remembers how far it has looked, and whether that place is inside quotes.
//! So the end of a block, a resume and a fuzzer are the same case, and a buffer that grows is not read again from its
//! start.

use memchr::{memchr, memchr2, memchr3, memrchr2};

use crate::csv::scanner::{Limits, count_lines};

/// What the caller must do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// `buf[..end]` holds whole records, as many as there are: parse them and drop them.
    Records { end: usize },
    /// No record ends in the buffer yet: append bytes and call again. Happens only while the
    /// buffer holds less than `limits.record + limits.field + 2` bytes.
    NeedMore,
    /// `buf[..end]` belongs to a record over the limit: keep what the reject needs, drop the bytes and call again.
    /// `end` may be 0 at the end of the input.
    Skip {
        end: usize,
        /// Line ends in the dropped bytes.
        lines: u32,
        /// The record ends at `end`; what follows is cut as usual.
        is_last: bool,
    },
    /// The buffer is empty and nothing more will come.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Outside quotes.
    Open,
    /// Behind the quote at this offset.
    Quoted(usize),
    /// Behind a quote that nothing closes: quotes mean nothing up to the next line end.
    Unclosed,
}

/// Cuts a stream of records. The buffer of every call begins behind the bytes that the previous call let the caller
/// drop, and holds at least the rest of them.
pub struct Cutter {
    delimiter: u8,
    limits: Limits,
    state: State,
    /// Everything before this offset of the buffer has been read.
    at: usize,
    /// In a record over the limit, part of which is dropped.
    is_skipping: bool,
    /// The last dropped byte of that record.
    previous: u8,
}

impl Cutter {
    pub fn new(delimiter: u8) -> Self {
        Self::with_limits(delimiter, Limits::default())
    }

    pub fn with_limits(delimiter: u8, limits: Limits) -> Self {
        let state = State::Open;
        Cutter {
            delimiter,
            limits,
            state,
            at: 0,
            is_skipping: false,
            previous: b'\n',
        }
    }

    /// Reads what was appended to `buf`. `is_final`: nothing more will be appended.
    pub fn cut(&mut self, buf: &[u8], is_final: bool) -> Cut {
        if self.is_skipping {
            return self.skip(buf, is_final);
        }
        if buf.is_empty() {
            return if is_final { Cut::End } else { Cut::NeedMore };
        }
        let end = self.last_end(buf, is_final);
        if end > 0 {
            self.rebase(end);
            return Cut::Records { end };
        }
        if self.known() > self.limits.record {
            self.is_skipping = true;
            return self.skip(buf, is_final);
        }
        Cut::NeedMore
    }

    /// The first bytes of the buffer that belong to its first record for certain.
    fn known(&self) -> usize {
        match self.state {
            State::Quoted(open) => open + 1,
            State::Open | State::Unclosed => self.at,
        }
    }

    fn rebase(&mut self, dropped: usize) {
        self.at -= dropped;
        if let State::Quoted(open) = &mut self.state {
            *open -= dropped;
        }
    }

    /// Advances to the end of the buffer; the offset behind the last record that ends, or 0.
    fn last_end(&mut self, buf: &[u8], is_final: bool) -> usize {
        let mut last = 0;
        loop {
            let is_advanced = match self.state {
                // One quoted field right behind another: most fields of a file that quotes all.
                State::Open if buf[self.at..].starts_with(&[self.delimiter, b'"']) => {
                    (self.at, self.state) = (self.at + 2, State::Quoted(self.at + 1));
                    true
                }
                State::Open => {
                    let quote = memchr(b'"', &buf[self.at..]).map(|at| self.at + at);
                    let stop = quote.unwrap_or(buf.len());
                    if let Some(end) = last_line_end(buf, self.at, stop, is_final) {
                        last = end;
                    }
                    match quote {
                        Some(quote) => self.meet_quote(buf, quote),
                        // A CR may be half of a line end: it is read again.
                        None if !is_final && buf.last() == Some(&b'\r') => {
                            self.at = self.at.max(buf.len() - 1);
                        }
                        None => self.at = buf.len(),
                    }
                    quote.is_some()
                }
                State::Quoted(open) => self.close(buf, open, is_final),
                State::Unclosed => match self.first_line_end(buf, is_final) {
                    Some(end) => {
                        (last, self.at, self.state) = (end, end, State::Open);
                        true
                    }
                    None => false,
                },
            };
            if !is_advanced {
                return if is_final { buf.len() } else { last };
            }
        }
    }

    /// Advances to the end of the record over the limit, or of the buffer.
    fn skip(&mut self, buf: &[u8], is_final: bool) -> Cut {
        let end = loop {
            let is_advanced = match self.state {
                State::Open => match memchr3(b'"', b'\n', b'\r', &buf[self.at..]) {
                    None => {
                        self.at = buf.len();
                        false
                    }
                    Some(at) if buf[self.at + at] == b'"' => {
                        self.meet_quote(buf, self.at + at);
                        true
                    }
                    Some(_) => match self.first_line_end(buf, is_final) {
                        Some(end) => break Some(end),
                        None => false,
                    },
                },
                State::Quoted(open) => self.close(buf, open, is_final),
                State::Unclosed => match self.first_line_end(buf, is_final) {
                    Some(end) => break Some(end),
                    None => false,
                },
            };
            if !is_advanced {
                break is_final.then_some(buf.len());
            }
        };
        if let Some(end) = end {
            *self = Self::with_limits(self.delimiter, self.limits);
            return Cut::Skip {
                end,
                lines: count_lines(&buf[..end], true),
                is_last: true,
            };
        }
        let end = match self.state {
            State::Quoted(open) => open,
            State::Open | State::Unclosed => self.at,
        };
        if end == 0 {
            return Cut::NeedMore;
        }
        self.previous = buf[end - 1];
        self.rebase(end);
        Cut::Skip {
            end,
            lines: count_lines(&buf[..end], true),
            is_last: false,
        }
    }

    /// Passes a quote outside quotes: it opens a field only as its first byte.
    fn meet_quote(&mut self, buf: &[u8], quote: usize) {
        let opens = match quote.checked_sub(1) {
            Some(before) => self.starts_field(buf[before]),
            None => !self.is_skipping || self.starts_field(self.previous),
        };
        if opens {
            self.state = State::Quoted(quote);
        }
        self.at = quote + 1;
    }

    fn starts_field(&self, before: u8) -> bool {
        before == self.delimiter || before == b'\n' || before == b'\r'
    }

    /// Looks for the end of the quoted field at `open`; false if it is not in the buffer yet.
    fn close(&mut self, buf: &[u8], open: usize, is_final: bool) -> bool {
        match close_of(buf, open, self.at, self.limits.field, is_final) {
            Close::At(quote) => (self.at, self.state) = (quote + 1, State::Open),
            Close::Never => (self.at, self.state) = (open + 1, State::Unclosed),
            Close::NeedMore(from) => {
                self.at = from;
                return false;
            }
        }
        true
    }

    /// The offset behind the first line end from `at` on. If there is none, `at` moves to the first byte that must be
    /// read again.
    fn first_line_end(&mut self, buf: &[u8], is_final: bool) -> Option<usize> {
        let Some(at) = memchr2(b'\n', b'\r', &buf[self.at..]) else {
            self.at = buf.len();
            return None;
        };
        self.at += at;
        match buf.get(self.at + 1) {
            Some(b'\n') if buf[self.at] == b'\r' => Some(self.at + 2),
            None if buf[self.at] == b'\r' && !is_final => None,
            _ => Some(self.at + 1),
        }
    }
}

/// The offset behind the last line end that is complete in `buf[from..stop]`.
fn last_line_end(buf: &[u8], from: usize, stop: usize, is_final: bool) -> Option<usize> {
    let is_half = stop == buf.len() && !is_final && stop > from && buf[stop - 1] == b'\r';
    let stop = stop - usize::from(is_half);
    memrchr2(b'\n', b'\r', &buf[from..stop]).map(|at| from + at + 1)
}

/// Where a quoted field ends.
enum Close {
    /// The closing quote.
    At(usize),
    /// No closing quote within the limit, or before the end of the input.
    Never,
    /// Not known yet; nothing before this offset closes the field.
    NeedMore(usize),
}

/// Looks for the quote that closes the one at `open`, from `from` on.
#[inline]
fn close_of(bytes: &[u8], open: usize, mut from: usize, limit: usize, is_final: bool) -> Close {
    let window = bytes.len().min(open.saturating_add(limit));
    while from < window {
        let Some(at) = memchr(b'"', &bytes[from..window]) else {
            from = window;
            break;
        };
        let quote = from + at;
        match bytes.get(quote + 1) {
            Some(b'"') => from = quote + 2,
            None if !is_final => return Close::NeedMore(quote),
            _ => return Close::At(quote),
        }
    }
    if is_final || bytes.len() >= open.saturating_add(limit) {
        Close::Never
    } else {
        Close::NeedMore(from)
    }
}
