//! Where the fields of a record are. No values, no mapping.
//!
//! Reads a chunk of whole records and knows nothing of the file around it. However
//! [`crate::csv::cutter::Cutter`] cuts a file, the records are the same.

use memchr::{memchr, memchr_iter};

use crate::csv::index::Index;

/// How large a field and a record may be, in bytes. Parameters, so that tests can be small.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a field, with its quotes. A quote that is not closed within so many bytes is a mistake in the file.
    pub field: usize,
    /// Of a record, with its line end.
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

/// A field of a record, as a span of the chunk. The span of a quoted field without doubled quotes lies between its
/// quotes.
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

/// The line ends in `bytes`: LF, CRLF or a CR alone, each once. `has_return`: there may be a CR.
pub(crate) fn count_lines(bytes: &[u8], has_return: bool) -> u32 {
    let feeds = memchr_iter(b'\n', bytes).count();
    if !has_return {
        return feeds as u32;
    }
    let alone = memchr_iter(b'\r', bytes)
        .filter(|&at| bytes.get(at + 1) != Some(&b'\n'))
        .count();
    (feeds + alone) as u32
}

/// The content of a [`Form::Quoted`] span: the quotes around it and one of each doubled pair
/// removed; what follows the closing quote is appended as it is.
#[inline(never)]
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
    /// The ends of element `word` of the index that are still to come.
    bits: u64,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(chunk: &'a [u8], index: &'a Index, delimiter: u8, limits: Limits) -> Self {
        let bits = index.marks.first().map_or(0, |marks| marks.ends);
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
            match self.index.marks.get(self.word) {
                Some(marks) => self.bits = marks.ends,
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
        self.bits = self.index.marks[self.word].ends & (u64::MAX << (at % 64));
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

    /// The next record; None at the end of the chunk. Calls `field` with the number and span of each field, in order;
    /// not for all of them if the shape of the record is not `Whole`.
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

    /// The quote that closes the one at `open`, by the index, and whether none between them is
    /// doubled. Agrees with `close_of` of the cutter.
    fn close(&self, open: usize) -> Option<(usize, bool)> {
        let marks = &self.index.marks;
        let window = self.chunk.len().min(open.saturating_add(self.limits.field));
        let mut is_clean = true;
        let mut word = (open + 1) / 64;
        let mut quotes = marks[word].quotes & (u64::MAX << ((open + 1) % 64));
        loop {
            while quotes == 0 {
                word += 1;
                if word * 64 >= window {
                    return None;
                }
                quotes = marks[word].quotes;
            }
            let quote = word * 64 + quotes.trailing_zeros() as usize;
            if quote >= window {
                return None;
            }
            if self.chunk.get(quote + 1) != Some(&b'"') {
                return Some((quote, is_clean));
            }
            is_clean = false;
            quotes &= quotes - 1;
            // The second quote of the pair may be the first byte of the next word.
            if quotes == 0 {
                word += 1;
                quotes = marks[word].quotes;
            }
            quotes &= quotes - 1;
        }
    }

    /// The quoted field at `open` and where it ends; None if nothing closes it.
    fn quoted(&mut self, open: usize) -> Option<(RawField, usize)> {
        let (close, is_clean) = self.close(open)?;
        let mut inside = self.index.marks[open / 64].ends & (u64::MAX << (open % 64));
        let (mut word, last) = (open / 64, close / 64);
        while inside == 0 && word < last {
            word += 1;
            inside = self.index.marks[word].ends;
        }
        // Most fields hold neither delimiters nor line ends. Then nothing is counted.
        if inside != 0 && word * 64 + (inside.trailing_zeros() as usize) < close {
            let content = &self.chunk[open..close];
            self.line += count_lines(content, self.index.traits.has_return);
        }
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

/// Every record of a chunk with the content of its fields, before mapping and trimming. For tests.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_with_quotes_inside_need_to_be_unquoted() {
        let cases = [
            ("ab", 0..2, Form::Plain),
            ("\"ab\"", 1..3, Form::Plain),
            ("\"\"", 1..1, Form::Plain),
            ("\"a\"\"b\"", 0..6, Form::Quoted),
            ("\"a\"b", 0..4, Form::Quoted),
        ];
        // Before it as many bytes as move it over two words of the index.
        for before in 1..130 {
            for (text, span, form) in cases.clone() {
                let chunk = format!("{},{text},", "x".repeat(before - 1));
                let mut index = Index::default();
                index.build(chunk.as_bytes(), b',');
                let mut scanner = Scanner::new(chunk.as_bytes(), &index, b',', Limits::default());
                let mut fields = Vec::new();
                scanner.next_record(|_, raw| fields.push(raw));
                let raw = fields[1];
                assert_eq!(
                    (
                        raw.start as usize - before,
                        raw.end as usize - before,
                        raw.form
                    ),
                    (span.start, span.end, form),
                    "{chunk}"
                );
            }
        }
    }
}
