//! Lines go through a bounded queue to a thread of their own: a terminal that is paused, or a full
//! pipe, must not stop a shard. What does not fit is dropped and counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;
/// Longest line that is kept; a longer one is dropped, so that the queue is bounded in bytes too.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How long the end of the process waits for the rest.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of this process that were dropped so far.
pub fn lines_dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Where lines end up.
pub(super) enum Output {
    Stdout,
    Stderr,
}

enum Item {
    Line(Vec<u8>),
    /// Everything before it was written.
    Flush(SyncSender<()>),
}

/// The queue of lines; a clone feeds the same queue.
#[derive(Clone)]
pub(super) struct Lines(SyncSender<Item>);

impl Lines {
    /// Starts the thread that writes.
    pub fn start(output: Output) -> io::Result<Self> {
        let (sender, items) = mpsc::sync_channel(LINES_MAX);
        thread::Builder::new()
            .name("conclave-log".to_owned())
            .spawn(move || match output {
                Output::Stdout => write_all(&items, io::stdout()),
                Output::Stderr => write_all(&items, io::stderr()),
            })?;
        Ok(Self(sender))
    }

    /// Waits until everything queued before was written, or for a second.
    pub fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let mut marker = Item::Flush(done);
        // A full queue makes room as soon as its reader takes something.
        while let Err(TrySendError::Full(back)) = self.0.try_send(marker) {
            if Instant::now() >= deadline {
                return;
            }
            marker = back;
            thread::sleep(Duration::from_millis(1));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(items: &Receiver<Item>, mut output: impl Write) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                if output.write_all(&line).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
            Item::Flush(done) => {
                let _ = output.flush();
                let _ = done.send(());
            }
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// Both formats write a whole line at once.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = line.len() <= LINE_BYTES_MAX && self.0.try_send(Item::Line(line.to_vec())).is_ok();
        if !kept {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (sender, items) = mpsc::sync_channel(1);
        let lines = Lines(sender);
        let before = lines_dropped();
        (&lines).write_all(b"kept\n").unwrap();
        (&lines).write_all(b"dropped\n").unwrap();
        assert!(lines_dropped() > before);
        drop(lines);
        let mut written = Vec::new();
        write_all(&items, &mut written);
        assert_eq!(written, b"kept\n");
    }

    #[test]
    fn a_flush_waits_for_what_was_queued_but_not_for_ever() {
        let (sender, items) = mpsc::sync_channel(1);
        let lines = Lines(sender);
        (&lines).write_all(b"last words\n").unwrap();
        let started = Instant::now();
        lines.flush();
        assert!(started.elapsed() < FLUSH_TIMEOUT * 3, "nobody reads, and still it ends");
        let reader = thread::spawn(move || {
            let mut written = Vec::new();
            write_all(&items, &mut written);
            written
        });
        lines.flush();
        drop(lines);
        assert_eq!(reader.join().unwrap(), b"last words\n");
    }
}
