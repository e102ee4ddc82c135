//! The one table of closes (PROTOCOL.md sections 1 and 3): code, reason word, and what the client does then.

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Close {
    /// The status code of RFC 6455 section 7.4.
    pub code: u16,
    /// One word, sent as the reason of the close frame; unique in the table.
    pub reason: &'static str,
    /// What the client is expected to do.
    pub then: Then,
}

/// What a client does after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    /// Stop: coming back would end the same way.
    Never,
    /// Get one new token and come back.
    WithNewToken,
    /// Come back with growing, jittered pauses.
    Backoff,
    /// Come back (after `reconnect_after_ms` where told) and `join` with `since`: nothing was lost.
    PlaceIsKept,
}

impl Close {
    /// The client closed first, with or without a reason.
    pub const NORMAL: Self = Self::new(1000, "normal", Then::Never);
    /// RFC 6455 violated.
    pub const PROTOCOL: Self = Self::new(1002, "protocol", Then::Never);
    /// A binary frame on `/ws`.
    pub const BINARY: Self = Self::new(1003, "binary", Then::Never);
    /// The transport ended without a close frame: a missed heartbeat, a reset, or a reader too slow to be told.
    ///
    /// RFC 6455 section 7.4.1 forbids this code in a frame: see [`is_sent`](Self::is_sent).
    pub const HEARTBEAT: Self = Self::new(1006, "heartbeat", Then::PlaceIsKept);
    /// Bad UTF-8 in a text message.
    pub const UTF8: Self = Self::new(1007, "utf8", Then::Never);
    /// No token found in any place.
    pub const TOKEN_MISSING: Self = Self::new(1008, "token_missing", Then::Never);
    /// Not a JWT, too long, twice, a claim mistyped or twice, a `crit` header.
    pub const TOKEN_MALFORMED: Self = Self::new(1008, "token_malformed", Then::Never);
    /// Signature wrong, key unknown, or an algorithm that is not the key's.
    pub const TOKEN_SIGNATURE: Self = Self::new(1008, "token_signature", Then::Never);
    /// `exp` has passed, at the upgrade or while connected.
    pub const TOKEN_EXPIRED: Self = Self::new(1008, "token_expired", Then::WithNewToken);
    /// `nbf` is in the future.
    pub const TOKEN_NOT_YET_VALID: Self = Self::new(1008, "token_not_yet_valid", Then::Never);
    /// `iss` does not match.
    pub const TOKEN_ISSUER: Self = Self::new(1008, "token_issuer", Then::Never);
    /// `aud` does not match, or is there where none is configured.
    pub const TOKEN_AUDIENCE: Self = Self::new(1008, "token_audience", Then::Never);
    /// User, session or token id revoked, at the upgrade or while connected.
    pub const TOKEN_REVOKED: Self = Self::new(1008, "token_revoked", Then::Never);
    /// A single-use ticket that is unknown, used or expired.
    pub const TICKET_USED: Self = Self::new(1008, "ticket_used", Then::Never);
    /// A token from a cookie without an Origin that is same-origin or listed exactly.
    pub const COOKIE_ORIGIN: Self = Self::new(1008, "cookie_origin", Then::Never);
    /// The server API disconnected this user or session.
    pub const KICKED: Self = Self::new(1008, "kicked", Then::Never);
    /// Kept exceeding its rate after being told.
    pub const ABUSE: Self = Self::new(1008, "abuse", Then::Never);
    /// A message over the hard limit.
    pub const TOO_LARGE: Self = Self::new(1009, "too_large", Then::Never);
    /// A bug here; logged under the session's id.
    pub const INTERNAL: Self = Self::new(1011, "internal", Then::Backoff);
    /// This node stops.
    pub const RESTART: Self = Self::new(1012, "restart", Then::PlaceIsKept);
    /// The connection's backlog passed its limit.
    pub const SLOW_READER: Self = Self::new(1013, "slow_reader", Then::PlaceIsKept);
    /// The node is full.
    pub const OVERLOADED: Self = Self::new(1013, "overloaded", Then::PlaceIsKept);

    /// Every row, by code.
    pub const ALL: &[Self] = &[
        Self::NORMAL,
        Self::PROTOCOL,
        Self::BINARY,
        Self::HEARTBEAT,
        Self::UTF8,
        Self::TOKEN_MISSING,
        Self::TOKEN_MALFORMED,
        Self::TOKEN_SIGNATURE,
        Self::TOKEN_EXPIRED,
        Self::TOKEN_NOT_YET_VALID,
        Self::TOKEN_ISSUER,
        Self::TOKEN_AUDIENCE,
        Self::TOKEN_REVOKED,
        Self::TICKET_USED,
        Self::COOKIE_ORIGIN,
        Self::KICKED,
        Self::ABUSE,
        Self::TOO_LARGE,
        Self::INTERNAL,
        Self::RESTART,
        Self::SLOW_READER,
        Self::OVERLOADED,
    ];

    const fn new(code: u16, reason: &'static str, then: Then) -> Self {
        Self { code, reason, then }
    }

    /// The row of the table that this is: 8 bytes where a copy would be 32.
    pub fn row(&self) -> &'static Self {
        Self::ALL.iter().find(|row| *row == self).unwrap_or(&Self::INTERNAL)
    }

    /// Whether a close frame says so; otherwise the transport just ends.
    pub const fn is_sent(&self) -> bool {
        self.code != Self::HEARTBEAT.code
    }

    /// The metric label: the reason word, a closed set.
    pub const fn label(&self) -> &'static str {
        self.reason
    }

    /// The anchor of the runbook's heading, like `close-1013-slow_reader`.
    pub fn runbook(&self) -> String {
        format!("close-{}-{}", self.code, self.reason)
    }
}

