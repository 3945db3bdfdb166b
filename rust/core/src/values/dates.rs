//! Calendar dates in seven forms. No time zones, no locale.
//!
//! The date of a timestamp is the date that is written, whatever its offset: the writer of the file meant that date.

/// How `01/02/2021` is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateOrder {
    /// Only where one reading is a date at all; else the value is ambiguous.
    #[default]
    Auto,
    /// Month first, where both readings are dates.
    Mdy,
    /// Day first, where both readings are dates.
    Dmy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DateError {
    Unreadable,
    /// Day and month may be in either order, and the order was not given.
    Ambiguous,
}

/// The days from 2000-01-01 (PostgreSQL's epoch) to a date of the years 1 to 9999.
///
/// Reads `2021-01-16`, `2021/01/16`, `16.01.2021`, `16 Jan 2021`, `Jan 16, 2021` (also full month
/// names, in any case), `01/16/2021` and `16/01/2021` as `order` says, and ISO timestamps.
pub fn parse_date(text: &[u8], order: DateOrder) -> Result<i32, DateError> {
    // The common form first, without a loop.
    if let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, time @ ..] = text
        && let (Some(year), Some(month), Some(day)) =
            (four(&[*y0, *y1, *y2, *y3]), two(*m0, *m1), two(*d0, *d1))
    {
        if !time.is_empty() && !is_time(time) {
            return Err(DateError::Unreadable);
        }
        return days(year, month, day);
    }
    let mut reader = Reader(text);
    if text.first().is_some_and(u8::is_ascii_digit) {
        let (first, width) = reader.number()?;
        let separator = reader.byte()?;
        if separator == b' ' {
            let month = reader.month()?;
            reader.expect(b' ')?;
            return days(reader.last_year()?, month, narrow(first, width)?);
        }
        let (second, second_width) = reader.number()?;
        let second = narrow(second, second_width)?;
        reader.expect(separator)?;
        return match (separator, width) {
            (b'-' | b'/', 4) => {
                let (day, day_width) = reader.number()?;
                reader.end()?;
                days(first, second, narrow(day, day_width)?)
            }
            (b'.', 1 | 2) => days(reader.last_year()?, second, first),
            (b'/', 1 | 2) => slashed(first, second, reader.last_year()?, order),
            _ => Err(DateError::Unreadable),
        };
    }
    let month = reader.month()?;
    reader.expect(b' ')?;
    let (day, width) = reader.number()?;
    if reader.0.first() == Some(&b',') {
        reader.byte()?;
    }
    reader.expect(b' ')?;
    days(reader.last_year()?, month, narrow(day, width)?)
}

fn slashed(first: u32, second: u32, year: u32, order: DateOrder) -> Result<i32, DateError> {
    match (days(year, first, second), days(year, second, first), order) {
        (Err(error), Err(_), _) => Err(error),
        (Ok(date), Err(_), _) | (Err(_), Ok(date), _) => Ok(date),
        (Ok(date), Ok(other), _) if date == other => Ok(date),
        (Ok(date), Ok(_), DateOrder::Mdy) | (Ok(_), Ok(date), DateOrder::Dmy) => Ok(date),
        (Ok(_), Ok(_), DateOrder::Auto) => Err(DateError::Ambiguous),
    }
}

fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then_some(u32::from(tens) * 10 + u32::from(ones))
}

fn four(digits: &[u8; 4]) -> Option<u32> {
    Some(two(digits[0], digits[1])? * 100 + two(digits[2], digits[3])?)
}

/// Days and months have at most two digits.
fn narrow(number: u32, width: usize) -> Result<u32, DateError> {
    if width <= 2 {
        Ok(number)
    } else {
        Err(DateError::Unreadable)
    }
}

