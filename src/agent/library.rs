//! The C library of a process, where nearly all its calls are made.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::Site;

/// No C library has more code.
const LEN_MAX: u64 = 16 << 20;

/// The code of a C library in a process, from a line of its memory map (proc(5)).
pub struct CLibrary<'a> {
    pub start: u64,
    len: u64,
    /// Of the code in the file.
    pub offset: u64,
    pub path: &'a str,
}

impl CLibrary<'_> {
    pub fn on(line: &str) -> Option<CLibrary<'_>> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = (number(start)?, number(end)?);
        words.next().filter(|access| *access == "r-xp")?;
        let offset = number(words.next()?)?;
        let path = words.nth(2)?;
        let name = path.rsplit('/').next()?;
        let known = name.starts_with("libc.so") || name.starts_with("libc-2.") || name.starts_with("ld-musl-");
        let len = end - start;
        known.then_some(CLibrary {
            start,
            len,
            offset,
            path,
        })
    }

    /// Its call sites, by their distance from the start. What is at these places in the process must be looked at.
    pub fn sites(&self) -> Option<Vec<Site>> {
        // Something else may have the path now.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.path)
            .ok()?;
        if !file.metadata().ok()?.is_file() || self.len > LEN_MAX {
            return None;
        }
        let mut code = vec![0; self.len as usize];
        let got = file.read_at(&mut code, self.offset).ok()?;
        Some(Site::all(&code[..got], 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_found_by_its_name() {
        let line = "7f02f37000-7f0308d000 r-xp 00026000 fe:00 326279    /usr/lib/x86_64-linux-gnu/libc.so.6";
        let library = CLibrary::on(line).unwrap();
        assert_eq!(
            (library.start, library.len, library.offset),
            (0x7f_02f3_7000, 0x15_6000, 0x26000)
        );
        for other in [
            "r--p 0 fe:00 1 /lib/libc.so.6",
            "r-xp 0 fe:00 1 /lib/libcrypt.so.1",
            "r-xp 0 00:00 0",
            "",
        ] {
            assert!(CLibrary::on(&format!("1000-2000 {other}")).is_none(), "{other}");
        }
    }

    #[test]
    fn has_sites_where_this_program_has_one() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for library in maps.lines().filter_map(CLibrary::on) {
            assert!(library.sites().is_some_and(|sites| sites.len() > 5), "{}", library.path);
        }
    }
}
