//! The agent's code and its facts, as they stand in a guest.
#![allow(unsafe_code)]

use std::arch::global_asm;
use std::ops::Range;

use super::PASS;
use super::facts::{BASIS, BELOW_BASIS, Facts, HASH_SHIFT, Knows, NAMES_LEN, PRIME};
use crate::table::PLACEHOLDERS;

/// The length of the mapping: a page. Behind the image are the slots of call sites.
pub const LEN: u64 = 4096;

/// What an agent begins with.
const MARK: &[u8] = b"umvu agent";
const HEADER: usize = 16;
const NAMES: usize = HEADER + 16;
/// The offset of the code.
pub const ENTRY: usize = NAMES + NAMES_LEN;
/// The offset of the slots.
pub const SLOTS: usize = 0x8c0;

/// Longer paths are left to umvu.
const PATH_MAX: usize = 256;
/// Flags of openat(2) that openat2(2) takes otherwise: those that it does not know, and `O_TMPFILE`.
const OPEN_OTHER: i32 = !0o37_777_703 | 0o20_000_000;

global_asm!(
    include_str!("x86_64.s"),
    HEADER = const HEADER,
    NAMES_LEN = const NAMES_LEN,
    ENTRY = const ENTRY,
    PATH_MAX = const PATH_MAX,
    BASIS = const BASIS,
    BELOW_BASIS = const BELOW_BASIS,
    PRIME = const PRIME,
    HASH_SHIFT = const HASH_SHIFT,
    PASS = const PASS,
    ABSOLUTE = const Knows::ABSOLUTE.bits(),
    RELATIVE = const Knows::RELATIVE.bits(),
    DESCRIPTORS = const Knows::DESCRIPTORS.bits(),
    SYMLINKS = const Knows::SYMLINKS.bits(),
    PLACEHOLDERS = const PLACEHOLDERS[0].start,
    PLACEHOLDERS_END = const PLACEHOLDERS[0].end,
    PLACEHOLDERS_HIGH = const PLACEHOLDERS[1].start,
    OPEN = const libc::SYS_open,
    STAT = const libc::SYS_stat,
    LSTAT = const libc::SYS_lstat,
    ACCESS = const libc::SYS_access,
    READLINK = const libc::SYS_readlink,
    OPENAT = const libc::SYS_openat,
    OPENAT2 = const libc::SYS_openat2,
    NEWFSTATAT = const libc::SYS_newfstatat,
    STATX = const libc::SYS_statx,
    FACCESSAT = const libc::SYS_faccessat,
    FACCESSAT2 = const libc::SYS_faccessat2,
    READLINKAT = const libc::SYS_readlinkat,
    UNLINK = const libc::SYS_unlink,
    RMDIR = const libc::SYS_rmdir,
    MKDIR = const libc::SYS_mkdir,
    CHMOD = const libc::SYS_chmod,
    UNLINKAT = const libc::SYS_unlinkat,
    MKDIRAT = const libc::SYS_mkdirat,
    FCHMODAT = const libc::SYS_fchmodat,
    UTIMENSAT = const libc::SYS_utimensat,
    REMOVEDIR = const libc::AT_REMOVEDIR,
    FDCWD = const libc::AT_FDCWD,
    NOFOLLOW = const libc::AT_SYMLINK_NOFOLLOW,
    EMPTY_PATH = const libc::AT_EMPTY_PATH,
    O_CREAT = const libc::O_CREAT,
    O_WRONLY = const libc::O_WRONLY,
    O_DIRECTORY = const libc::O_DIRECTORY,
    OPEN_OTHER = const OPEN_OTHER,
    RESOLVE_NO_SYMLINKS = const libc::RESOLVE_NO_SYMLINKS,
    ENOENT = const libc::ENOENT,
    EACCES = const libc::EACCES,
    ENOTDIR = const libc::ENOTDIR,
    EISDIR = const libc::EISDIR,
    EINVAL = const libc::EINVAL,
    ENOSYS = const libc::ENOSYS,
    ELOOP = const libc::ELOOP,
);

unsafe extern "C" {
    static umvu_agent: u8;
    static umvu_agent_end: u8;
}

fn template() -> &'static [u8] {
    // SAFETY: the two symbols are the ends of read-only data of this program.
    unsafe {
        let start = &raw const umvu_agent;
        std::slice::from_raw_parts(start, (&raw const umvu_agent_end).offset_from_unsigned(start))
    }
}

/// Where the facts stand in the image.
pub const FACTS: Range<usize> = HEADER..ENTRY;

/// The image, without its slots.
pub fn image(facts: &Facts) -> Vec<u8> {
    let mut image = template().to_vec();
    facts.put(&mut image);
    image
}

