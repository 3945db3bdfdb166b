//! The scanner against csv-core, and against itself for every way to cut a file.
//!
//! Differences from csv-core, all of them wanted:
//! 1. a quote that is not closed, before the end or within the limit, ends its record at the next
//!    line end (csv-core reads on, to the end of the file if need be);
//! 2. fields and records over the limits are rejects;
//! 3. a byte order mark is passed by the plan, where the file starts, not by the scanner.

use customer_panel_core::csv::cutter::{Cut, Cutter};
use customer_panel_core::csv::scanner::{Limits, Shape, read_records};
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::plan::Plan;
use customer_panel_core::rows::findings::Code;
use customer_panel_core::rows::parse::{Parsed, parse_within};
use customer_panel_core::values::dates::DateOrder;
use proptest::prelude::*;

/// So small that random input meets every limit.
const TIGHT: Limits = Limits {
    field: 24,
    record: 60,
};
const WIDE: Limits = Limits {
    field: 1 << 20,
    record: 8 << 20,
};

/// Bytes that mean something to the scanner far more often than chance would have it.
fn text(length: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        6 => Just(b'a'), 3 => Just(b'"'), 4 => Just(b','), 3 => Just(b'\n'), 2 => Just(b'\r'),
        1 => Just(b' '), 1 => Just(b'@'), 1 => Just(0xC3), 1 => Just(0xA9),
    ];
    prop::collection::vec(byte, 0..length)
}

/// As [`text`], but with quoted fields that are mostly right, and long ones.
fn records() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => "[a-z@ ]{0,9}".prop_map(String::into_bytes),
        3 => r#""([a-z,\n\r]|""){0,12}""#.prop_map(String::into_bytes),
        1 => r#""([a-z,\n\r]|""){0,40}"?"#.prop_map(String::into_bytes),
        1 => text(90),
    ];
    let end = prop_oneof![6 => Just(","), 2 => Just("\n"), 1 => Just("\r\n"), 1 => Just("\r")];
    prop::collection::vec((piece, end), 0..30).prop_map(|parts| {
        parts
            .into_iter()
            .flat_map(|(piece, end)| [piece, end.into()].concat())
            .collect()
    })
}

fn csv_core_records(mut bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut reader = csv_core::Reader::new();
    let mut records = Vec::new();
    let mut output = vec![0; bytes.len() + 1];
    let mut ends = vec![0; bytes.len() + 2];
    let (mut written, mut count) = (0, 0);
    loop {
        let (result, read, more, further) =
            reader.read_record(bytes, &mut output[written..], &mut ends[count..]);
        bytes = &bytes[read..];
        (written, count) = (written + more, count + further);
        match result {
            csv_core::ReadRecordResult::Record => {
                let starts = [0].into_iter().chain(ends.iter().copied());
                let spans = starts.zip(&ends[..count]);
                records.push(
                    spans
                        .map(|(start, end)| output[start..*end].to_vec())
                        .collect(),
                );
                (written, count) = (0, 0);
            }
            // csv-core takes an empty input for the end.
            csv_core::ReadRecordResult::InputEmpty => {}
            csv_core::ReadRecordResult::End => return records,
            other => panic!("the buffers are large enough: {other:?}"),
        }
    }
}

fn plan() -> Plan {
    let header = b"id,email,notes\n";
    Plan::from_header(header, None, &[], DateOrder::Auto)
        .unwrap()
        .0
}

/// What a file becomes: rows as (start, end, line, payload, hash), findings as (start, end, line,
/// code), with absolute spans, and the line ends of the file.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    rows: Vec<(usize, usize, u32, Vec<u8>, i64)>,
    findings: Vec<(usize, usize, u32, Code)>,
    lines: u32,
}

impl Outcome {
    fn add(&mut self, chunk: &[u8], offset: usize, limits: Limits) {
        let plan = plan();
        let mut parsed = Parsed::default();
        parse_within(
            chunk,
            &plan,
            &HashKeys::new(1, plan.mapped, false),
            limits,
            &mut parsed,
        );
        for row in &parsed.rows {
            let columns = parsed.payload[row.at as usize..][..row.len as usize].to_vec();
            let (start, end) = (offset + row.start as usize, offset + row.end as usize);
            self.rows
                .push((start, end, self.lines + row.line, columns, row.source_hash));
        }
        for found in &parsed.findings {
            let (start, end) = (offset + found.start as usize, offset + found.end as usize);
            self.findings
                .push((start, end, self.lines + found.line, found.code));
        }
        self.lines += parsed.lines;
    }
}

