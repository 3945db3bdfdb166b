//! Records to rows: one line per rule.

use customer_panel_core::customer::FIELDS;
use customer_panel_core::identity::hash::{HashKeys, hash_identity};
use customer_panel_core::plan::Plan;
use customer_panel_core::rows::findings::Code;
use customer_panel_core::rows::parse::{Parsed, parse};
use customer_panel_core::values::dates::DateOrder;
use twox_hash::XxHash3_64;

const HEADER: &str = "id,first name,last name,company,email,subscription date,about,name,index";

fn parsed(records: &[u8]) -> (Plan, HashKeys, Parsed) {
    let (plan, _, _) = Plan::from_header(HEADER.as_bytes(), None, &[], DateOrder::Auto).unwrap();
    let keys = HashKeys::new(7, plan.mapped, false);
    let mut out = Parsed::default();
    parse(records, &plan, &keys, &mut out);
    (plan, keys, out)
}

/// The columns of a payload as PostgreSQL would read them.
fn columns(mut payload: &[u8]) -> Vec<Option<&[u8]>> {
    let mut columns = Vec::new();
    while let Some((length, rest)) = payload.split_first_chunk::<4>() {
        let length = i32::from_be_bytes(*length);
        let (value, rest) = rest.split_at(length.max(0) as usize);
        columns.push((length >= 0).then_some(value));
        payload = rest;
    }
    columns
}

/// The columns that are not NULL, as `name=value`; dates as days.
fn shown(payload: &[u8]) -> String {
    let columns = columns(payload);
    assert_eq!(columns.len(), FIELDS.len());
    let shown = std::iter::zip(&FIELDS, columns).filter_map(|(field, value)| {
        let value = value?;
        Some(match field.limit {
            0 => format!(
                "{}={}",
                field.name,
                i32::from_be_bytes(value.try_into().unwrap())
            ),
            _ => format!("{}={}", field.name, String::from_utf8_lossy(value)),
        })
    });
    shown.collect::<Vec<_>>().join("|")
}

fn check_row(record: &[u8], expected: &str, warning: Option<Code>) {
    // A byte that is not ASCII elsewhere in the chunk takes the slow paths; nothing may change.
    for other in ["", "z,,,,,,\u{fc}\n"] {
        let chunk = [record, b"\n", other.as_bytes()].concat();
        let (_, keys, out) = parsed(&chunk);
        let codes: Vec<_> = out
            .findings
            .iter()
            .map(|found| (found.code, found.is_warning))
            .collect();
        assert_eq!(codes, warning.map(|code| (code, true)).as_slice());
        let row = out.rows[0];
        let payload = &out.payload[row.at as usize..][..row.len as usize];
        assert_eq!(shown(payload), expected);
        assert_eq!(
            &chunk[row.start as usize..row.end as usize],
            [record, b"\n"].concat()
        );
        let hash = XxHash3_64::oneshot_with_seed(keys.row_seed, payload);
        assert_eq!(row.source_hash, hash as i64);
        let key = columns(payload)[0].unwrap();
        assert_eq!(key.len(), row.key_len as usize);
        assert_eq!(
            (row.lane_hash, row.identity),
            hash_identity(key, keys.identity_seed)
        );
    }
}

macro_rules! rows {
    ($($name:ident: $record:expr => $expected:expr $(, $warning:ident)?;)*) => {
        $(#[test] fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut warning = None;
            $(warning = Some(Code::$warning);)?
            check_row($record.as_bytes(), $expected, warning);
        })*
    };
}

