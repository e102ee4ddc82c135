//! Ports for servers that cannot choose one themselves and must find theirs again after a restart.

use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that the kernel gives to outgoing connections (`ip_local_port_range`), or one of those would
/// have it when the server comes back.
const FIRST: u16 = 10_240;
const LAST: u16 = 32_000;

/// A port of 127.0.0.1 that is nobody else's among all tests on this machine, for as long as this value lives.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub fn free() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = std::env::temp_dir().join("conclave-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for the locks of ports");
        let span = u32::from(LAST - FIRST);
        // Processes begin at different places, so that they seldom meet.
        let start = std::process::id().wrapping_mul(7_919);
        for _ in 0..span {
            let at = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % span;
            let number = FIRST + u16::try_from(at).expect("below the span");
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()))
                .expect("a lock file");
            match file.try_lock() {
                Ok(()) if TcpListener::bind(("127.0.0.1", number)).is_ok() => {
                    return Self { number, _lock: file };
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => panic!("{error}"),
            }
        }
        panic!("no free port between {FIRST} and {LAST}");
    }
}
