//! What the server says about itself: logs, metrics, traces. None of them ever holds a token, a
//! query string or a header value; see [`redact`].

pub mod logs;
pub mod metrics;
pub mod redact;
pub mod taps;
pub mod traces;
