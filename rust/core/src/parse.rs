//! A chunk of whole records in, rows out: encoded as COPY wants them, and hashed.
//!
//! Has no state between chunks, so any number of threads may run it. A record is a row or a
//! reject; nothing that a file can hold makes this fail.

use twox_hash::{XxHash3_64, XxHash3_128};

use crate::convert::{count_characters, email_identity, identity, lower_case, trim_bytes};
use crate::customer::{
    CUSTOMER_ID, EMAIL, FIELDS, FIRST_NAME, FULL_NAME, Kind, LAST_NAME, RULES_VERSION,
};
use crate::dates::{DateError, DateOrder, parse_date};
use crate::fields::{Form, Limits, RawField, Record, Scanner, Shape, unquote};
pub use crate::findings::{Code, Finding};
use crate::plan::{Plan, Target};
use crate::simd::{Index, push_value};

/// The seeds of the hashes of one import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKeys {
    /// The same for every import into one database.
    pub identity_seed: u64,
    /// Also covers what decides how a record becomes a row, so that other rules, other columns
    /// or another treatment of blanks make it another row.
    pub row_seed: u64,
}

impl HashKeys {
    pub fn new(database_seed: u64, plan: &Plan, blank_clear: bool) -> Self {
        let mut rules = [0u8; 9];
        rules[..4].copy_from_slice(&RULES_VERSION.to_le_bytes());
        rules[4..8].copy_from_slice(&plan.mapped.to_le_bytes());
        rules[8] = u8::from(blank_clear);
        HashKeys {
            identity_seed: database_seed,
            row_seed: XxHash3_64::oneshot_with_seed(database_seed, &rules),
        }
    }
}

/// The first and second half of the 128-bit hash of a `customer_id`: its lane, and what it is
/// known by.
pub fn hash_identity(customer_id: &[u8], seed: u64) -> (u64, u64) {
    let hash = XxHash3_128::oneshot_with_seed(seed, customer_id);
    ((hash >> 64) as u64, hash as u64)
}

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

/// What a chunk became. Cleared by every [`parse`], so that its memory is used again.
#[derive(Default)]
pub struct Parsed {
    /// For each row the twelve columns as fields of a binary COPY tuple: length, big endian, or
    /// -1 for NULL, and the bytes.
    pub payload: Vec<u8>,
    pub rows: Vec<Row>,
    /// Rejects, and warnings about rows, in file order.
    pub findings: Vec<Finding>,
    /// Line ends in the chunk.
    pub lines: u32,
    index: Index,
}

/// Turns a chunk of whole records, as [`crate::scan::Cutter`] cuts them, into rows.
/// The chunk is smaller than 2 GiB.
pub fn parse(chunk: &[u8], plan: &Plan, keys: &HashKeys, out: &mut Parsed) {
    parse_within(chunk, plan, keys, Limits::default(), out);
}

