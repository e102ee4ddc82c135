//! What was read from a client becomes messages, wherever the reads were cut.
//!
//! A message that came whole in one frame and one read is handed out where it lies: no copy, no
//! allocation. Anything else is gathered in a [`Partial`] that exists only while there is something to
//! gather, so that an idle connection pays for one empty pointer. Memory grows with what has arrived,
//! never with what a header announces.

use std::ops::Range;

pub use super::frame::Violation;
use super::frame::{Header, Opcode, unmask};
use partial::{Message, Partial};

mod partial;

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
    /// `Ok(None)`: all of `input` was consumed, its last part perhaps kept in here; come back with
    /// more bytes and `*used` at 0. Call until then: it is the call after an event that frees the
    /// event's memory.
    ///
    /// # Errors
    /// The connection must be failed. Neither after an error nor after `Event::Close` may it be
    /// called again.
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
                Step::Gathered(opcode) => {
                    let partial = self.partial.as_deref();
                    let payload = partial.map_or(&[][..], |partial| partial.gathered(opcode));
                    return event(opcode, payload).map(Some);
                }
            }
        }
    }

    /// Bytes of memory behind a partial frame or message; 0 at rest.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |it| it.held_bytes())
    }

    /// Drops what the last call handed out.
    fn release(&mut self) {
        if let Some(partial) = &mut self.partial
            && partial.release()
        {
            self.rest();
        }
    }

    /// Between two frames: frees everything unless a fragmented message is under way.
    fn rest(&mut self) {
        if self.message().is_none() {
            self.partial = None;
        }
    }

    fn message(&self) -> Option<&Message> {
        self.partial.as_ref().and_then(|partial| partial.message())
    }

    fn step(&mut self, input: &mut [u8], used: &mut usize, bounds: Bounds) -> Result<Step, Violation> {
        if let Some(partial) = &mut self.partial
            && partial.is_inside_frame()
        {
            return partial.gather(input, used, bounds);
        }
        let Some(header) = self.header(input, used)? else {
            return Ok(Step::Wait);
        };
        let payload_len = self.admit(&header, bounds)?;
        let whole = header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation);
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

    /// The next header, from the input alone or together with what was kept of it. `None` consumes
    /// all input.
    fn header(&mut self, input: &[u8], used: &mut usize) -> Result<Option<Header>, Violation> {
        let fresh = &input[*used..];
        let kept = self.partial.as_ref().map_or(0, |it| it.header_len());
        if kept == 0
            && let Some(header) = Header::parse(fresh)?
        {
            *used += header.len;
            return Ok(Some(header));
        }
        if fresh.is_empty() {
            return Ok(None);
        }
        let found = self.partial.get_or_insert_default().header(fresh)?;
        *used = found.map_or(input.len(), |(_, taken)| *used + taken);
        Ok(found.map(|(header, _)| header))
    }

    /// Whether a frame may come here and now; its payload's length if so.
    fn admit(&self, header: &Header, bounds: Bounds) -> Result<usize, Violation> {
        let payload_len = usize::try_from(header.payload_len).map_err(|_| Violation::TooLarge)?;
        if header.opcode.is_control() {
            return Ok(payload_len);
        }
        let (held, fragments) = match (header.opcode, self.message()) {
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