/// Reads a file as the engine does, in blocks of the given lengths, over and over.
fn in_blocks(bytes: &[u8], blocks: &[usize], limits: Limits) -> Outcome {
    let mut outcome = Outcome::default();
    let mut cutter = Cutter::with_limits(b',', limits);
    let mut blocks = blocks.iter().cycle();
    let (mut from, mut to) = (0, 0);
    let mut skipped: Option<(usize, u32)> = None;
    loop {
        match cutter.cut(&bytes[from..to], to == bytes.len()) {
            Cut::Records { end } => {
                assert!(skipped.is_none() && end > 0);
                outcome.add(&bytes[from..from + end], from, limits);
                from += end;
            }
            Cut::NeedMore => {
                assert!(to < bytes.len(), "the cutter wants more at the end");
                let block = blocks.next().unwrap();
                assert!(
                    to - from < limits.field + limits.record + 2,
                    "the buffer is not bounded"
                );
                to = bytes.len().min(to + block);
            }
            Cut::Skip {
                end,
                lines,
                is_last,
            } => {
                let (start, line) = *skipped.get_or_insert((from, outcome.lines));
                assert!(end > 0 || is_last);
                from += end;
                outcome.lines += lines;
                if is_last {
                    outcome
                        .findings
                        .push((start, from, line, Code::RecordOverLimit));
                    skipped = None;
                }
            }
            Cut::End => {
                assert!(skipped.is_none() && from == bytes.len());
                return outcome;
            }
        }
    }
}

fn physical_lines(bytes: &[u8]) -> usize {
    let ends = |at: &usize| match bytes[*at] {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    (0..bytes.len()).filter(ends).count()
}

/// What must hold for the records of any bytes.
fn check_records(bytes: &[u8], limits: Limits) {
    let records = read_records(bytes, b',', limits);
    let mut at = 0;
    for (record, fields) in &records {
        let between = &bytes[at..record.start];
        assert!(
            between.iter().all(|byte| b"\r\n".contains(byte)),
            "a record was lost"
        );
        assert_eq!(record.line as usize, physical_lines(&bytes[..record.start]));
        let span = &bytes[record.start..record.end];
        match record.shape {
            Shape::Whole => assert_eq!(csv_core_records(span), std::slice::from_ref(fields)),
            Shape::UnclosedQuote => assert!(span.contains(&b'"')),
            Shape::FieldOverLimit => assert!(span.len() > limits.field),
            Shape::RecordOverLimit => assert!(span.len() > limits.record),
        }
        at = record.end;
    }
    if records
        .iter()
        .all(|(record, _)| record.shape == Shape::Whole)
    {
        let fields: Vec<_> = records.into_iter().map(|(_, fields)| fields).collect();
        assert_eq!(fields, csv_core_records(bytes));
    }
}

proptest! {
    // A case that fails becomes a line of `scans!` below, not a file of seeds.
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn records_equal_csv_core(bytes in prop_oneof![text(200), records()]) {
        check_records(&bytes, WIDE);
        check_records(&bytes, TIGHT);
    }

    #[test]
    fn any_blocks_give_the_same_rows(
        bytes in prop_oneof![text(300), records()],
        blocks in prop::collection::vec(1usize..40, 1..6),
    ) {
        for limits in [WIDE, TIGHT] {
            let mut whole = Outcome::default();
            whole.add(&bytes, 0, limits);
            prop_assert_eq!(in_blocks(&bytes, &blocks, limits), whole);
        }
    }
}

/// Spans of the records of a text, the shape named when it is not whole.
macro_rules! scans {
    ($($name:ident: $text:expr => [$($span:expr $(=> $shape:ident)?),*];)*) => {
        $(#[test] fn $name() {
            let text: &[u8] = $text;
            #[allow(unused_mut, unused_assignments)]
            let expected: Vec<(std::ops::Range<usize>, Shape)> = vec![$({
                let mut shape = Shape::Whole;
                $(shape = Shape::$shape;)?
                ($span, shape)
            }),*];
            let records = read_records(text, b',', TIGHT);
            let found: Vec<_> = records.iter().map(|(r, _)| (r.start..r.end, r.shape)).collect();
            assert_eq!(found, expected);
            for block in 1..=text.len().max(1) {
                let mut whole = Outcome::default();
                whole.add(text, 0, TIGHT);
                assert_eq!(in_blocks(text, &[block], TIGHT), whole, "blocks of {block}");
            }
            check_records(text, TIGHT);
        })*
    };
}

