//! One cell each: from 64 random bits to the bytes in the file, quoted where they must be.

use super::draw::{Draw, scramble60};
use super::words;

/// The columns of the file, in its order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Index,
    CustomerId,
    FirstName,
    LastName,
    Company,
    City,
    Country,
    Phone1,
    Phone2,
    Email,
    SubscriptionDate,
    Website,
    AboutCustomer,
}

pub(super) const COLUMNS: [(Column, &str); 13] = [
    (Column::Index, "Index"),
    (Column::CustomerId, "Customer Id"),
    (Column::FirstName, "First Name"),
    (Column::LastName, "Last Name"),
    (Column::Company, "Company"),
    (Column::City, "City"),
    (Column::Country, "Country"),
    (Column::Phone1, "Phone 1"),
    (Column::Phone2, "Phone 2"),
    (Column::Email, "Email"),
    (Column::SubscriptionDate, "Subscription Date"),
    (Column::Website, "Website"),
    (Column::AboutCustomer, "About Customer"),
];

/// Appends what a customer says of itself in `column`; not for the index and the id, which
/// are numbers of the row and not words.
pub(super) fn write(column: Column, mut draw: Draw, out: &mut Vec<u8>) {
    match column {
        Column::Index | Column::CustomerId => {}
        Column::FirstName => {
            let accented = draw.one_in(40);
            push(
                out,
                draw.one_of(if accented {
                    &words::FIRST_ACCENTED
                } else {
                    &words::FIRST
                }),
            );
        }
        Column::LastName => {
            let accented = draw.one_in(40);
            push(
                out,
                draw.one_of(if accented {
                    &words::LAST_ACCENTED
                } else {
                    &words::LAST
                }),
            );
        }
        Column::Company => company(draw, out),
        Column::City => {
            push(out, draw.one_of(&words::CITY_PREFIX));
            push(out, draw.one_of(&words::FIRST));
            push(out, draw.one_of(&words::CITY_SUFFIX));
        }
        Column::Country => push(out, draw.one_of(&words::COUNTRY)),
        Column::Phone1 | Column::Phone2 => phone(draw, out),
        Column::Email => email(draw, out),
        Column::SubscriptionDate => date(draw.below(DAYS), out),
        Column::Website => website(draw, out),
        Column::AboutCustomer => about(draw, out),
    }
}

/// The index column: counted from 1.
pub(super) fn index(row: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = row + 1;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

/// The customer id of an identity: 15 hex digits in mixed case, unique also when case is ignored.
pub(super) fn customer_id(seed: u64, identity: u64, mut draw: Draw, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 32] = b"0123456789abcdef0123456789ABCDEF";
    let bits = scramble60(seed, identity);
    let case = draw.below(1 << 15);
    out.extend(
        (0..15)
            .rev()
            .map(|n| DIGITS[((bits >> (4 * n)) & 15 | ((case >> n) & 1) << 4) as usize]),
    );
}

fn company(mut draw: Draw, out: &mut Vec<u8>) {
    let form = draw.below(6);
    let (a, b) = (draw.one_of(&words::LAST), draw.one_of(&words::LAST));
    match form {
        0..=1 => {
            push(out, a);
            out.push(b' ');
            push(out, draw.one_of(&words::COMPANY_FORM));
        }
        2..=3 => {
            push(out, a);
            out.push(b'-');
            push(out, b);
        }
        // A comma in the value: the whole cell in quotes.
        4 => {
            out.push(b'"');
            push(out, a);
            push(out, ", ");
            push(out, b);
            push(out, " and ");
            push(out, draw.one_of(&words::LAST));
            out.push(b'"');
        }
        _ => {
            out.push(b'"');
            push(out, a);
            push(out, ", ");
            push(out, b);
            push(out, " and Sons\"");
        }
    }
}

