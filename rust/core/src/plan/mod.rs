//! The plan of an import: its delimiter, and which column of the file is which field.
//!
//! Decided once from the header record, saved on the job, and never guessed again on resume.

mod mapping;

use crate::csv::scanner::{Form, Limits, RawField, Scanner, Shape, unquote};
use crate::customer::{CUSTOMER_ID, EMAIL, FIELDS, FULL_NAME};

use crate::csv::index::Index;

pub use crate::plan::mapping::{accepted_identities, find_field};
pub use crate::values::dates::DateOrder;

/// The delimiters that are tried when none is told, in order of preference among equals.
pub const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A header record is looked for within this many bytes; a sample for
/// [`Plan::from_header`] never needs more.
pub const HEADER_BYTES: usize = 1 << 20;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What becomes of a column of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Skip,
    /// An index into [`FIELDS`].
    Field(u8),
    FullName,
}

impl Target {
    fn bit(self) -> u32 {
        match self {
            Target::Skip => 0,
            Target::Field(field) => 1 << field,
            Target::FullName => 1 << FULL_NAME,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub delimiter: u8,
    /// One for each column of the file.
    pub columns: Vec<Target>,
    /// The fields that have a column: bit `i` is `FIELDS[i]`, bit 12 the full name.
    pub mapped: u32,
    pub date_order: DateOrder,
    pub headers: Vec<String>,
    /// The headers of the columns that are not read, but for empty ones.
    pub unmapped: Vec<String>,
}

/// Why a file cannot be imported as it is. Raised before there is a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// There is nothing but blank lines.
    NoHeader,
    HeaderTooLong,
    /// UTF-16, another encoding, or no text at all.
    HeaderNotUtf8,
    HeaderUnclosedQuote,
    BadDelimiter,
    NoIdentity {
        headers: Vec<String>,
        accepted: Vec<String>,
    },
    Ambiguous {
        field: String,
        first: String,
        second: String,
    },
    UnknownField {
        name: String,
    },
    UnknownColumn {
        name: String,
        headers: Vec<String>,
    },
}

impl PlanError {
    /// Stable: programs may compare it.
    pub fn code(&self) -> &'static str {
        match self {
            PlanError::NoHeader => "no_header",
            PlanError::HeaderTooLong => "header_too_long",
            PlanError::HeaderNotUtf8 => "header_not_utf8",
            PlanError::HeaderUnclosedQuote => "header_unclosed_quote",
            PlanError::BadDelimiter => "bad_delimiter",
            PlanError::NoIdentity { .. } => "no_identity_column",
            PlanError::Ambiguous { .. } => "ambiguous_columns",
            PlanError::UnknownField { .. } => "unknown_field",
            PlanError::UnknownColumn { .. } => "unknown_column",
        }
    }
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PlanError::NoHeader => write!(f, "the file is empty: there is no header record"),
            PlanError::HeaderTooLong => {
                write!(
                    f,
                    "no header record ends within the first {HEADER_BYTES} bytes"
                )
            }
            PlanError::HeaderNotUtf8 => {
                write!(
                    f,
                    "the header record is not UTF-8 text; save the file as UTF-8"
                )
            }
            PlanError::HeaderUnclosedQuote => {
                write!(f, "a quote in the header record is not closed")
            }
            PlanError::BadDelimiter => write!(
                f,
                "the delimiter must be one ASCII character, and neither a quote nor a line end"
            ),
            PlanError::NoIdentity { headers, accepted } => write!(
                f,
                "no column says who a customer is. Headers seen: {}. Accepted: {}",
                quoted(headers),
                accepted.join(", ")
            ),
            PlanError::Ambiguous {
                field,
                first,
                second,
            } => write!(
                f,
                "the columns {first:?} and {second:?} both claim {field}; choose one with --map"
            ),
            PlanError::UnknownField { name } => {
                let names: Vec<_> = FIELDS.iter().map(|field| field.camel).collect();
                write!(
                    f,
                    "there is no field {name:?}; the fields are {}, fullName",
                    names.join(", ")
                )
            }
            PlanError::UnknownColumn { name, headers } => {
                write!(
                    f,
                    "the file has no column {name:?}. Headers seen: {}",
                    quoted(headers)
                )
            }
        }
    }
}

