//! What goes wrong in real files, one thing a row. Each damaged row is still one record.
//!
//! No unclosed quote: it would take the rows after it with it, and a file of N rows would not
//! hold N records any more.

use super::cells::Column;
use super::draw::{Draw, Key};
use super::record::Record;

type Damage = fn(Key, &mut Record);

/// Equally likely; about a third of them make the row a reject.
const DAMAGES: [Damage; 17] = [
    no_identity,
    unusable_email,
    email_as_identity,
    invalid_utf8,
    nul_byte,
    surplus_fields,
    empty_surplus_fields,
    long_value,
    unreadable_date,
    other_date,
    spaces_around,
    blank_fields,
    stray_quote,
    excel_id,
    windows_line_end,
    missing_fields,
    quoted_line_break,
];

/// Columns of words, which any text may stand in.
const TEXTS: [Column; 5] = [
    Column::FirstName,
    Column::LastName,
    Column::Company,
    Column::City,
    Column::Country,
];

pub(super) fn damage(key: Key, record: &mut Record) {
    key.draw(0).one_of(&DAMAGES)(key.at(1), record);
}

fn no_identity(_: Key, record: &mut Record) {
    record.cell(Column::CustomerId).clear();
    record.cell(Column::Email).clear();
}

fn unusable_email(key: Key, record: &mut Record) {
    record.cell(Column::CustomerId).clear();
    let text = key.draw(0).one_of(&[
        "n/a",
        "unknown",
        "-",
        "no e-mail",
        "jane.doe(at)example.com",
        "@",
    ]);
    record.set(Column::Email, text.as_bytes());
}

/// Not a reject: the e-mail stands in for the id, whatever its case.
fn email_as_identity(key: Key, record: &mut Record) {
    record.cell(Column::CustomerId).clear();
    if key.draw(0).one_in(2) {
        record.cell(Column::Email).make_ascii_uppercase();
    }
}

fn invalid_utf8(key: Key, record: &mut Record) {
    let mut draw = key.draw(0);
    let column = draw.one_of(&TEXTS);
    // A Latin-1 letter, a lone continuation byte, an overlong slash, a surrogate, a cut sequence.
    let bytes: &[u8] = draw.one_of(&[
        b"\xE9" as &[u8],
        b"\x80",
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF0\x9F\x98",
    ]);
    record.append_inside(column, bytes);
}

fn nul_byte(key: Key, record: &mut Record) {
    let column = key.draw(0).one_of(&TEXTS);
    record.append_inside(column, b"\0");
}

fn surplus_fields(key: Key, record: &mut Record) {
    record.surplus = key
        .draw(0)
        .one_of(&[b",surplus" as &[u8], b",,1", b",\"a, b\",c"]);
}

/// Not a reject: nothing is in them.
fn empty_surplus_fields(key: Key, record: &mut Record) {
    record.surplus = key.draw(0).one_of(&[b"," as &[u8], b",,,", b", ,\"\""]);
}

/// One to two hundred characters over the column's limit, or exactly at it (not a reject).
fn long_value(key: Key, record: &mut Record) {
    let mut draw = key.draw(0);
    let (column, limit) = draw.one_of(&[
        (Column::CustomerId, 255),
        (Column::FirstName, 100),
        (Column::LastName, 100),
        (Column::Company, 200),
        (Column::City, 100),
        (Column::Country, 100),
        (Column::Phone1, 50),
        (Column::Phone2, 50),
        (Column::Email, 254),
        (Column::Website, 500),
    ]);
    let length = if draw.one_in(4) {
        limit
    } else {
        limit + 1 + draw.below(200)
    };
    let cell = record.cell(column);
    if cell.first() == Some(&b'"') {
        cell.pop();
        cell.remove(0);
        cell.retain(|&byte| byte != b',');
    }
    // What was there stays in front, so that a long id is still an id of its own.
    let mut missing = length as usize
        - String::from_utf8_lossy(cell)
            .chars()
            .count()
            .min(length as usize);
    if column == Column::Email {
        // The address lengthens at its front; an @ stays in it, or there is none at all.
        cell.splice(0..0, std::iter::repeat_n(b'x', missing));
        missing = 0;
    }
    cell.extend("é".repeat(missing).bytes());
}

