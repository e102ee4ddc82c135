//! What the kernel and the runtimes say about this process.
//!
//! CPU time is a fraction of a second and the exporter's counters are whole numbers, so such counters are
//! written by us.

use std::fmt::Write;

use tokio::runtime::Handle;

use super::handles::Registrar;
use super::names;

/// Handles of `process_*` and `tokio_*`.
pub(super) struct Process {
    open_fds: metrics::Gauge,
    max_fds: metrics::Gauge,
    virtual_bytes: metrics::Gauge,
    resident_bytes: metrics::Gauge,
    start_seconds: metrics::Gauge,
    threads: metrics::Gauge,
    workers: metrics::Gauge,
    tasks: metrics::Gauge,
    queue: metrics::Gauge,
}

/// Counters with fractions, written after the rest of the exposition.
#[derive(Debug, Default)]
pub(super) struct Seconds {
    process_cpu: f64,
    worker_busy: f64,
    /// Not the process's but the node's, and a fraction as well.
    pub handshake_cpu: f64,
}

impl Process {
    pub fn register(new: &Registrar<'_>) -> Self {
        Self {
            open_fds: new.gauge(&names::PROCESS_OPEN_FDS, &[]),
            max_fds: new.gauge(&names::PROCESS_MAX_FDS, &[]),
            virtual_bytes: new.gauge(&names::PROCESS_VIRTUAL, &[]),
            resident_bytes: new.gauge(&names::PROCESS_RESIDENT, &[]),
            start_seconds: new.gauge(&names::PROCESS_START, &[]),
            threads: new.gauge(&names::PROCESS_THREADS, &[]),
            workers: new.gauge(&names::TOKIO_WORKERS, &[]),
            tasks: new.gauge(&names::TOKIO_TASKS, &[]),
            queue: new.gauge(&names::TOKIO_QUEUE, &[]),
        }
    }

    /// Reads everything; returns also how many descriptors may be open.
    pub fn read(&self, runtimes: &[Handle]) -> (Seconds, u64) {
        let process = metrics_process::collector::collect();
        let set = |gauge: &metrics::Gauge, value: Option<u64>| {
            gauge.set(value.unwrap_or_default() as f64);
        };
        set(&self.open_fds, process.open_fds);
        set(&self.max_fds, process.max_fds);
        set(&self.virtual_bytes, process.virtual_memory_bytes);
        set(&self.resident_bytes, process.resident_memory_bytes);
        set(&self.start_seconds, process.start_time_seconds);
        set(&self.threads, process.threads);
        let seconds = Seconds {
            process_cpu: process.cpu_seconds_total.unwrap_or_default(),
            worker_busy: self.read_runtimes(runtimes),
            handshake_cpu: 0.0,
        };
        (seconds, process.max_fds.unwrap_or_default())
    }

    fn read_runtimes(&self, runtimes: &[Handle]) -> f64 {
        let (mut workers, mut tasks, mut queue, mut busy) = (0, 0, 0, 0.0);
        for metrics in runtimes.iter().map(Handle::metrics) {
            workers += metrics.num_workers();
            tasks += metrics.num_alive_tasks();
            queue += metrics.global_queue_depth();
            busy += (0..metrics.num_workers())
                .map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64())
                .sum::<f64>();
        }
        self.workers.set(workers as f64);
        self.tasks.set(tasks as f64);
        self.queue.set(queue as f64);
        busy
    }
}

impl Seconds {
    /// Appends the counters to an exposition.
    pub fn write(&self, text: &mut String) {
        for (definition, value) in [
            (&names::PROCESS_CPU, self.process_cpu),
            (&names::TOKIO_BUSY, self.worker_busy),
            (&names::HANDSHAKE_CPU, self.handshake_cpu),
        ] {
            let (name, help) = (definition.name, definition.help);
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n\n");
        }
    }
}
