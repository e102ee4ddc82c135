//! How many connections a user has on all nodes. All of it is in the control slot, next to the leases that vouch for it:
//! two calls per connection, only where there is a limit.

use std::sync::Arc;
use std::time::Duration;

use super::super::contract::{Counted, Failed, Incarnation, Presented, Tally};
use super::Redis;
use super::reply;
use super::script::{Script, script};

static COUNT: Script = script!("count");
static RECOUNT: Script = script!("recount");

/// How long counts are kept without word; nodes repeat them several times in it.
const LIFE: Duration = Duration::from_hours(2);

/// How long it is known that a user has none: longer than a call can be on its way.
const LIFE_OF_NONE: Duration = Duration::from_mins(1);

/// The scripts' word for an incarnation without a lease.
const FENCED: u64 = 2;

impl Redis {
    /// [`super::super::contract::Backplane::count`].
    pub(super) async fn count_one(
        &self,
        incarnation: &Incarnation,
        user: &str,
        tally: Tally,
        max: u32,
    ) -> Result<Counted, Failed> {
        let keys = [self.keys.control("lease"), self.keys.tally(user)];
        let numbers = [
            tally.connections.to_string(),
            tally.version.to_string(),
            max.to_string(),
            LIFE.as_millis().to_string(),
        ];
        let mut args = vec![incarnation.as_bytes()];
        args.extend(numbers.iter().map(String::as_bytes));
        let answer = self.call_ctl(&COUNT, &[&keys[0], &keys[1]], &args).await?;
        Ok(match reply::integer(Some(answer))? {
            0 => Counted::Over,
            FENCED => Counted::Fenced,
            _ => Counted::Within,
        })
    }

    /// [`super::super::contract::Backplane::recount`].
    pub(super) async fn count_again(
        &self,
        incarnation: &Incarnation,
        users: &[(Arc<str>, Tally)],
    ) -> Result<Presented, Failed> {
        let mut keys = vec![self.keys.control("lease")];
        let mut args = vec![
            incarnation.as_bytes().to_vec(),
            LIFE.as_millis().to_string().into_bytes(),
            LIFE_OF_NONE.as_millis().to_string().into_bytes(),
        ];
        for (user, tally) in users {
            keys.push(self.keys.tally(user));
            args.push(tally.connections.to_string().into_bytes());
            args.push(tally.version.to_string().into_bytes());
        }
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
        let answer = self.call_ctl(&RECOUNT, &keys, &args).await?;
        Ok(match reply::integer(Some(answer))? {
            FENCED => Presented::Fenced,
            _ => Presented::Done,
        })
    }
}
