//! A chunk of whole records in, rows out: encoded as COPY expects them, and hashed.
//!
//! Keeps nothing between chunks, so any number of threads may run it. A record becomes a row or a reject. No content
//! of a file makes this fail.

use crate::csv::index::Index;
use crate::csv::scanner::{Form, Limits, RawField, Record, Scanner, Shape, unquote};
use crate::customer::{
    CUSTOMER_ID, EMAIL, FIELDS, FIRST_NAME, FULL_NAME, Kind, LAST_NAME, SUBSCRIPTION_DATE,
};
use crate::identity::hash::{HashKeys, hash_identity};
use crate::pgcopy::{put_bytes_within, put_i32, put_null};
use crate::plan::Plan;
use crate::plan::mapping::Target;
use crate::rows::findings::{Code, Finding};
use crate::values::convert::{count_characters, email, email_identity, identity, trim_bytes};
use crate::values::dates::{DateError, DateOrder, parse_date};
use twox_hash::XxHash3_64;

/// One customer of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The record's span in the chunk, line end included.
    pub start: u32,
    pub end: u32,
    /// Line ends of the chunk before the record.
    pub line: u32,
    pub lane_hash: u64,
    pub identity: u64,
    /// XXH3-64 of its columns in the payload.
    pub source_hash: i64,
    /// Its columns in the payload.
    pub at: u32,
    pub len: u32,
    /// Bytes of `customer_id`, which stands at `at + 4`.
    pub key_len: u16,
}

/// What a chunk became. Every [`parse`] clears it first and uses its memory again.
#[derive(Default)]
pub struct Parsed {
    /// For each row its columns as fields of a binary COPY tuple, as [`crate::pgcopy`] writes them.
    pub payload: Vec<u8>,
    pub rows: Vec<Row>,
    /// Rejects, and warnings about rows, in file order.
    pub findings: Vec<Finding>,
    /// Line ends in the chunk.
    pub lines: u32,
    index: Index,
}

/// The longest chunk that is parsed. All offsets have 32 bits: of two bytes, the shortest record, come 12 columns with
/// their lengths, 52 bytes; and a value becomes three times as long at most when it is normalised. So the payload of
/// the longest chunk has less than 2 GiB.
pub const CHUNK_BYTES_MOST: usize = 64 << 20;

/// Turns a chunk of whole records, as [`crate::csv::cutter::Cutter`] cuts them, into rows.
/// The chunk has at most [`CHUNK_BYTES_MOST`].
pub fn parse(chunk: &[u8], plan: &Plan, keys: &HashKeys, out: &mut Parsed) {
    parse_within(chunk, plan, keys, Limits::default(), out);
}

/// [`parse`] with other limits than the engine's.
pub fn parse_within(chunk: &[u8], plan: &Plan, keys: &HashKeys, limits: Limits, out: &mut Parsed) {
    assert!(
        chunk.len() <= CHUNK_BYTES_MOST,
        "a chunk of {} bytes",
        chunk.len()
    );
    out.payload.clear();
    out.rows.clear();
    out.findings.clear();
    let mut index = std::mem::take(&mut out.index);
    index.build(chunk, plan.delimiter);
    let traits = index.traits;
    let is_valid = !traits.has_nul && (!traits.has_wide || std::str::from_utf8(chunk).is_ok());

    let width = plan.columns.len();
    // Fields without a column are read from a blank column behind the last.
    let mut sources = [width; FULL_NAME + 1];
    for (column, target) in plan.columns.iter().enumerate() {
        match *target {
            Target::Skip => {}
            Target::Field(field) => sources[field as usize] = column,
            Target::FullName => sources[FULL_NAME] = column,
        }
    }
    let blank = RawField {
        start: 0,
        end: 0,
        form: Form::Plain,
    };
    let mut raw = vec![blank; width + 1];
    let mut rows = Rows {
        chunk,
        sources,
        has_full_name: sources[FULL_NAME] < width,
        date_order: plan.date_order,
        keys: *keys,
        has_wide: traits.has_wide,
        scratch: Vec::new(),
        names: Vec::new(),
    };
    let mut surplus = Vec::new();
    let mut scanner = Scanner::new(chunk, &index, plan.delimiter, limits);
    loop {
        let mut count = 0;
        let mut is_extra = false;
        let record = scanner.next_record(|number, field| {
            if number < width {
                raw[number] = field;
            } else {
                is_extra |= !content_of(chunk, field, &mut surplus).is_empty();
            }
            count = number + 1;
        });
        let Some(record) = record else { break };
        if count < width {
            raw[count..width].fill(blank);
        }
        let rejected = match record.shape {
            Shape::RecordOverLimit => Some((Code::RecordOverLimit, None)),
            Shape::UnclosedQuote => Some((Code::UnclosedQuote, None)),
            Shape::FieldOverLimit => Some((Code::FieldOverLimit, None)),
            Shape::Whole => None,
        };
        let rejected = rejected.or_else(|| match is_valid {
            true => None,
            false => undecodable(&chunk[record.start..record.end]),
        });
        let rejected = rejected.or(is_extra.then_some((Code::ExtraFields, None)));
        let outcome = match rejected {
            Some(rejected) => Err(rejected),
            None => rows.convert(&record, &raw, out),
        };
        let finding = match outcome {
            Ok(None) => continue,
            Ok(Some(code)) => (code, Some(SUBSCRIPTION_DATE as u8), true),
            Err((code, field)) => (code, field, false),
        };
        out.findings.push(Finding {
            start: record.start as u32,
            end: record.end as u32,
            line: record.line,
            code: finding.0,
            field: finding.1,
            is_warning: finding.2,
        });
    }
    out.lines = scanner.lines();
    out.index = index;
}

