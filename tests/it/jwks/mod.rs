//! Keys by URL: rotation, issuers that are down or lie, tokens that want something fetched.

mod hostile;
mod issuer;
mod lies;
mod outage;
mod rotation;
