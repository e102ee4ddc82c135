//! What the driver does, counted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backplane::contract::{Failed, Renewal};
use crate::backplane::cursor::Heard;
use crate::backplane::driver::Driver;
use crate::hub::room::shared::{Repaired, Told};
use crate::protocol::server::ResetReason;
use crate::telemetry::metrics::{AuditResult, PresenceResult, RenewalResult, RepairResult, Wakeup};

impl Driver {
    /// What waits for the backplane.
    pub(super) fn count_waiting(&self) {
        let errands = &self.errands;
        let messages = errands.queued_messages.load(Ordering::Relaxed);
        let bytes = errands.queued_bytes.load(Ordering::Relaxed);
        errands.metrics.backplane().queue(messages, bytes);
        errands.metrics.presence().queue(errands.changes_waiting());
    }

    pub(super) fn heard(&self, heard: Heard) {
        self.errands.metrics.backplane().wakeup(match heard {
            Heard::Next => Wakeup::Delivered,
            Heard::Old => Wakeup::Old,
            Heard::Ahead => Wakeup::Behind,
            Heard::Foreign => Wakeup::Foreign,
        });
    }

    pub(super) fn told(&self, told: Told) {
        self.errands.metrics.presence().event(match told {
            Told::Applied => PresenceResult::Applied,
            Told::Old => PresenceResult::Old,
            Told::Missed => PresenceResult::Missed,
        });
    }

    pub(super) fn repaired(&self, repaired: Option<Repaired>) {
        self.errands.metrics.backplane().repair(match repaired {
            Some(Repaired::Delivered) => RepairResult::Ok,
            Some(Repaired::Reset(ResetReason::Trimmed)) => RepairResult::Trimmed,
            Some(Repaired::Reset(ResetReason::Rewound)) => RepairResult::Rewound,
            Some(Repaired::Reset(ResetReason::Epoch)) => RepairResult::Epoch,
            None => RepairResult::None,
        });
    }

    pub(super) fn audited(&self, audited: Result<usize, &Failed>, took: Duration) {
        let backplane = self.errands.metrics.backplane();
        backplane.audit(match audited {
            Ok(0) => AuditResult::Same,
            Ok(_) => AuditResult::Behind,
            Err(_) => AuditResult::Failed,
        });
        backplane.audit_seconds(took.as_secs_f64());
    }

    pub(super) fn renewed(&self, renewal: Option<&Renewal>) {
        self.errands.metrics.presence().renewal(match renewal {
            Some(Renewal::Alive { .. }) => RenewalResult::Ok,
            Some(Renewal::Expired) => RenewalResult::Expired,
            None => RenewalResult::Failed,
        });
    }
}
