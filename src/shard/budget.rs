//! Bytes that wait on the whole node, to be read or to become whole: over the budget the largest goes first, on whichever
//! shard it is.

use parking_lot::Mutex;

/// So many of its largest a shard names; more than these are not ended at one look.
pub const LARGEST_MAX: usize = 1024;

/// One budget of all shards together.
#[derive(Debug)]
pub struct Budget {
    /// Bytes.
    max: usize,
    /// By shard, as of its last look.
    shards: Mutex<Vec<Held>>,
}

/// What one shard holds.
#[derive(Debug, Default, Clone)]
struct Held {
    /// Bytes of all.
    total: usize,
    /// Bytes of the largest, falling.
    largest: Vec<usize>,
}

impl Budget {
    /// 0 means no limit.
    #[must_use]
    pub fn new(max: usize, shards: usize) -> Self {
        Self {
            max: if max == 0 { usize::MAX } else { max },
            shards: Mutex::new(vec![Held::default(); shards]),
        }
    }

    /// Bytes of all shards together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shards.lock().iter().map(|held| held.total).sum()
    }

    /// Notes what shard `index` holds, `sizes` falling. Returns how many of those are to go, so that the node is within its
    /// budget; they count as gone.
    pub fn settle(&self, index: usize, total: usize, sizes: &[usize]) -> usize {
        let mut shards = self.shards.lock();
        let Some(own) = shards.get_mut(index) else { return 0 };
        own.total = total;
        own.largest.clear();
        own.largest.extend(sizes.iter().take(LARGEST_MAX));
        let mut excess = (shards.iter().map(|held| held.total).sum::<usize>()).saturating_sub(self.max);
        // How many of each shard's largest have been passed on the way down through all of them.
        let mut passed = vec![0; shards.len()];
        while excess > 0 {
            let next = (shards.iter().zip(&passed).enumerate())
                .filter_map(|(shard, (held, passed))| Some((*held.largest.get(*passed)?, shard)))
                .max();
            let Some((size, shard)) = next else { break };
            passed[shard] += 1;
            excess = excess.saturating_sub(size);
        }
        let gone = passed[index];
        let own = &mut shards[index];
        own.total -= own.largest.drain(..gone).sum::<usize>();
        if own.largest.is_empty() {
            own.largest = Vec::new();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_the_node_goes_first() {
        let budget = Budget::new(100, 3);
        assert_eq!(budget.settle(0, 60, &[30, 20, 10]), 0);
        assert_eq!(budget.settle(1, 40, &[25, 15]), 0, "at the budget nobody goes");
        // The third brings the node over it, but the largest is on the first.
        assert_eq!(budget.settle(2, 20, &[20]), 0);
        assert_eq!(budget.settle(1, 40, &[25, 15]), 0);
        assert_eq!(budget.settle(0, 60, &[30, 20, 10]), 1);
        assert_eq!(budget.total(), 90);
        assert_eq!(budget.settle(1, 40, &[25, 15]), 0, "one was enough");
    }

    #[test]
    fn as_many_go_as_it_takes() {
        let budget = Budget::new(100, 2);
        budget.settle(0, 10, &[10]);
        assert_eq!(budget.settle(1, 500, &[200, 100, 100, 60, 40]), 4);
        assert_eq!(budget.total(), 50);
        assert_eq!(
            Budget::new(0, 1).settle(0, usize::MAX, &[usize::MAX]),
            0,
            "0 is no limit"
        );
    }
}
