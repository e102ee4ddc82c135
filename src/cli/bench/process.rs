//! CPU and memory of a process on this machine, from `/proc`.

use std::time::Duration;

use anyhow::{Context, bail};

/// The kernel's unit of CPU time in `/proc/PID/stat`: USER_HZ, 100 on every Linux that Rust runs on (proc(5)).
const TICK: Duration = Duration::from_millis(10);

/// A process that can be asked.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    pid: Option<u32>,
}

impl Process {
    /// Fails when there is no such process.
    pub fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self { pid: Some(pid) };
        process
            .cpu()
            .with_context(|| format!("--pid {pid}: there is no such process"))?;
        Ok(process)
    }

    /// This process.
    pub fn this() -> Self {
        Self { pid: None }
    }

    /// CPU time it has used so far, user and system, all its threads.
    pub fn cpu(self) -> anyhow::Result<Duration> {
        let text = self.read("stat")?;
        // The second field is a name in parentheses that may hold anything; what counts begins behind it.
        let Some((_, fields)) = text.rsplit_once(')') else {
            bail!("/proc/PID/stat has another form")
        };
        let ticks = |index: usize| fields.split_ascii_whitespace().nth(index)?.parse::<u32>().ok();
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
            bail!("/proc/PID/stat has another form")
        };
        Ok(TICK * user + TICK * system)
    }

    /// Resident memory, in KiB.
    pub fn memory_kib(self) -> anyhow::Result<u64> {
        let text = self.read("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok());
        number.context("/proc/PID/status has another form")
    }

    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = self
            .pid
            .map_or_else(|| format!("/proc/self/{file}"), |pid| format!("/proc/{pid}/{file}"));
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

/// How many files this process may have open; `None` when there is no limit or it cannot be read.
pub fn descriptor_limit() -> Option<u64> {
    let text = Process::this().read("limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let this = Process::new(std::process::id()).unwrap();
        let before = this.cpu().unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(100);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(this.cpu().unwrap() > before);
        assert!(this.memory_kib().unwrap() > 500);
        assert!(descriptor_limit().is_none_or(|limit| limit > 10));
        assert!(Process::new(u32::MAX).is_err());
    }
}