impl std::error::Error for PlanError {}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A header record as the scanner sees it under one delimiter.
struct Header {
    names: Vec<String>,
    /// Where the data starts.
    end: usize,
    lines: u32,
}

impl Plan {
    /// Reads the header record and decides. `sample` is the start of the file: all of it, or at
    /// least [`HEADER_BYTES`]. Without `delimiter` the one is taken under which a column says who
    /// a customer is, then the one that gives most columns. `overrides` are pairs of a header and
    /// a field (empty: leave the column out). Also returns how many bytes and lines come before
    /// the data.
    pub fn from_header(
        sample: &[u8],
        delimiter: Option<u8>,
        overrides: &[(String, String)],
        date_order: DateOrder,
    ) -> Result<(Plan, usize, u32), PlanError> {
        let (delimiter, header) = match delimiter {
            Some(delimiter) => (delimiter, read_header(sample, delimiter)?),
            None => choose_delimiter(sample, overrides)?,
        };
        let columns = mapping::match_columns(&header.names, overrides)?;
        let plan = Plan::assemble(delimiter, header.names, columns, date_order);
        if plan.mapped & (1 << CUSTOMER_ID | 1 << EMAIL) == 0 {
            let accepted = accepted_identities();
            return Err(PlanError::NoIdentity {
                headers: plan.headers,
                accepted,
            });
        }
        Ok((plan, header.end, header.lines))
    }

    /// The plan that a job was started with. `mapping` is what [`Plan::mapping`] gave, without
    /// the positions: header and field in the order of the columns.
    pub fn restore(
        delimiter: u8,
        headers: Vec<String>,
        mapping: &[(String, String)],
        date_order: DateOrder,
    ) -> Result<Plan, PlanError> {
        let mut columns = vec![Target::Skip; headers.len()];
        let mut from = 0;
        for (header, field) in mapping {
            let target = find_field(field).ok_or_else(|| PlanError::UnknownField {
                name: field.clone(),
            })?;
            // Two columns may have the same header, so the search goes on behind the last find.
            let Some(at) = headers[from..].iter().position(|name| name == header) else {
                let name = header.clone();
                return Err(PlanError::UnknownColumn { name, headers });
            };
            columns[from + at] = target;
            from += at + 1;
        }
        Ok(Plan::assemble(delimiter, headers, columns, date_order))
    }

    fn assemble(
        delimiter: u8,
        headers: Vec<String>,
        columns: Vec<Target>,
        date_order: DateOrder,
    ) -> Plan {
        let mapped = columns.iter().fold(0, |bits, target| bits | target.bit());
        let unmapped = std::iter::zip(&headers, &columns)
            .filter(|(name, target)| **target == Target::Skip && !name.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        Plan {
            delimiter,
            columns,
            mapped,
            date_order,
            headers,
            unmapped,
        }
    }

    /// The columns that are read: position, header, and the snake_case name of the field.
    pub fn mapping(&self) -> Vec<(usize, String, &'static str)> {
        let columns = std::iter::zip(&self.headers, &self.columns).enumerate();
        columns
            .filter_map(|(position, (header, target))| {
                mapping::name_of(*target).map(|name| (position, header.clone(), name))
            })
            .collect()
    }
}

fn choose_delimiter(
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
        // Under the right delimiter the header may be what is broken.
        (_, Some(error)) if !best_score.0 => Err(error),
        (best, _) => best.ok_or(PlanError::NoHeader),
    }
}

fn read_header(sample: &[u8], delimiter: u8) -> Result<Header, PlanError> {
    if !delimiter.is_ascii() || matches!(delimiter, 0 | b'"' | b'\n' | b'\r') {
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
        names.push(crate::values::convert::trim(name).to_owned());
    }
    Ok(Header {
        names,
        end: start + record.end,
        lines: scanner.lines(),
    })
}