impl Facts {
    /// Puts the facts into an image.
    pub fn put(&self, image: &mut [u8]) {
        let (knows, generation) = (self.knows.bits().to_ne_bytes(), self.generation.to_ne_bytes());
        image[HEADER..][..4].copy_from_slice(&knows);
        image[HEADER + 4..][..4].copy_from_slice(&generation);
        image[NAMES..ENTRY].copy_from_slice(self.names.as_bytes());
    }
}

/// Has this page an agent?
pub fn is_agent(page: &[u8]) -> bool {
    page.starts_with(MARK)
}

/// The offsets between which the code has its frame.
pub fn framed() -> Range<u64> {
    let word = |at: usize| u32::from_ne_bytes(template()[at..][..4].try_into().unwrap_or_default());
    word(HEADER + 8).into()..word(HEADER + 12).into()
}

#[cfg(test)]
mod tests {
    use super::super::{Site, Slots};
    use super::*;

    /// A function of C that makes a call, patched or not, with the agent beside it.
    struct Patched {
        page: *mut u8,
    }

    const CODE: usize = LEN as usize;

    impl Patched {
        fn new(nr: i64, facts: &Facts) -> Patched {
            // SAFETY: a new mapping of two pages, of which all is written before it is executed.
            unsafe {
                let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let page: *mut u8 = libc::mmap(std::ptr::null_mut(), 2 * CODE, protection, kind, -1, 0).cast();
                assert!(!std::ptr::eq(page.cast(), libc::MAP_FAILED));
                let mut code = vec![0x49, 0x89, 0xca, 0xb8]; // mov r10, rcx; mov eax, NUMBER
                code.extend((nr as u32).to_le_bytes());
                code.extend([0x0f, 0x05, 0xc3]); // syscall; ret
                let end = page as u64 + CODE as u64 + 10;
                let site = Site::new(end, [&[0x90; 8], &code[3..10]].concat().try_into().unwrap()).unwrap();
                let agent = page as u64;
                code[3..8].copy_from_slice(&site.jump(Slots::address(agent, 0)).unwrap());
                let slot = Slots::code(agent, 0, &site).unwrap();
                for (at, bytes) in [(0, image(facts)), (SLOTS, slot), (CODE, code)] {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), page.add(at), bytes.len());
                }
                Patched { page }
            }
        }

        fn call(&self, args: [u64; 4]) -> i64 {
            // SAFETY: the code follows the calling convention; the arguments are those of a call on live memory.
            unsafe {
                let function = self.page.add(CODE);
                let function: extern "C" fn(u64, u64, u64, u64) -> i64 = std::mem::transmute(function);
                function(args[0], args[1], args[2], args[3])
            }
        }

        /// Does the agent make the call?
        fn made(&self, args: [u64; 4]) -> bool {
            // What would make the call in its own place gives a number instead that is no result.
            // SAFETY: the instruction is as long as the one that it replaces.
            unsafe {
                let syscall = self.page.add(CODE + 8);
                let former = [*syscall, *syscall.add(1)];
                *syscall = 0xb0; // mov al, 0x77
                *syscall.add(1) = 0x77;
                let result = self.call(args);
                [*syscall, *syscall.add(1)] = former;
                result & 0xff != 0x77
            }
        }
    }

    impl Drop for Patched {
        fn drop(&mut self) {
            // SAFETY: nobody executes it any more.
            unsafe { libc::munmap(self.page.cast(), 2 * CODE) };
        }
    }

    fn facts(knows: Knows) -> Facts {
        let mut facts = Facts {
            knows,
            ..Facts::default()
        };
        facts.names.insert(b"mnt");
        facts
    }

    const CWD: u64 = libc::AT_FDCWD as u64;

    fn opens(patched: &Patched, dirfd: u64, path: &str) -> bool {
        let path = std::ffi::CString::new(path).unwrap();
        patched.made([dirfd, path.as_ptr() as u64, libc::O_CLOEXEC as u64, 0])
    }

    #[test]
    fn slots_do_not_overlap_the_code() {
        assert!(template().len() <= SLOTS, "{:#x}", template().len());
    }

    #[test]
    fn decides_by_the_names_on_the_way() {
        let all = Knows::all();
        let patched = Patched::new(libc::SYS_openat, &facts(all));
        for path in [
            "/",
            "/etc/passwd",
            "src/lib.rs",
            "./src",
            "/usr/lib/../bin",
            "a//b/",
            "...",
            "..x/y",
        ] {
            assert!(opens(&patched, CWD, path), "{path}");
        }
        let deep = "d/".repeat(150);
        for path in [
            "/mnt",
            "/x/mnt/y",
            "mnt",
            "/proc/self/mounts",
            "..",
            "a/../../b",
            "",
            "/..",
            &deep,
        ] {
            assert!(!opens(&patched, CWD, path), "{path}");
        }
        for (path, made) in [
            ("file", true),
            ("12a", true),
            ("mounts", false),
            ("12", false),
            ("12/x", false),
            ("a/root", false),
        ] {
            assert_eq!(opens(&patched, 5, path), made, "{path}");
        }
        for dirfd in [2, 768, 1023, 20_000, u64::from(u32::MAX)] {
            assert!(!opens(&patched, dirfd, "file"), "{dirfd}");
        }
        assert!(opens(&patched, 1024, "file"));
        for (fd, made) in [
            ("3", true),
            ("1500", true),
            ("2", false),
            ("800", false),
            ("", false),
            ("3/x", false),
        ] {
            assert_eq!(opens(&patched, CWD, &format!("/proc/self/fd/{fd}")), made, "{fd}");
        }
        assert!(!opens(&patched, CWD, "/proc/self/fdinfo/3") && !opens(&patched, CWD, "/proc/3/fd/3"));
    }

    #[test]
    fn decides_nothing_that_it_is_not_told() {
        for (knows, made) in [
            (Knows::SYMLINKS, [false; 3]),
            (Knows::ABSOLUTE, [true, false, false]),
            (Knows::RELATIVE, [false, true, false]),
            (Knows::DESCRIPTORS, [false, false, true]),
        ] {
            let patched = Patched::new(libc::SYS_openat, &facts(knows));
            let found = [(CWD, "/etc"), (CWD, "src"), (9, "src")].map(|(dirfd, path)| opens(&patched, dirfd, path));
            assert_eq!(found, made, "{knows:?}");
        }
    }

    #[test]
    fn symlinks_are_left_to_umvu() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/file"), "x").unwrap();
        std::os::unix::fs::symlink("d", at("link")).unwrap();
        std::os::unix::fs::symlink("file", at("d/link")).unwrap();
        let facts = facts(Knows::ABSOLUTE);
        let mut stat = [0u64; 64];
        let buffer = stat.as_mut_ptr() as u64;
        for (name, followed, not_followed) in [
            ("d/file", true, true),
            ("d/link", false, true),
            ("link/file", false, false),
            ("d/none", true, true),
            ("link", false, true),
            ("link/", false, false),
        ] {
            let path = std::ffi::CString::new(at(name).to_str().unwrap()).unwrap();
            let path = path.as_ptr() as u64;
            let made = |nr, args| Patched::new(nr, &facts).made(args);
            assert_eq!(made(libc::SYS_openat, [CWD, path, 0, 0]), followed, "open {name}");
            assert_eq!(made(libc::SYS_stat, [path, buffer, 0, 0]), followed, "stat {name}");
            assert_eq!(
                made(libc::SYS_lstat, [path, buffer, 0, 0]),
                not_followed,
                "lstat {name}"
            );
            assert_eq!(made(libc::SYS_access, [path, 0, 0, 0]), followed, "access {name}");
            assert_eq!(
                made(libc::SYS_readlink, [path, buffer, 9, 0]),
                not_followed,
                "readlink {name}"
            );
            assert_eq!(made(libc::SYS_chmod, [path, 0o700, 0, 0]), followed, "chmod {name}");
            assert_eq!(made(libc::SYS_mkdir, [path, 0o700, 0, 0]), not_followed, "mkdir {name}");
        }
    }

    #[test]
    fn results_are_the_calls_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = std::ffi::CString::new(file.path().to_str().unwrap()).unwrap();
        let path = path.as_ptr() as u64;
        for knows in [Knows::ABSOLUTE, Knows::ABSOLUTE | Knows::SYMLINKS, Knows::empty()] {
            let call = |nr, args| Patched::new(nr, &facts(knows)).call(args);
            let mut stat = [0u64; 64];
            assert_eq!(call(libc::SYS_stat, [path, stat.as_mut_ptr() as u64, 0, 0]), 0);
            assert_eq!(
                stat[1],
                std::os::unix::fs::MetadataExt::ino(&file.as_file().metadata().unwrap())
            );
            assert_eq!(call(libc::SYS_stat, [path, 8, 0, 0]), -i64::from(libc::EFAULT));
            let missing = c"/etc/none".as_ptr() as u64;
            assert_eq!(call(libc::SYS_access, [missing, 0, 0, 0]), -i64::from(libc::ENOENT));
            let exclusive = (libc::O_CREAT | libc::O_EXCL) as u64;
            assert_eq!(
                call(libc::SYS_open, [path, exclusive, 0o600, 0]),
                -i64::from(libc::EEXIST)
            );
            let fd = call(libc::SYS_openat, [CWD, path, libc::O_CLOEXEC as u64, 0o177_777]);
            assert!(fd > 2);
            // SAFETY: it has just been opened, for nobody else.
            assert_eq!(unsafe { libc::close(fd as i32) }, 0);
        }
    }
}
