//! JetStream's requests, as far as they are used. Those that read ask a stream's leader: any other copy may be behind.

use async_nats::{HeaderMap, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backplane::contract::{Failed, Refusal};

use super::link::Link;
use super::problem::{ApiError, Problem, code, optional};
use super::stored::{Raw, Stored, consumed};

/// Messages of one turn of [`scan`]; what one subscription can hold.
const TURN_MESSAGES: usize = 256;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub seq: u64,
    /// Its id was known: `seq` is the first one's.
    pub duplicate: bool,
}

/// What a stream says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Info {
    #[serde(default)]
    pub config: Value,
    /// When it was made: never the same for two streams of one name.
    #[serde(default)]
    pub created: String,
    #[serde(default)]
    pub state: State,
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// Of the subjects that were asked for, all pages.
    #[serde(default)]
    total: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pub last_seq: u64,
    #[serde(default)]
    subjects: Option<serde_json::Map<String, Value>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Cluster {
    #[serde(default)]
    pub leader: Option<String>,
}

impl Link {
    /// One request of JetStream's API.
    pub async fn api<T: DeserializeOwned>(&self, call: &str, body: &impl Serialize) -> Result<T, Problem> {
        let body = serde_json::to_vec(body).map_err(|_| Problem::BROKEN)?;
        let answer = self.ask(format!("$JS.API.{call}"), None, body.into()).await?;
        read(&answer.payload)
    }

    /// Stores a message.
    pub async fn store(&self, subject: String, headers: HeaderMap, payload: Bytes) -> Result<Ack, Problem> {
        #[derive(Deserialize)]
        struct Answer {
            seq: u64,
            #[serde(default)]
            duplicate: bool,
        }
        let answer = self.ask(subject, Some(headers), payload).await?;
        let Answer { seq, duplicate } = read(&answer.payload)?;
        Ok(Ack { seq, duplicate })
    }

