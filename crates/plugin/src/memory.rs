//! How much memory this process may use: the machine's memory, or the limit of its control group.
//!
//! Pure except for [`memory_limit`]: a function passes in the files of `/proc` and `/sys/fs/cgroup`.

use std::path::{Path, PathBuf};

/// Assumed if the system states no limit.
const UNKNOWN: u64 = 1024 * 1024 * 1024;
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// The limits of version 2: at the first, processes are killed; at the second, they are slowed down.
const LIMITS_V2: [&str; 2] = ["memory.max", "memory.high"];
/// The limit of version 1.
const LIMIT_V1: &str = "memory.limit_in_bytes";

/// The bytes of memory that this process may use: the least of the machine's memory and the limits of its control
/// group (cgroup v1 and v2) and of all groups above it. 1 GiB if the system states none of them.
pub fn memory_limit() -> u64 {
    limit(|path| std::fs::read_to_string(path).ok())
}

/// The limit according to the system's files.
fn limit(read: impl Fn(&Path) -> Option<String>) -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let files = groups.lines().flat_map(limit_files);
    let limits = files.filter_map(|file| read(&file)?.trim().parse::<u64>().ok());
    limits.chain(machine).filter(|bytes| *bytes > 0).min().unwrap_or(UNKNOWN)
}

/// The machine's memory, as `/proc/meminfo` has it: `MemTotal:  24682640 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with the limits of the group in a line of `/proc/self/cgroup`, and of the groups above it. A line is
/// `0::/a/b` in version 2, and `4:memory:/a/b` in version 1. In a container this path may not be visible; then the root
/// of the mount is the container's own group.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (root, names) = if controllers.is_empty() {
        (PathBuf::from(CGROUPS), LIMITS_V2.as_slice())
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (Path::new(CGROUPS).join("memory"), [LIMIT_V1].as_slice())
    } else {
        return Vec::new();
    };
    let group = Path::new(group.trim_start_matches('/'));
    let folders = group.ancestors().map(|group| root.join(group));
    folders.flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;
    const MEMINFO: (&str, &str) = ("/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:  1 kB\n");

    #[test]
    fn memory_is_limited_by_the_machine_and_by_every_group_above_the_process() {
        let v1 = "9:name=systemd:/\n4:memory:/docker/1\n1:cpu:/\n0::/\n";
        let no_limit = "9223372036854771712\n";
        for (what, files, expected) in [
            ("a machine without groups", vec![MEMINFO], 16 * GIB),
            ("a system without these files", vec![], UNKNOWN),
            ("a damaged file", vec![("/proc/meminfo", "MemTotal: much")], UNKNOWN),
            (
                "v2, the process's own group",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", "0::/a/b\n"),
                    ("/sys/fs/cgroup/a/b/memory.max", "1073741824\n"),
                    ("/sys/fs/cgroup/a/memory.max", "max\n"),
                ],
                GIB,
            ),
            (
                "v2, a group above it",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", "0::/a/b\n"),
                    ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
                    ("/sys/fs/cgroup/a/memory.max", "2147483648\n"),
                ],
                2 * GIB,
            ),
            (
                "v2, slowed down before it is killed",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", "0::/a\n"),
                    ("/sys/fs/cgroup/a/memory.max", "4294967296\n"),
                    ("/sys/fs/cgroup/a/memory.high", "3221225472\n"),
                ],
                3 * GIB,
            ),
            (
                "v2 in a container, which sees its own group as the root",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", "0::/../outside\n"),
                    ("/sys/fs/cgroup/memory.max", "536870912\n"),
                ],
                GIB / 2,
            ),
            (
                "v1",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", v1),
                    ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "268435456\n"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", no_limit),
                ],
                GIB / 4,
            ),
            (
                "v1 in a container that does not see the path",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", v1),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "805306368\n"),
                ],
                GIB / 4 * 3,
            ),
            (
                "v1 without a limit, several controllers in one mount",
                vec![
                    MEMINFO,
                    ("/proc/self/cgroup", "3:cpu,memory:/x\n"),
                    ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", no_limit),
                ],
                16 * GIB,
            ),
            (
                "a limit of 0 is ignored",
                vec![MEMINFO, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "0\n")],
                16 * GIB,
            ),
            ("malformed lines", vec![MEMINFO, ("/proc/self/cgroup", "x\n\n1:2\n")], 16 * GIB),
        ] {
            let read = |path: &Path| {
                let file = files.iter().find(|(name, _)| Path::new(name) == path);
                file.map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(limit(read), expected, "{what}");
        }
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(memory_limit() > 16 * 1024 * 1024);
    }
}
