//! The data of `mount(2)` for FUSE (`fs/fuse/inode.c`, `fuse_fs_parameters`).

use crate::api::{Errno, FileKind};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The caller's descriptor of `/dev/fuse`.
    pub fd: i32,
    pub root_mode: u32,
    pub user_id: u32,
    pub group_id: u32,
    pub default_permissions: bool,
    pub allow_other: bool,
    pub max_read: Option<u32>,
    pub block_size: Option<u32>,
    /// Part of the type behind `fuse.`
    pub subtype: Option<String>,
    pub source: Option<String>,
}

fn number(value: Option<&str>, radix: u32) -> Result<u32, Errno> {
    value
        .and_then(|digits| u32::from_str_radix(digits, radix).ok())
        .ok_or(Errno::EINVAL)
}

impl Options {
    /// `EINVAL` for anything unknown, malformed or missing. `block`: the type is `fuseblk`.
    pub fn parse(data: &[u8], block: bool) -> Result<Options, Errno> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let (mut fd, mut root_mode, mut user_id, mut group_id) = (None, None, None, None);
        let (mut default_permissions, mut allow_other) = (false, false);
        let (mut max_read, mut block_size, mut subtype, mut source) = (None, None, None, None);
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            match key {
                "fd" => fd = Some(number(value, 10)?),
                "rootmode" => root_mode = Some(number(value, 8)?),
                "user_id" => user_id = Some(number(value, 10)?),
                "group_id" => group_id = Some(number(value, 10)?),
                "default_permissions" if value.is_none() => default_permissions = true,
                "allow_other" if value.is_none() => allow_other = true,
                "max_read" => max_read = Some(number(value, 10)?),
                "blksize" if block => block_size = Some(number(value, 10)?),
                "subtype" => subtype = value.map(str::to_owned),
                "source" => source = value.map(str::to_owned),
                _ => return Err(Errno::EINVAL),
            }
        }
        let root_mode = root_mode
            .filter(|&mode| FileKind::from_mode(mode).is_some())
            .ok_or(Errno::EINVAL)?;
        Ok(Options {
            fd: fd.and_then(|fd| i32::try_from(fd).ok()).ok_or(Errno::EINVAL)?,
            root_mode,
            user_id: user_id.ok_or(Errno::EINVAL)?,
            group_id: group_id.ok_or(Errno::EINVAL)?,
            default_permissions,
            allow_other,
            max_read,
            block_size,
            subtype,
            source,
        })
    }

    /// As mountinfo shows them.
    pub fn show(&self) -> String {
        let mut text = format!("user_id={},group_id={}", self.user_id, self.group_id);
        if self.default_permissions {
            text += ",default_permissions";
        }
        if self.allow_other {
            text += ",allow_other";
        }
        if let Some(bytes) = self.max_read {
            text += &format!(",max_read={}", bytes.max(4096));
        }
        if let Some(bytes) = self.block_size.filter(|&bytes| bytes != 512) {
            text += &format!(",blksize={bytes}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "fd=3,rootmode=40000,user_id=1,group_id=2";

    #[test]
    fn what_the_kernel_accepts() {
        let options = Options::parse(format!("{LEAST},allow_other,,max_read=17,subtype=x,").as_bytes(), false).unwrap();
        assert_eq!(options.show(), "user_id=1,group_id=2,allow_other,max_read=4096");
        assert_eq!(
            (options.fd, options.root_mode, options.subtype.as_deref()),
            (3, 0o40000, Some("x"))
        );
        assert!(Options::parse(format!("{LEAST},blksize=4096").as_bytes(), true).is_ok());
    }

    #[test]
    fn what_it_refuses() {
        let bad = [
            "",
            "fd=3",
            &format!("{LEAST},foo"),
            &format!("{LEAST},blksize=512"),
            &format!("{LEAST},allow_other=1"),
        ];
        for data in bad.iter().copied().chain([
            "fd=3,rootmode=777,user_id=1,group_id=2",
            "fd=x,rootmode=40000,user_id=1,group_id=2",
            "fd=3,rootmode=40000,user_id=-1,group_id=2",
            "fd=4294967295,rootmode=40000,user_id=1,group_id=2",
        ]) {
            assert_eq!(Options::parse(data.as_bytes(), false), Err(Errno::EINVAL), "{data}");
        }
    }
}
