//! How long the records of a file are, by the first of them.

use crate::csv::cutter::{Cut, Cutter};
use crate::identity::hash::HashKeys;
use crate::plan::Plan;
use crate::rows::parse::{Parsed, parse};

const SAMPLE_BYTES_MOST: usize = 4 << 20;

/// Bytes of a record on average, by the records that are whole in `sample`; the bytes of the sample if none is.
/// Reads the first four mebibytes of it at most.
pub fn average_record_bytes(sample: &[u8], plan: &Plan) -> usize {
    let sample = &sample[..sample.len().min(SAMPLE_BYTES_MOST)];
    let Cut::Records { end } = Cutter::new(plan.delimiter).cut(sample, false) else {
        return sample.len().max(1);
    };
    let mut parsed = Parsed::default();
    parse(
        &sample[..end],
        plan,
        &HashKeys::new(0, plan.mapped, false),
        &mut parsed,
    );
    // The record that the sample holds in part counts with the bytes that are seen: they may be most of the sample.
    let records = parsed.rows.len() + parsed.findings.len() + usize::from(end < sample.len());
    sample.len() / records.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::dates::DateOrder;

    macro_rules! averages {
        ($($name:ident: $sample:literal => $expected:literal;)*) => {
            $(#[test] fn $name() {
                let (plan, ..) = Plan::from_header(b"id,city\n", None, &[], DateOrder::Auto).unwrap();
                assert_eq!(average_record_bytes($sample, &plan), $expected);
            })*
        };
    }

    averages! {
        nothing_counts_as_a_byte: b"" => 1;
        one_in_part_counts_with_what_is_seen: b"1,a" => 3;
        whole_records: b"1,a\n2,bcd\n" => 5;
        rejects_are_records: b"1,a\n,bcd\n" => 4;
        the_last_in_part_is_one_more: b"1,a\n2,bcdefghij" => 7;
    }
}
