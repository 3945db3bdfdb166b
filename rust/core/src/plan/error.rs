//! Why a file cannot be imported as it is.

use crate::customer::FIELDS;

/// A header record is looked for within this many bytes; a sample for
/// `Plan::from_header` never needs more.
pub const HEADER_BYTES: usize = 1 << 20;

/// Why a file cannot be imported as it is. Found before there is a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// There is nothing but blank lines.
    NoHeader,
    HeaderTooLong,
    /// UTF-16, another encoding, or not a text.
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
    /// Never changes, so that programs may compare it.
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
                "the delimiter must be one ASCII character, such as a comma, a semicolon, a TAB or a bar; letters, \
                 digits, the quote, line ends and NUL cannot be it"
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
