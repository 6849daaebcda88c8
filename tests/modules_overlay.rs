//! Overlays, compared with the kernel's overlayfs where root can mount that.

mod common;

use std::process::Command;

use common::{Work, compare, is_root, on_kernel, stdout, text};

const LAYERS: &str = "mkdir -p l1/d/sub l2/d up w m; echo one > l1/f; echo two > l2/f; echo low > l2/only; echo x > l2/d/x; \
    echo y > l1/d/y; ln -s f l2/link; chmod 640 l2/only; touch -d 2001-01-01 l2/only; \
    mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m || exit 1; ";

#[test]
fn an_overlay_is_the_kernels() {
    let script = "findmnt -no FSTYPE,OPTIONS m | cut -d, -f1-5; ls -R m; cat m/f m/link m/d/x; stat -c '%a %Y %s %h' m/only; \
         ls -ai m | wc -l; echo more >> m/only; cat m/only l2/only; stat -c '%a %s' m/only; rm m/f; ls m; stat -c '%F %t' up/f; \
         cat m/f; echo new > m/f; cat m/f; rm -r m/d; ls m; mkdir m/d; ls m/d; mv m/only m/moved; ls m; cat m/moved; \
         mkdir m/nd; touch m/nd/z; mv m/nd m/nd2; ls m/nd2; ln m/moved m/hard; stat -c %h m/hard; chmod 600 m/link; \
         cat l1/f l2/f; cp $(command -v ls) m/ls; m/ls m; head -c 3000000 /dev/urandom > m/big; cmp m/big up/big && echo same; \
         printf '#!/bin/sh\\necho script $0\\n' > m/s; chmod +x m/s; m/s; find m | sort; stat -f -c %T m; rmdir m/nd2; rm m/nd2/z; \
         rmdir m/nd2; ln -s nowhere m/sym; readlink m/sym; mkfifo m/p; touch -d 2002-02-02 m/link; stat -c %Y m/f; \
         python3 -c 'import os; f = open(\"m/f\"); os.rename(\"m/f\", \"m/g\"); print(f.read()); os.truncate(\"m/g\", 1); print(os.stat(\"m/g\").st_size); \
import mmap; g = open(\"m/big\", \"r+b\"); m = mmap.mmap(g.fileno(), 0); m[0:4] = b\"abcd\"; m.flush(); print(open(\"m/big\", \"rb\").read(4))'; \
         umount m; ls m; find up | sort; ls w";
    compare(&[LAYERS, script].concat());
}

#[test]
fn bad_overlays_are_refused() {
    compare(
        "mkdir -p l u/w m w; touch file; try() { mount -t overlay overlay -o $1 m 2>/dev/null && umount m && echo mounted || echo refused; }; \
         try lowerdir=l; try lowerdir=nothere; try lowerdir=file; try lowerdir=l,upperdir=u; try lowerdir=l,upperdir=u,workdir=u/w; \
         try lowerdir=l,upperdir=u,workdir=u; try lowerdir=l,upperdir=u,workdir=w,colour=red; try upperdir=u,workdir=w; \
         try lowerdir=l:l/..,upperdir=u,workdir=w,userxattr; try lowerdir=l,upperdir=u,workdir=/dev/shm; \
         mkdir -p base/u base/w fixed; mount --bind base fixed; mount -o remount,bind,ro fixed; \
         try lowerdir=l,upperdir=fixed/u,workdir=fixed/w; try lowerdir=fixed/u:l; try lowerdir=fixed/u,upperdir=base/u,workdir=base/w; ls -A base/*; \
         mount -t overlay overlay -o lowerdir=l:u m; touch m/x 2>/dev/null || echo read-only; ls m; umount m",
    );
}

