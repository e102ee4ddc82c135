//! Revocations, and values that are taken once. Pure: times are given.

use std::collections::HashMap;

use bytes::Bytes;

use crate::backplane::contract::{Failed, Refusal, Revocation, Subject};

/// Values that wait to be taken; more are refused.
const VALUES_MAX: usize = 100_000;

/// Revocations that are kept; more are refused.
const REVOCATIONS_MAX: usize = 1_000_000;

/// What concerns the whole cluster rather than a room.
#[derive(Debug, Default, Clone)]
pub struct Register {
    revocations: HashMap<Subject, Revocation>,
    /// With the time at which each is gone.
    values: HashMap<Box<str>, (u64, Bytes)>,
}

impl Register {
    /// Keeps the later of each time; what is kept now, and whether that is new.
    ///
    /// # Errors
    /// [`Refusal::Full`]
    pub fn add(&mut self, told: &Revocation, now_s: u64) -> Result<(Revocation, bool), Failed> {
        if self.revocations.len() >= REVOCATIONS_MAX {
            self.forget(now_s);
            if self.revocations.len() >= REVOCATIONS_MAX {
                return Err(Failed::Refused(Refusal::Full));
            }
        }
        let mut is_new = false;
        let kept = self.revocations.entry(told.subject.clone()).or_insert_with(|| {
            is_new = true;
            told.clone()
        });
        is_new |= told.issued_before > kept.issued_before || told.forget_after > kept.forget_after;
        kept.issued_before = kept.issued_before.max(told.issued_before);
        kept.forget_after = kept.forget_after.max(told.forget_after);
        Ok((kept.clone(), is_new))
    }

    pub fn revocations(&mut self, now_s: u64) -> Vec<Revocation> {
        self.forget(now_s);
        self.revocations.values().cloned().collect()
    }

    fn forget(&mut self, now_s: u64) {
        self.revocations.retain(|_, entry| entry.forget_after >= now_s);
    }

    /// False if the name is taken.
    ///
    /// # Errors
    /// [`Refusal::Full`]
    pub fn put(&mut self, name: &str, value: &[u8], gone_ms: u64, now_ms: u64) -> Result<bool, Failed> {
        if self.values.get(name).is_some_and(|(gone_ms, _)| *gone_ms > now_ms) {
            return Ok(false);
        }
        if self.values.len() >= VALUES_MAX {
            self.sweep(now_ms);
            if self.values.len() >= VALUES_MAX {
                return Err(Failed::Refused(Refusal::Full));
            }
        }
        let value = Bytes::copy_from_slice(value);
        self.values.insert(name.into(), (gone_ms, value));
        Ok(true)
    }

    pub fn get(&self, name: &str, now_ms: u64) -> Option<Bytes> {
        let (gone_ms, value) = self.values.get(name)?;
        (*gone_ms > now_ms).then(|| value.clone())
    }

    pub fn take(&mut self, name: &str, now_ms: u64) -> Option<Bytes> {
        let (gone_ms, value) = self.values.remove(name)?;
        (gone_ms > now_ms).then_some(value)
    }

    /// Forgets values whose time is over.
    pub fn sweep(&mut self, now_ms: u64) {
        self.values.retain(|_, (gone_ms, _)| *gone_ms > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(issued_before: u64, forget_after: u64) -> Revocation {
        Revocation {
            subject: Subject::User("ann".into()),
            issued_before,
            forget_after,
        }
    }

    #[test]
    fn entries_only_ever_add_until_they_may_be_forgotten() {
        let mut register = Register::default();
        assert_eq!(register.add(&revocation(5, 50), 1), Ok((revocation(5, 50), true)));
        assert_eq!(register.add(&revocation(4, 60), 1), Ok((revocation(5, 60), true)));
        assert_eq!(register.add(&revocation(5, 40), 1), Ok((revocation(5, 60), false)));
        assert_eq!(register.revocations(60), [revocation(5, 60)]);
        assert_eq!(register.revocations(61), []);
    }

    #[test]
    fn a_value_is_taken_once_and_not_after_its_time() {
        let mut register = Register::default();
        assert_eq!(register.put("a", b"1", 100, 1), Ok(true));
        assert_eq!(register.put("a", b"2", 100, 99), Ok(false));
        assert_eq!(register.take("a", 99).as_deref(), Some(&b"1"[..]));
        assert_eq!(register.take("a", 99), None);
        assert_eq!(register.put("a", b"3", 200, 99), Ok(true));
        assert_eq!(register.put("a", b"4", 300, 200), Ok(true), "its time was over");
        assert_eq!(register.take("a", 300), None);
    }
}