scans! {
    nothing: b"" => [];
    blank_lines: b"\n\r\n\r" => [];
    line_feeds: b"a,b\nc\n" => [0..4, 4..6];
    returns: b"a,b\rc\r" => [0..4, 4..6];
    both: b"a,b\r\nc\r\n" => [0..5, 5..8];
    no_last_line_end: b"a\nb" => [0..2, 2..3];
    blank_lines_between: b"a\n\n\r\nb" => [0..2, 5..6];
    trailing_delimiter: b"a,\nb," => [0..3, 3..5];
    quoted_newline: b"a,\"b\nc\"\nd" => [0..8, 8..9];
    doubled_quote: b"\"a\"\"\nb\"\nc" => [0..8, 8..9];
    only_quotes: b"\"\"\n\"\"\"\"\n" => [0..3, 3..8];
    stray_quote_is_content: b"a\"b\nc" => [0..4, 4..5];
    space_before_quote_is_content: b" \"b\nc" => [0..4, 4..5];
    behind_the_closing_quote: b"\"a\"b\"c\nd" => [0..7, 7..8];
    unclosed_at_the_end: b"a,\"b\nc\nd" => [0..5 => UnclosedQuote, 5..7, 7..8];
    unclosed_in_the_last_line: b"a\n\"b" => [0..2, 2..4 => UnclosedQuote];
    unclosed_crlf: b"\"b\r\nc" => [0..4 => UnclosedQuote, 4..5];
    last_byte_opens: b"a,\"" => [0..3 => UnclosedQuote];
    closed_just_within_the_limit: b"\"234567890\n234567890123\",b\nc" => [0..27, 27..28];
    closed_just_behind_the_limit: b"\"234567890\n2345678901234\",b\nc"
        => [0..11 => UnclosedQuote, 11..28, 28..29];
    closed_behind_the_limit_in_a_later_block: b"a\n\"34567890\n12345678901234,\",b\nc\",d\ne"
        => [0..2, 2..12 => UnclosedQuote, 12..36, 36..37];
    long_field: b"1234567890123456789012345\nb" => [0..26 => FieldOverLimit, 26..27];
    longest_field: b"123456789012345678901234\nb" => [0..25, 25..26];
    long_field_by_its_tail: b"\"12345678901234567890\"234,b\nc"
        => [0..28 => FieldOverLimit, 28..29];
    long_record: b"1234567890,1234567890,1234567890,1234567890,1234567890,123456\nb"
        => [0..62 => RecordOverLimit, 62..63];
    long_record_at_the_end: b"1234567890,1234567890,1234567890,1234567890,1234567890,123456"
        => [0..61 => RecordOverLimit];
    longest_record: b"1234567890,1234567890,1234567890,1234567890,1234567890,1234\nb"
        => [0..60, 60..61];
    long_record_with_quotes: b"12345678,\"\n3\"\"6\n8\",\"\n34\",1234567890,12345678901,\"\n\",\"\n\",\"\n,\"\nb"
        => [0..61 => RecordOverLimit, 61..62];
    long_record_unclosed: b"1234567890,1234567890,1234567890,1234567890,1234567890,\"345678\nb\nc"
        => [0..63 => RecordOverLimit, 63..65, 65..66];
}

/// Slow growth must not mean looking at everything again.
#[test]
fn growing_by_bytes_is_linear() {
    let mut text = vec![b'"'];
    text.resize(200_000, b'a');
    let limits = Limits {
        field: 150_000,
        record: 1 << 20,
    };
    let started = std::time::Instant::now();
    let outcome = in_blocks(&text, &[1], limits);
    assert_eq!(outcome.findings, [(0, 200_000, 0, Code::UnclosedQuote)]);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

/// CR may be half of a line end; the next byte says whether it is.
#[test]
fn a_return_at_the_end_of_a_block_ends_its_record_with_the_next_byte() {
    let cut = |whole: &[u8]| {
        let mut cutter = Cutter::with_limits(b',', TIGHT);
        assert_eq!(cutter.cut(b"a\r", false), Cut::NeedMore);
        cutter.cut(whole, false)
    };
    assert_eq!(cut(b"a\rb"), Cut::Records { end: 2 });
    assert_eq!(cut(b"a\r\n"), Cut::Records { end: 3 });
    assert_eq!(cut(b"a\r\r"), Cut::Records { end: 2 });
}
