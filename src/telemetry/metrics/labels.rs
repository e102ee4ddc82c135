//! Every label value there can be. A metric is written under one of these words or under `other`;
//! never under a room, a user, an address or any other text from outside.

/// An enum whose variants are the values of one label.
pub trait Label: Copy + 'static {
    /// Every value, in the order of `index`.
    const ALL: &'static [Self];
    /// The word in the exposition.
    fn word(self) -> &'static str;
    /// Place in `ALL`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = concat!("`", $word, "`")] $variant),+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels! {
    /// How a TCP connection fared until its request head was whole.
    HandshakeResult {
        Ok = "ok", TlsTimeout = "tls_timeout", TlsError = "tls_error", NotTls = "not_tls",
        BadProxyHeader = "bad_proxy_header",
        OverLimit = "over_limit", PerAddressLimit = "per_address_limit",
        HeaderTimeout = "header_timeout", ClientGone = "client_gone",
        ClientCertificate = "client_certificate", NoCertificate = "no_certificate",
        AcmeChallenge = "acme_challenge",
    }
    /// What became of a request for `/ws` or `/echo`.
    UpgradeResult {
        Admitted = "admitted", Denied = "denied", ForeignOrigin = "foreign_origin",
        Throttled = "throttled", Overloaded = "overloaded", BadRequest = "bad_request",
    }
    /// Where the accepted token was found.
    Place {
        Query = "query", Bearer = "bearer", Cookie = "cookie", Session = "session", Ticket = "ticket",
        Forward = "forward",
    }
    /// What became of a ticket.
    TicketResult { Issued = "issued", Redeemed = "redeemed", Refused = "refused", Unavailable = "unavailable" }
    /// What asking the application came to: `ok` names a user, `signed_out` nobody, `over` one whose session has ended,
    /// `status` is another status than 200, 401 and 403, `malformed` not the shape that was asked for; the others mean
    /// that there was no answer, and `circuit_open` that none was asked for.
    ForwardResult {
        Ok = "ok", SignedOut = "signed_out", Over = "over", Status = "status", Malformed = "malformed",
        TooLarge = "too_large", Timeout = "timeout", Connect = "connect", Tls = "tls", Protocol = "protocol",
        Forbidden = "forbidden", CircuitOpen = "circuit_open",
    }
    /// Who ended a connection.
    Initiator { Server = "server", Client = "client" }
    /// Direction of a message, seen from the server.
    Direction { In = "in", Out = "out" }
    /// Kind of a WebSocket message.
    Kind { Text = "text", Binary = "binary", Ping = "ping", Pong = "pong", Close = "close" }
    /// A rate that was exceeded; the words are those of the configuration.
    RateLimit {
        Messages = "messages_per_second", Bytes = "bytes_per_second",
        UserMessages = "user_messages_per_second", AddressMessages = "address_messages_per_second",
        UserBytes = "user_bytes_per_second", AddressBytes = "address_bytes_per_second",
        RoomMessages = "room_messages_per_second", RoomBytes = "room_bytes_per_second",
        NodeMessages = "node_messages_per_second", NodeBytes = "node_bytes_per_second",
        Refusals = "refusals_per_second", SignIns = "sign_ins_per_minute",
        HandshakesPerAddress = "handshakes_per_address_per_second",
        Tickets = "tickets_per_minute", AddressTickets = "address_tickets_per_minute",
        ApiRequests = "api_requests_per_second", ApiWrongKeys = "api_wrong_keys_per_second",
    }
    /// A size or count that was exceeded; the words are those of the configuration.
    Limit {
        Connections = "connections", ConnectionsPerAddress = "connections_per_address",
        ConnectionsPerUser = "connections_per_user",
        HandshakesInFlight = "handshakes_in_flight", HandshakeWait = "handshake_wait",
        TurnAways = "turn_aways", AdmissionsWaiting = "admissions_waiting", TicketsOutstanding = "tickets_outstanding", NodeInboundBytes = "node_inbound_bytes", MessageBytes = "message_bytes",
        Fragments = "fragments", RoomsPerConnection = "rooms_per_connection",
        JwksWaiting = "jwks_waiting", JwksKidsPerAddress = "jwks_kids_per_address",
        RoomMembers = "room_members", Rooms = "rooms", HeaderBytes = "header_bytes",
        ApiBodyBytes = "api_body_bytes", ApiInFlight = "api_in_flight", ApiIdempotencyBytes = "api_idempotency_bytes",
        CallsPerConnection = "calls_per_connection",
    }
    /// Why a client is not let in: before TLS the line was full, or its address had more than its share of it or came too
    /// often; after the request there are too many connections, too many sockets a second, the node is behind, or nobody said
    /// in time who it is.
    AdmissionRefusal {
        LineFull = "line_full", AddressShare = "address_share", AddressRate = "address_rate",
        Connections = "connections", Rate = "rate", Behind = "behind", Unanswered = "unanswered",
    }
    /// Which bound a slow reader passed.
    SlowConsumer { Bytes = "bytes", Frames = "frames", Age = "age", Node = "node" }
    /// Why a queued message was never sent.
    Dropped { SlowReader = "slow_reader", Closed = "closed" }
    /// What a `join` with `since` came to.
    Recovery { Recovered = "recovered", NotRecovered = "not_recovered", Reset = "reset" }
    /// What became of an order for a certificate.
    AcmeOrder { Ok = "ok", Failed = "failed" }
    /// The certificate that a client was asked for: `none` is let in where it is optional, `missing` is not, `unlisted`
    /// has an issuer without a revocation list.
    ClientCertificate {
        Ok = "ok", None = "none", Missing = "missing", Expired = "expired", Revoked = "revoked",
        Unlisted = "unlisted", UnknownIssuer = "unknown_issuer", Bad = "bad",
    }
    /// Outcome of loading the certificate again.
    Reload { Ok = "ok", Failed = "failed" }
    /// Why a connection could not be accepted.
    AcceptError { FdLimit = "fd_limit", Other = "other" }
    /// Where a panic was caught.
    PanicPlace { Connection = "connection", Flusher = "flusher", Http = "http" }
    /// Where stopping stands.
    DrainPhase {
        Serving = "serving", Grace = "grace", Closing = "closing", Deadline = "deadline",
        Stopped = "stopped",
    }
    /// What a link to the backplane is for.
    Link {
        Command = "command", Subscriber = "subscriber", Publish = "publish", Control = "control",
        Sentinel = "sentinel",
    }
    /// Why a link was made anew.
    Reason {
        Start = "start", Closed = "closed", Timeout = "timeout", Canary = "canary", Role = "role",
        Replid = "replid", Unsubscribed = "unsubscribed", SwitchMaster = "switch_master", Moved = "moved",
    }
    /// What the backplane was asked.
    CallKind {
        Publish = "publish", Attach = "attach", Range = "range", Before = "before", Heads = "heads",
        Users = "users", Present = "present", Renew = "renew", Reap = "reap", Control = "control",
        Canary = "canary", Wait = "wait", Outbox = "outbox",
    }
    /// What the log answered to a room that asked what it had missed.
    RepairResult { Ok = "ok", Trimmed = "trimmed", Rewound = "rewound", Epoch = "epoch", None = "none" }
    /// What became of a message that the backplane told of: `old` was delivered already, `foreign` is of another
    /// epoch, `behind` leaves a hole or met a full inbox and is fetched from the log.
    Wakeup {
        Delivered = "delivered", Old = "old", Foreign = "foreign", Behind = "behind",
        Unreadable = "unreadable",
    }
    /// What comparing a room's head came to.
    AuditResult { Same = "same", Behind = "behind", Failed = "failed" }
    /// Whether this node may fail its readiness.
    PermitResult { Granted = "granted", Denied = "denied" }
    /// What this node told of a user.
    PresenceChange { Enter = "enter", Leave = "leave" }
    /// What became of a presence event; after `missed` the room's users are read again.
    PresenceResult { Applied = "applied", Old = "old", Missed = "missed" }
    /// What renewing the lease came to.
    RenewalResult { Ok = "ok", Expired = "expired", Failed = "failed" }
    /// Whom a revocation or a kick is about.
    SubjectKind { User = "user", Session = "session", Token = "token" }
    /// What was asked of the admin listener, besides metrics and health.
    AdminAction {
        Page = "page", SignIn = "sign_in", Overview = "overview", Config = "config", Tap = "tap", Kick = "kick",
        Drain = "drain", Other = "other",
    }
    /// How that was answered: `denied` for want of a token, header or known `Host`, `refused` for what was asked.
    AdminResult { Ok = "ok", Denied = "denied", Throttled = "throttled", Refused = "refused", Failed = "failed" }
    /// What somebody is called for.
    Purpose { Jwks = "jwks", Forward = "forward", Hook = "hook" }
    /// What a call came to; an answer is `ok`, whatever it says.
    OutboundResult {
        Ok = "ok", Forbidden = "forbidden", Connect = "connect", Tls = "tls", Timeout = "timeout",
        TooLarge = "too_large", Protocol = "protocol",
    }
    /// What was asked of the server API.
    ApiOperation {
        Chat = "chat", Message = "message", Users = "users", History = "history", Remove = "remove", Kick = "kick",
        Revoke = "revoke", Rooms = "rooms", Nodes = "nodes", Batch = "batch", Openapi = "openapi", Other = "other",
    }
    /// What reading an issuer's keys came to.
    JwksResult {
        Ok = "ok", NotModified = "not_modified", Status = "status", BadSet = "bad_set", Forbidden = "forbidden",
        Connect = "connect", Tls = "tls", Timeout = "timeout", TooLarge = "too_large", Protocol = "protocol",
    }
    /// What became of a finished span.
    SpanFate { Exported = "exported", Failed = "failed", Dropped = "dropped" }
}

