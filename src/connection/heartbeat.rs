//! Whether the peer is still there. Pure: after it, the sweeper knows what to do with a connection.

/// What is known of a peer since the last visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Something came, or it is new.
    Alive,
    /// Nothing came since it was pinged.
    Pinged,
}

/// What a visit decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ping,
    Terminate,
}

impl Liveness {
    /// Any byte from the peer.
    pub fn on_heard(&mut self) {
        *self = Self::Alive;
    }

    /// Called once per interval (PROTOCOL section 4).
    pub fn on_visit(&mut self) -> Verdict {
        match std::mem::replace(self, Self::Pinged) {
            Self::Alive => Verdict::Ping,
            Self::Pinged => Verdict::Terminate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_terminated_at_the_second_visit() {
        let mut liveness = Liveness::Alive;
        assert_eq!(liveness.on_visit(), Verdict::Ping);
        liveness.on_heard();
        assert_eq!(liveness.on_visit(), Verdict::Ping);
        assert_eq!(liveness.on_visit(), Verdict::Terminate);
    }
}
