//! What this process may use, as the system says: a configuration is risky or not by where it runs.

use std::time::Duration;

/// Facts about the place; what is not known is not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The hard limit on open files: `serve` raises the soft one to it.
    pub open_files_max: Option<u64>,
    /// Bytes of memory before the system ends the process, or of the machine.
    pub memory_bytes_max: Option<u64>,
    /// How long whoever stops the process waits before it kills it.
    pub grace_period: Option<Duration>,
}

impl Facts {
    /// Those of this process.
    pub fn here() -> Self {
        Self {
            open_files_max: rlimit::Resource::NOFILE.get_hard().ok(),
            memory_bytes_max: memory_bytes_max(|path| std::fs::read_to_string(path).ok()),
            grace_period: None,
        }
    }
}

/// The smallest of what the control group allows and the machine has. `read` is given paths.
fn memory_bytes_max(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let of_group = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has one line, `0::/path`; in a container it is the root.
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let path = path.trim_end_matches('/');
    let of_machine = || {
        let said = read("/proc/meminfo")?;
        let line = said.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    let known = [
        of_group(&format!("/sys/fs/cgroup{path}/memory.max")),
        of_group("/sys/fs/cgroup/memory.max"),
        of_group("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        of_machine(),
    ];
    known.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_on_memory_counts() {
        let check = |files: &[(&str, &str)], expected: Option<u64>| {
            let read = |path: &str| {
                let found = files.iter().find(|(known, _)| *known == path);
                found.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(memory_bytes_max(read), expected, "{files:?}");
        };
        let machine = ("/proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n");
        check(&[], None);
        check(&[machine], Some(2 << 20));
        check(&[machine, ("/sys/fs/cgroup/memory.max", "max\n")], Some(2 << 20));
        check(&[machine, ("/sys/fs/cgroup/memory.max", "1048576\n")], Some(1 << 20));
        let unit = ("/proc/self/cgroup", "0::/system.slice/conclave.service\n");
        let limit = ("/sys/fs/cgroup/system.slice/conclave.service/memory.max", "4096\n");
        check(&[machine, unit, limit], Some(4096));
        let first = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
        check(&[machine, first], Some(8192));
    }
}
