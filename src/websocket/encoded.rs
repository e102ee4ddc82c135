//! Frames that are encoded once and shared by every reader.

use std::cell::RefCell;
use std::sync::Arc;

use crate::websocket::frame::{Opcode, close_frame, write_header};

/// A text payload longer than this gives its scratch back, so that one large message does not keep memory on
/// every thread.
const SCRATCH_KEPT_BYTES: usize = 256 * 1024;

thread_local! {
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One whole WebSocket frame as it goes over the wire: server frames carry no mask, so all readers share the
/// same bytes. A clone is a reference count.
#[derive(Clone)]
pub struct Frame(Arc<[u8]>);

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

impl Frame {
    /// A text frame whose payload `write` appends. One allocation.
    #[must_use]
    pub fn text(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        // `write` must not build another frame: then the scratch would be borrowed twice.
        PAYLOAD.with_borrow_mut(|payload| {
            payload.clear();
            write(payload);
            let frame = Self::of(Opcode::Text, payload);
            if payload.capacity() > SCRATCH_KEPT_BYTES {
                *payload = Vec::new();
            }
            frame
        })
    }

    /// A frame with this payload.
    #[must_use]
    pub fn of(opcode: Opcode, payload: &[u8]) -> Self {
        // The payload is already known, so header and payload meet in one exact allocation.
        let mut header = Vec::with_capacity(10);
        write_header(&mut header, opcode, payload.len());
        Self(header.iter().chain(payload).copied().collect())
    }

    /// A close frame; `reason` is at most 123 bytes (RFC 6455 section 5.5.1).
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        Self(close_frame(code, reason).into())
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The payload alone.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        let header = match self.0.get(1).map(|length| length & 0x7f) {
            Some(127) => 10,
            Some(126) => 4,
            _ => 2,
        };
        self.0.get(header..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_every_length_form_is_found_again() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            assert_eq!(Frame::of(Opcode::Text, &payload).payload(), payload);
        }
    }
}