/// What mount(2) says in a number, `--mount` says in words.
#[test]
fn what_is_wrong_is_said() {
    let work = Work::new();
    let made = work.command("mkdir").args(["-p", "l/in", "u", "w"]).status();
    assert!(made.unwrap().success());
    let said = |options: &str| {
        let output = work.umvu(&["--mount", &format!("type=overlay,{options},target=mnt"), "true"]);
        assert_eq!(output.status.code(), Some(125), "{options}");
        let errors = text(&output.stderr);
        assert_eq!(errors.lines().count(), 1, "{errors}");
        errors.rsplit_once("mnt: ").unwrap().1.trim_end().to_owned()
    };
    for (options, reason) in [
        ("lowerdir=nothere,upperdir=u,workdir=w", "No such file or directory"),
        (
            "lowerdir=l:l/in,upperdir=u,workdir=w",
            "a layer is, or lies in, another one",
        ),
        ("lowerdir=l,upperdir=u", "upperdir needs a workdir"),
        (
            "lowerdir=l,upperdir=u,workdir=w,o=colour=red",
            "overlay does not know colour=red",
        ),
        (
            "lowerdir=l,upperdir=u,workdir=w,o=metacopy=on",
            "overlays are without metacopy, so metacopy=on cannot be had",
        ),
        (
            "lowerdir=l,upperdir=u,workdir=w,o=nfs_export=on",
            "overlays are without nfs_export, so nfs_export=on cannot be had",
        ),
        (
            "lowerdir=l,upperdir=u,workdir=/dev/shm",
            "upperdir and workdir must be apart, on one file system, and writable",
        ),
        (
            "lowerdir=l,upperdir=u,workdir=u",
            "upperdir and workdir must be apart, on one file system, and writable",
        ),
    ] {
        assert_eq!(said(options), reason, "{options}");
    }
}

#[test]
fn the_kernel_mounts_what_an_overlay_has_left() {
    let work = Work::new();
    let changes =
        "echo more >> m/only; rm m/f; rm -r m/d; mkdir m/d; echo z > m/d/z; mv m/link m/renamed; mkdir m/new; umount m";
    stdout(&work.sh(&[LAYERS, changes].concat()));
    let look =
        "mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m && ls -R m && cat m/only m/d/z";
    let seen = stdout(&work.sh(look));
    if let Some(kernel) = on_kernel(&work, look) {
        assert_eq!(seen, stdout(&kernel));
    }
    assert_eq!(seen, "m:\nd\nnew\nonly\nrenamed\n\nm/d:\nz\n\nm/new:\nlow\nmore\nz\n");
}

#[test]
fn layers_that_fuse_serves() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "mkdir low up w m; vumount -t fuse umvu-memfs memory low && mkdir low/d && echo low > low/d/f && echo x > low/x && \
         mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=w m && ls -R m && echo more >> m/d/f && cat m/d/f low/d/f && \
         rm m/x && ls m low && mv m/d/f m/g && ls up && cat m/g && umount m && ls m",
    ));
    assert_eq!(
        seen,
        "m:\nd\nx\n\nm/d:\nf\nlow\nmore\nlow\nlow:\nd\nx\n\nm:\nd\nd\ng\nx\nlow\nmore\n"
    );
}