impl AdmissionRefusal {
    /// How far the client had come: `tls` or `request`.
    #[must_use]
    pub fn stage(self) -> &'static str {
        match self {
            Self::LineFull | Self::AddressShare | Self::AddressRate => "tls",
            Self::Connections | Self::Rate | Self::Behind | Self::Unanswered => "request",
        }
    }

    /// Its word in the count of handshakes.
    #[must_use]
    pub fn result(self) -> HandshakeResult {
        match self {
            Self::AddressRate => HandshakeResult::PerAddressLimit,
            _ => HandshakeResult::OverLimit,
        }
    }
}

/// Stands for any word that is not in its list.
pub const OTHER: &str = "other";

/// What a call of the backplane comes to: done, perhaps done, or a word of `backplane::contract::Refusal`.
pub const CALL_RESULTS: &[&str] = &[
    "ok",
    "unknown",
    "away",
    "late",
    "full",
    "unsafe",
    "broken",
    "forbidden",
    OTHER,
];

/// Why a chat was answered `unavailable`: what the call came to, or a queue that was full before it.
pub const REFUSED_REASONS: &[&str] = &[
    "unknown",
    "away",
    "late",
    "full",
    "unsafe",
    "broken",
    "forbidden",
    "room_queue",
    "node_queue",
    OTHER,
];

