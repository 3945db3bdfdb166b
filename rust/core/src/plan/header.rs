//! Reads the header record, and finds the delimiter if none is given.

use crate::csv::index::Index;
use crate::csv::scanner::{Form, Limits, RawField, Scanner, Shape, unquote};
use crate::plan::error::{HEADER_BYTES, PlanError};
use crate::plan::mapping;
use crate::values::convert::trim;

/// The delimiters that are tried when none is given; of equal ones the first is taken.
pub const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Whether fields may be separated by this byte. Letters and digits are refused because they stand in every header: who
/// gives `t` means a TAB.
pub(crate) fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, 0 | b'"' | b'\n' | b'\r')
}

/// A header record as the scanner sees it under one delimiter.
pub(crate) struct Header {
    pub names: Vec<String>,
    /// Where the first record starts.
    pub end: usize,
    pub lines: u32,
}

pub(crate) fn choose_delimiter(
    sample: &[u8],
    overrides: &[(String, String)],
) -> Result<(u8, Header), PlanError> {
    let mut best: Option<(u8, Header)> = None;
    let mut best_score = (false, 0);
    let mut failure = None;
    for delimiter in DELIMITERS {
        match read_header(sample, delimiter) {
            Ok(header) => {
                let has_identity = mapping::has_identity(&header.names, overrides);
                let score = (has_identity, header.names.len());
                if score > best_score {
                    (best, best_score) = (Some((delimiter, header)), score);
                }
            }
            Err(error) => failure = Some(error),
        }
    }
    match (best, failure) {
        // The right delimiter may be the one whose header could not be read.
        (_, Some(error)) if !best_score.0 => Err(error),
        (best, _) => best.ok_or(PlanError::NoHeader),
    }
}

pub(crate) fn read_header(sample: &[u8], delimiter: u8) -> Result<Header, PlanError> {
    if !is_delimiter(delimiter) {
        return Err(PlanError::BadDelimiter);
    }
    let start = if sample.starts_with(BOM) {
        BOM.len()
    } else {
        0
    };
    let text = &sample[start..sample.len().min(HEADER_BYTES)];
    let mut index = Index::default();
    index.build(text, delimiter);
    let mut scanner = Scanner::new(text, &index, delimiter, Limits::default());
    let mut raw_fields: Vec<RawField> = Vec::new();
    let record = scanner.next_record(|_, raw| raw_fields.push(raw));
    let record = record.ok_or(match text.len() == HEADER_BYTES {
        true => PlanError::HeaderTooLong,
        false => PlanError::NoHeader,
    })?;
    if record.shape != Shape::Whole {
        return Err(PlanError::HeaderUnclosedQuote);
    }
    if record.end == text.len() && sample.len() > start + text.len() {
        return Err(PlanError::HeaderTooLong);
    }
    let mut content = Vec::new();
    let mut names = Vec::with_capacity(raw_fields.len());
    for raw in raw_fields {
        let span = &text[raw.start as usize..raw.end as usize];
        let bytes = match raw.form {
            Form::Plain => span,
            Form::Quoted => unquote(span, &mut content),
        };
        let name = std::str::from_utf8(bytes).map_err(|_| PlanError::HeaderNotUtf8)?;
        if name.contains('\0') {
            return Err(PlanError::HeaderNotUtf8);
        }
        names.push(trim(name).to_owned());
    }
    Ok(Header {
        names,
        end: start + record.end,
        lines: scanner.lines(),
    })
}
