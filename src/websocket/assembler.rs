//! What was read from a client becomes messages, wherever the reads were cut.
//!
//! A message that came whole in one frame and one read is handed out where it lies: no copy, no allocation.
//! Anything else is gathered in a [`Partial`] that exists only while there is something to gather, so that an
//! idle connection pays for one empty pointer. Memory grows with what has arrived, never with what a
//! header announces.

use std::ops::Range;

pub use super::frame::Violation;
use super::frame::{HEADER_BYTES_MAX, Header, Opcode, unmask};

/// What a message may cost before it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Longest message in bytes, all fragments together.
    pub message_bytes: usize,
    /// Most fragments of one message, empty ones included. A message in one frame has none.
    pub fragments: usize,
}

/// What a client said. Borrowed from the bytes read or from the assembler: good until the next call.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Code and reason, if the client gave them. Nothing after it counts (RFC 6455 section 5.5.1).
    Close(Option<(u16, &'a str)>),
}

/// Turns one client's bytes into events.
#[derive(Debug, Default)]
pub struct Assembler {
    partial: Option<Box<Partial>>,
}

/// All that is held between two reads, or between two fragments.
#[derive(Debug, Default)]
struct Partial {
    /// The first `header_len` bytes of a header whose rest has not arrived.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is arriving.
    frame: Option<Arriving>,
    /// Payload of a control frame that is arriving; at most 125 bytes.
    control: Vec<u8>,
    /// The message whose fragments, or the pieces of whose only frame, are arriving.
    message: Option<Message>,
    /// What was handed out from here by the last call, and can be dropped by this one.
    handed_out: Option<Opcode>,
}

#[derive(Debug, Clone, Copy)]
struct Arriving {
    header: Header,
    /// Bytes of payload that have arrived.
    arrived: usize,
}

#[derive(Debug)]
struct Message {
    /// `Text` or `Binary`.
    opcode: Opcode,
    /// Payload so far, unmasked.
    data: Vec<u8>,
    /// How many bytes of `data` are known to be whole characters; used for text only.
    valid: usize,
    /// Frames begun so far.
    fragments: usize,
}

/// What one look at the input came to.
enum Step {
    /// Something was consumed; look again.
    Again,
    /// All of the input was consumed.
    Wait,
    /// A whole frame lies unmasked at this place of the input.
    Borrowed(Opcode, Range<usize>),
    /// A control frame or a message is whole in `Partial`.
    Gathered(Opcode),
}

impl Assembler {
    /// An assembler at the start of a connection; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at `input` from `*used`, unmasks in place, and moves `*used` past what it consumed.
    ///
    /// `Ok(None)`: all of `input` was consumed, its last part perhaps kept in here; come back with more
    /// bytes and `*used` at 0. Call until then: it is the call after an event that frees the event's memory.
    ///
    /// # Errors
    /// The connection must be failed; neither after an error nor after `Event::Close` may it be called again.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        used: &mut usize,
        bounds: Bounds,
    ) -> Result<Option<Event<'a>>, Violation> {
        self.release();
        loop {
            match self.step(input, used, bounds)? {
                Step::Again => {}
                Step::Wait => return Ok(None),
                Step::Borrowed(opcode, at) => return event(opcode, &input[at]).map(Some),
                Step::Gathered(opcode) => return event(opcode, self.gathered(opcode)).map(Some),
            }
        }
    }

    /// Bytes of memory behind a partial frame or message; 0 at rest.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial
                .message
                .as_ref()
                .map_or(0, |message| message.data.capacity());
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    /// Drops what the last call handed out.
    fn release(&mut self) {
        let Some(partial) = &mut self.partial else {
            return;
        };
        match partial.handed_out.take() {
            None => {}
            Some(opcode) if opcode.is_control() => {
                partial.control = Vec::new();
                self.rest();
            }
            Some(_) => self.partial = None,
        }
    }

    /// Between two frames: frees everything unless a fragmented message is under way.
    fn rest(&mut self) {
        if self
            .partial
            .as_ref()
            .is_some_and(|partial| partial.message.is_none())
        {
            self.partial = None;
        }
    }

    fn step(
        &mut self,
        input: &mut [u8],
        used: &mut usize,
        bounds: Bounds,
    ) -> Result<Step, Violation> {
        if let Some(partial) = &mut self.partial
            && partial.frame.is_some()
        {
            return partial.gather(input, used, bounds);
        }
        let Some(header) = self.header(input, used)? else {
            return Ok(Step::Wait);
        };
        let payload_len = self.admit(&header, bounds)?;
        let whole =
            header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation);
        if whole && payload_len <= input.len() - *used {
            let at = *used..*used + payload_len;
            *used = at.end;
            unmask(&mut input[at.clone()], header.mask, 0);
            self.rest();
            return Ok(Step::Borrowed(header.opcode, at));
        }
        self.partial.get_or_insert_default().begin(header);
        Ok(Step::Again)
    }

    /// The next header, from the input alone or together with what was kept of it. `None` consumes all input.
    fn header(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Header>, Violation> {
        let fresh = &input[*used..];
        let kept = self
            .partial
            .as_ref()
            .map_or(0, |partial| partial.header_len);
        if kept == 0
            && let Some(header) = Header::parse(fresh)?
        {
            *used += header.len;
            return Ok(Some(header));
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        let taken = fresh.len().min(HEADER_BYTES_MAX - kept);
        partial.header[kept..kept + taken].copy_from_slice(&fresh[..taken]);
        match Header::parse(&partial.header[..kept + taken])? {
            Some(header) => {
                partial.header_len = 0;
                *used += header.len - kept;
                Ok(Some(header))
            }
            None => {
                partial.header_len = kept + taken;
                *used = input.len();
                Ok(None)
            }
        }
    }

    /// Whether a frame may come here and now; its payload's length if so.
    fn admit(&self, header: &Header, bounds: Bounds) -> Result<usize, Violation> {
        let payload_len = usize::try_from(header.payload_len).map_err(|_| Violation::TooLarge)?;
        if header.opcode.is_control() {
            return Ok(payload_len);
        }
        let message = self
            .partial
            .as_ref()
            .and_then(|partial| partial.message.as_ref());
        let (held, fragments) = match (header.opcode, message) {
            (Opcode::Continuation, None) => return Err(Violation::Protocol("nothing to continue")),
            (Opcode::Continuation, Some(message)) => (message.data.len(), message.fragments + 1),
            (_, Some(_)) => return Err(Violation::Protocol("new message inside a fragmented one")),
            (_, None) => (0, usize::from(!header.fin)),
        };
        if payload_len > bounds.message_bytes.saturating_sub(held) {
            return Err(Violation::TooLarge);
        }
        if fragments > bounds.fragments {
            return Err(Violation::TooManyFragments);
        }
        Ok(payload_len)
    }

    fn gathered(&self, opcode: Opcode) -> &[u8] {
        match self.partial.as_deref() {
            Some(partial) if opcode.is_control() => &partial.control,
            Some(Partial {
                message: Some(message),
                ..
            }) => &message.data,
            _ => &[],
        }
    }
}

impl Partial {
    /// Makes place for an admitted frame.
    fn begin(&mut self, header: Header) {
        self.frame = Some(Arriving { header, arrived: 0 });
        match (&mut self.message, header.opcode) {
            (_, opcode) if opcode.is_control() => {}
            (Some(message), _) => message.fragments += 1,
            (none, opcode) => {
                *none = Some(Message {
                    opcode,
                    data: Vec::new(),
                    valid: 0,
                    fragments: 1,
                })
            }
        }
    }

    /// Takes in what has arrived of the frame under way.
    fn gather(
        &mut self,
        input: &mut [u8],
        used: &mut usize,
        bounds: Bounds,
    ) -> Result<Step, Violation> {
        let Some(frame) = &mut self.frame else {
            return Ok(Step::Again);
        };
        let Arriving { header, arrived } = *frame;
        let left = usize::try_from(header.payload_len).map_err(|_| Violation::TooLarge)? - arrived;
        let end = input.len().min(used.saturating_add(left));
        let piece = &mut input[*used..end];
        unmask(piece, header.mask, arrived);
        *used = end;
        frame.arrived += piece.len();
        let ended = piece.len() == left;

        match &mut self.message {
            _ if header.opcode.is_control() => self.control.extend_from_slice(piece),
            Some(message) => message.push(piece, left, header.fin, bounds)?,
            None => {}
        }
        if !ended {
            return Ok(Step::Wait);
        }
        self.frame = None;
        let opcode = match &self.message {
            Some(message) if !header.opcode.is_control() => message.opcode,
            _ => header.opcode,
        };
        if !header.fin {
            return Ok(Step::Again);
        }
        self.handed_out = Some(opcode);
        Ok(Step::Gathered(opcode))
    }
}

impl Message {
    /// Appends a piece; `left` bytes of its frame were still to come, this piece included.
    fn push(
        &mut self,
        piece: &[u8],
        left: usize,
        fin: bool,
        bounds: Bounds,
    ) -> Result<(), Violation> {
        let needed = self.data.len() + piece.len();
        if needed > self.data.capacity() {
            // Doubling, but not past what this message can still become.
            let longest = if fin {
                self.data.len() + left
            } else {
                bounds.message_bytes
            };
            let target = self
                .data
                .capacity()
                .saturating_mul(2)
                .min(longest)
                .max(needed);
            self.data.reserve_exact(target - self.data.len());
        }
        self.data.extend_from_slice(piece);
        if self.opcode == Opcode::Text {
            self.validate()?;
        }
        Ok(())
    }

    /// Fails on the first byte that no continuation can make UTF-8 (RFC 6455 section 8.1), without waiting
    /// for the end of the message. The last character may be incomplete.
    fn validate(&mut self) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(Violation::Utf8),
        }
        Ok(())
    }
}

/// The event that a whole payload is.
fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    Ok(match opcode {
        Opcode::Text => Event::Text(text(payload)?),
        Opcode::Binary => Event::Binary(payload),
        Opcode::Ping => Event::Ping(payload),
        Opcode::Pong => Event::Pong(payload),
        Opcode::Close => Event::Close(close(payload)?),
        Opcode::Continuation => return Err(Violation::Protocol("nothing to continue")),
    })
}

fn text(payload: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(payload).map_err(|_| Violation::Utf8)
}

/// RFC 6455 sections 5.5.1 and 7.4, with the codes that IANA has added since.
fn close(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Violation::Protocol("half a close code")),
        };
    };
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some((code, text(reason)?))),
        _ => Err(Violation::Protocol("close code that may not be sent")),
    }
}

#[cfg(test)]
mod tests;
