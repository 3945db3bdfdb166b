//! Texts: what is trimmed, what is blank, how identities are written.
//!
//! A change of any rule here raises [`crate::customer::RULES_VERSION`].

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// White space, and the characters that nobody can see at the ends of a cell: zero-width space,
/// non-joiner and joiner, word joiner, byte order mark, and the Mongolian vowel separator.
fn is_space(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}' | '\u{180E}'
        )
}

/// The text without spaces at its ends, non-breaking and zero-width ones included.
pub fn trim(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// [`trim`] for the bytes of valid UTF-8.
#[inline(always)]
pub(crate) fn trim_bytes(bytes: &[u8]) -> &[u8] {
    match bytes {
        // Nearly every value begins and ends with a visible ASCII character.
        [b'!'..=b'~', .., b'!'..=b'~'] | [b'!'..=b'~'] | [] => bytes,
        _ => trim_slow(bytes),
    }
}

#[cold]
fn trim_slow(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Ok(text) => trim(text).as_bytes(),
        Err(_) => bytes.trim_ascii(),
    }
}

/// The characters of valid UTF-8.
pub(crate) fn count_characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte as i8) >= -0x40).count()
}

/// Takes away what Excel writes around a number that must stay a text: `="0123"` and `'0123`.
pub(crate) fn undo_excel(bytes: &[u8]) -> &[u8] {
    let undone = match bytes {
        [b'=', b'"', inner @ .., b'"'] => inner,
        [b'\'', inner @ ..] => inner,
        _ => return bytes,
    };
    trim_bytes(undone)
}

/// An identity as it is stored, from a trimmed value.
#[inline]
pub fn identity(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bytes = undo_excel(bytes);
    if bytes.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => in_bytes(compose(Cow::Borrowed(text))),
        Err(_) => Cow::Borrowed(bytes),
    }
}

/// An e-mail as it is stored, from a trimmed value: in lower case and in NFC.
///
/// One round is enough: to do it again changes nothing, and texts that Unicode calls equal become
/// the same bytes. It takes a whole value, never a part: the lower case of a sigma depends on what
/// stands around it.
#[inline]
pub fn email(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        // In this order: the small letter may compose with its mark where the capital does not.
        return compose(Cow::Owned(text.to_lowercase()));
    }
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

/// The identity that an e-mail gives, from a trimmed value; None unless it has the form x@y:
/// one @, something before and behind it, and no white space.
pub fn email_identity(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = email(std::str::from_utf8(undo_excel(bytes)).ok()?);
    let (before, behind) = text.split_once('@')?;
    let is_address = !before.is_empty()
        && !behind.is_empty()
        && !behind.contains('@')
        && !text.contains(is_space);
    is_address.then(|| in_bytes(text))
}

/// In NFC.
#[cold]
fn compose(text: Cow<'_, str>) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text,
        _ => Cow::Owned(text.nfc().collect()),
    }
}

