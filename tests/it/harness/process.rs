//! The binary as a child process: its lines, its end, and that it ends with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::within;

/// A running child; killed, by its pid, when dropped.
pub struct Process {
    child: Arc<Mutex<Child>>,
    pid: u32,
    seen: watch::Receiver<Seen>,
}

/// Everything that it has said and how it ended.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub stdout: Vec<String>,
    pub stderr: String,
    pub exit: Option<ExitStatus>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    pub fn start_with(command: &mut Command, stdin: Stdio) -> Self {
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let pid = child.id();
        let child = Arc::new(Mutex::new(child));
        let (tell, seen) = watch::channel(Seen::default());
        let tell_errors = tell.clone();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            tell_errors.send_modify(|seen| seen.stderr = String::from_utf8_lossy(&text).into_owned());
        });
        let waited = Arc::clone(&child);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                tell.send_modify(|seen| seen.stdout.push(line));
            }
            let _ = errors.join();
            // Its outputs are closed, so its end is a matter of moments; the lock is not held meanwhile,
            // because a test that ends must be able to kill it.
            let exit = loop {
                if let Some(exit) = waited
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .try_wait()
                    .unwrap()
                {
                    break exit;
                }
                thread::sleep(Duration::from_millis(2));
            };
            tell.send_modify(|seen| seen.exit = Some(exit));
        });
        Self { child, pid, seen }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has said so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until `found` finds something in what it says. Panics when it ends first.
    pub async fn wait<T>(&self, what: &str, mut found: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut seen = self.seen.clone();
        within(what, async move {
            loop {
                {
                    let seen = seen.borrow_and_update();
                    if let Some(found) = found(&seen) {
                        return found;
                    }
                    assert!(seen.exit.is_none(), "it ended before {what}: {seen:#?}");
                }
                seen.changed().await.expect("its end is told first");
            }
        })
        .await
    }

    /// Waits until a line of its output has `words` in it.
    pub async fn said(&self, words: &str) {
        self.wait(words, |seen| {
            seen.stdout.iter().any(|line| line.contains(words)).then_some(())
        })
        .await;
    }

    pub async fn wait_exit(&self) -> ExitStatus {
        self.wait("the end of the process", |seen| seen.exit).await
    }

    /// `TERM`, `INT`, `HUP`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: the standard library knows only SIGKILL.
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid)])
            .status()
            .expect("sh runs");
        assert!(sent.success(), "SIG{name} was not sent");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        if thread::panicking() {
            let seen = self.seen();
            eprintln!("--- it said:\n{}\n{}", seen.stdout.join("\n"), seen.stderr);
        }
    }
}
