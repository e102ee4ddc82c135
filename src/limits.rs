//! Every bound, its unit and its reason.
