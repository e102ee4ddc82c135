//! Which partition a room belongs to. Part of the layout of everything that is stored.

use super::contract::PARTITIONS;
use crate::protocol::room;

/// `crc32(name) % PARTITIONS`, with the polynomial of IEEE 802.3 (reflected, `0xEDB88320`), as `zlib.crc32` has it. A shadow
/// room is where its room is, so that a probe goes the way that the room's messages go.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "below PARTITIONS")]
pub fn of(name: &str) -> u16 {
    (crc32fast::hash(room::called(name).as_bytes()) % u32::from(PARTITIONS)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here would make every stored room unreachable.
    #[test]
    fn the_layout_never_changes() {
        // python3 -c 'import zlib; print(zlib.crc32(b"lobby") % 1024)'
        assert_eq!(of("lobby"), 503);
        assert_eq!(of("}x"), 74);
        assert_eq!(of(""), 0);
        assert_eq!(of(&room::shadow_of("lobby")), of("lobby"));
    }
}
