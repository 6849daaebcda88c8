//! The credentials of a thread, as proc(5) shows them.

use fsmodules::api::Ids;

use crate::trap::Tid;

/// Reads `/proc/TID/status`. A thread that has just died has no ids: zeros, which no answer will reach.
pub fn read_ids(tid: Tid) -> Ids {
    std::fs::read_to_string(format!("/proc/{tid}/status"))
        .map(|text| parse(&text))
        .unwrap_or_default()
}

fn parse(status: &str) -> Ids {
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        line.split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    };
    let four = |key| <[u32; 4]>::try_from(numbers(key)).unwrap_or_default();
    let [ruid, euid, suid, fsuid] = four("Uid:");
    let [rgid, egid, sgid, fsgid] = four("Gid:");
    Ids {
        ruid,
        euid,
        suid,
        fsuid,
        rgid,
        egid,
        sgid,
        fsgid,
        groups: numbers("Groups:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_status() {
        let ids = parse("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nFDSize:\t64\nGroups:\t9 10 \n");
        assert_eq!((ids.ruid, ids.fsuid, ids.egid, ids.fsgid), (1, 4, 6, 8));
        assert_eq!(ids.groups, [9, 10]);
        assert!(ids.in_group(8) && ids.in_group(10) && !ids.in_group(5));
    }
}
