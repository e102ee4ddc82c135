//! What is held of a frame or a message that has not come whole.

use super::{Bounds, Step, Violation};
use crate::websocket::frame::{HEADER_BYTES_MAX, Header, Opcode, unmask};

/// All that is held between two reads, or between two fragments.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// The first `header_len` bytes of a header whose rest has not arrived.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is arriving.
    frame: Option<Arriving>,
    /// Payload of a control frame that is arriving; at most 125 bytes.
    control: Vec<u8>,
    /// The message whose fragments, or the pieces of whose only frame, are arriving.
    message: Option<Message>,
    /// What was handed out from here by the last call, and can be dropped by the next one.
    handed_out: Option<Opcode>,
}

#[derive(Debug, Clone, Copy)]
struct Arriving {
    header: Header,
    /// Bytes of payload that have arrived.
    arrived: usize,
}

/// A data message under way.
#[derive(Debug)]
pub(super) struct Message {
    /// `Text` or `Binary`.
    opcode: Opcode,
    /// Payload so far, unmasked.
    pub(super) data: Vec<u8>,
    /// How many bytes of `data` are known to be whole characters; used for text only.
    valid: usize,
    /// Frames begun so far.
    pub(super) fragments: usize,
}

impl Partial {
    /// Whether the next byte belongs to a payload, not to a header.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.frame.is_some()
    }

    pub(super) fn message(&self) -> Option<&Message> {
        self.message.as_ref()
    }

    /// How many bytes of the next header are kept.
    pub(super) fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes of memory, this struct included.
    pub(super) fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |it| it.data.capacity());
        size_of::<Self>() + self.control.capacity() + message
    }

    /// Drops what the last call handed out; whether there was anything.
    pub(super) fn release(&mut self) -> bool {
        match self.handed_out.take() {
            None => return false,
            Some(opcode) if opcode.is_control() => self.control = Vec::new(),
            Some(_) => self.message = None,
        }
        true
    }

    /// The payload that `Step::Gathered(opcode)` speaks of.
    pub(super) fn gathered(&self, opcode: Opcode) -> &[u8] {
        match &self.message {
            _ if opcode.is_control() => &self.control,
            Some(message) => &message.data,
            None => &[],
        }
    }

    /// Continues a header that was cut, with what has come `fresh`: the header and how much of `fresh`
    /// belongs to it, or `None` and all of `fresh` is kept.
    pub(super) fn header(&mut self, fresh: &[u8]) -> Result<Option<(Header, usize)>, Violation> {
        let kept = self.header_len;
        let taken = fresh.len().min(HEADER_BYTES_MAX - kept);
        self.header[kept..kept + taken].copy_from_slice(&fresh[..taken]);
        let header = Header::parse(&self.header[..kept + taken])?;
        self.header_len = if header.is_some() { 0 } else { kept + taken };
        Ok(header.map(|header| (header, header.len - kept)))
    }

    /// Makes place for an admitted frame.
    pub(super) fn begin(&mut self, header: Header) {
        self.frame = Some(Arriving { header, arrived: 0 });
        match (&mut self.message, header.opcode) {
            (_, opcode) if opcode.is_control() => {}
            (Some(message), _) => message.fragments += 1,
            (none, opcode) => *none = Some(Message::new(opcode)),
        }
    }

    /// Takes in what has arrived of the frame under way.
    pub(super) fn gather(&mut self, input: &mut [u8], used: &mut usize, bounds: Bounds) -> Result<Step, Violation> {
        let Some(Arriving { header, arrived }) = self.frame.take() else {
            return Ok(Step::Again);
        };
        let announced = usize::try_from(header.payload_len).map_err(|_| Violation::TooLarge)?;
        let left = announced - arrived;
        let end = input.len().min(used.saturating_add(left));
        let piece = &mut input[*used..end];
        *used = end;
        unmask(piece, header.mask, arrived);

        let opcode = match &mut self.message {
            Some(message) if !header.opcode.is_control() => {
                message.push(piece, left, header.fin, bounds)?;
                message.opcode
            }
            _ => {
                self.control.extend_from_slice(piece);
                header.opcode
            }
        };
        if piece.len() < left {
            let arrived = arrived + piece.len();
            self.frame = Some(Arriving { header, arrived });
            return Ok(Step::Wait);
        }
        if !header.fin {
            return Ok(Step::Again);
        }
        self.handed_out = Some(opcode);
        Ok(Step::Gathered(opcode))
    }
}

impl Message {
    fn new(opcode: Opcode) -> Self {
        Self {
            opcode,
            data: Vec::new(),
            valid: 0,
            fragments: 1,
        }
    }

    /// Appends a piece; `left` bytes of its frame were still to come, this piece included.
    fn push(&mut self, piece: &[u8], left: usize, fin: bool, bounds: Bounds) -> Result<(), Violation> {
        let needed = self.data.len() + piece.len();
        if needed > self.data.capacity() {
            // Doubling, but not past what this message can still become.
            let longest = if fin {
                self.data.len() + left
            } else {
                bounds.message_bytes
            };
            let target = self.data.capacity().saturating_mul(2).min(longest).max(needed);
            self.data.reserve_exact(target - self.data.len());
        }
        self.data.extend_from_slice(piece);
        if self.opcode == Opcode::Text {
            self.validate()
        } else {
            Ok(())
        }
    }

    /// Fails on the first byte that no continuation can make UTF-8 (RFC 6455 section 8.1), without
    /// waiting for the end of the message. The last character may be incomplete.
    fn validate(&mut self) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}
