//! Who owns the host's files in the view.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::str::FromStr;

use super::TYPE;

/// `overflowuid`: an id that a map does not know.
const NOBODY: u32 = 65534;
const CHAR_DEVICE: u32 = 0o020000;
const BLOCK_DEVICE: u32 = 0o060000;
const REGULAR: u32 = 0o100000;

/// What the view shows of a file that the disk has otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// Type and permissions.
    pub mode: u32,
    /// `st_rdev` of a device node.
    pub rdev: u64,
}

impl Owner {
    fn is_device(&self) -> bool {
        matches!(self.mode & TYPE, CHAR_DEVICE | BLOCK_DEVICE)
    }
}

/// Ids of the host and what they are in the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    /// (in the view, on the host, how many)
    ranges: Vec<(u32, u32, u32)>,
    /// What is in no range is the same on both sides; else it is nobody's.
    open: bool,
}

impl IdMap {
    /// Everybody is who they are, except one.
    pub fn renaming(outside: u32, inside: u32) -> IdMap {
        IdMap {
            ranges: vec![(inside, outside, 1)],
            open: true,
        }
    }

    /// Everybody is who they are.
    pub fn identity() -> IdMap {
        IdMap {
            ranges: Vec::new(),
            open: true,
        }
    }

    /// The id in the view of an id of the host.
    pub fn inside(&self, outside: u32) -> u32 {
        let range = self
            .ranges
            .iter()
            .find(|(_, first, count)| outside.wrapping_sub(*first) < *count);
        match range {
            Some((inside, first, _)) => inside + (outside - first),
            None if self.open => outside,
            None => NOBODY,
        }
    }
}

/// `INSIDE:OUTSIDE:COUNT`, several of them separated by commas; the count may be left out.
impl FromStr for IdMap {
    type Err = String;

    fn from_str(text: &str) -> Result<IdMap, String> {
        let range = |part: &str| {
            let words: Option<Vec<u32>> = part.split(':').map(|word| word.parse().ok()).collect();
            let range = match words.as_deref() {
                Some(&[inside, outside]) => (inside, outside, 1),
                Some(&[inside, outside, count]) => (inside, outside, count),
                _ => return Err(format!("`{part}` is no id map; it is INSIDE:OUTSIDE:COUNT")),
            };
            let fits = range.0.checked_add(range.2).is_some() && range.1.checked_add(range.2).is_some();
            if fits {
                Ok(range)
            } else {
                Err(format!("`{part}` goes beyond the largest id"))
            }
        };
        Ok(IdMap {
            ranges: text.split(',').map(range).collect::<Result<_, _>>()?,
            open: false,
        })
    }
}

/// What is remembered of files, by device and inode number.
///
/// With a state file every change is appended to it at once, in the form of fakeroot(1)'s save files; a link count of 0
/// says that the file is gone.
pub struct Owners {
    pub uids: IdMap,
    pub gids: IdMap,
    known: HashMap<(u64, u64), Owner>,
    log: Option<File>,
}

impl Owners {
    pub fn new(uids: IdMap, gids: IdMap) -> Owners {
        Owners {
            uids,
            gids,
            known: HashMap::new(),
            log: None,
        }
    }

