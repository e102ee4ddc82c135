//! Which names a room may have (PROTOCOL.md section 2).

use unicode_normalization::is_nfc;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Longest room name, UTF-8.
pub const ROOM_BYTES_MAX: usize = 128;

/// What the names of shadow rooms begin with: a control character, which [`check`] refuses, so that no client can name
/// one. Part of the layout of everything that is stored.
const SHADOW: char = '\u{2}';

/// The room that a probe is in instead of this one: the same way of a message, and nobody else in it.
pub fn shadow_of(name: &str) -> String {
    format!("{SHADOW}{name}")
}

/// Whether only probes can be in the room of this name.
pub fn is_shadow(name: &str) -> bool {
    name.starts_with(SHADOW)
}

/// The room through which all nodes hear what is for users rather than rooms. It is a shadow, which no probe can name
/// either. Part of the layout of everything that is stored.
pub const POST: &str = "\u{2}\u{2}post";

/// What clients call the room of this name.
pub fn called(name: &str) -> &str {
    name.strip_prefix(SHADOW).unwrap_or(name)
}

const EMPTY: &str = "a room name has at least 1 byte";
const TOO_LONG: &str = "a room name has at most 128 bytes";
const STAR: &str = "a room name has no `*`, which stands for many rooms in grants";
const INVISIBLE: &str = "a room name has no control, format or bidirectional-override characters";
const SPACE: &str = "a room name has no leading or trailing space";
const NOT_NFC: &str = "a room name is in Unicode normalization form C (NFC)";

/// `Ok`, or the sentence for the `bad_room` error.
///
/// Two names that look alike to a person must not be two rooms, nor may a name rearrange the line of a log or a page
/// that shows it: hence NFC, and nothing invisible.
pub fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err(EMPTY);
    }
    if name.len() > ROOM_BYTES_MAX {
        return Err(TOO_LONG);
    }
    if name.bytes().all(|byte| matches!(byte, b'!'..=b'~' if byte != b'*')) {
        return Ok(());
    }
    check_slowly(name)
}

fn check_slowly(name: &str) -> Result<(), &'static str> {
    if name.contains('*') {
        return Err(STAR);
    }
    if name.chars().any(is_invisible) {
        return Err(INVISIBLE);
    }
    if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
        return Err(SPACE);
    }
    if !is_nfc(name) {
        return Err(NOT_NFC);
    }
    Ok(())
}

/// The bidirectional overrides are among the format characters; the line and paragraph separators would break a line
/// where a person expects one.
fn is_invisible(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    matches!(
        c.general_category(),
        Control | Format | LineSeparator | ParagraphSeparator
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_people_use_pass() {
        for name in [
            "a",
            "lobby",
            "team-42/general",
            "two words",
            "~!",
            "Zürich",
            "部屋",
            "🚀",
            "a\u{a0}b",
        ] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
        assert_eq!(check(&"x".repeat(ROOM_BYTES_MAX)), Ok(()));
        assert_eq!(check(&"é".repeat(ROOM_BYTES_MAX / 2)), Ok(()));
    }

    #[test]
    fn others_are_told_why_not() {
        let cases = [
            ("", EMPTY),
            (" lobby", SPACE),
            ("lobby ", SPACE),
            (" ", SPACE),
            ("\u{3000}部屋", SPACE),
            ("a\u{a0}", SPACE),
            ("team/*", STAR),
            ("é*", STAR),
            ("a\nb", INVISIBLE),
            ("a\u{0}", INVISIBLE),
            ("a\u{7f}", INVISIBLE),
            ("a\u{85}b", INVISIBLE),
            ("a\u{200b}b", INVISIBLE),
            ("a\u{200d}b", INVISIBLE),
            ("a\u{202e}b", INVISIBLE),
            ("a\u{2066}b", INVISIBLE),
            ("a\u{2028}b", INVISIBLE),
            ("a\u{2029}b", INVISIBLE),
            ("\u{feff}a", INVISIBLE),
            ("a\u{ad}b", INVISIBLE),
            ("a\u{e0041}", INVISIBLE),
            ("e\u{301}", NOT_NFC),
            ("\u{212b}", NOT_NFC),
        ];
        for (name, why) in cases {
            assert_eq!(check(name), Err(why), "{name:?}");
        }
        assert_eq!(check(&"x".repeat(ROOM_BYTES_MAX + 1)), Err(TOO_LONG));
        assert_eq!(check(&"é".repeat(ROOM_BYTES_MAX / 2 + 1)), Err(TOO_LONG));
    }

    proptest::proptest! {
        /// No name that a client may say is a shadow room's, whatever it is made of; and the shadow of one says its name.
        #[test]
        fn no_client_can_name_a_shadow_room(name in proptest::prop_oneof!["\\PC{0,12}", ".{0,12}", "\u{2}.{0,12}"]) {
            proptest::prop_assert!(check(&name).is_err() || !is_shadow(&name));
            let shadow = shadow_of(&name);
            proptest::prop_assert!(is_shadow(&shadow) && check(&shadow).is_err());
            proptest::prop_assert_eq!(called(&shadow), &name);
            proptest::prop_assert!(check(&name).is_err() || (name != POST && shadow != POST));
            if check(&name).is_ok() {
                proptest::prop_assert_eq!(called(&name), &name);
            }
        }

        #[test]
        fn the_fast_way_and_the_slow_way_agree(name in "[ -~\u{e9}]{1,12}") {
            proptest::prop_assert_eq!(check(&name), check_slowly(&name));
        }
    }
}
