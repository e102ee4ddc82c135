//! WebSocket frames as a client writes them (RFC 6455 section 5.2), right or wrong.

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;
/// The last or only frame of a message.
pub const FIN: u8 = 0x80;
/// Reserved bits.
pub const RSV1: u8 = 0x40;
pub const RSV2: u8 = 0x20;
pub const RSV3: u8 = 0x10;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// One masked frame; `first` is its first byte whole.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Only the head of a masked frame that announces `length` bytes.
pub fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = bare_head(first, length);
    bytes[1] |= 0x80;
    bytes.extend(MASK);
    bytes
}

/// A whole text message in one frame.
pub fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

/// One frame without a mask, which only a server may send.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = bare_head(first, payload.len() as u64);
    bytes.extend(payload);
    bytes
}

pub fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_bytes());
    frame(FIN | CLOSE, &payload)
}

fn bare_head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(length as u8),
        126..=0xffff => {
            bytes.push(126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes
}
