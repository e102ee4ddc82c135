//! A NATS server with JetStream: a child process with a folder and a port that outlive its restarts.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::needs;
use super::ports::Port;
use super::process::Process;

/// A nats-server, which may be dead or frozen at the moment. Killed, by its pid, when dropped.
pub struct NatsServer {
    process: Option<Process>,
    port: Port,
    folder: TempDir,
}

impl NatsServer {
    pub async fn start() -> Self {
        needs("nats-server", "nats-server");
        let mut server = Self {
            process: None,
            port: Port::free(),
            folder: tempfile::tempdir().expect("a folder"),
        };
        server.restart().await;
        server
    }

    /// For `backplane.url`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again, after an orderly end if it still runs, with the streams that it had.
    pub async fn restart(&mut self) {
        self.stop().await;
        let store = self.folder.path().join("store");
        let mut command = Command::new("sh");
        // It logs to stderr. `exec`, so that the pid is the server's.
        command
            .args(["-c", "exec nats-server \"$@\" 2>&1", "sh"])
            .args(["-a", "127.0.0.1", "-p", &self.port.number.to_string(), "-js", "-sd"])
            .arg(store);
        let process = Process::start(&mut command);
        process.said("Server is ready").await;
        self.process = Some(process);
    }

    /// Forgets every stream, as if the disk had been lost.
    pub async fn wipe(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("store")).expect("its store");
        self.restart().await;
    }

    /// A copy of every stream as it is now. Ends and starts the server.
    pub async fn snapshot(&mut self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        self.stop().await;
        copy_store(self.folder.path(), copy.path());
        self.restart().await;
        copy
    }

    /// Loses everything since a copy was made, as a disk that lied does.
    pub async fn put_back(&mut self, copy: &TempDir) {
        self.stop().await;
        std::fs::remove_dir_all(self.folder.path().join("store")).expect("its store");
        copy_store(copy.path(), self.folder.path());
        self.restart().await;
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal("TERM");
            process.wait_exit().await;
        }
    }

    /// SIGSTOP: connections stay, nothing is answered.
    pub fn freeze(&self) {
        self.running().signal("STOP");
    }

    /// SIGCONT
    pub fn thaw(&self) {
        self.running().signal("CONT");
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it was killed by this test")
    }
}

fn copy_store(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join("store")).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "the store is copied");
}
