//! Which header means which field.

use crate::customer::{
    CUSTOMER_ID, EMAIL, FIELDS, FULL_NAME, FULL_NAME_ALIASES, FULL_NAME_NAMES, PHONE1, PHONE2,
};
use crate::plan::error::PlanError;

/// What becomes of a column of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Skip,
    /// An index into [`FIELDS`].
    Field(u8),
    FullName,
}

impl Target {
    pub(crate) fn bit(self) -> u32 {
        match self {
            Target::Skip => 0,
            Target::Field(field) => 1 << field,
            Target::FullName => 1 << FULL_NAME,
        }
    }
}

/// A name as it is compared: without case, spaces, underscores, hyphens and dots.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace() && !matches!(c, '_' | '-' | '.'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// The field of that name, in camelCase or snake_case.
pub fn find_field(name: &str) -> Option<Target> {
    if FULL_NAME_NAMES.contains(&name) {
        return Some(Target::FullName);
    }
    let at = FIELDS
        .iter()
        .position(|field| field.name == name || field.camel == name)?;
    Some(Target::Field(at as u8))
}

/// The snake_case name of a field; None for a column that is not read.
pub fn name_of(target: Target) -> Option<&'static str> {
    match target {
        Target::Skip => None,
        Target::Field(field) => Some(FIELDS[field as usize].name),
        Target::FullName => Some(FULL_NAME_NAMES[0]),
    }
}

/// The header names under which a column says who a customer is.
pub fn accepted_identities() -> Vec<String> {
    let names = FIELDS[CUSTOMER_ID]
        .aliases
        .iter()
        .chain(FIELDS[EMAIL].aliases);
    names.map(|name| name.to_string()).collect()
}

/// The field that a header means by itself, and how good the name is (0 is best).
fn claim_of(header: &str) -> Option<(usize, usize)> {
    let folded = fold(header);
    let lists = FIELDS
        .iter()
        .map(|field| field.aliases)
        .chain([FULL_NAME_ALIASES]);
    lists.enumerate().find_map(|(field, aliases)| {
        let rank = aliases.iter().position(|alias| fold(alias) == folded)?;
        Some((field, rank))
    })
}

pub(crate) fn has_identity(headers: &[String], overrides: &[(String, String)]) -> bool {
    let is_identity =
        |target| target == Target::Field(CUSTOMER_ID as u8) || target == Target::Field(EMAIL as u8);
    let given = overrides.iter().any(|(header, field)| {
        find_field(field).is_some_and(is_identity) && !columns_named(headers, header).is_empty()
    });
    given
        || headers
            .iter()
            .any(|header| claim_of(header).is_some_and(|(field, _)| is_identity(target_of(field))))
}

fn target_of(field: usize) -> Target {
    if field == FULL_NAME {
        Target::FullName
    } else {
        Target::Field(field as u8)
    }
}

/// The columns that a name given by the user means: those with exactly this header. If there are none, those whose
/// header differs only in what [`fold`] ignores.
fn columns_named(headers: &[String], name: &str) -> Vec<usize> {
    let matching = |test: &dyn Fn(&String) -> bool| -> Vec<usize> {
        let columns = headers.iter().enumerate();
        columns
            .filter(|(_, header)| test(header))
            .map(|(at, _)| at)
            .collect()
    };
    let exact = matching(&|header| header == name.trim());
    if exact.is_empty() {
        matching(&|header| fold(header) == fold(name))
    } else {
        exact
    }
}

/// Gives every column its field. The user's overrides come first. Of several columns whose names mean one field, the
/// one with the best rank has it. A second column that means phone1 becomes phone2 if no other column is phone2.
///
/// Fails with [`PlanError::Ambiguous`] when two columns of one rank mean the same field.
pub(crate) fn match_columns(
    headers: &[String],
    overrides: &[(String, String)],
) -> Result<Vec<Target>, PlanError> {
    let mut columns = vec![Target::Skip; headers.len()];
    let mut is_given = vec![false; headers.len()];
    let mut owners: [Option<usize>; FULL_NAME + 1] = [None; FULL_NAME + 1];

    for (name, field) in overrides {
        let found = columns_named(headers, name);
        let Some(&column) = found.first() else {
            return Err(PlanError::UnknownColumn {
                name: name.clone(),
                headers: headers.to_vec(),
            });
        };
        if field.is_empty() {
            found.iter().for_each(|&column| is_given[column] = true);
            continue;
        }
        let target = find_field(field).ok_or_else(|| PlanError::UnknownField {
            name: field.clone(),
        })?;
        let slot = match target {
            Target::Field(field) => field as usize,
            _ => FULL_NAME,
        };
        let rival = owners[slot]
            .filter(|&owner| owner != column)
            .or(found.get(1).copied());
        if let Some(rival) = rival {
            return Err(ambiguous(
                slot,
                headers,
                rival.min(column),
                rival.max(column),
            ));
        }
        owners[slot] = Some(column);
        columns[column] = target;
        is_given[column] = true;
    }

    let mut claims: [Vec<(usize, usize)>; FULL_NAME + 1] = Default::default();
    for (column, header) in headers
        .iter()
        .enumerate()
        .filter(|(column, _)| !is_given[*column])
    {
        if let Some((field, rank)) = claim_of(header) {
            claims[field].push((rank, column));
        }
    }
    for field in 0..claims.len() {
        // Stable: columns of one rank stay in file order.
        claims[field].sort_by_key(|&(rank, _)| rank);
        if owners[field].is_none() && !claims[field].is_empty() {
            let (rank, column) = claims[field].remove(0);
            if let Some(&(next, rival)) = claims[field].first()
                && next == rank
            {
                return Err(ambiguous(field, headers, column, rival));
            }
            owners[field] = Some(column);
            columns[column] = target_of(field);
        }
        if field == PHONE1 && claims[PHONE2].is_empty() {
            // Ranked below every name of phone2 itself, so they never meet.
            claims[PHONE2] = std::mem::take(&mut claims[PHONE1]);
        }
    }
    Ok(columns)
}

fn ambiguous(field: usize, headers: &[String], first: usize, second: usize) -> PlanError {
    PlanError::Ambiguous {
        field: FIELDS
            .get(field)
            .map_or(FULL_NAME_NAMES[1], |field| field.camel)
            .to_owned(),
        first: headers[first].clone(),
        second: headers[second].clone(),
    }
}