    /// Stores a message if the newest of its subject has this seq; 0 means that there is none.
    pub async fn store_after(&self, subject: String, last: u64, payload: Bytes) -> Result<Ack, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
        self.store(subject, headers, payload).await
    }

    /// The newest message of a subject, which may have wildcards.
    pub async fn newest(&self, stream: &str, subject: &str) -> Result<Option<Stored>, Problem> {
        self.message(stream, json!({"last_by_subj": subject})).await
    }

    /// The first message of a subject at or after `seq`.
    pub async fn next(&self, stream: &str, subject: &str, seq: u64) -> Result<Option<Stored>, Problem> {
        self.message(stream, json!({"next_by_subj": subject, "seq": seq})).await
    }

    pub async fn at(&self, stream: &str, seq: u64) -> Result<Option<Stored>, Problem> {
        self.message(stream, json!({"seq": seq})).await
    }

    async fn message(&self, stream: &str, which: Value) -> Result<Option<Stored>, Problem> {
        #[derive(Deserialize)]
        struct Answer {
            message: Raw,
        }
        let answer: Option<Answer> = optional(self.api(&format!("STREAM.MSG.GET.{stream}"), &which).await)?;
        answer
            .map(|answer| answer.message.decode().ok_or(Problem::BROKEN))
            .transpose()
    }

    /// Removes one message. True for the one who removed it, of however many try.
    pub async fn remove(&self, stream: &str, seq: u64) -> Result<bool, Problem> {
        let body = json!({"seq": seq, "no_erase": true});
        let removed = self.api::<Value>(&format!("STREAM.MSG.DELETE.{stream}"), &body).await;
        match removed {
            Ok(_) => Ok(true),
            Err(Problem::Api(error)) if error.is_missing() => Ok(false),
            // Said too when somebody else is removing it at this moment.
            Err(Problem::Api(error))
                if error.err_code == code::DELETE_FAILED && self.at(stream, seq).await?.is_none() =>
            {
                Ok(false)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Removes everything of a subject; how much that was.
    pub async fn purge(&self, stream: &str, subject: &str) -> Result<u64, Problem> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            purged: u64,
        }
        let call = format!("STREAM.PURGE.{stream}");
        let Answer { purged } = self.api(&call, &json!({"filter": subject})).await?;
        Ok(purged)
    }

    pub async fn info(&self, stream: &str) -> Result<Info, Problem> {
        self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    /// The subjects of a stream that `filter` matches, and the stream's newest seq when the first were read.
    pub async fn subjects(&self, stream: &str, filter: &str) -> Result<(Vec<String>, Info), Problem> {
        let mut found = Vec::new();
        let mut first = None;
        loop {
            let body = json!({"subjects_filter": filter, "offset": found.len()});
            let mut page: Info = self.api(&format!("STREAM.INFO.{stream}"), &body).await?;
            let subjects = page.state.subjects.take().unwrap_or_default();
            let is_last = subjects.is_empty() || found.len() + subjects.len() >= page.total;
            found.extend(subjects.into_iter().map(|(subject, _)| subject));
            let info = first.get_or_insert(page);
            if is_last {
                return Ok((found, std::mem::take(info)));
            }
        }
    }

    /// Messages of a subject from `from` on, ascending, at most `max`. A copy of the stream may answer that is behind: the
    /// caller knows how far it should go.
    pub async fn scan(&self, which: &Scan<'_>) -> Result<Vec<Stored>, Problem> {
        let consumer: Consumer = self
            .api(&format!("CONSUMER.CREATE.{}", which.stream), &which.consumer())
            .await?;
        let wanted = usize::try_from(consumer.num_pending)
            .unwrap_or(usize::MAX)
            .min(which.max);
        let found = self.turns(which.stream, &consumer.name, wanted).await;
        // If this is lost, the server forgets the consumer by itself.
        let delete = format!("$JS.API.CONSUMER.DELETE.{}.{}", which.stream, consumer.name);
        self.say(delete, self.inbox(), Bytes::new()).await?;
        found
    }

    async fn turns(&self, stream: &str, consumer: &str, wanted: usize) -> Result<Vec<Stored>, Problem> {
        let mut found = Vec::with_capacity(wanted.min(TURN_MESSAGES));
        if wanted == 0 {
            return Ok(found);
        }
        let inbox = self.inbox();
        let mut messages = self.subscribe(inbox.clone()).await?;
        while found.len() < wanted {
            let turn = (wanted - found.len()).min(TURN_MESSAGES);
            let body = json!({"batch": turn, "no_wait": true}).to_string();
            let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
            self.say(next, inbox.clone(), body.into()).await?;
            for _ in 0..turn {
                let Some(message) = self.await_next(&mut messages).await? else {
                    return Ok(found);
                };
                found.push(message);
            }
        }
        Ok(found)
    }

    /// `None` when the consumer has no more.
    async fn await_next(&self, messages: &mut Subscriber) -> Result<Option<Stored>, Problem> {
        // A message that comes later than this is dropped with the subscription.
        let next = tokio::select! {
            biased;
            () = self.gone.cancelled() => None,
            next = tokio::time::timeout(self.call_timeout(), messages.next()) => next.ok().flatten(),
        };
        let message = next.ok_or(Failed::Unknown)?;
        match message.status {
            Some(StatusCode::NO_RESPONDERS) => Err(Failed::Refused(Refusal::Away).into()),
            Some(_) => Ok(None),
            None => consumed(message).map(Some).ok_or(Problem::BROKEN),
        }
    }
}

/// Which messages [`Link::scan`] reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan<'a> {
    pub stream: &'a str,
    pub subject: &'a str,
    pub from: u64,
    pub max: usize,
    /// Without payload.
    pub bare: bool,
}

impl Scan<'_> {
    fn consumer(&self) -> Value {
        json!({"stream_name": self.stream, "config": {
            "deliver_policy": "by_start_sequence", "opt_start_seq": self.from.max(1), "ack_policy": "none",
            "replay_policy": "instant", "filter_subject": self.subject, "headers_only": self.bare,
            "inactive_threshold": 5_000_000_000_u64, "mem_storage": true, "num_replicas": 1,
        }})
    }
}

#[derive(Debug, Deserialize)]
struct Consumer {
    name: String,
    #[serde(default)]
    num_pending: u64,
}

/// The answer, or the error in it.
fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Problem> {
    #[derive(Deserialize)]
    struct Error {
        error: Option<ApiError>,
    }
    let unreadable = |_| Problem::BROKEN;
    if let Some(error) = serde_json::from_slice::<Error>(answer).map_err(unreadable)?.error {
        return Err(error.into());
    }
    serde_json::from_slice(answer).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_errors_are_told_apart() {
        let found: Result<Value, Problem> = read(br#"{"type":"x","success":true}"#);
        assert!(found.is_ok());
        let refused = br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 0"},"seq":0}"#;
        assert!(read::<Value>(refused).is_err_and(|problem| problem.is_conflict()));
        let missing = br#"{"error":{"code":404,"err_code":10037,"description":"no message found"}}"#;
        assert!(matches!(optional(read::<Value>(missing)), Ok(None)));
        assert!(matches!(read::<Value>(b"garbage"), Err(Problem::Failed(_))));
    }
}