/// [`parse`] with other limits than the engine's.
pub fn parse_within(chunk: &[u8], plan: &Plan, keys: &HashKeys, limits: Limits, out: &mut Parsed) {
    out.payload.clear();
    out.rows.clear();
    out.findings.clear();
    let mut index = std::mem::take(&mut out.index);
    index.build(chunk, plan.delimiter);
    let is_valid = !index.has_nul && (index.is_ascii || std::str::from_utf8(chunk).is_ok());

    let mut sources = [None; FULL_NAME + 1];
    for (column, target) in plan.columns.iter().enumerate() {
        match *target {
            Target::Skip => {}
            Target::Field(field) => sources[field as usize] = Some(column),
            Target::FullName => sources[FULL_NAME] = Some(column),
        }
    }
    let mut rows = Rows {
        chunk,
        sources,
        date_order: plan.date_order,
        keys: *keys,
        is_ascii: index.is_ascii,
        scratch: Vec::new(),
        composed: Vec::new(),
    };
    let width = plan.columns.len();
    let blank = RawField {
        start: 0,
        end: 0,
        form: Form::Plain,
    };
    let mut raw = vec![blank; width];
    let mut surplus = Vec::new();
    let mut scanner = Scanner::new(chunk, &index, plan.delimiter, limits);
    loop {
        let mut count = 0;
        let mut is_extra = false;
        let record = scanner.next_record(|number, field| {
            match raw.get_mut(number) {
                Some(place) => *place = field,
                None => is_extra |= !content_of(chunk, field, &mut surplus).is_empty(),
            }
            count = number + 1;
        });
        let Some(record) = record else { break };
        if count < width {
            raw[count..].fill(blank);
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
            Ok(Some(code)) => (code, Some(crate::customer::SUBSCRIPTION_DATE as u8), true),
            Err((code, field)) => (code, field, false),
        };
        out.findings.push(Finding {
            start: record.start as u32,
            end: record.end as u32,
            line: record.line,
            code: finding.0,
            field: finding.1,
            warning: finding.2,
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
    sources: [Option<usize>; FULL_NAME + 1],
    date_order: DateOrder,
    keys: HashKeys,
    is_ascii: bool,
    scratch: Vec<u8>,
    composed: Vec<u8>,
}

type Reject = (Code, Option<u8>);

impl Rows<'_> {
    /// Appends the row of a record to the payload, or takes back what it had appended. `Ok` may
    /// hold a warning about its date.
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

    fn content<'b>(&'b self, raw: &[RawField], field: usize, scratch: &'b mut Vec<u8>) -> &'b [u8] {
        match self.sources[field] {
            Some(column) => content_of(self.chunk, raw[column], scratch),
            None => &[],
        }
    }

    /// The bytes of `customer_id`, and the warning about the date.
    fn encode(
        &mut self,
        raw: &[RawField],
        payload: &mut Vec<u8>,
    ) -> Result<(usize, Option<Code>), Reject> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut names = std::mem::take(&mut self.composed);
        let outcome = self.encode_with(raw, payload, &mut scratch, &mut names);
        (self.scratch, self.composed) = (scratch, names);
        outcome
    }

    fn encode_with(
        &self,
        raw: &[RawField],
        payload: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
        names: &mut Vec<u8>,
    ) -> Result<(usize, Option<Code>), Reject> {
        let given = identity(self.content(raw, CUSTOMER_ID, scratch));
        let key_len = if given.is_empty() {
            let email = self.content(raw, EMAIL, scratch);
            let key = email_identity(email).ok_or((Code::NoIdentity, None))?;
            // An e-mail that is too long for its own column is the error to report.
            self.push(EMAIL, &key, payload)?;
            key.len()
        } else {
            self.push(CUSTOMER_ID, &given, payload)?;
            given.len()
        };

        let mut split = None;
        if self.sources[FULL_NAME].is_some() && self.content(raw, FIRST_NAME, scratch).is_empty() {
            let full = self.content(raw, FULL_NAME, names);
            let space = full
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(full.len());
            let (first, last) = full.split_at(space);
            split = Some((trim_bytes(first), trim_bytes(last)));
        }

        let mut warning = None;
        for (number, field) in FIELDS.iter().enumerate().skip(1) {
            let mut value = self.content(raw, number, scratch);
            if let Some((first, last)) = split {
                match number {
                    FIRST_NAME => value = first,
                    LAST_NAME if value.is_empty() => value = last,
                    _ => {}
                }
            }
            if value.is_empty() {
                payload.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            match field.kind {
                Kind::Text | Kind::Identity => self.push(number, value, payload)?,
                Kind::Email if self.is_ascii || value.is_ascii() => {
                    self.push(number, value, payload)?;
                    let start = payload.len() - value.len();
                    payload[start..].make_ascii_lowercase();
                }
                Kind::Email => self.push(number, &lower_case(value), payload)?,
                Kind::Date => match parse_date(value, self.date_order) {
                    Ok(days) => push_value(payload, &days.to_be_bytes()),
                    Err(error) => {
                        warning = Some(match error {
                            DateError::Unreadable => Code::UnreadableDate,
                            DateError::Ambiguous => Code::AmbiguousDate,
                        });
                        payload.extend_from_slice(&(-1i32).to_be_bytes());
                    }
                },
            }
        }
        Ok((key_len, warning))
    }

    #[inline(always)]
    fn push(&self, field: usize, value: &[u8], payload: &mut Vec<u8>) -> Result<(), Reject> {
        let limit = FIELDS[field].limit as usize;
        // A value has at most as many characters as bytes.
        if value.len() > limit && (self.is_ascii || count_characters(value) > limit) {
            return Err((Code::TooLong, Some(field as u8)));
        }
        push_value(payload, value);
        Ok(())
    }
}
