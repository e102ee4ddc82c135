//! The error codes of PROTOCOL.md section 3. None of them closes the socket.

/// The `code` of an `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// Not a JSON text.
    BadJson,
    /// JSON, but a field is missing, mistyped or there twice, or it nests too deep.
    BadMessage,
    /// A `type` that this version does not know.
    UnknownType,
    /// A room name that [`room::check`](super::room::check) refuses.
    BadRoom,
    /// The token does not grant it.
    Forbidden,
    /// Only for members of the room.
    NotJoined,
    /// The room has as many members as it may.
    RoomFull,
    /// The connection is in as many rooms as it may.
    TooManyRooms,
    /// Over `message_bytes`, under the hard limit.
    TooLarge,
    /// Over the rate; the message was not processed.
    RateLimited,
    /// Not accepted, or not known to be: retry with the same `key`.
    Unavailable,
    /// A bug here.
    Internal,
}

impl ErrorCode {
    /// Every code, in the order of PROTOCOL.md.
    pub const ALL: [Self; 12] = [
        Self::BadJson,
        Self::BadMessage,
        Self::UnknownType,
        Self::BadRoom,
        Self::Forbidden,
        Self::NotJoined,
        Self::RoomFull,
        Self::TooManyRooms,
        Self::TooLarge,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The word on the wire, which is the metric label too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadMessage => "bad_message",
            Self::UnknownType => "unknown_type",
            Self::BadRoom => "bad_room",
            Self::Forbidden => "forbidden",
            Self::NotJoined => "not_joined",
            Self::RoomFull => "room_full",
            Self::TooManyRooms => "too_many_rooms",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn codes_are_those_of_the_protocol_page() {
        let words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(
            words.join(" "),
            "bad_json bad_message unknown_type bad_room forbidden not_joined room_full too_many_rooms too_large \
             rate_limited unavailable internal"
        );
    }
}
