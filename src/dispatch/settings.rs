//! The host's settings of its file systems (proc_sys_fs(5)), which count in a view too.

/// `/proc/sys/fs/NAME`, if there is such a setting and it is a number.
pub fn setting(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/{name}")).ok()?;
    text.trim().parse().ok()
}