fn phone(mut draw: Draw, out: &mut Vec<u8>) {
    let pattern = draw.one_of(&words::PHONE).as_bytes();
    out.extend(pattern.iter().map(|&byte| match byte {
        b'#' => b'0' + draw.below(10) as u8,
        other => other,
    }));
}

fn email(mut draw: Draw, out: &mut Vec<u8>) {
    let form = draw.below(4);
    let (first, last) = (draw.one_of(&words::FIRST), draw.one_of(&words::LAST));
    match form {
        0 => {
            push_lower(out, first);
            out.push(b'.');
            push_lower(out, last);
        }
        1 => {
            push_lower(out, last);
            push_lower(out, first);
        }
        2 => {
            push_lower(out, first);
            push_lower(out, last);
        }
        _ => {
            out.push(first.as_bytes()[0] | 0x20);
            push_lower(out, last);
        }
    }
    // Two digits keep nearly every address of millions unique.
    out.push(b'0' + draw.below(10) as u8);
    out.push(b'0' + draw.below(10) as u8);
    out.push(b'@');
    domain(&mut draw, out);
}

fn website(mut draw: Draw, out: &mut Vec<u8>) {
    push(
        out,
        if draw.one_in(4) {
            "https://www."
        } else {
            "http://www."
        },
    );
    domain(&mut draw, out);
    out.push(b'/');
}

fn domain(draw: &mut Draw, out: &mut Vec<u8>) {
    push_lower(out, draw.one_of(&words::LAST));
    if draw.one_in(4) {
        out.push(b'-');
        push_lower(out, draw.one_of(&words::LAST));
    }
    push(out, draw.one_of(&words::TOP_LEVEL));
}

/// Fewest and most sentences of an about text.
const SENTENCES: (u64, u64) = (6, 14);

/// About texts keep within the column's limit of 2000 characters however the words fall.
const _: () = assert!(
    SENTENCES.1 as usize
        * (longest(&words::WHO) + longest(&words::DOES) + longest(&words::WHAT) + 3)
        <= 2000
);

const fn longest(list: &[&str]) -> usize {
    let (mut n, mut most) = (0, 0);
    while n < list.len() {
        if list[n].len() > most {
            most = list[n].len();
        }
        n += 1;
    }
    most
}

fn about(draw: Draw, out: &mut Vec<u8>) {
    let key = draw.into_key();
    let mut draw = key.draw(0);
    let count = SENTENCES.0 + draw.below(SENTENCES.1 - SENTENCES.0 + 1);
    out.push(b'"');
    for n in 1..=count {
        let mut draw = key.draw(n as usize);
        push(out, draw.one_of(&words::WHO));
        out.push(b' ');
        push(out, draw.one_of(&words::DOES));
        out.push(b' ');
        push(out, draw.one_of(&words::WHAT));
        out.push(if n < count {
            draw.one_of(b"   \n")
        } else {
            b'"'
        });
    }
}

/// 2020, 2021 and 2022.
const DAYS: u64 = 366 + 365 + 365;

fn date(day: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&DATES[day as usize]);
}

static DATES: [[u8; 10]; DAYS as usize] = {
    const LENGTHS: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut dates = [*b"2020-00-00"; DAYS as usize];
    let (mut year, mut month, mut day) = (0, 1, 1);
    let mut n = 0;
    while n < dates.len() {
        dates[n][3] = b'0' + year;
        dates[n][5] = b'0' + month / 10;
        dates[n][6] = b'0' + month % 10;
        dates[n][8] = b'0' + day / 10;
        dates[n][9] = b'0' + day % 10;
        let leap = if year == 0 && month == 2 { 1 } else { 0 };
        day += 1;
        if day > LENGTHS[month as usize - 1] + leap {
            day = 1;
            month += 1;
        }
        if month > 12 {
            month = 1;
            year += 1;
        }
        n += 1;
    }
    dates
};

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a name whose only capital is its first letter.
fn push_lower(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    push(out, name);
    out[start] |= 0x20;
}
