//! What a run will do, settled before the first connection.

use std::sync::Arc;
use std::time::Duration;

use super::process::{self, Process};
use super::stamp;
use super::target::Target;
use super::tokens::Tokens;
use crate::cli::args::{Load, Publishing};
use crate::cli::{Environment, Failure};

/// Descriptors that the client needs beside its sockets: standard streams, epoll, /proc.
const DESCRIPTORS_BESIDE_SOCKETS: u64 = 64;

/// Everything that client threads share read-only.
pub struct Plan {
    pub target: Target,
    pub tokens: Tokens,
    pub work: Work,
    pub connections: usize,
    pub rooms: usize,
    pub seconds: u32,
    /// Handshakes at a time, over all threads.
    pub in_flight: usize,
    pub threads: usize,
    /// The server, when it runs here and its id was given.
    pub server: Option<Process>,
    /// Begins the name of every room of this run, so that runs do not read each other's history.
    pub room_prefix: String,
}

/// Which test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    Idle,
    Broadcast(Publishers),
    /// Those who do not publish stay for about `stay`, and come back at once.
    Soak {
        publishers: Publishers,
        stay: Duration,
    },
    Echo {
        size: usize,
    },
}

/// Who publishes: the first of the connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publishers {
    pub count: usize,
    pub pace: Pace,
    /// Bytes of a content.
    pub size: usize,
}

/// How fast a publisher goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Open loop: at these times, whatever the server does.
    Every(Duration),
    /// Closed loop: as soon as fewer than this many of its own messages are under way.
    Window(u32),
}

impl Work {
    /// Checks `bench broadcast`'s arguments against each other.
    pub fn broadcast(load: &Load, publishing: &Publishing) -> Result<Self, Failure> {
        Publishers::new(load, publishing).map(Self::Broadcast)
    }

    /// Checks `bench soak`'s arguments against each other.
    pub fn soak(load: &Load, publishing: &Publishing, churn: f64) -> Result<Self, Failure> {
        let publishers = Publishers::new(load, publishing)?;
        let others = f64::from(load.connections - publishing.publishers);
        Ok(Self::Soak {
            publishers,
            stay: Duration::from_secs_f64(others / churn),
        })
    }

    /// Those who publish, where somebody does.
    pub fn publishers(self) -> Option<Publishers> {
        match self {
            Self::Broadcast(publishers) | Self::Soak { publishers, .. } => Some(publishers),
            Self::Idle | Self::Echo { .. } => None,
        }
    }

    /// Checks `bench echo`'s arguments.
    pub fn echo(size: usize) -> Result<Self, Failure> {
        Ok(Self::Echo { size: sized(size)? })
    }
}

impl Publishers {
    fn new(load: &Load, publishing: &Publishing) -> Result<Self, Failure> {
        if publishing.publishers > load.connections {
            return Err(Failure::usage(format_args!(
                "--publishers {} of --connections {}: publishers are connections too",
                publishing.publishers, load.connections
            )));
        }
        let pace = if publishing.flood {
            Pace::Window(publishing.window)
        } else {
            Pace::Every(Duration::from_secs_f64(1.0 / publishing.rate))
        };
        Ok(Self {
            count: publishing.publishers as usize,
            pace,
            size: sized(publishing.size)?,
        })
    }
}

fn sized(size: usize) -> Result<usize, Failure> {
    if (stamp::BYTES..=16 << 20).contains(&size) {
        return Ok(size);
    }
    Err(Failure::usage(format_args!(
        "--size {size}: expected {} (a time stamp fits) to 16777216",
        stamp::BYTES
    )))
}

impl Plan {
    /// Resolves names, reads keys and certificates, and refuses what cannot work.
    pub fn new(load: &Load, work: Work, environment: &Environment) -> Result<Arc<Self>, Failure> {
        if load.rooms > load.connections {
            return Err(Failure::usage(format_args!(
                "--rooms {} is more than --connections {}",
                load.rooms, load.connections
            )));
        }
        let connections = load.connections as usize;
        enough_descriptors(connections)?;
        let target = Target::new(load, matches!(work, Work::Echo { .. }), environment)?;
        let server = load.pid.map(Process::new).transpose()?;
        if server.is_some() && !target.is_here() {
            return Err(Failure::usage("--pid: the server is not on this machine"));
        }
        Ok(Arc::new(Self {
            target,
            tokens: Tokens::new(load, environment)?,
            work,
            connections,
            rooms: load.rooms as usize,
            seconds: load.seconds,
            in_flight: load.in_flight as usize,
            threads: load
                .threads
                .map_or_else(default_threads, |threads| threads as usize)
                .min(connections),
            server,
            room_prefix: format!("bench-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]),
        }))
    }

    /// The room of one connection.
    pub fn room(&self, connection: usize) -> String {
        format!("{}/{}", self.room_prefix, connection % self.rooms)
    }

    /// How many connections sit in the room of this one.
    pub fn members(&self, connection: usize) -> u64 {
        let room = connection % self.rooms;
        ((self.connections - room - 1) / self.rooms + 1) as u64
    }
}

/// Half of the machine for the client, half for the server.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

fn enough_descriptors(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + DESCRIPTORS_BESIDE_SOCKETS;
    match process::descriptor_limit() {
        Some(limit) if limit < needed => Err(Failure::other(format_args!(
            "{connections} connections need {needed} file descriptors, and this shell allows {limit}\n  help: ulimit -n {needed}, for the server's shell too"
        ))),
        _ => Ok(()),
    }
}
