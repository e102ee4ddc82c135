//! Why a server cannot be used.

use super::super::contract::Failed;
use super::dial::Unreachable;
use super::settings::Host;

/// For a person who reads the log. Holds no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("{0}: {1}")]
    Failed(Host, Failed),
    #[error("{0} is not a master")]
    NotMaster(Host),
    #[error("{0}: two connections lead to two servers")]
    TwoServers(Host),
    #[error("{0} does not hold what others say it holds")]
    Moved(Host),
    #[error("{answered} of {asked} sentinels agree where {master} is: that is no majority")]
    NoMajority {
        master: String,
        answered: usize,
        asked: usize,
    },
    #[error("no node of the cluster can be reached: {0}")]
    NoCluster(String),
    /// It is a node of a cluster: the others are looked for.
    #[error("{0} is a node of a cluster")]
    IsCluster(Host),
    /// It will not do before somebody acts: what, and the remedy.
    #[error("{0}: {1}")]
    Unfit(Host, String),
}
