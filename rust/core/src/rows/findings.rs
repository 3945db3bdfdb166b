//! What can be wrong with a record: the catalogue of codes, and where each was found.

/// What is wrong. The names are stored with the rejects and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    NoIdentity,
    UnclosedQuote,
    ExtraFields,
    NulByte,
    InvalidUtf8,
    TooLong,
    FieldOverLimit,
    RecordOverLimit,
    UnreadableDate,
    AmbiguousDate,
}

impl Code {
    pub const ALL: [Code; 10] = [
        Code::NoIdentity,
        Code::UnclosedQuote,
        Code::ExtraFields,
        Code::NulByte,
        Code::InvalidUtf8,
        Code::TooLong,
        Code::FieldOverLimit,
        Code::RecordOverLimit,
        Code::UnreadableDate,
        Code::AmbiguousDate,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NoIdentity => "no_identity",
            Code::UnclosedQuote => "unclosed_quote",
            Code::ExtraFields => "extra_fields",
            Code::NulByte => "nul_byte",
            Code::InvalidUtf8 => "invalid_utf8",
            Code::TooLong => "too_long",
            Code::FieldOverLimit => "field_over_limit",
            Code::RecordOverLimit => "record_over_limit",
            Code::UnreadableDate => "unreadable_date",
            Code::AmbiguousDate => "ambiguous_date",
        }
    }

    pub const fn message(self) -> &'static str {
        match self {
            Code::NoIdentity => "neither a customer id nor an e-mail of the form x@y",
            Code::UnclosedQuote => "a quote is not closed within 1 MiB",
            Code::ExtraFields => "more non-empty fields than headers",
            Code::NulByte => "a NUL byte, which PostgreSQL cannot store",
            Code::InvalidUtf8 => "bytes that are not UTF-8",
            Code::TooLong => "a value longer than its column allows",
            Code::FieldOverLimit => "a field over 1 MiB",
            Code::RecordOverLimit => "a record over 8 MiB",
            Code::UnreadableDate => "a date in no known form; the field was left empty",
            Code::AmbiguousDate => {
                "day and month may be either way round; the field was left empty: set --date-order"
            }
        }
    }

    /// A warning comes with its row; any other code means that there is no row.
    pub const fn is_warning(self) -> bool {
        matches!(self, Code::UnreadableDate | Code::AmbiguousDate)
    }
}

/// Something wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The record's span in the chunk, line end included.
    pub start: u32,
    pub end: u32,
    /// Line ends of the chunk before the record.
    pub line: u32,
    pub code: Code,
    /// The field it is about, if it is about one.
    pub field: Option<u8>,
    pub is_warning: bool,
}