fn unreadable_date(key: Key, record: &mut Record) {
    let text = key.draw(0).one_of(&[
        "not a date",
        "2021-13-45",
        "2021-02-30",
        "0000-00-00",
        "31/31/2021",
        "soon",
        "2021",
        "20210116x",
    ]);
    record.set(Column::SubscriptionDate, text.as_bytes());
}

/// Readable, though not as ISO 8601 writes a date; with slashes it may be ambiguous.
fn other_date(key: Key, record: &mut Record) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let cell = record.cell(Column::SubscriptionDate);
    let iso = match std::str::from_utf8(cell) {
        Ok(text) if text.len() == 10 => text.to_owned(),
        _ => "2021-01-16".to_owned(),
    };
    let (year, month, day) = (&iso[..4], &iso[5..7], &iso[8..]);
    let name = MONTHS[month.parse::<usize>().map_or(0, |month| month - 1)];
    let text = match key.draw(0).below(8) {
        0 => format!("{year}/{month}/{day}"),
        1 => format!("{day}.{month}.{year}"),
        2 => format!("{day} {name} {year}"),
        3 => format!("\"{name} {day}, {year}\""),
        4 => format!("{month}/{day}/{year}"),
        5 => format!("{day}/{month}/{year}"),
        6 => format!("{year}-{month}-{day}T08:15:00Z"),
        _ => format!("{year}-{month}-{day} 08:15:00"),
    };
    record.set(Column::SubscriptionDate, text.as_bytes());
}

/// Not a reject: trimmed away, in the id too.
fn spaces_around(key: Key, record: &mut Record) {
    const SPACES: [&str; 6] = [" ", "  ", "\t", "\u{A0}", "\u{200B}", "\u{FEFF} "];
    let mut draw = key.draw(0);
    let some_text = draw.one_of(&TEXTS);
    for column in [Column::CustomerId, some_text, Column::Email] {
        let (before, after) = (draw.one_of(&SPACES), draw.one_of(&SPACES));
        record.prepend_inside(column, before.as_bytes());
        record.append_inside(column, after.as_bytes());
    }
}

fn blank_fields(key: Key, record: &mut Record) {
    let mut draw: Draw = key.draw(0);
    for column in [
        Column::Company,
        Column::Phone1,
        Column::Phone2,
        Column::SubscriptionDate,
        Column::Website,
    ] {
        let text = draw.one_of(&["", " ", "\"\"", "\u{A0}"]);
        if draw.one_in(2) {
            record.set(column, text.as_bytes());
        }
    }
}

/// Not a reject: inside an unquoted field a quote is a character, and so is what follows a
/// closing quote.
fn stray_quote(key: Key, record: &mut Record) {
    let column = key
        .draw(0)
        .one_of(&[Column::Company, Column::City, Column::LastName]);
    let cell = record.cell(column);
    match cell.first() {
        None => cell.extend_from_slice(b"5\" pipes"),
        Some(b'"') => cell.extend_from_slice(b" Holding"),
        Some(_) => {
            let at = cell
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(cell.len());
            cell.splice(at..at, *b" \"the best\"");
        }
    }
}

/// Not a reject: the id as a spreadsheet writes a number that must stay text.
fn excel_id(key: Key, record: &mut Record) {
    let id = std::mem::take(record.cell(Column::CustomerId));
    let (before, after): (&[u8], &[u8]) = key.draw(0).one_of(&[
        (b"=\"" as &[u8], b"\"" as &[u8]),
        (b"\"=\"\"", b"\"\"\""),
        (b"'", b""),
    ]);
    record.set(Column::CustomerId, &[before, &id, after].concat());
}

fn windows_line_end(_: Key, record: &mut Record) {
    record.ending = b"\r\n";
}

/// Not a reject: what a short row does not say is blank.
fn missing_fields(key: Key, record: &mut Record) {
    record.kept = Column::Country as usize + 1 + key.draw(0).below(5) as usize;
}

fn quoted_line_break(key: Key, record: &mut Record) {
    let mut draw = key.draw(0);
    let column = draw.one_of(&[Column::Company, Column::City]);
    let line_break = draw.one_of(&["\n", "\r\n", "\n\n"]);
    record.quote(column);
    record.append_inside(column, line_break.as_bytes());
    record.append_inside(column, b"2nd floor");
}