/// The layers and what is done with them: a script of tests/overlay.
fn script(name: &str) -> String {
    let path = format!("{}/tests/overlay/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    read(&format!("{}/tests/overlay/layers.sh", env!("CARGO_MANIFEST_DIR"))) + &read(&path)
}

#[test]
fn numbers_links_and_renames() {
    compare(&script("names.sh"));
}

#[test]
fn open_files_attributes_and_removals() {
    compare(&script("files.sh"));
}

#[test]
fn options() {
    compare(&script("options.sh"));
}

/// Everything that a mount shows, and the numbers as far as they tell files apart.
const LOOK: &str = "find m -printf '%P %y %m %s %n %l\n' | sort; find m -type f | sort | xargs sha256sum; \
    find m -printf '%i\n' | sort | uniq -c | awk '{print $1}' | sort | uniq -c; getfattr -Rdm - m 2>/dev/null; umount m";

/// What either has left, the other goes on with.
#[test]
fn the_kernel_and_a_view_take_turns() {
    const MOUNT: &str = "mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m || exit 1; ";
    let work = Work::new();
    stdout(&work.sh(&script("first.sh")));
    let seen = stdout(&work.sh(&[MOUNT, LOOK].concat()));
    let Some(kernel) = on_kernel(&work, &[MOUNT, LOOK].concat()) else {
        return;
    };
    assert_eq!(seen, stdout(&kernel), "left: in the view; right: the kernel");
    let second = std::fs::read_to_string(format!("{}/tests/overlay/second.sh", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let changed = on_kernel(&work, &[MOUNT, &second, "\n", LOOK].concat()).unwrap();
    let given = Command::new("chown")
        .args(["-Rh", "65534:65534", "."])
        .current_dir(work.path())
        .status();
    assert!(given.unwrap().success());
    assert_eq!(
        stdout(&changed),
        stdout(&work.sh(&[MOUNT, LOOK].concat())),
        "left: the kernel; right: in the view"
    );
}

/// So it is with fuse-overlayfs, which says in its own way what is opaque.
#[test]
fn fuse_overlayfs_and_a_view_take_turns() {
    let work = Work::new();
    let installed = work.command("fuse-overlayfs").arg("--version").output().is_ok();
    if !installed {
        eprintln!("fuse-overlayfs is not installed: nothing to take turns with");
        return;
    }
    const OURS: &str = "mount -t overlay overlay -o lowerdir=l1:l2,upperdir=up,workdir=w,userxattr m || exit 1; ";
    const ITS: &str = "fuse-overlayfs -o lowerdir=l1:l2,upperdir=up,workdir=w m || exit 1; ";
    // It counts the subdirectories of a merged directory, and has sizes of its own for them.
    const LOOK: &str = "find m ! -type d -printf '%P %y %m %s %n %l\n' -o -printf '%P %y %m\n' | sort; \
        find m -type f | sort | xargs sha256sum; umount m";
    let scripts = format!("{}/tests/overlay", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(format!("{scripts}/{name}")).unwrap();
    stdout(&work.sh(&script("first.sh")));
    let ours = stdout(&work.sh(&[OURS, LOOK].concat()));
    assert_eq!(
        ours,
        stdout(&work.sh(&[ITS, LOOK].concat())),
        "left: umvu; right: fuse-overlayfs"
    );
    let its = stdout(&work.sh(&[ITS, &read("second.sh"), "\n", LOOK].concat()));
    assert_eq!(
        its,
        stdout(&work.sh(&[OURS, LOOK].concat())),
        "left: fuse-overlayfs; right: umvu"
    );
}

/// A disk that is full in the middle of a copy: the errno, and nothing half done.
#[test]
fn a_full_disk() {
    if !is_root() {
        eprintln!("not tried, as a small disk takes root");
        return;
    }
    let work = Work::new();
    let inside = "mkdir -p l disk/up disk/w m; head -c 3000000 /dev/zero | tr '\\0' x > l/big; echo small > l/small; chmod 666 l/*; chown -R 65534 .; \
        mount -t tmpfs -o size=1m,mode=777 tmpfs disk; mkdir disk/up disk/w; chown 65534 disk/up disk/w; \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$UMVU\" sh -c '\
        mount -t overlay overlay -o lowerdir=l,upperdir=disk/up,workdir=disk/w m; (echo more >> m/big) 2>&1 | sed \"s/.*: //\"; \
        ls disk/up disk/w/work; cmp m/big l/big && echo whole; echo more >> m/small; cat m/small; \
        dd if=/dev/zero of=m/fill bs=64k 2>/dev/null; ls -A disk/w/work; rm m/fill; mv m/big m/moved 2>&1 | sed \"s/.*: //\"; ls m disk/up'";
    let program = work.command("sh").args(["-c", "command -v umvu"]).output().unwrap();
    let mut command = work.as_tester("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", inside]);
    command.env("UMVU", text(&program.stdout).trim());
    assert_eq!(
        stdout(&command.output().unwrap()),
        "No space left on device\ndisk/up:\n\ndisk/w/work:\nwhole\nsmall\nmore\nNo space left on device\ndisk/up:\nsmall\n\nm:\nbig\nsmall\n"
    );
}
