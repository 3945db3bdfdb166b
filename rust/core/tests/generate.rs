//! The laws of the generator: the same bytes always, and every share is what it says.

use std::collections::HashSet;

use customer_panel_core::generate::{Generator, Options};
use twox_hash::XxHash3_64;

fn file(options: Options) -> Vec<u8> {
    let mut out = Vec::new();
    Generator::new(options).fill(&mut out, usize::MAX);
    out
}

/// The data records as written, one by one.
fn rows(options: Options) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(options);
    let mut rows = Vec::new();
    let mut row = Vec::new();
    while generator.fill(&mut row, 1) {
        rows.push(std::mem::take(&mut row));
    }
    rows.remove(0);
    rows
}

/// The fields of one record, read by csv-core.
fn fields(record: &[u8]) -> Vec<Vec<u8>> {
    let (mut bytes, mut ends) = (vec![0; record.len() + 1], vec![0; 32]);
    let (result, read, _, count) =
        csv_core::Reader::new().read_record(record, &mut bytes, &mut ends);
    assert!(
        matches!(result, csv_core::ReadRecordResult::Record),
        "{record:?}"
    );
    assert_eq!(
        record[read..].iter().filter(|byte| **byte != b'\n').count(),
        0,
        "two records"
    );
    let mut start = 0;
    ends[..count]
        .iter()
        .map(|end| bytes[std::mem::replace(&mut start, *end)..*end].to_vec())
        .collect()
}

fn share(part: usize, of: usize) -> f64 {
    part as f64 / of as f64
}

/// XXH3-64 of the first 1000 rows. A change of these is a change of every file ever generated:
/// say so in the changelog.
const GOLDEN: [(&str, u64); 7] = [
    ("plain", 0x8005_72A0_CAC1_76E6),
    ("seed", 0xFE47_80E5_9053_C1B1),
    ("about", 0xB14A_C8C2_BD5B_E347),
    ("duplicates", 0x197C_688A_32FE_C7BA),
    ("dirty", 0xE336_7719_E7A1_93DA),
    ("changed", 0x5996_C820_610A_C39B),
    ("everything", 0xB405_1E44_11D1_BF16),
];

#[test]
fn bytes_never_change_silently() {
    let found = GOLDEN.map(|(name, _)| {
        let is = |part: &str| name == part || name == "everything";
        let share = |part| if is(part) { 0.2 } else { 0.0 };
        let options = Options {
            rows: 1000,
            about: is("about"),
            seed: if name == "seed" { 2 } else { 1 },
            duplicates: share("duplicates"),
            dirty: share("dirty"),
            changed: share("changed"),
        };
        (name, XxHash3_64::oneshot(&file(options)))
    });
    assert_eq!(found, GOLDEN, "{found:#X?}");
}

#[test]
fn chunks_of_any_size_join_to_the_same_file() {
    let options = Options {
        about: true,
        duplicates: 0.1,
        dirty: 0.2,
        changed: 0.1,
        ..Options::new(700, 9)
    };
    let whole = file(options);
    for at_least in [0, 1, 100, 4096, 65_536] {
        let mut generator = Generator::new(options);
        let (mut joined, mut chunk) = (Vec::new(), Vec::new());
        while generator.fill(&mut chunk, at_least) {
            joined.append(&mut chunk);
        }
        assert!(joined == whole, "at_least {at_least}");
        assert_eq!(generator.rows_written(), 700);
        assert!(!generator.fill(&mut chunk, 1) && chunk.is_empty());
    }
}

#[test]
fn a_longer_file_begins_with_the_shorter_one() {
    let short = Options {
        duplicates: 0.1,
        dirty: 0.1,
        ..Options::new(300, 4)
    };
    let long = Options {
        rows: 3000,
        ..short
    };
    assert!(file(long).starts_with(&file(short)));
}

#[test]
fn no_rows_is_a_header() {
    let header = "Index,Customer Id,First Name,Last Name,Company,City,Country,Phone 1,Phone 2,\
                  Email,Subscription Date,Website";
    assert_eq!(file(Options::new(0, 1)), format!("{header}\n").as_bytes());
    let about = Options {
        about: true,
        ..Options::new(0, 1)
    };
    assert_eq!(file(about), format!("{header},About Customer\n").as_bytes());
}