// A control frame carries at most 125 bytes, two of them the code (RFC 6455 section 5.5).
const _: () = {
    let mut row = 0;
    while row < Close::ALL.len() {
        assert!(Close::ALL[row].reason.len() <= 123);
        row += 1;
    }
};

/// The reason words of section 1: why somebody is not, or no longer, let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeniedWord {
    /// See [`Close::TOKEN_MISSING`].
    TokenMissing,
    /// See [`Close::TOKEN_MALFORMED`].
    TokenMalformed,
    /// See [`Close::TOKEN_SIGNATURE`].
    TokenSignature,
    /// See [`Close::TOKEN_EXPIRED`].
    TokenExpired,
    /// See [`Close::TOKEN_NOT_YET_VALID`].
    TokenNotYetValid,
    /// See [`Close::TOKEN_ISSUER`].
    TokenIssuer,
    /// See [`Close::TOKEN_AUDIENCE`].
    TokenAudience,
    /// See [`Close::TOKEN_REVOKED`].
    TokenRevoked,
    /// See [`Close::TICKET_USED`].
    TicketUsed,
    /// See [`Close::COOKIE_ORIGIN`].
    CookieOrigin,
    /// See [`Close::KICKED`].
    Kicked,
    /// See [`Close::ABUSE`].
    Abuse,
}

impl DeniedWord {
    /// Every word, in the order of PROTOCOL.md.
    pub const ALL: [Self; 12] = [
        Self::TokenMissing,
        Self::TokenMalformed,
        Self::TokenSignature,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenIssuer,
        Self::TokenAudience,
        Self::TokenRevoked,
        Self::TicketUsed,
        Self::CookieOrigin,
        Self::Kicked,
        Self::Abuse,
    ];

    /// The close that says it.
    pub const fn close(self) -> Close {
        match self {
            Self::TokenMissing => Close::TOKEN_MISSING,
            Self::TokenMalformed => Close::TOKEN_MALFORMED,
            Self::TokenSignature => Close::TOKEN_SIGNATURE,
            Self::TokenExpired => Close::TOKEN_EXPIRED,
            Self::TokenNotYetValid => Close::TOKEN_NOT_YET_VALID,
            Self::TokenIssuer => Close::TOKEN_ISSUER,
            Self::TokenAudience => Close::TOKEN_AUDIENCE,
            Self::TokenRevoked => Close::TOKEN_REVOKED,
            Self::TicketUsed => Close::TICKET_USED,
            Self::CookieOrigin => Close::COOKIE_ORIGIN,
            Self::Kicked => Close::KICKED,
            Self::Abuse => Close::ABUSE,
        }
    }

    /// The word on the wire: in the close frame, and as `reason` of a refused `auth`.
    pub const fn as_str(self) -> &'static str {
        self.close().reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_the_one_of_the_protocol_page() {
        let rows: Vec<_> = Close::ALL
            .iter()
            .map(|close| format!("{} {}", close.code, close.reason))
            .collect();
        assert_eq!(
            rows.join(", "),
            "1000 normal, 1002 protocol, 1003 binary, 1006 heartbeat, 1007 utf8, 1008 token_missing, \
             1008 token_malformed, 1008 token_signature, 1008 token_expired, 1008 token_not_yet_valid, \
             1008 token_issuer, 1008 token_audience, 1008 token_revoked, 1008 ticket_used, 1008 cookie_origin, \
             1008 kicked, 1008 abuse, 1009 too_large, 1011 internal, 1012 restart, 1013 slow_reader, 1013 overloaded"
        );
    }

    #[test]
    fn labels_are_unique_words() {
        let labels: HashSet<_> = Close::ALL.iter().map(Close::label).collect();
        assert_eq!(labels.len(), Close::ALL.len());
        assert!(labels.iter().all(|label| {
            label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        }));
    }

    #[test]
    fn denied_words_are_exactly_the_closes_of_1008() {
        let by_word: Vec<_> = DeniedWord::ALL.iter().map(|word| word.close()).collect();
        let by_code: Vec<_> = Close::ALL.iter().filter(|close| close.code == 1008).copied().collect();
        assert_eq!(by_word, by_code);
        assert!(DeniedWord::ALL.iter().all(|word| word.as_str() == word.close().label()));
    }

    #[test]
    fn a_client_stops_after_1008_but_for_an_expired_token() {
        for close in Close::ALL.iter().filter(|close| close.code == 1008) {
            let then = if *close == Close::TOKEN_EXPIRED {
                Then::WithNewToken
            } else {
                Then::Never
            };
            assert_eq!(close.then, then, "{close:?}");
        }
    }

    #[test]
    fn only_1006_is_never_sent() {
        let silent: Vec<_> = Close::ALL.iter().filter(|close| !close.is_sent()).collect();
        assert_eq!(silent, [&Close::HEARTBEAT]);
    }

    #[test]
    fn the_runbook_has_a_heading_for_each_row_and_no_other() {
        let runbook = include_str!("../../ops/runbooks/closes.md");
        let headings: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        let rows: Vec<_> = Close::ALL.iter().map(Close::runbook).collect();
        assert_eq!(headings, rows);
    }
}
