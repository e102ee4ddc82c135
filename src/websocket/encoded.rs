//! Frames that are encoded once and shared by every reader.

use std::cell::RefCell;
use std::sync::Arc;

use crate::telemetry::metrics::Kind;
use crate::websocket::frame::{Opcode, close_frame, write_header};

/// A text payload longer than this gives its scratch back, so that one large message does not keep memory on
/// every thread.
const SCRATCH_KEPT_BYTES: usize = 256 * 1024;

/// Longest header of a server frame: two bytes and a 64-bit length (RFC 6455 section 5.2).
const HEADER_BYTES_MAX: usize = 10;

thread_local! {
    /// Room for a header, then the payload, so that a frame is one copy into one allocation.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
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
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.resize(HEADER_BYTES_MAX, 0);
            write(scratch);
            let header = header(Opcode::Text, scratch.len() - HEADER_BYTES_MAX);
            let start = HEADER_BYTES_MAX - header.len();
            scratch[start..HEADER_BYTES_MAX].copy_from_slice(&header);
            let frame = Self(Arc::from(&scratch[start..]));
            if scratch.capacity() > SCRATCH_KEPT_BYTES {
                *scratch = Vec::new();
            }
            frame
        })
    }

    /// A frame with this payload.
    #[must_use]
    pub fn of(opcode: Opcode, payload: &[u8]) -> Self {
        let mut frame = header(opcode, payload.len());
        frame.extend_from_slice(payload);
        Self(frame.into())
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

    /// What it counts as.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.0.first().map(|first| first & 0x0f) {
            Some(0x2) => Kind::Binary,
            Some(0x8) => Kind::Close,
            Some(0x9) => Kind::Ping,
            Some(0xa) => Kind::Pong,
            _ => Kind::Text,
        }
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

fn header(opcode: Opcode, payload_bytes: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES_MAX);
    write_header(&mut header, opcode, payload_bytes);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_counts_as_what_it_is() {
        let kind = |opcode| Frame::of(opcode, b"x").kind();
        assert_eq!(kind(Opcode::Text), Kind::Text);
        assert_eq!(kind(Opcode::Binary), Kind::Binary);
        assert_eq!(kind(Opcode::Ping), Kind::Ping);
        assert_eq!(kind(Opcode::Pong), Kind::Pong);
        assert_eq!(Frame::close(1000, "").kind(), Kind::Close);
    }

    #[test]
    fn the_payload_of_every_length_form_is_found_again() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let frame = Frame::of(Opcode::Text, &payload);
            assert_eq!(frame.payload(), payload);
            assert_eq!(
                Frame::text(|out| out.extend_from_slice(&payload)).bytes(),
                frame.bytes()
            );
        }
    }
}