fn undecodable(record: &[u8]) -> Option<(Code, Option<u8>)> {
    if record.contains(&0) {
        return Some((Code::NulByte, None));
    }
    std::str::from_utf8(record)
        .is_err()
        .then_some((Code::InvalidUtf8, None))
}

/// The trimmed content of a field.
#[inline(always)]
fn content_of<'a>(chunk: &'a [u8], field: RawField, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let span = &chunk[field.start as usize..field.end as usize];
    trim_bytes(match field.form {
        Form::Plain => span,
        Form::Quoted => unquote(span, scratch),
    })
}

struct Rows<'a> {
    chunk: &'a [u8],
    /// For each field the column it is read from.
    sources: [usize; FULL_NAME + 1],
    has_full_name: bool,
    date_order: DateOrder,
    keys: HashKeys,
    /// Some byte of the chunk is not ASCII.
    has_wide: bool,
    scratch: Vec<u8>,
    names: Vec<u8>,
}

type Reject = (Code, Option<u8>);

impl Rows<'_> {
    /// Appends the row of a record to the payload, or nothing if it is a reject. `Ok` may hold a
    /// warning about its date.
    #[inline(always)]
    fn convert(
        &mut self,
        record: &Record,
        raw: &[RawField],
        out: &mut Parsed,
    ) -> Result<Option<Code>, Reject> {
        let at = out.payload.len();
        match self.encode(raw, &mut out.payload) {
            Ok((key_len, warning)) => {
                let columns = &out.payload[at..];
                let source_hash = XxHash3_64::oneshot_with_seed(self.keys.row_seed, columns) as i64;
                let key = &columns[4..4 + key_len];
                let (lane_hash, identity) = hash_identity(key, self.keys.identity_seed);
                out.rows.push(Row {
                    start: record.start as u32,
                    end: record.end as u32,
                    line: record.line,
                    lane_hash,
                    identity,
                    source_hash,
                    at: at as u32,
                    len: columns.len() as u32,
                    key_len: key_len as u16,
                });
                Ok(warning)
            }
            Err(reject) => {
                out.payload.truncate(at);
                Err(reject)
            }
        }
    }

    /// The bytes of `customer_id`, and the warning about the date.
    #[inline(always)]
    fn encode(
        &mut self,
        raw: &[RawField],
        payload: &mut Vec<u8>,
    ) -> Result<(usize, Option<Code>), Reject> {
        let chunk = self.chunk;
        let sources = &self.sources;
        let column = |field: usize| raw[sources[field]];
        let scratch = &mut self.scratch;
        let writer = Writer {
            chunk,
            has_wide: self.has_wide,
        };

        let given = identity(content_of(chunk, column(CUSTOMER_ID), scratch));
        let key_len = if given.is_empty() {
            let email = content_of(chunk, column(EMAIL), scratch);
            let key = email_identity(email).ok_or((Code::NoIdentity, None))?;
            // An e-mail that is too long for its own column is the error to report.
            writer.text(EMAIL, &key, payload)?;
            key.len()
        } else {
            writer.text(CUSTOMER_ID, &given, payload)?;
            given.len()
        };

        let mut split: Option<(&[u8], &[u8])> = None;
        if self.has_full_name && content_of(chunk, column(FIRST_NAME), scratch).is_empty() {
            let full = content_of(chunk, column(FULL_NAME), &mut self.names);
            let space = memchr::memchr(b' ', full).unwrap_or(full.len());
            let (first, last) = full.split_at(space);
            split = Some((trim_bytes(first), trim_bytes(last)));
        }

        let mut warning = None;
        for (number, field) in FIELDS.iter().enumerate().skip(1) {
            let mut value = content_of(chunk, column(number), scratch);
            if let Some((first, last)) = split {
                match number {
                    FIRST_NAME => value = first,
                    LAST_NAME if value.is_empty() => value = last,
                    _ => {}
                }
            }
            if value.is_empty() {
                put_null(payload);
                continue;
            }
            match field.kind {
                Kind::Text | Kind::Identity => writer.text(number, value, payload)?,
                Kind::Email => writer.email(number, value, payload)?,
                Kind::Date => match parse_date(value, self.date_order) {
                    Ok(days) => put_i32(payload, days),
                    Err(error) => {
                        warning = Some(match error {
                            DateError::Unreadable => Code::UnreadableDate,
                            DateError::Ambiguous => Code::AmbiguousDate,
                        });
                        put_null(payload);
                    }
                },
            }
        }
        Ok((key_len, warning))
    }
}

struct Writer<'a> {
    chunk: &'a [u8],
    has_wide: bool,
}

impl Writer<'_> {
    #[inline(always)]
    fn text(&self, field: usize, value: &[u8], payload: &mut Vec<u8>) -> Result<(), Reject> {
        let limit = FIELDS[field].limit as usize;
        // A value has at most as many characters as bytes.
        if value.len() > limit && (!self.has_wide || count_characters(value) > limit) {
            return Err((Code::TooLong, Some(field as u8)));
        }
        put_bytes_within(payload, value, self.chunk);
        Ok(())
    }

    #[inline(always)]
    fn email(&self, field: usize, value: &[u8], payload: &mut Vec<u8>) -> Result<(), Reject> {
        if self.has_wide && !value.is_ascii() {
            let stored = String::from_utf8_lossy(value);
            return self.text(field, email(&stored).as_bytes(), payload);
        }
        self.text(field, value, payload)?;
        let start = payload.len() - value.len();
        payload[start..].make_ascii_lowercase();
        Ok(())
    }
}
