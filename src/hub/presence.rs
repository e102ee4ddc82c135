//! Who is in one room: users, not connections. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::hub::User;

#[derive(Debug)]
struct Present {
    json: Arc<str>,
    connections: u32,
}

/// The users of one room with the number of their connections. The first `shown` in the map are the ones that
/// `list` names.
#[derive(Debug, Default)]
pub struct Presence {
    users: IndexMap<Arc<str>, Present>,
    /// What `list` says, ready to be copied; built when first asked for after a change of the users it names.
    shown: Shown,
}

/// Users that `list` names, comma-separated.
#[derive(Debug, Default)]
struct Shown {
    /// As many as there may be: for one of them.
    all: Option<Arc<str>>,
    /// One less: for somebody else, who takes the last place.
    others: Option<Arc<str>>,
}

impl Presence {
    /// Users.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }

    /// Whether a connection of this user is here.
    #[must_use]
    pub fn holds(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Everybody who is here, with their JSON.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> {
        self.users.iter().map(|(id, present)| (id, &present.json))
    }

    /// One more connection of `user`; true if it is the first.
    pub fn enter(&mut self, user: &User, users_shown: usize) -> bool {
        match self.users.get_full_mut(&user.id) {
            Some((index, _, present)) => {
                present.connections += 1;
                if present.json != user.json {
                    present.json = Arc::clone(&user.json);
                    self.changed_at(index, users_shown);
                }
                false
            }
            None => {
                let present = Present {
                    json: Arc::clone(&user.json),
                    connections: 1,
                };
                let (index, _) = self.users.insert_full(Arc::clone(&user.id), present);
                self.changed_at(index, users_shown);
                true
            }
        }
    }

    /// Makes `user` one of those who are here, whatever its connections; true if it was not.
    pub fn place(&mut self, user: &User, users_shown: usize) -> bool {
        let new = self.enter(user, users_shown);
        if !new && let Some(present) = self.users.get_mut(&user.id) {
            present.connections = 1;
        }
        new
    }

    /// Who is here but not among `there`.
    pub fn users_besides(&self, there: &HashSet<&str>) -> Vec<User> {
        let gone = self.users.iter().filter(|(id, _)| !there.contains(&***id));
        gone.map(|(id, present)| User {
            id: Arc::clone(id),
            json: Arc::clone(&present.json),
        })
        .collect()
    }

    /// One connection of `user` less; the user's JSON if it was the last.
    pub fn leave(&mut self, user: &str, users_shown: usize) -> Option<Arc<str>> {
        let (index, _, present) = self.users.get_full_mut(user)?;
        present.connections -= 1;
        if present.connections > 0 {
            return None;
        }
        self.changed_at(index, users_shown);
        self.users.swap_remove_index(index).map(|(_, present)| present.json)
    }

    /// The users that `list` names to `user`, comma-separated: at most `users_shown`, `user` among them.
    pub fn shown_to(&mut self, user: &User, users_shown: usize) -> Arc<str> {
        let everyone = self.users.len() <= users_shown;
        let index = self.users.get_index_of(&user.id);
        if index.is_some_and(|index| everyone || index < users_shown) {
            return Arc::clone(self.shown.all.get_or_insert_with(|| joined(&self.users, users_shown)));
        }
        let others = self
            .shown
            .others
            .get_or_insert_with(|| joined(&self.users, users_shown.saturating_sub(1)));
        let comma = if others.is_empty() { "" } else { "," };
        [&**others, comma, &*user.json].concat().into()
    }

    fn changed_at(&mut self, index: usize, users_shown: usize) {
        if index < users_shown {
            self.shown = Shown::default();
        }
    }
}

fn joined(users: &IndexMap<Arc<str>, Present>, count: usize) -> Arc<str> {
    users
        .values()
        .take(count)
        .map(|present| &*present.json)
        .collect::<Vec<_>>()
        .join(",")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> User {
        User {
            id: id.into(),
            json: format!("<{id}>").into(),
        }
    }

    #[test]
    fn a_user_with_two_tabs_comes_and_goes_once() {
        let mut presence = Presence::default();
        assert!(presence.enter(&user("ann"), 10));
        assert!(!presence.enter(&user("ann"), 10));
        assert_eq!(presence.leave("ann", 10), None);
        assert_eq!(presence.leave("ann", 10).as_deref(), Some("<ann>"));
        assert_eq!(presence.leave("ann", 10), None, "a stranger's leave is nothing");
        assert_eq!(presence.count(), 0);
    }

    #[test]
    fn the_list_names_as_many_as_it_may_and_always_oneself() {
        let mut presence = Presence::default();
        for id in ["a", "b", "c", "d"] {
            presence.enter(&user(id), 2);
        }
        assert_eq!(&*presence.shown_to(&user("a"), 2), "<a>,<b>");
        assert_eq!(&*presence.shown_to(&user("d"), 2), "<a>,<d>");
        presence.leave("a", 2);
        assert_eq!(&*presence.shown_to(&user("b"), 2), "<d>,<b>");
        assert_eq!(&*presence.shown_to(&user("c"), 1), "<c>");
    }
}
