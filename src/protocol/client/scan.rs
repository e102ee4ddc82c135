//! Two questions about bytes that are JSON already, answered without building anything.

use memchr::{memchr, memchr_iter};

/// Whether objects and arrays are nested more than `levels` deep.
pub(super) fn nests_over(levels: usize, json: &str) -> bool {
    let bytes = json.as_bytes();
    // Nearly always so, and counted many bytes at a time: with so few brackets in all, no nesting can be deeper.
    if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() <= levels {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => at = string_end(bytes, at),
            _ => {}
        }
    }
    false
}

/// Where the string that `start` is inside of is over, its quote included.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// Whether a `\u` escape names half of a surrogate pair without the other half after it.
pub(super) fn has_lone_surrogate(json: &str) -> bool {
    let bytes = json.as_bytes();
    if memchr(b'\\', bytes).is_none() {
        return false;
    }
    // Backslashes below it belong to an escape that was looked at already.
    let mut next = 0;
    for at in memchr_iter(b'\\', bytes) {
        if at < next {
            continue;
        }
        next = match unit(bytes, at) {
            None => at + 2,
            Some(0xD800..=0xDBFF) => match unit(bytes, at + 6) {
                Some(0xDC00..=0xDFFF) => at + 12,
                _ => return true,
            },
            Some(0xDC00..=0xDFFF) => return true,
            Some(_) => at + 6,
        };
    }
    false
}

/// The UTF-16 unit that an escape at `at` names; `None` if there is no `\u` escape.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let hex = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(hex).ok()?, 16).ok()
}
