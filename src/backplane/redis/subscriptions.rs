//! Which rooms this node wants to hear of, and on which link each was confirmed. What is wanted is noted here; the task
//! that owns a shard's subscriber link works it off, a batch at a time, so that confirmations come in the order in which
//! they were asked for.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::contract::{Failed, PartitionSet, RoomKey};

/// Hears when a subscription is confirmed, or why not.
type Waiter = oneshot::Sender<Result<(), Failed>>;

/// A number of its own for each subscriber link; 0 is none.
pub(super) type LinkId = u64;

#[derive(Debug, Default)]
struct State {
    partition: u16,
    wanted: bool,
    /// It was confirmed since it is wanted: a link that breaks does not end the wish.
    attached: bool,
    confirmed: LinkId,
    /// A step is on its way there; 0: none.
    asked: LinkId,
    /// Those that attach; bounded by the callers, one per room.
    waiters: Vec<Waiter>,
}

/// Rooms of one node.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(Mutex<HashMap<Arc<str>, State>>);

/// Rooms whose wish and state may differ, of one shard. Only filled while there is a link, which empties it within the
/// call timeout or is closed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    rooms: Mutex<VecDeque<RoomKey>>,
    more: tokio::sync::Notify,
}

impl Queue {
    pub(super) fn push(&self, room: RoomKey) {
        self.rooms.lock().push_back(room);
        self.more.notify_one();
    }

    pub(super) fn clear(&self) {
        self.rooms.lock().clear();
    }

    fn pop(&self) -> Option<RoomKey> {
        self.rooms.lock().pop_front()
    }

    /// Has the owner look, though nothing may have been added.
    pub(super) fn wake(&self) {
        self.more.notify_one();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rooms.lock().is_empty()
    }

    /// Cancel safe.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }
}

/// One thing to ask of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) room: RoomKey,
    pub(super) subscribe: bool,
}

impl Subscriptions {
    /// Notes that a room is wanted. None: it is subscribed on `link` already.
    pub(super) fn want(&self, room: &RoomKey, link: LinkId) -> Option<oneshot::Receiver<Result<(), Failed>>> {
        let mut rooms = self.0.lock();
        let state = rooms.entry_ref(&*room.name).or_default();
        state.partition = room.partition;
        if state.wanted && state.confirmed == link && link != 0 {
            return None;
        }
        state.wanted = true;
        let (waiter, confirmed) = oneshot::channel();
        state.waiters.retain(|waiter| !waiter.is_closed());
        state.waiters.push(waiter);
        Some(confirmed)
    }

    /// Notes that a room is no longer wanted; whether `link` must hear of it.
    pub(super) fn leave(&self, room: &RoomKey, link: LinkId) -> bool {
        let mut rooms = self.0.lock();
        let Some(state) = rooms.get_mut(&*room.name) else {
            return false;
        };
        state.wanted = false;
        state.attached = false;
        let is_heard = link != 0 && (state.confirmed == link || state.asked == link);
        if !is_heard && state.waiters.is_empty() {
            rooms.remove(&*room.name);
            return false;
        }
        true
    }

    /// Who attached in vain gives up; the wish stays if it was fulfilled once.
    pub(super) fn give_up(&self, room: &RoomKey) {
        let mut rooms = self.0.lock();
        let Some(state) = rooms.get_mut(&*room.name) else {
            return;
        };
        state.waiters.retain(|waiter| !waiter.is_closed());
        if !state.attached && state.waiters.is_empty() {
            state.wanted = false;
            if state.confirmed == 0 && state.asked == 0 {
                rooms.remove(&*room.name);
            }
        }
    }

    /// A new link: nothing of these partitions is subscribed there. Returns what is wanted.
    pub(super) fn begin(&self, partitions: &dyn PartitionSet) -> Vec<RoomKey> {
        let mut rooms = self.0.lock();
        rooms.retain(|_, state| {
            if partitions.contains(state.partition) {
                state.confirmed = 0;
                state.asked = 0;
                state.wanted || !state.waiters.is_empty()
            } else {
                true
            }
        });
        drop(rooms);
        self.wanted(partitions)
    }

