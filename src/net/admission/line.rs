//! Who waits for a turn: one lane per address, served in rotation. Pure.
//!
//! Alone, an address may fill the line. When it is full, whoever comes from an address with fewer in it takes the place
//! of the last of the longest lane: a flood from one address costs that address its places, and nobody else a turn.

use std::collections::VecDeque;
use std::net::IpAddr;

use indexmap::IndexMap;

/// The right to leave the line again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    lane: IpAddr,
    number: u64,
}

/// A bounded line of `T`, fair between addresses.
#[derive(Debug)]
pub struct Line<T> {
    /// None of them is empty; in each the numbers rise.
    lanes: IndexMap<IpAddr, VecDeque<(u64, T)>>,
    /// The lane that is served next.
    cursor: usize,
    /// Over all lanes.
    len: usize,
    next_number: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            lanes: IndexMap::new(),
            cursor: 0,
            len: 0,
            next_number: 0,
        }
    }
}

impl<T> Line<T> {
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `waiter` in while fewer than `max` wait, or in place of the one that is returned.
    ///
    /// # Errors
    /// The line is full and no other address has more places than this one would.
    pub fn enter(&mut self, address: IpAddr, waiter: T, max: usize) -> Result<(Ticket, Option<T>), T> {
        let mut evicted = None;
        if self.len >= max {
            let here = self.lanes.get(&address).map_or(0, VecDeque::len);
            let longest = self.lanes.iter().enumerate().max_by_key(|(_, (_, lane))| lane.len());
            let Some((index, _)) = longest.filter(|(_, (_, lane))| lane.len() > here + 1) else {
                return Err(waiter);
            };
            evicted = self.lanes[index].pop_back().map(|(_, waiter)| waiter);
            self.len -= 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        self.lanes.entry(address).or_default().push_back((number, waiter));
        self.len += 1;
        Ok((Ticket { lane: address, number }, evicted))
    }

    /// Whose turn it is.
    pub fn next(&mut self) -> Option<T> {
        if self.cursor >= self.lanes.len() {
            self.cursor = 0;
        }
        let (_, lane) = self.lanes.get_index_mut(self.cursor)?;
        let (_, waiter) = lane.pop_front()?;
        self.len -= 1;
        if lane.is_empty() {
            // The last lane takes this place and is served next.
            self.lanes.swap_remove_index(self.cursor);
        } else {
            self.cursor += 1;
        }
        Some(waiter)
    }

    /// Gives a place up; nothing happens when its turn has come already.
    pub fn leave(&mut self, ticket: Ticket) -> Option<T> {
        let lane = self.lanes.get_mut(&ticket.lane)?;
        let index = lane.binary_search_by_key(&ticket.number, |(number, _)| *number).ok()?;
        let (_, waiter) = lane.remove(index)?;
        self.len -= 1;
        if lane.is_empty() {
            self.lanes.swap_remove(&ticket.lane);
        }
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn addresses_take_turns_and_each_keeps_its_order() {
        let mut line = Line::default();
        for waiter in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            line.enter(address(waiter.as_bytes()[0]), waiter, 10)
                .expect("there is room");
        }
        let served: Vec<_> = std::iter::from_fn(|| line.next()).collect();
        assert_eq!(served[..2], ["a1", "b1"]);
        for lane in ["a", "c"] {
            let own: Vec<_> = served.iter().filter(|waiter| waiter.starts_with(lane)).collect();
            assert!(own.is_sorted(), "{served:?}");
        }
        let last_but_a = served
            .iter()
            .rposition(|waiter| !waiter.starts_with('a'))
            .expect("others");
        assert!(last_but_a <= 4, "nobody waits for all of a lane: {served:?}");
        assert!(line.is_empty() && line.lanes.is_empty());
    }

    #[test]
    fn one_address_cannot_fill_it_against_others() {
        let mut line = Line::default();
        for number in 0..10 {
            line.enter(address(1), number, 10).expect("alone it may have all");
        }
        assert_eq!(line.enter(address(1), 10, 10), Err(10), "the flood is refused");
        for number in 20..24 {
            let (_, evicted) = line.enter(address(2), number, 10).expect("another address gets in");
            assert!(evicted.is_some_and(|evicted| evicted < 10));
        }
        assert_eq!(line.enter(address(2), 24, 10).map(|(_, evicted)| evicted), Ok(Some(5)));
        assert_eq!(line.enter(address(2), 25, 10), Err(25), "five each is fair");
        assert_eq!(line.len(), 10);
        assert_eq!(
            (line.next(), line.next(), line.next(), line.next()),
            (Some(0), Some(20), Some(1), Some(21))
        );
    }

    #[test]
    fn who_leaves_frees_a_place_once() {
        let mut line = Line::default();
        let (first, _) = line.enter(address(1), 'a', 2).expect("room");
        let (second, _) = line.enter(address(1), 'b', 2).expect("room");
        assert_eq!(line.leave(first), Some('a'));
        assert_eq!(line.leave(first), None);
        assert_eq!(line.next(), Some('b'));
        assert_eq!(line.leave(second), None, "its turn had come");
        assert!(line.is_empty() && line.lanes.is_empty());
    }
}
