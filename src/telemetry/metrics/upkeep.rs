//! The exporter keeps each histogram sample until somebody aggregates them; without a scrape that
//! would be for ever. This thread does it on time.

use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::PrometheusHandle;

/// How many seconds of samples may pile up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Runs until dropped.
pub(super) struct Upkeep {
    _stops_when_dropped: Option<SyncSender<()>>,
}

impl Upkeep {
    /// Starts the thread. A process that cannot have one more thread still gets its upkeep from
    /// each scrape, and the timestamp that does not advance says so.
    pub fn start(handle: PrometheusHandle, timestamp: metrics::Gauge) -> Self {
        timestamp.set(unix_seconds());
        let (stop, stopped) = mpsc::sync_channel(0);
        let run = move || {
            while stopped.recv_timeout(UPKEEP_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                handle.run_upkeep();
                timestamp.set(unix_seconds());
            }
        };
        let started = thread::Builder::new().name("conclave-upkeep".to_owned()).spawn(run);
        if let Err(error) = &started {
            tracing::warn!(%error, "no upkeep of metrics between scrapes");
        }
        Self {
            _stops_when_dropped: started.is_ok().then_some(stop),
        }
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