rows! {
    all: "7,Ada,Byron,Engines,A@B.org,2000-01-02,long,," =>
        "customer_id=7|first_name=Ada|last_name=Byron|company=Engines|email=a@b.org|subscription_date=1|about_customer=long";
    missing_fields_are_blank: "7,Ada" => "customer_id=7|first_name=Ada";
    blanks_are_null: "7,  ,\"\",\" \"" => "customer_id=7";
    blank_extra_fields: "7,,,,,,,,9,,\" \"" => "customer_id=7";
    values_are_trimmed: " 7 ,\tAda ,\u{a0}B\u{a0}n\u{200b}" => "customer_id=7|first_name=Ada|last_name=B\u{a0}n";
    quoted_values: r#""7","Ada ""the"" B.",",",""" ""","a@b""# =>
        r#"customer_id=7|first_name=Ada "the" B.|last_name=,|company=" "|email=a@b"#;
    newline_inside: "7,\"A\nB\",C" => "customer_id=7|first_name=A\nB|last_name=C";
    tail_behind_quotes: "7,\"A\"b\"c" => "customer_id=7|first_name=Ab\"c";
    excel_formula: "=\"007\",\"=\"\"x\"\"\"" => "customer_id=007|first_name=\"x\"".replace("first_name=", "first_name==").as_str();
    excel_formula_quoted: "\"=\"\"007\"\"\"" => "customer_id=007";
    excel_apostrophe: "'007,'x" => "customer_id=007|first_name='x";
    excel_blank_takes_email: "'=,,,,a@b" => "customer_id==|email=a@b";
    excel_nothing_takes_email: "',,,,a@b" => "customer_id=a@b|email=a@b";
    identity_is_composed: "u\u{308},u\u{308}" => "customer_id=\u{fc}|first_name=u\u{308}";
    identity_keeps_case: "aB" => "customer_id=aB";
    email_is_identity: ",,,, X@Y.Org " => "customer_id=x@y.org|email=x@y.org";
    email_of_excel: ",,,,'X@y" => "customer_id=x@y|email='x@y";
    email_beyond_ascii: ",,,,\u{c4}@\u{dc}.org" => "customer_id=\u{e4}@\u{fc}.org|email=\u{e4}@\u{fc}.org";
    email_of_a_mac: ",,,,u\u{308}@A\u{308}.org" => "customer_id=\u{fc}@\u{e4}.org|email=\u{fc}@\u{e4}.org";
    email_that_composes_in_lower_case: ",,,,J\u{30c}@x" => "customer_id=\u{1f0}@x|email=\u{1f0}@x";
    email_composed_beside_an_id: "J\u{30c}@x,,,,J\u{30c}@x" => "customer_id=J\u{30c}@x|email=\u{1f0}@x";
    email_limit_in_stored_characters: format!(",,,,{}@b", "a\u{308}".repeat(252)).as_str() =>
        format!("customer_id={0}@b|email={0}@b", "\u{e4}".repeat(252)).as_str();
    id_limit_in_stored_characters: "a\u{308}".repeat(255).as_str() => format!("customer_id={}", "\u{e4}".repeat(255)).as_str();
    email_of_any_form_beside_an_id: "7,,,,None At All" => "customer_id=7|email=none at all";
    full_name: "7,,,,,,,Ada King Byron" => "customer_id=7|first_name=Ada|last_name=King Byron";
    full_name_of_one_word: "7,,,,,,,Ada" => "customer_id=7|first_name=Ada";
    full_name_quoted: "7,,,,,,,\"Ada \"\"B\"\"\"" => "customer_id=7|first_name=Ada|last_name=\"B\"";
    full_name_beside_last_name: "7,,King,,,,,Ada Byron" => "customer_id=7|first_name=Ada|last_name=King";
    full_name_beside_first_name: "7,Augusta,,,,,,Ada Byron" => "customer_id=7|first_name=Augusta";
    unreadable_date: "7,,,,,soon" => "customer_id=7", UnreadableDate;
    ambiguous_date: "7,,,,,01/02/2021" => "customer_id=7", AmbiguousDate;
    limit_in_characters: format!("7,{}", "\u{fc}".repeat(100)).as_str() =>
        format!("customer_id=7|first_name={}", "\u{fc}".repeat(100)).as_str();
    longest_value: format!("7,{}", "a".repeat(100)).as_str() =>
        format!("customer_id=7|first_name={}", "a".repeat(100)).as_str();
    long_values_that_are_not_read: format!("7,,,,,,,,{}", "a".repeat(9999)).as_str() => "customer_id=7";
}

fn check_reject(record: &[u8], code: Code, field: Option<&str>) {
    let chunk = [b"1\n\n", record, b"\n2,\n"].concat();
    let (_, _, out) = parsed(&chunk);
    let keys: Vec<_> = out
        .rows
        .iter()
        .map(|row| out.payload[row.at as usize + 4])
        .collect();
    assert_eq!(keys, b"12", "the rows around a reject are not touched");
    assert_eq!(out.findings.len(), 1);
    let found = out.findings[0];
    assert_eq!((found.code, found.is_warning, found.line), (code, false, 2));
    assert_eq!(found.field.map(|field| FIELDS[field as usize].name), field);
    let span = &chunk[found.start as usize..found.end as usize];
    assert_eq!(span, [record, b"\n"].concat());
    assert_eq!(
        out.payload.len(),
        out.rows.iter().map(|row| row.len as usize).sum::<usize>()
    );
}