fn in_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIGMA: &str = "\u{3a3}";

    fn every_character() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    fn is_small(c: char) -> bool {
        c.to_lowercase().eq([c])
    }

    fn all_small(c: char) -> bool {
        c.nfd().all(is_small)
    }

    /// NFC takes characters apart and puts them together. Neither makes a capital of small letters,
    /// so the lower case of a text stays lower case in NFC: one round is the end, for any text.
    #[test]
    fn no_composition_makes_a_capital() {
        for c in every_character() {
            assert_eq!(is_small(c), all_small(c), "{c:?}");
            assert!(c.to_lowercase().all(is_small), "{c:?}");
        }
    }

    /// Of equal texts the lower case is equal: of a character and of what it is made of, ...
    #[test]
    fn every_spelling_of_a_character_becomes_the_same() {
        for c in every_character() {
            for around in ["", "a", "A\u{323}", SIGMA] {
                for text in [format!("{around}{c}"), format!("{c}{around}")] {
                    let stored = email(&text);
                    let (composed, decomposed) = (text.nfc(), text.nfd());
                    assert_eq!(email(&composed.collect::<String>()), stored, "{text:?}");
                    assert_eq!(email(&decomposed.collect::<String>()), stored, "{text:?}");
                    assert_eq!(email(&stored), stored, "{text:?}");
                }
            }
        }
    }

    /// ... and beside a sigma, whose lower case asks for letters before and behind it, over marks.
    #[test]
    fn every_spelling_leaves_the_sigmas_beside_it_alone() {
        for c in every_character() {
            for (before, behind) in [("a", ""), ("a", "a"), ("", ""), ("a\u{301}", "\u{345}a")] {
                let ways: [(String, String); 2] = [(c.into(), c.nfd().collect()), {
                    let composed: String = c.nfc().collect();
                    (composed.clone(), composed)
                }];
                for (one, other) in ways {
                    let of =
                        |c: &str| email(&format!("{before}{c}{SIGMA}{c}{behind}")).into_owned();
                    assert_eq!(of(&one), of(&other), "{before:?} {c:?} {behind:?}");
                }
            }
        }
    }

    /// Marks change places in NFC, so none may count as a letter beside a sigma.
    #[test]
    fn a_mark_that_moves_is_no_letter() {
        use unicode_normalization::char::canonical_combining_class;
        for c in every_character().filter(|c| canonical_combining_class(*c) != 0) {
            let small = format!("a{SIGMA}{c}").to_lowercase();
            assert!(small.starts_with("a\u{3c2}"), "{c:?}");
        }
    }

    /// Spaces are trimmed before, the form x@y is judged behind: neither may depend on the spelling.
    #[test]
    fn spaces_and_at_signs_stay_what_they_are() {
        for c in every_character() {
            let text = String::from(c);
            let stored = email(&text);
            assert_eq!(stored.chars().all(is_space), is_space(c), "{c:?}");
            assert_eq!(stored.contains('@'), c == '@', "{c:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..Default::default() })]

        /// The same for whole texts, of characters that meet in compositions and around sigmas.
        #[test]
        fn every_spelling_of_a_text_becomes_the_same(
            text in "([AJjIi\u{130}\u{1f0}\u{3a3}\u{3c2}\u{391}\u{1f88}.'@]|[\u{300}-\u{345}]|\\PC){0,12}"
        ) {
            let stored = email(&text);
            prop_assert_eq!(email(&stored), &*stored);
            prop_assert_eq!(&*stored, stored.nfc().collect::<String>());
            prop_assert_eq!(&*stored, stored.to_lowercase());
            for other in [text.nfc().collect::<String>(), text.nfd().collect()] {
                prop_assert_eq!(email(&other), &*stored);
            }
        }
    }

    macro_rules! emails {
        ($($name:ident: $text:literal => $stored:literal;)*) => {
            $(#[test] fn $name() { assert_eq!(email($text), $stored); })*
        };
    }

    emails! {
        small: "a.b@c" => "a.b@c";
        capitals: "A.b@C" => "a.b@c";
        mac_spelling: "ju\u{308}rgen@x" => "j\u{fc}rgen@x";
        windows_spelling: "J\u{dc}RGEN@x" => "j\u{fc}rgen@x";
        capital_without_composite: "J\u{30c}@x" => "\u{1f0}@x";
        small_composite: "\u{1f0}@x" => "\u{1f0}@x";
        dotted_i: "\u{130}@x" => "i\u{307}@x";
        dotted_i_apart: "I\u{307}@x" => "i\u{307}@x";
        dotless_i: "\u{131}I@x" => "\u{131}i@x";
        kelvin: "\u{212a}@x" => "k@x";
        sharp_s: "\u{1e9e}@x" => "\u{df}@x";
        marks_in_another_order: "A\u{302}\u{323}@x" => "\u{1ead}@x";
        one_character_becomes_two: "\u{958}@x" => "\u{915}\u{93c}@x";
        sigma_at_the_end_of_a_word: "\u{39f}\u{3a3}@x" => "\u{3bf}\u{3c2}@x";
        sigma_before_a_point_and_a_letter: "\u{39f}\u{3a3}.\u{39f}@x" => "\u{3bf}\u{3c3}.\u{3bf}@x";
        small_sigmas_are_kept: "\u{3c3}\u{3c2}@x" => "\u{3c3}\u{3c2}@x";
    }
}
