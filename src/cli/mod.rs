//! The command line: one file or folder per verb.
pub mod check_config;
pub mod config_init;