macro_rules! rejects {
    ($($name:ident: $record:expr => $code:ident $($field:literal)?;)*) => {
        $(#[test] fn $name() {
            #[allow(unused_mut, unused_assignments)]
            let mut field = None;
            $(field = Some($field);)?
            check_reject($record.as_ref(), Code::$code, field);
        })*
    };
}

rejects! {
    no_identity: ",Ada" => NoIdentity;
    identity_of_spaces: " \u{a0},Ada" => NoIdentity;
    email_without_at: ",,,,ab" => NoIdentity;
    email_with_two_ats: ",,,,a@b@c" => NoIdentity;
    email_with_nothing_before: ",,,,@b" => NoIdentity;
    email_with_nothing_behind: ",,,,a@" => NoIdentity;
    email_with_a_space: ",,,,a b@c" => NoIdentity;
    unclosed_quote: "7,\"Ada" => UnclosedQuote;
    extra_fields: "7,,,,,,,,,x" => ExtraFields;
    nul_byte: "7,A\0da" => NulByte;
    nul_byte_in_a_column_that_is_not_read: "7,,,,,,,,\0" => NulByte;
    invalid_utf8: b"7,\xff" => InvalidUtf8;
    invalid_utf8_cut_short: b"7,\xc3" => InvalidUtf8;
    long_id: "7".repeat(256) => TooLong "customer_id";
    long_name: format!("7,{}", "a".repeat(101)) => TooLong "first_name";
    long_name_in_characters: format!("7,{}", "\u{fc}".repeat(101)) => TooLong "first_name";
    long_email: format!("7,,,,{}@b", "a".repeat(253)) => TooLong "email";
    long_email_as_identity: format!(",,,,{}@b", "a".repeat(253)) => TooLong "email";
    email_that_gets_too_long: format!("7,,,,{}@b", "\u{130}".repeat(127)) => TooLong "email";
    email_that_gets_too_long_as_identity: format!(",,,,{}@b", "\u{958}".repeat(127)) => TooLong "email";
    id_that_gets_too_long: "\u{958}".repeat(128) => TooLong "customer_id";
    long_first_of_full_name: format!("7,,,,,,,{} b", "a".repeat(101)) => TooLong "first_name";
    warning_of_a_reject_is_dropped: format!("7,,,,,soon,{}", "a".repeat(2001)) => TooLong "about_customer";
}

#[test]
fn lines_are_physical() {
    let (_, _, out) = parsed(b"1\r\n\r\n2,\"a\nb\r\nc\rd\"\r3\n\"\n4");
    let lines: Vec<_> = out.rows.iter().map(|row| row.line).collect();
    assert_eq!(lines, [0, 2, 6, 8]);
    assert_eq!((out.findings[0].line, out.lines), (7, 8));
}

#[test]
fn other_rules_make_another_hash() {
    let (plan, keys, _) = parsed(b"");
    assert_eq!(HashKeys::new(7, plan.mapped, false), keys);
    assert_ne!(HashKeys::new(7, plan.mapped, true).row_seed, keys.row_seed);
    assert_ne!(
        HashKeys::new(8, plan.mapped, false).identity_seed,
        keys.identity_seed
    );
    let (other, _, _) = Plan::from_header(b"id,city", None, &[], DateOrder::Auto).unwrap();
    assert_ne!(
        HashKeys::new(7, other.mapped, false).row_seed,
        keys.row_seed
    );
    assert_eq!(
        HashKeys::new(7, other.mapped, false).identity_seed,
        keys.identity_seed
    );
}

#[test]
fn memory_is_used_again() {
    let (plan, keys, mut out) = parsed(b"1,a\n,\n");
    parse(b"2,b\n", &plan, &keys, &mut out);
    assert_eq!((out.rows.len(), out.findings.len(), out.lines), (1, 0, 1));
    assert_eq!(shown(&out.payload), "customer_id=2|first_name=b");
    parse(b"", &plan, &keys, &mut out);
    assert_eq!((out.rows.len(), out.payload.len(), out.lines), (0, 0, 0));
}