/// The calendar to days since 2000-01-01; unreadable if there is no such date.
fn days(year: u32, month: u32, day: u32) -> Result<i32, DateError> {
    const LENGTHS: [u8; 13] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    // Of the days before a month, counted from 1 March, so that 29 February is the last of all.
    const BEFORE: [u16; 13] = [0, 306, 337, 0, 31, 61, 92, 122, 153, 184, 214, 245, 275];
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day == 0 {
        return Err(DateError::Unreadable);
    }
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = u32::from(LENGTHS[month as usize]) + u32::from(month == 2 && is_leap);
    if day > length {
        return Err(DateError::Unreadable);
    }
    let year = if month < 3 { year - 1 } else { year };
    let count = 365 * year + year / 4 - year / 100 + year / 400;
    let count = count + u32::from(BEFORE[month as usize]) + day;
    // 1 March of the year 0 is day 1 here; 2000-01-01 is day 730426.
    Ok(count as i32 - 730_426)
}

/// `[T ]HH:MM[:SS[.fraction]][Z|+HH[[:]MM]]`; the time must exist, but is not kept.
fn is_time(text: &[u8]) -> bool {
    let (b'T' | b't' | b' ', rest) = (text[0], &text[1..]) else {
        return false;
    };
    let [h0, h1, b':', m0, m1, rest @ ..] = rest else {
        return false;
    };
    let is_clock = two(*h0, *h1).is_some_and(|hour| hour <= 24)
        && two(*m0, *m1).is_some_and(|minute| minute < 60);
    let mut rest = rest;
    if let [b':', s0, s1, tail @ ..] = rest {
        // 60 is a leap second.
        if two(*s0, *s1).is_none_or(|second| second > 60) {
            return false;
        }
        rest = tail;
        if let [b'.' | b',', tail @ ..] = rest {
            let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            rest = &tail[digits..];
        }
    }
    if let [b' ', tail @ ..] = rest {
        rest = tail;
        if rest.is_empty() {
            return false;
        }
    }
    let is_zone = match rest {
        [] | [b'Z' | b'z'] => true,
        [b'+' | b'-', h0, h1] => two(*h0, *h1).is_some(),
        [b'+' | b'-', h0, h1, m0, m1] | [b'+' | b'-', h0, h1, b':', m0, m1] => {
            two(*h0, *h1).is_some() && two(*m0, *m1).is_some()
        }
        _ => false,
    };
    is_clock && is_zone
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DateError> {
        let (&byte, rest) = self.0.split_first().ok_or(DateError::Unreadable)?;
        self.0 = rest;
        Ok(byte)
    }

    fn expect(&mut self, byte: u8) -> Result<(), DateError> {
        if self.byte()? == byte {
            Ok(())
        } else {
            Err(DateError::Unreadable)
        }
    }

    fn end(&self) -> Result<(), DateError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DateError::Unreadable)
        }
    }

    /// A number of one to four digits, and how many it has.
    fn number(&mut self) -> Result<(u32, usize), DateError> {
        let width = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if !(1..=4).contains(&width) {
            return Err(DateError::Unreadable);
        }
        let (digits, rest) = self.0.split_at(width);
        self.0 = rest;
        Ok((
            digits
                .iter()
                .fold(0, |number, digit| number * 10 + u32::from(digit - b'0')),
            width,
        ))
    }

    /// Four digits and nothing more.
    fn last_year(&mut self) -> Result<u32, DateError> {
        let (year, width) = self.number()?;
        self.end()?;
        if width == 4 {
            Ok(year)
        } else {
            Err(DateError::Unreadable)
        }
    }

    fn month(&mut self) -> Result<u32, DateError> {
        const NAMES: [&[u8]; 12] = [
            b"january",
            b"february",
            b"march",
            b"april",
            b"may",
            b"june",
            b"july",
            b"august",
            b"september",
            b"october",
            b"november",
            b"december",
        ];
        let width = self
            .0
            .iter()
            .take_while(|byte| byte.is_ascii_alphabetic())
            .count();
        let (name, rest) = self.0.split_at(width);
        self.0 = rest;
        let at = NAMES.iter().position(|full| {
            name.eq_ignore_ascii_case(full) || name.eq_ignore_ascii_case(&full[..3])
        });
        at.map(|at| at as u32 + 1).ok_or(DateError::Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::DateError::{Ambiguous, Unreadable};
    use super::DateOrder::{Auto, Dmy, Mdy};
    use super::*;

    macro_rules! dates {
        ($($name:ident: $text:literal, $order:expr => $expected:expr;)*) => {
            $(#[test] fn $name() { assert_eq!(parse_date($text.as_bytes(), $order), $expected); })*
        };
    }

    dates! {
        epoch: "2000-01-01", Auto => Ok(0);
        iso: "2021-01-16", Auto => Ok(7686);
        first_of_all: "0001-01-01", Auto => Ok(-730_119);
        last_of_all: "9999-12-31", Auto => Ok(2_921_939);
        leap_day: "2000-02-29", Auto => Ok(59);
        no_leap_day_in_1900: "1900-02-29", Auto => Err(Unreadable);
        no_leap_day: "2021-02-29", Auto => Err(Unreadable);
        no_31_april: "2021-04-31", Auto => Err(Unreadable);
        year_zero: "0000-01-01", Auto => Err(Unreadable);
        month_13: "2021-13-01", Auto => Err(Unreadable);
        day_zero: "2021-01-00", Auto => Err(Unreadable);
        timestamp: "2021-01-16T23:59:59Z", Auto => Ok(7686);
        timestamp_with_offset: "2021-01-16T00:00:00+14:00", Auto => Ok(7686);
        timestamp_with_fraction: "2021-01-16 10:20:30.123456-0500", Auto => Ok(7686);
        timestamp_in_minutes: "2021-01-16 10:20", Auto => Ok(7686);
        timestamp_short_offset: "2021-01-16 10:20:30+02", Auto => Ok(7686);
        no_such_minute: "2021-01-16 10:61", Auto => Err(Unreadable);
        trailing_words: "2021-01-16 and", Auto => Err(Unreadable);
        iso_one_digit: "2021-1-6", Auto => Ok(7676);
        slashes: "2021/01/16", Auto => Ok(7686);
        dots: "16.01.2021", Auto => Ok(7686);
        dots_are_never_american: "01.16.2021", Auto => Err(Unreadable);
        named: "16 Jan 2021", Auto => Ok(7686);
        named_in_full: "16 JANUARY 2021", Auto => Ok(7686);
        american_name: "Jan 16, 2021", Auto => Ok(7686);
        american_name_in_full: "september 6, 2021", Auto => Ok(7919);
        american_name_without_comma: "Jan 16 2021", Auto => Ok(7686);
        no_such_name: "16 Jab 2021", Auto => Err(Unreadable);
        clearly_mdy: "01/16/2021", Auto => Ok(7686);
        clearly_dmy: "16/01/2021", Auto => Ok(7686);
        clearly_dmy_though_mdy_was_given: "16/01/2021", Mdy => Ok(7686);
        same_both_ways: "05/05/2021", Auto => Ok(7795);
        either_way: "01/02/2021", Auto => Err(Ambiguous);
        given_mdy: "01/02/2021", Mdy => Ok(7672);
        given_dmy: "01/02/2021", Dmy => Ok(7702);
        neither_way: "13/13/2021", Mdy => Err(Unreadable);
        two_digit_year: "16.01.21", Auto => Err(Unreadable);
        mixed_separators: "2021-01/16", Auto => Err(Unreadable);
        nothing: "", Auto => Err(Unreadable);
        a_word: "yesterday", Auto => Err(Unreadable);
        other_digits: "２０２１-01-16", Auto => Err(Unreadable);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = days(1, 1, 1).unwrap();
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Ok(date) = days(year, month, day) {
                        assert_eq!(date, expected, "{year}-{month}-{day}");
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(expected, 2_921_940);
    }
}
