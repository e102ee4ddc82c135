//! Which shard holds which partition.

use std::sync::Arc;

use super::super::contract::{PARTITIONS, PartitionSet};
use super::keys::CONTROL_TAG;
use super::shard::Shard;

/// Hash slots of a Cluster. Part of Redis.
pub(super) const SLOTS: u16 = 16_384;

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Partition(u16),
    /// Leases, the control log, revocations.
    Control,
}

/// Who holds what, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Map {
    shards: Vec<Arc<Shard>>,
    /// Index into `shards` per partition, the control slot last; beyond its end: nobody.
    owners: Vec<usize>,
    is_clustered: bool,
}

impl Map {
    /// One server for everything.
    pub(super) fn single(shard: Arc<Shard>) -> Self {
        Self {
            shards: vec![shard],
            owners: vec![0; usize::from(PARTITIONS) + 1],
            is_clustered: false,
        }
    }

    /// `owner` gives the index in `shards` that holds a slot.
    pub(super) fn clustered(shards: Vec<Arc<Shard>>, owner: impl Fn(u16) -> Option<usize>) -> Self {
        let owners = (0..PARTITIONS)
            .map(|partition| slot(&partition.to_string()))
            .chain([slot(CONTROL_TAG)])
            .map(|slot| owner(slot).unwrap_or(usize::MAX))
            .collect();
        Self {
            shards,
            owners,
            is_clustered: true,
        }
    }

    /// Who answers for a place.
    pub(super) fn shard(&self, place: Place) -> Option<&Arc<Shard>> {
        let at = match place {
            Place::Partition(partition) => usize::from(partition),
            Place::Control => usize::from(PARTITIONS),
        };
        self.shards.get(*self.owners.get(at)?)
    }

    /// Whether it is that of a Cluster.
    pub(super) fn is_clustered(&self) -> bool {
        self.is_clustered
    }

    /// Whether somebody answers for every place.
    pub(super) fn is_whole(&self) -> bool {
        !self.owners.is_empty() && self.owners.iter().all(|at| *at < self.shards.len())
    }

    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// What `shard` holds.
    pub(super) fn partitions_of(&self, shard: &Arc<Shard>) -> Partitions {
        let mut partitions = Partitions::default();
        if let Some(at) = self.shards.iter().position(|known| Arc::ptr_eq(known, shard)) {
            (0..PARTITIONS)
                .filter(|partition| self.owners.get(usize::from(*partition)) == Some(&at))
                .for_each(|partition| partitions.insert(partition));
        }
        partitions
    }
}

/// A set of partitions.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Partitions([u64; PARTITIONS as usize / 64]);

impl Default for Partitions {
    fn default() -> Self {
        Self([0; PARTITIONS as usize / 64])
    }
}

impl Partitions {
    pub(super) fn insert(&mut self, partition: u16) {
        self.0[usize::from(partition) / 64] |= 1 << (partition % 64);
    }

    pub(super) fn has(&self, partition: u16) -> bool {
        let word = self.0.get(usize::from(partition) / 64);
        word.is_some_and(|word| word & (1 << (partition % 64)) != 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..PARTITIONS).filter(|partition| self.has(*partition))
    }

    pub(super) fn first(&self) -> Option<u16> {
        self.iter().next()
    }
}

impl PartitionSet for Partitions {
    fn contains(&self, partition: u16) -> bool {
        self.has(partition)
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} partitions", self.iter().count())
    }
}

/// The slot of a tag: CRC-16/XMODEM (Redis Cluster specification, "Hash tags").
pub(super) fn slot(tag: &str) -> u16 {
    let crc = tag.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `CLUSTER KEYSLOT` of Redis 7.0.15.
    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot("123456789"), 12_739);
        assert_eq!(slot("503"), 11_760);
        assert_eq!(slot("ctl"), 11_148);
    }

    #[test]
    fn partitions_spread_over_six_masters() {
        let sixth = usize::from(SLOTS / 6 + 1);
        let mut held = [0; 6];
        (0..PARTITIONS).for_each(|partition| held[usize::from(slot(&partition.to_string())) / sixth] += 1);
        assert!(held.iter().all(|count| (150..200).contains(count)), "{held:?}");
    }

    #[test]
    fn a_set_of_partitions_holds_what_was_put_in() {
        let mut set = Partitions::default();
        assert_eq!(set.first(), None);
        for partition in [63, 64, 1_023] {
            set.insert(partition);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [63, 64, 1_023]);
        assert!(!set.contains(1_024));
    }
}
