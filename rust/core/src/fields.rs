//! Where the fields of a record are. No values, no mapping.
//!
//! Works on a chunk of whole records and knows nothing of the file around it: any two cuts of
//! a file that [`crate::scan::Cutter`] made give the same records.

use memchr::{memchr, memchr_iter};

use crate::simd::Index;

/// How large a field and a record may be, in bytes. Parameters, so that tests can be small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte of a field, quotes included. A quote that is not closed within this
    /// distance is taken for a mistake.
    pub field: usize,
    /// A record with its line end.
    pub record: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            field: 1 << 20,
            record: 8 << 20,
        }
    }
}

/// How the bytes of a field become its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The span is the content.
    Plain,
    /// The span begins with a quote, and holds doubled quotes or bytes behind the closing one:
    /// see [`unquote`].
    Quoted,
}

/// A field of a record, by its place in the chunk. For a clean quoted field the span is what is
/// between the quotes.
#[derive(Clone, Copy, Debug)]
pub struct RawField {
    pub start: u32,
    pub end: u32,
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Whole,
    /// The record was ended at the first line end behind a quote that nothing closes.
    UnclosedQuote,
    FieldOverLimit,
    RecordOverLimit,
}

/// A record: its span in the chunk, line end included, and the line ends before it.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub start: usize,
    pub end: usize,
    pub line: u32,
    pub shape: Shape,
}

/// Where a quoted field ends.
pub(crate) enum Close {
    /// The closing quote.
    At(usize),
    /// No closing quote within the limit, or before the end of the input.
    Never,
    /// Not known yet; nothing before this offset closes the field.
    NeedMore(usize),
}