    /// Wanted rooms of some partitions.
    pub(super) fn wanted(&self, partitions: &dyn PartitionSet) -> Vec<RoomKey> {
        let rooms = self.0.lock();
        rooms
            .iter()
            .filter(|(_, state)| state.wanted && partitions.contains(state.partition))
            .map(|(name, state)| RoomKey {
                name: Arc::clone(name),
                partition: state.partition,
            })
            .collect()
    }

    /// Takes at most `max` steps that bring `link` nearer to what is wanted; each room once.
    pub(super) fn steps(&self, queue: &Queue, link: LinkId, max: usize) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut rooms = self.0.lock();
        while steps.len() < max {
            let Some(room) = queue.pop() else { break };
            let Some(state) = rooms.get_mut(&*room.name) else {
                continue;
            };
            match (state.wanted, state.confirmed == link) {
                // Once per batch; what is wanted after it is seen when it is done.
                _ if state.asked == link => {}
                (subscribe @ true, false) | (subscribe @ false, true) => {
                    state.asked = link;
                    // Whoever attaches from now on waits for a confirmation that comes after this step's.
                    state.confirmed = 0;
                    steps.push(Step { room, subscribe });
                }
                (true, true) => answer(state, Ok(())),
                (false, false) => drop(rooms.remove(&*room.name)),
            }
        }
        steps
    }

    /// Nobody knows what became of these: the link is given up.
    pub(super) fn lost(&self, steps: &[Step], link: LinkId) {
        let mut rooms = self.0.lock();
        for step in steps {
            let Some(state) = rooms.get_mut(&*step.room.name).filter(|state| state.asked == link) else {
                continue;
            };
            state.asked = 0;
            if !state.wanted && state.waiters.is_empty() {
                rooms.remove(&*step.room.name);
            }
        }
    }

    /// A step was confirmed on `link`, or refused. Rooms whose wish has changed meanwhile go back into the queue.
    pub(super) fn done(&self, step: &Step, link: LinkId, result: Result<(), Failed>, queue: &Queue) {
        let mut rooms = self.0.lock();
        // Another link may have taken the room over meanwhile: what this one says does not count.
        let Some(state) = rooms.get_mut(&*step.room.name).filter(|state| state.asked == link) else {
            return;
        };
        state.asked = 0;
        if result.is_ok() {
            state.confirmed = if step.subscribe { link } else { 0 };
        }
        if !step.subscribe {
            if state.wanted {
                queue.push(step.room.clone());
            } else if state.waiters.is_empty() {
                rooms.remove(&*step.room.name);
            }
            return;
        }
        if result.is_ok() {
            state.attached = state.wanted;
        } else if !state.attached {
            state.wanted = false;
        }
        answer(state, result);
        if state.wanted != (state.confirmed == link) {
            queue.push(step.room.clone());
        }
    }
}