#[test]
fn clean_rows_are_whole_valid_and_unique() {
    let rows = rows(Options::new(200_000, 1));
    assert_eq!(rows.len(), 200_000);
    let mut ids = HashSet::new();
    let mut mails = HashSet::new();
    for (n, row) in rows.iter().enumerate() {
        let row = std::str::from_utf8(row).unwrap();
        let fields: Vec<_> = fields(row.as_bytes())
            .into_iter()
            .map(|f| String::from_utf8(f).unwrap())
            .collect();
        assert_eq!(fields.len(), 12);
        assert!(
            fields
                .iter()
                .all(|field| !field.is_empty() && field.trim() == field)
        );
        assert_eq!(fields[0], (n + 1).to_string());
        assert!(fields[1].len() == 15 && fields[1].bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(fields[9].contains('@') && fields[9] == fields[9].to_lowercase());
        assert!(
            ("2020-01-01".."2023").contains(&fields[10].as_str()),
            "{}",
            fields[10]
        );
        assert!(fields[11].starts_with("http") && fields[11].ends_with('/'));
        assert!(ids.insert(fields[1].to_lowercase()));
        mails.insert(fields[9].clone());
    }
    assert!(share(mails.len(), rows.len()) > 0.99);
    let average = share(rows.iter().map(Vec::len).sum(), rows.len());
    assert!((186.0..192.0).contains(&average), "{average} bytes a row");
    let accented = rows.iter().filter(|row| !row.is_ascii()).count();
    assert!((0.03..0.07).contains(&share(accented, rows.len())));
}

#[test]
fn about_is_long_quoted_and_within_its_limit() {
    let rows = rows(Options {
        about: true,
        ..Options::new(20_000, 1)
    });
    let mut bytes = 0;
    for row in &rows {
        let text = String::from_utf8(fields(row)[12].clone()).unwrap();
        assert!(row.ends_with(b"\"\n") && text.chars().count() <= 2000 && text.trim() == text);
        bytes += text.len();
    }
    let average = share(bytes, rows.len());
    assert!((800.0..900.0).contains(&average), "{average} bytes a text");
    for piece in [&b"\"\""[..], b", ", b".\n"] {
        let with_piece = rows
            .iter()
            .filter(|row| row.windows(piece.len()).any(|w| w == piece));
        assert!(share(with_piece.count(), rows.len()) > 0.5);
    }
}

#[test]
fn duplicates_repeat_an_earlier_identity() {
    for ratio in [0.02, 0.5, 1.0] {
        let rows = rows(Options {
            duplicates: ratio,
            ..Options::new(50_000, 3)
        });
        let mut ids = HashSet::new();
        let later = rows
            .iter()
            .filter(|row| !ids.insert(fields(row)[1].clone()))
            .count();
        assert!(
            (share(later, rows.len()) - ratio).abs() < 0.005,
            "{later} at {ratio}"
        );
    }
}

#[test]
fn dirt_touches_its_share_and_never_joins_or_splits_records() {
    let clean = Options {
        duplicates: 0.05,
        ..Options::new(50_000, 5)
    };
    let clean_rows = rows(clean);
    for ratio in [0.01, 0.3, 1.0] {
        let dirty_rows = rows(Options {
            dirty: ratio,
            ..clean
        });
        dirty_rows
            .iter()
            .for_each(|row| assert!(fields(row).len() > 6));
        let touched = clean_rows
            .iter()
            .zip(&dirty_rows)
            .filter(|(a, b)| a != b)
            .count();
        assert!(
            (share(touched, clean_rows.len()) - ratio).abs() < 0.01,
            "{touched} at {ratio}"
        );
    }
}

#[test]
fn changed_alters_one_to_three_fields_and_nothing_else() {
    for about in [false, true] {
        let before = Options {
            about,
            duplicates: 0.05,
            ..Options::new(30_000, 6)
        };
        let old_rows = rows(before);
        for ratio in [0.01, 0.5, 1.0] {
            let new_rows = rows(Options {
                changed: ratio,
                ..before
            });
            let mut altered = 0;
            for (old, new) in old_rows
                .iter()
                .zip(&new_rows)
                .filter(|(old, new)| old != new)
            {
                let (old, new) = (fields(old), fields(new));
                let columns: Vec<_> = (0..old.len()).filter(|n| old[*n] != new[*n]).collect();
                assert!((1..=3).contains(&columns.len()) && old.len() == new.len());
                assert!(
                    columns.iter().all(|n| ![0, 1, 9].contains(n)),
                    "{columns:?}"
                );
                altered += 1;
            }
            assert!((share(altered, old_rows.len()) - ratio).abs() < 0.005);
        }
    }
}

#[test]
fn changed_leaves_the_dirt_where_it_was() {
    let before = Options {
        duplicates: 0.05,
        dirty: 0.2,
        ..Options::new(30_000, 7)
    };
    let new_rows = rows(Options {
        changed: 0.01,
        ..before
    });
    let altered = rows(before)
        .iter()
        .zip(&new_rows)
        .filter(|(old, new)| old != new)
        .count();
    assert!((0.008..0.012).contains(&share(altered, new_rows.len())));
}

#[test]
fn shares_outside_of_0_to_1_count_as_the_nearer_end() {
    let options = |share| Options {
        changed: share,
        ..Options::new(50, 1)
    };
    for (given, meant) in [
        (-1.0, 0.0),
        (f64::NAN, 0.0),
        (7.0, 1.0),
        (f64::INFINITY, 1.0),
    ] {
        assert!(file(options(given)) == file(options(meant)), "{given}");
    }
}
