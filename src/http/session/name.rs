//! A guest's name: what room mates will read, so that it must be readable and cannot rearrange the line around it.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 64;

/// The name, trimmed and in NFC; else a sentence that says what is wrong with it.
pub(super) fn checked(name: &str) -> Result<String, &'static str> {
    let name: String = name.trim().nfc().collect();
    if name.is_empty() {
        return Err("name is empty");
    }
    // The token allows a name 256 bytes, as much as 64 characters can have.
    if name.chars().count() > NAME_CHARS_MAX {
        return Err("name is longer than 64 characters");
    }
    if !name.chars().all(is_allowed) {
        return Err("name has control characters or ones that change the direction of text");
    }
    if !name.chars().any(is_visible) {
        return Err("name has nothing visible in it");
    }
    Ok(name)
}

fn is_allowed(c: char) -> bool {
    match c.general_category() {
        GeneralCategory::Control | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => false,
        // Joiners and tags hold emoji and some scripts together; the other format characters are invisible tricks.
        GeneralCategory::Format => matches!(c, '\u{200c}' | '\u{200d}' | '\u{e0020}'..='\u{e007f}'),
        _ => true,
    }
}

fn is_visible(c: char) -> bool {
    use GeneralCategoryGroup::{Letter, Number, Punctuation, Symbol};
    // These letters and symbols have no ink: Hangul fillers and the blank Braille pattern.
    let blank = matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{2800}');
    matches!(c.general_category_group(), Letter | Number | Punctuation | Symbol) && !blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (good, expected) in [
            ("Ann", "Ann"),
            ("  Ann B. ", "Ann B."),
            ("Zoe\u{308}", "Zo\u{eb}"),
            ("李小龍", "李小龍"),
            ("👩\u{200d}💻", "👩\u{200d}💻"),
            ("<b>&\"", "<b>&\""),
            ("مريم", "مريم"),
        ] {
            assert_eq!(checked(good).as_deref(), Ok(expected));
        }
        assert!(checked(&"😀".repeat(64)).is_ok());
        let long = "a".repeat(65);
        for bad in [
            "",
            "   ",
            &long,
            "a\nb",
            "a\0",
            "a\u{7f}",
            "a\u{202e}b",
            "a\u{2066}b",
            "a\u{200f}b",
            "a\u{61c}b",
            "\u{200b}",
            "a\u{200b}b",
            "a\u{feff}b",
            "a\u{2028}b",
            "\u{200d}",
            "\u{3164}",
            "\u{301}",
            "a\u{ad}b",
        ] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
    }
}