fn answer(state: &mut State, result: Result<(), Failed>) {
    for waiter in state.waiters.drain(..) {
        // Who no longer waits has given up.
        let _ = waiter.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::contract::Refusal;
    use super::*;

    fn room(name: &str) -> RoomKey {
        RoomKey::new(name.into())
    }

    struct Everything;

    impl std::fmt::Debug for Everything {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("everything")
        }
    }

    impl PartitionSet for Everything {
        fn contains(&self, _: u16) -> bool {
            true
        }
    }

    #[test]
    fn a_room_is_subscribed_once_and_left_once() {
        let (subscriptions, queue) = (Subscriptions::default(), Queue::default());
        let lobby = room("lobby");
        let mut confirmed = subscriptions.want(&lobby, 1).expect("to wait for");
        queue.push(lobby.clone());
        let steps = subscriptions.steps(&queue, 1, 500);
        assert_eq!(
            steps,
            [Step {
                room: lobby.clone(),
                subscribe: true
            }]
        );
        assert!(confirmed.try_recv().is_err(), "not before the confirmation");
        subscriptions.done(&steps[0], 1, Ok(()), &queue);
        assert_eq!(confirmed.try_recv(), Ok(Ok(())));
        assert!(subscriptions.want(&lobby, 1).is_none(), "it is already");

        assert!(subscriptions.leave(&lobby, 1));
        queue.push(lobby.clone());
        let steps = subscriptions.steps(&queue, 1, 500);
        assert!(!steps[0].subscribe);
        subscriptions.done(&steps[0], 1, Ok(()), &queue);
        assert!(subscriptions.0.lock().is_empty());
    }

    #[test]
    fn a_new_link_takes_up_what_was_attached_and_only_that() {
        let (subscriptions, queue) = (Subscriptions::default(), Queue::default());
        for name in ["kept", "refused"] {
            drop(subscriptions.want(&room(name), 1));
            queue.push(room(name));
        }
        for step in subscriptions.steps(&queue, 1, 500) {
            let result = if &*step.room.name == "kept" {
                Ok(())
            } else {
                Err(Refusal::Forbidden.into())
            };
            subscriptions.done(&step, 1, result, &queue);
        }
        assert_eq!(subscriptions.begin(&Everything), [room("kept")]);
        assert!(
            subscriptions.want(&room("kept"), 2).is_some(),
            "not on the new link yet"
        );
        assert!(!subscriptions.leave(&room("other"), 2));
    }

    #[test]
    fn who_attaches_while_the_room_is_being_left_waits_for_a_later_confirmation() {
        let (subscriptions, queue) = (Subscriptions::default(), Queue::default());
        let lobby = room("lobby");
        drop(subscriptions.want(&lobby, 1));
        queue.push(lobby.clone());
        let step = subscriptions.steps(&queue, 1, 500).remove(0);
        subscriptions.done(&step, 1, Ok(()), &queue);
        assert!(subscriptions.leave(&lobby, 1));
        queue.push(lobby.clone());
        let step = subscriptions.steps(&queue, 1, 500).remove(0);
        let mut confirmed = subscriptions.want(&lobby, 1).expect("to wait for");
        subscriptions.done(&step, 1, Ok(()), &queue);
        assert!(confirmed.try_recv().is_err());
        let step = subscriptions.steps(&queue, 1, 500).remove(0);
        subscriptions.done(&step, 1, Ok(()), &queue);
        assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn a_room_that_moved_while_it_was_asked_for_is_taken_up_by_the_next_link() {
        let (subscriptions, old, new) = (Subscriptions::default(), Queue::default(), Queue::default());
        let lobby = room("lobby");
        let mut confirmed = subscriptions.want(&lobby, 1).expect("to wait for");
        old.push(lobby.clone());
        let lost = subscriptions.steps(&old, 1, 500);
        new.push(lobby.clone());
        let taken = subscriptions.steps(&new, 2, 500);
        assert_eq!(taken, lost);
        subscriptions.lost(&lost, 1);
        subscriptions.done(&lost[0], 1, Err(Refusal::Away.into()), &old);
        assert!(confirmed.try_recv().is_err(), "the old link has no say");
        subscriptions.done(&taken[0], 2, Ok(()), &new);
        assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let subscriptions = Subscriptions::default();
        drop(subscriptions.want(&room("lobby"), 0));
        subscriptions.give_up(&room("lobby"));
        assert!(subscriptions.0.lock().is_empty());
    }

    #[test]
    fn a_change_of_mind_during_the_question_is_worked_off() {
        let (subscriptions, queue) = (Subscriptions::default(), Queue::default());
        let lobby = room("lobby");
        drop(subscriptions.want(&lobby, 1));
        queue.push(lobby.clone());
        let steps = subscriptions.steps(&queue, 1, 500);
        assert!(subscriptions.leave(&lobby, 1), "it is on its way");
        subscriptions.done(&steps[0], 1, Ok(()), &queue);
        let steps = subscriptions.steps(&queue, 1, 500);
        assert!(!steps[0].subscribe);
        drop(subscriptions.want(&lobby, 1));
        subscriptions.done(&steps[0], 1, Ok(()), &queue);
        assert!(subscriptions.steps(&queue, 1, 500)[0].subscribe);
    }
}
