//! One frame: its header read and written, its payload unmasked (RFC 6455 section 5).

/// Longest payload of a control frame in bytes (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Longest header that a client can send: 2 bytes, 8 of length, 4 of mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// Longest reason in a close frame: a control frame less the two bytes of the code.
const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LEN_7: u8 = 0x7f;
/// Marks in the seven-bit length that 16 or 64 bits of length follow.
const LEN_IN_16: u8 = 126;
const LEN_IN_64: u8 = 127;

/// What kind of frame (RFC 6455 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    /// `None` for the reserved ones.
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }

    /// Close, ping and pong: short, never fragmented, allowed between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Why the connection must be failed. What is inside is for the log, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// RFC 6455 was broken, and how: close 1002.
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8: close 1007.
    Utf8,
    /// A message is longer than `Bounds::message_bytes`: close 1009.
    TooLarge,
    /// A message has more than `Bounds::fragments` fragments: close 1009.
    TooManyFragments,
}

/// A client's frame header, checked as far as it can be without its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub opcode: Opcode,
    /// Last fragment of its message.
    pub fin: bool,
    pub mask: [u8; 4],
    /// Bytes of payload that are announced; at most `i64::MAX`.
    pub payload_len: u64,
    /// Bytes of the header itself.
    pub len: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` while it is not whole.
    ///
    /// # Errors
    /// As soon as the bytes that are there cannot become a valid header.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let [first, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(Violation::Protocol("reserved bit set"));
        }
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(Violation::Protocol("reserved opcode"))?;
        let fin = first & FIN != 0;
        if opcode.is_control() && !fin {
            return Err(Violation::Protocol("fragmented control frame"));
        }
        let [second, rest @ ..] = rest else {
            return Ok(None);
        };
        if second & MASKED == 0 {
            return Err(Violation::Protocol("unmasked frame"));
        }
        let short = second & LEN_7;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Violation::Protocol("control frame too long"));
        }
        let Some((payload_len, rest)) = parse_len(short, rest)? else {
            return Ok(None);
        };
        let Some(mask) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = bytes.len() - rest.len() + mask.len();
        Ok(Some(Self {
            opcode,
            fin,
            mask: *mask,
            payload_len,
            len,
        }))
    }
}

/// The payload length and what follows it. Section 5.2 wants the shortest of the three forms.
fn parse_len(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (len, rest) = match short {
        LEN_IN_16 => match rest.split_first_chunk::<2>() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(None),
        },
        LEN_IN_64 => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(None),
        },
        _ => return Ok(Some((u64::from(short), rest))),
    };
    let shortest = match len {
        0..=125 => short < LEN_IN_16,
        126..=0xffff => short == LEN_IN_16,
        _ => short == LEN_IN_64,
    };
    if !shortest {
        return Err(Violation::Protocol("length not in its shortest form"));
    }
    if len > i64::MAX as u64 {
        return Err(Violation::Protocol("length with its highest bit set"));
    }
    Ok(Some((len, rest)))
}

/// Appends the header of a whole, unmasked frame with the shortest form of `payload_len`.
#[expect(clippy::cast_possible_truncation, reason = "each arm knows that its cast fits")]
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    debug_assert!(
        !opcode.is_control() || payload_len <= CONTROL_BYTES_MAX,
        "control frame too long"
    );
    out.push(FIN | opcode.bits());
    match payload_len {
        0..=125 => out.push(payload_len as u8),
        126..=0xffff => {
            out.push(LEN_IN_16);
            out.extend_from_slice(&(payload_len as u16).to_be_bytes());
        }
        _ => {
            out.push(LEN_IN_64);
            out.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
}

/// Appends a whole, unmasked frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    // The header of a server's frame is four bytes shorter than a client's: there is no mask.
    out.reserve(HEADER_BYTES_MAX - 4 + payload.len());
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Whether `bytes` end in a whole close frame of a client, wherever that begins.
///
/// After a violation nothing can be parsed any more, but a client that was told to close says so last, and then waits
/// for the server to end the connection (RFC 6455 section 7.1.1).
pub fn ends_in_close(bytes: &[u8]) -> bool {
    const HEAD_AND_MASK: usize = 6;
    (0..=125_u8).any(|length| {
        let start = bytes.len().checked_sub(HEAD_AND_MASK + usize::from(length));
        start.is_some_and(|start| bytes[start] == 0x88 && bytes[start + 1] == 0x80 | length)
    })
}

/// A close frame. A `reason` that does not fit into 123 bytes is cut after its last character that does.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
    let mut frame = Vec::with_capacity(4 + reason.len());
    write_header(&mut frame, Opcode::Close, 2 + reason.len());
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

/// Takes the mask off `payload` in place; `offset` is where in the frame's payload it starts, in bytes.
///
/// Eight bytes at a time in a shape that the compiler turns into vector instructions (`benches/codec.rs`).
pub fn unmask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mask: [u8; 4] = std::array::from_fn(|at| mask[(at + offset % 4) % 4]);
    let [a, b, c, d] = mask;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests;