/// Looks for the quote that closes the one at `open`, from `from` on. `is_clean` is set to false
/// when a doubled quote is passed.
#[inline]
pub(crate) fn close_of(
    bytes: &[u8],
    open: usize,
    mut from: usize,
    limit: usize,
    is_final: bool,
    is_clean: &mut bool,
) -> Close {
    let window = bytes.len().min(open.saturating_add(limit));
    while from < window {
        let Some(at) = memchr(b'"', &bytes[from..window]) else {
            from = window;
            break;
        };
        let quote = from + at;
        match bytes.get(quote + 1) {
            Some(b'"') => {
                *is_clean = false;
                from = quote + 2;
            }
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

/// The line ends in some bytes: LF, CRLF or a CR alone, each once.
pub(crate) fn count_lines(bytes: &[u8]) -> u32 {
    let feeds = memchr_iter(b'\n', bytes).count();
    let alone = memchr_iter(b'\r', bytes)
        .filter(|&at| bytes.get(at + 1) != Some(&b'\n'))
        .count();
    (feeds + alone) as u32
}

/// The content of a [`Form::Quoted`] span: the quotes around it and one of each doubled pair
/// removed; what follows the closing quote is appended as it is.
pub fn unquote<'a>(span: &[u8], content: &'a mut Vec<u8>) -> &'a [u8] {
    content.clear();
    let mut rest = span.get(1..).unwrap_or_default();
    while let Some(quote) = memchr(b'"', rest) {
        content.extend_from_slice(&rest[..quote]);
        rest = &rest[quote + 1..];
        if rest.first() != Some(&b'"') {
            break;
        }
        content.push(b'"');
        rest = &rest[1..];
    }
    content.extend_from_slice(rest);
    content
}

/// Walks the records of one chunk.
pub struct Scanner<'a> {
    chunk: &'a [u8],
    index: &'a Index,
    delimiter: u8,
    limits: Limits,
    /// Where the next record starts.
    at: usize,
    /// Line ends before `at`.
    line: u32,
    word: usize,
    /// The bits of `index.ends[word]` that are still to come.
    bits: u64,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(chunk: &'a [u8], index: &'a Index, delimiter: u8, limits: Limits) -> Self {
        let bits = index.ends.first().copied().unwrap_or(0);
        Scanner {
            chunk,
            index,
            delimiter,
            limits,
            at: 0,
            line: 0,
            word: 0,
            bits,
        }
    }

    /// The line ends of the records seen so far.
    pub fn lines(&self) -> u32 {
        self.line
    }

    /// The next delimiter or line end, or the end of the chunk.
    #[inline(always)]
    fn next_end(&mut self) -> usize {
        while self.bits == 0 {
            self.word += 1;
            match self.index.ends.get(self.word) {
                Some(&bits) => self.bits = bits,
                None => {
                    self.word -= 1;
                    return self.chunk.len();
                }
            }
        }
        let at = self.word * 64 + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        at
    }

    fn seek(&mut self, at: usize) {
        self.word = at / 64;
        self.bits = self.index.ends[self.word] & (u64::MAX << (at % 64));
    }

    /// The offset behind the line end at `at`, which may be the end of the chunk.
    #[inline(always)]
    fn pass_line_end(&mut self, at: usize) -> usize {
        if at == self.chunk.len() {
            return at;
        }
        self.line += 1;
        if self.chunk[at] == b'\r' && self.chunk.get(at + 1) == Some(&b'\n') {
            self.next_end();
            return at + 2;
        }
        at + 1
    }

    /// The next record, its fields handed to `field` in order with their number; None at the end
    /// of the chunk. The fields of a record whose shape is not `Whole` are not all handed over.
    #[inline(always)]
    pub fn next_record(&mut self, mut field: impl FnMut(usize, RawField)) -> Option<Record> {
        let chunk = self.chunk;
        while let b'\n' | b'\r' = chunk.get(self.at)? {
            let at = self.next_end();
            self.at = self.pass_line_end(at);
        }
        let (start, line) = (self.at, self.line);
        let mut shape = Shape::Whole;
        let mut from = start;
        let mut number = 0;
        loop {
            let (raw, end) = if chunk.get(from) == Some(&b'"') {
                match self.quoted(from) {
                    Some(found) => found,
                    None => {
                        shape = Shape::UnclosedQuote;
                        self.seek(from + 1);
                        let end = loop {
                            let end = self.next_end();
                            if chunk.get(end) != Some(&self.delimiter) {
                                break end;
                            }
                        };
                        self.at = self.pass_line_end(end);
                        break;
                    }
                }
            } else {
                let end = self.next_end();
                (
                    RawField {
                        start: from as u32,
                        end: end as u32,
                        form: Form::Plain,
                    },
                    end,
                )
            };
            if end - from > self.limits.field {
                shape = Shape::FieldOverLimit;
            }
            field(number, raw);
            number += 1;
            if chunk.get(end) == Some(&self.delimiter) {
                from = end + 1;
            } else {
                self.at = self.pass_line_end(end);
                break;
            }
        }
        if self.at - start > self.limits.record {
            shape = Shape::RecordOverLimit;
        }
        Some(Record {
            start,
            end: self.at,
            line,
            shape,
        })
    }

    /// The quoted field at `open` and where it ends; None if nothing closes it.
    fn quoted(&mut self, open: usize) -> Option<(RawField, usize)> {
        let mut is_clean = true;
        let Close::At(close) = close_of(
            self.chunk,
            open,
            open + 1,
            self.limits.field,
            true,
            &mut is_clean,
        ) else {
            return None;
        };
        self.line += count_lines(&self.chunk[open..close]);
        self.seek(close + 1);
        let end = self.next_end();
        let raw = if is_clean && end == close + 1 {
            RawField {
                start: open as u32 + 1,
                end: close as u32,
                form: Form::Plain,
            }
        } else {
            RawField {
                start: open as u32,
                end: end as u32,
                form: Form::Quoted,
            }
        };
        Some((raw, end))
    }
}

/// Every record of a chunk with the content of its fields, before mapping and trimming: what the
/// scanner sees, for tests and for people who ask why.
pub fn read_records(chunk: &[u8], delimiter: u8, limits: Limits) -> Vec<(Record, Vec<Vec<u8>>)> {
    let mut index = Index::default();
    index.build(chunk, delimiter);
    let mut scanner = Scanner::new(chunk, &index, delimiter, limits);
    let mut records = Vec::new();
    let mut content = Vec::new();
    loop {
        let mut fields = Vec::new();
        let record = scanner.next_record(|_, raw| {
            let span = &chunk[raw.start as usize..raw.end as usize];
            fields.push(match raw.form {
                Form::Plain => span.to_vec(),
                Form::Quoted => unquote(span, &mut content).to_vec(),
            });
        });
        match record {
            Some(record) => records.push((record, fields)),
            None => return records,
        }
    }
}