    /// Takes up what a state file has, and keeps it up to date from now on.
    pub fn keep_in(&mut self, path: &Path) -> io::Result<()> {
        let mut lines = 0;
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines() {
                    self.take_line(&line?);
                    lines += 1;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        if lines > 2 * self.known.len() {
            let mut fresh = path.as_os_str().to_owned();
            fresh.push(".new");
            let mut file = File::create(&fresh)?;
            for (key, owner) in &self.known {
                file.write_all(line(*key, Some(owner)).as_bytes())?;
            }
            std::fs::rename(&fresh, path)?;
        }
        self.log = Some(OpenOptions::new().append(true).create(true).open(path)?);
        Ok(())
    }

    /// What the view shows of a file that the disk has so.
    pub fn shown(&self, key: (u64, u64), disk: Owner) -> Owner {
        self.known(key, disk.mode).unwrap_or_else(|| self.mapped(disk))
    }

    /// What is remembered of a file that the disk has with this mode. Whatever had the same number before, and was
    /// removed where the view did not see it, is another file if it was of another type.
    pub fn known(&self, key: (u64, u64), mode: u32) -> Option<Owner> {
        let same = |owner: &Owner| owner.mode & TYPE == mode & TYPE || owner.is_device() && mode & TYPE == REGULAR;
        self.known.get(&key).copied().filter(same)
    }

    fn mapped(&self, disk: Owner) -> Owner {
        Owner {
            uid: self.uids.inside(disk.uid),
            gid: self.gids.inside(disk.gid),
            ..disk
        }
    }

    /// From now on the view shows this of a file that the disk has so.
    pub fn set(&mut self, key: (u64, u64), disk: Owner, shown: Owner) {
        if shown == self.mapped(disk) {
            self.forget(key);
        } else if self.known.insert(key, shown) != Some(shown) {
            self.note(key, Some(&shown));
        }
    }

    /// The file is gone.
    pub fn forget(&mut self, key: (u64, u64)) {
        if self.known.remove(&key).is_some() {
            self.note(key, None);
        }
    }

    fn note(&mut self, key: (u64, u64), owner: Option<&Owner>) {
        if let Some(log) = &mut self.log {
            // A full disk: the view knows it all the same, as long as it lasts.
            let _ = log.write_all(line(key, owner).as_bytes());
        }
    }

    /// One line of a state file; what is no such line is passed over.
    fn take_line(&mut self, line: &str) {
        let value = |name: &str, radix| {
            let word = line
                .split(',')
                .find_map(|word| word.trim().strip_prefix(name)?.strip_prefix('='));
            word.and_then(|word| u64::from_str_radix(word, radix).ok())
        };
        let key = (value("dev", 16), value("ino", 10));
        let ids = (value("uid", 10), value("gid", 10));
        if let ((Some(dev), Some(ino)), (Some(uid), Some(gid)), Some(mode)) = (key, ids, value("mode", 8)) {
            if value("nlink", 10) == Some(0) {
                self.known.remove(&(dev, ino));
                return;
            }
            let owner = Owner {
                uid: uid as u32,
                gid: gid as u32,
                mode: mode as u32,
                rdev: value("rdev", 10).unwrap_or(0),
            };
            self.known.insert((dev, ino), owner);
        }
    }
}

fn line((dev, ino): (u64, u64), owner: Option<&Owner>) -> String {
    let (Owner { uid, gid, mode, rdev }, nlink) = match owner {
        Some(owner) => (*owner, 1),
        None => (
            Owner {
                uid: 0,
                gid: 0,
                mode: 0,
                rdev: 0,
            },
            0,
        ),
    };
    format!("dev={dev:x},ino={ino},mode={mode:o},uid={uid},gid={gid},nlink={nlink},rdev={rdev}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Owner = Owner {
        uid: 1000,
        gid: 100,
        mode: 0o100644,
        rdev: 0,
    };

    fn owners() -> Owners {
        Owners::new(IdMap::renaming(1000, 0), IdMap::renaming(100, 0))
    }

    #[test]
    fn maps() {
        let map: IdMap = "0:1000:1,1:100000:65535".parse().unwrap();
        assert_eq!(
            [1000, 100_000, 165_534, 165_535, 0].map(|id| map.inside(id)),
            [0, 1, 65535, NOBODY, NOBODY]
        );
        assert_eq!(IdMap::renaming(1000, 0).inside(33), 33);
        assert!("0".parse::<IdMap>().is_err() && "0:4294967295:2".parse::<IdMap>().is_err());
    }

    #[test]
    fn only_what_differs_is_remembered() {
        let mut owners = owners();
        assert_eq!(owners.shown((1, 2), DISK), Owner { uid: 0, gid: 0, ..DISK });
        let changed = Owner {
            uid: 33,
            gid: 33,
            mode: 0o104755,
            rdev: 0,
        };
        owners.set((1, 2), DISK, changed);
        assert_eq!(owners.shown((1, 2), DISK), changed);
        owners.set((1, 2), DISK, Owner { uid: 0, gid: 0, ..DISK });
        assert!(owners.known.is_empty());
    }

    #[test]
    fn a_state_file_outlives_the_view() {
        let dir = std::env::temp_dir().join(format!("umvu-owners-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let device = Owner {
            uid: 0,
            gid: 6,
            mode: 0o060660,
            rdev: 0x801,
        };
        let mut first = owners();
        first.keep_in(&dir).unwrap();
        first.set((0xfe00, 7), DISK, device);
        for ino in 10..20 {
            first.set((0xfe00, ino), DISK, device);
            first.forget((0xfe00, ino));
        }
        for expected_lines in [21, 1] {
            let lines = std::fs::read_to_string(&dir).unwrap().lines().count();
            assert_eq!(lines, expected_lines);
            let mut later = owners();
            later.keep_in(&dir).unwrap();
            assert_eq!(later.known, first.known);
        }
        std::fs::remove_file(&dir).unwrap();
        let mut garbage = owners();
        garbage.take_line("dev=zz,ino=1,mode=644,uid=0,gid=0");
        garbage.take_line("");
        assert!(garbage.known.is_empty());
    }
}
