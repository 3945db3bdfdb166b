//! The plan of an import: its delimiter, and which column of the file is which field.
//!
//! Decided once from the header record and saved with the job. A resumed import restores it and guesses nothing.

pub mod error;
mod header;
pub mod mapping;

use crate::customer::{CUSTOMER_ID, EMAIL};
use crate::values::dates::DateOrder;
use error::PlanError;
use header::{choose_delimiter, is_delimiter, read_header};
use mapping::{Target, accepted_identities, find_field};

#[derive(Clone, Debug)]
pub struct Plan {
    pub delimiter: u8,
    /// One for each column of the file.
    pub columns: Vec<Target>,
    /// The fields that have a column: bit `i` is `FIELDS[i]`, bit `FULL_NAME` the full name.
    pub mapped: u32,
    pub date_order: DateOrder,
    pub headers: Vec<String>,
    /// The headers of the columns that are not read; empty headers are left out.
    pub unmapped: Vec<String>,
}

/// The delimiter that a caller gives as a text.
pub fn delimiter_of(text: &str) -> Result<u8, PlanError> {
    match text.as_bytes() {
        [byte] if is_delimiter(*byte) => Ok(*byte),
        _ => Err(PlanError::BadDelimiter),
    }
}

impl Plan {
    /// Reads the header record and decides. Also returns the bytes and lines before the first record.
    ///
    /// `sample`: the start of the file, at least [`error::HEADER_BYTES`] or all of it.
    /// `delimiter`: None takes the one under which a column says who a customer is; of several, the one that gives
    /// most columns.
    /// `overrides`: pairs of a header and a field; an empty field leaves the column out.
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

    /// The plan that a job was started with. `mapping` is what [`Plan::mapping`] returned, without the positions:
    /// header and field in the order of the columns.
    pub fn restore(
        delimiter: u8,
        headers: Vec<String>,
        mapping: &[(String, String)],
        date_order: DateOrder,
    ) -> Result<Plan, PlanError> {
        if !is_delimiter(delimiter) {
            return Err(PlanError::BadDelimiter);
        }
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
