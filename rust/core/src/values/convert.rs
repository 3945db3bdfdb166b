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
pub(crate) fn identity(bytes: &[u8]) -> Cow<'_, [u8]> {
    let bytes = undo_excel(bytes);
    if bytes.is_ascii() {
        Cow::Borrowed(bytes)
    } else {
        compose(bytes)
    }
}

#[cold]
fn compose(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Cow::Borrowed(bytes);
    };
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(bytes),
        _ => Cow::Owned(text.nfc().collect::<String>().into_bytes()),
    }
}

/// The identity that an e-mail gives, from a trimmed value; None unless it has the form x@y:
/// one @, something before and behind it, and no white space.
pub(crate) fn email_identity(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let composed = identity(bytes);
    let text = std::str::from_utf8(&composed).ok()?;
    let (before, behind) = text.split_once('@')?;
    let is_address = !before.is_empty()
        && !behind.is_empty()
        && !behind.contains('@')
        && !text.contains(is_space);
    if !is_address {
        return None;
    }
    Some(
        match text
            .bytes()
            .any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii())
        {
            true => Cow::Owned(text.to_lowercase().into_bytes()),
            false => composed,
        },
    )
}

/// The text in lower case, for the slow path of values that are not ASCII.
#[cold]
pub(crate) fn lower_case(bytes: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(bytes).to_lowercase().into_bytes()
}