/// Reason words of a close with 1008, and of `auth` errors (PROTOCOL.md section 1).
pub const AUTH_REASONS: &[&str] = &[
    "token_missing",
    "token_malformed",
    "token_signature",
    "token_expired",
    "token_not_yet_valid",
    "token_issuer",
    "token_audience",
    "token_revoked",
    "ticket_used",
    "cookie_origin",
    OTHER,
];

/// Codes of an `error` message (PROTOCOL.md section 3).
pub const ERROR_CODES: &[&str] = &[
    "bad_json",
    "bad_message",
    "unknown_type",
    "bad_room",
    "forbidden",
    "not_joined",
    "room_full",
    "too_many_rooms",
    "too_large",
    "rate_limited",
    "unavailable",
    "internal",
    OTHER,
];

/// Close codes and reason words the server may end a connection with. 1006: no close frame was
/// exchanged.
pub const SERVER_CLOSES: &[(u16, &str)] = &[
    (1000, "normal"),
    (1002, "protocol"),
    (1003, "binary"),
    (1007, "utf8"),
    (1008, "token_missing"),
    (1008, "token_malformed"),
    (1008, "token_signature"),
    (1008, "token_expired"),
    (1008, "token_not_yet_valid"),
    (1008, "token_issuer"),
    (1008, "token_audience"),
    (1008, "token_revoked"),
    (1008, "ticket_used"),
    (1008, "cookie_origin"),
    (1008, "kicked"),
    (1008, "abuse"),
    (1009, "too_large"),
    (1011, "internal"),
    (1012, "restart"),
    (1013, "slow_reader"),
    (1013, "overloaded"),
    (1006, "heartbeat"),
    (1006, "slow_reader"),
    (1006, "restart"),
    (1006, "internal"),
    (0, OTHER),
];

/// Close codes a client may end a connection with; its reason text is never a label.
/// 1005: a close frame without a code. 1006: gone without a close frame.
pub const CLIENT_CLOSES: &[(u16, &str)] = &[
    (1000, "none"),
    (1001, "none"),
    (1002, "none"),
    (1003, "none"),
    (1005, "none"),
    (1006, "none"),
    (1007, "none"),
    (1008, "none"),
    (1009, "none"),
    (1010, "none"),
    (1011, "none"),
    (1012, "none"),
    (1013, "none"),
    (0, OTHER),
];
