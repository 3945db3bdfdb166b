//! What holds for the rows of any bytes, whatever a file is made of.

use customer_panel_core::csv::scanner::{Limits, read_records};
use customer_panel_core::customer::{FIELDS, Kind};
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::plan::Plan;
use customer_panel_core::rows::findings::Code;
use customer_panel_core::rows::parse::{Parsed, parse};
use customer_panel_core::values::convert::email;
use customer_panel_core::values::dates::DateOrder;
use proptest::prelude::*;

const HEADERS: [&str; 4] = [
    "id,first name,email,created at",
    "email,name,last name,id",
    "mail,about,phone,mobile",
    "customer id,name,company,created at",
];

/// Fields that the rules of conversion care about.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let rich = prop::sample::select(vec![
        "",
        " ",
        "\u{a0}",
        "\u{200b}x\u{feff}",
        "'1",
        "=\"1\"",
        "\"=\"\"1\"\"\"",
        "\"a \"\"b\"\"\"",
        "\"a\nb\r\"",
        "a@b",
        "A@\u{c4}.X",
        "a@@b",
        "u\u{308}",
        "\u{130}@x",
        "J\u{30c}@x",
        "u\u{308}@x",
        "2021-02-29",
        "01/02/2021",
        "1 Feb 2021",
        "\"x",
        "x\"y",
    ]);
    prop_oneof![
        6 => rich.prop_map(|text| text.as_bytes().to_vec()),
        2 => ".{0,8}".prop_map(String::into_bytes),
        1 => "[a\u{fc}]{0,300}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    let record = prop::collection::vec(field(), 0..6).prop_map(|fields| fields.join(&b','));
    prop::collection::vec(record, 0..12).prop_map(|records| records.join(&b'\n'))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn a_record_is_a_sound_row_or_a_reject(bytes in file(), header in 0..HEADERS.len()) {
        let header = HEADERS[header].as_bytes();
        let (plan, ..) = Plan::from_header(header, None, &[], DateOrder::Auto).unwrap();
        let keys = HashKeys::new(3, plan.mapped, false);
        let mut out = Parsed::default();
        parse(&bytes, &plan, &keys, &mut out);

        let records = read_records(&bytes, b',', Limits::default());
        let rejects = out.findings.iter().filter(|found| !found.is_warning);
        let rows = out.rows.iter().map(|row| (row.start, row.end, row.line));
        let mut seen: Vec<_> = rejects.map(|it| (it.start, it.end, it.line)).chain(rows).collect();
        seen.sort_unstable();
        let spans = records.iter().map(|(it, _)| (it.start as u32, it.end as u32, it.line));
        prop_assert_eq!(seen, spans.collect::<Vec<_>>());

        for warning in out.findings.iter().filter(|found| found.is_warning) {
            prop_assert!(warning.code.is_warning());
            prop_assert!(out.rows.iter().any(|row| row.start == warning.start));
        }
        prop_assert!(out.findings.is_sorted_by_key(|found| found.start));
        prop_assert!(out.rows.is_sorted_by_key(|row| row.start));
        if std::str::from_utf8(&bytes).is_err() {
            prop_assert!(out.findings.iter().any(|found| !found.code.is_warning()
                && found.code != Code::NoIdentity));
        }

        let mut at = 0;
        for row in &out.rows {
            prop_assert_eq!(row.at as usize, at);
            let mut payload = &out.payload[at..at + row.len as usize];
            at += row.len as usize;
            for (number, field) in FIELDS.iter().enumerate() {
                let (length, rest) = payload.split_first_chunk::<4>().unwrap();
                let length = i32::from_be_bytes(*length);
                prop_assert!(length != 0 && length >= -1, "blank is NULL");
                let (value, rest) = rest.split_at(length.max(0) as usize);
                payload = rest;
                if number == 0 {
                    prop_assert_eq!(value.len(), row.key_len as usize);
                }
                match field.kind {
                    Kind::Date => prop_assert!(length == -1 || length == 4),
                    _ => {
                        let text = std::str::from_utf8(value).unwrap();
                        prop_assert!(text.chars().count() <= field.limit as usize);
                        prop_assert_eq!(text.trim(), text);
                        prop_assert!(!text.contains('\0'));
                        if field.kind == Kind::Email {
                            prop_assert_eq!(&*email(text), text);
                        }
                    }
                }
            }
            prop_assert!(payload.is_empty());
        }
        prop_assert_eq!(out.payload.len(), at);
    }
}
