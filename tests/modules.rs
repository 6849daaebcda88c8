//! Bind mounts, other roots and other users in a view, compared with what the kernel does for root.

mod common;

use std::process::{Command, Output};

use common::{Work, is_root, stdout, text};

/// What the script prints for root, in a mount namespace of its own. `None` where that is not possible.
fn on_kernel(work: &Work, script: &str) -> Option<Output> {
    let possible = is_root()
        && Command::new("unshare")
            .args(["-m", "true"])
            .output()
            .is_ok_and(|o| o.status.success());
    if !possible {
        eprintln!("not compared, as mount namespaces need root");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(work.path())
        .env("LC_ALL", "C");
    Some(command.output().unwrap())
}

/// Runs the script in a view and on the kernel; both must succeed and print the same. `WORK` in it is the last name of
/// the working directory's path.
#[track_caller]
fn compare(script: &str) -> String {
    let name = |work: &Work| work.path().file_name().unwrap().to_string_lossy().into_owned();
    let both = |work: &Work, output: &Output| {
        let (out, err) = (stdout(output), text(&output.stderr));
        (out.replace(&name(work), "WORK"), err.replace(&name(work), "WORK"))
    };
    let work = Work::new();
    let view = work.sh(&script.replace("WORK", &name(&work)));
    let (seen, errors) = both(&work, &view);
    assert!(!seen.is_empty());
    let work = Work::new();
    if let Some(kernel) = on_kernel(&work, &script.replace("WORK", &name(&work))) {
        let (out, err) = both(&work, &kernel);
        assert_eq!(seen, out, "left: in the view; right: the kernel");
        assert_eq!(errors, err, "left: in the view; right: the kernel");
    }
    seen
}

#[test]
fn a_tree_answers_alike_wherever_it_is_bound() {
    let seen = compare(
        "mkdir -p x/sub/deep bound; echo hello > x/f; ln -s sub/deep x/link; ln -s ../f x/sub/up; ln x/f x/hard; \
         mount --bind . bound; mkdir x/mnt; \
         look() { (cd $1 && pwd | sed 's,.*/x,x,' && ls -RF . && cat f sub/up && stat -c '%n %i %h %s %F' * sub/* && \
           readlink link && cd link && pwd -P | sed 's,.*/x,x,' && ls ../.. && find .. | sort); }; \
         look x > 1; look bound/x > 2; \
         mkdir -p x/bound; mount --bind bound x/bound; look x/bound/x > 3; wc -l < 1; \
         diff 1 2 && echo alike; diff 2 3 | sed 's/ [0-9]* / INODE /'",
    );
    assert!(seen.contains("alike"), "{seen}");
}

#[test]
fn a_read_only_bind_refuses_every_change() {
    let seen = compare(
        "mkdir -p x/d bound; echo hello > x/f; ln -s f x/l; mkfifo x/p; mount --bind x bound; mount -o remount,bind,ro bound; \
         sh -c 'echo no > bound/f'; sh -c ': >> bound/new'; mkdir bound/d bound/e; rmdir bound/d; rm -f bound/f; \
         mv bound/f bound/g; mv x/f bound/f; ln bound/f bound/h; ln -s f bound/l2; chmod 600 bound/f; touch bound/f; \
         truncate -s 0 bound/f; mkfifo bound/q; test -w bound/f; echo writable $?; test -w x/f; echo writable $?; \
         cd bound; sh -c 'echo no > f'; sh -c 'cd d && echo no > new'; cat f; \
         (echo through > p & cat p; wait); stat -f -c %T . > /dev/null; cd ..; \
         findmnt -rno FSTYPE,OPTIONS bound | cut -d, -f1 | sed 's/.* //'; \
         echo yes > x/f; cat bound/f; mount -o remount,bind,rw bound; echo again > bound/f; cat x/f",
    );
    assert!(seen.ends_with("again\n"), "{seen}");
}

#[test]
fn binds_of_files_moves_and_mounts_on_mounts() {
    // `mount --move` as an ordinary user complains that it cannot write /run/mount/utab, after it has moved.
    compare(
        "mkdir a b c d; echo one > a/f; echo two > b/f; echo three > g; mount --bind g a/f; cat a/f; echo more >> a/f; cat g; \
         rm a/f; mv a/f a/h; umount a/f; cat a/f; mount --bind a c; mount --bind b c; cat c/f; umount c; cat c/f; \
         mount --move c d 2>/dev/null; ls c; ls d; cat d/f; umount d; ls d; umount d 2>/dev/null || echo not mounted; \
         mkdir a/in b/in; mount --bind b a/in; mount --bind a c; ls c/in; umount c; mount --rbind a c; ls c/in; cat c/in/f; \
         umount c 2>/dev/null || echo busy; umount c/in; umount c; ls c; \
         mount --bind b a; (cd a; mount --move . ../c 2>/dev/null; ls; pwd | sed 's,.*/,,'); ls a; \
         mkdir c/sub; mount --bind c c/sub; ls c/sub/sub; mount --move c c/sub 2>/dev/null || echo no loops; \
         findmnt -rno TARGET,FSROOT | sed -n 's,^[^ ]*/WORK/\\([^ ]*\\) .*/WORK/\\(.*\\),\\1 \\2,p'; \
         rmdir c/sub; umount -R c; ls c; mount --bind g d || echo no directory",
    );
}

#[test]
fn names_do_not_leave_their_mount() {
    compare(
        "mkdir a b c; echo one > a/f; mount --bind a c; \
         python3 -c '
import os, errno
def tried(what, call):
    try: call(); print(what, \"done\")
    except OSError as e: print(what, errno.errorcode[e.errno])
tried(\"rename\", lambda: os.rename(\"c/f\", \"a/g\"))
tried(\"link\", lambda: os.link(\"a/f\", \"c/g\"))
tried(\"inside\", lambda: os.rename(\"c/f\", \"c/g\"))
d = os.open(\"c\", os.O_RDONLY | os.O_DIRECTORY)
print(os.listdir(d), os.readlink(\"/proc/self/fd/%d\" % d).rsplit(\"/\", 1)[1])
print(sorted(os.listdir(os.open(\"..\", os.O_RDONLY, dir_fd=d))))
os.fchdir(d); print(os.getcwd().rsplit(\"/\", 1)[1], sorted(os.listdir(\"..\")))
e = os.dup(d); print(sorted(os.listdir(e)))
tried(\"rmdir\", lambda: os.rmdir(\"../c\"))
tried(\"rename\", lambda: os.rename(\"../c\", \"../x\"))
'",
    );
}

#[test]
fn binds_of_virtual_mounts() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "vumount -t fuse umvu-memfs memory mnt; mkdir -p mnt/d/e bound; echo x > mnt/d/f; mount --bind mnt/d bound; cat bound/f; \
         echo y > bound/e/g; cat mnt/d/e/g; mkdir a; echo host > a/h; mount --bind a mnt/d/e; ls mnt/d/e bound/e; \
         umount mnt 2>/dev/null || echo busy; mount -o remount,bind,ro bound; sh -c 'echo no > bound/f' 2>/dev/null || echo refused; \
         mount --move mnt/d/e bound/e; ls bound/e mnt/d/e; umount bound/e bound mnt; ls mnt bound",
    ));
    assert_eq!(
        seen,
        "x\ny\nbound/e:\ng\n\nmnt/d/e:\nh\nbusy\nrefused\nbound/e:\nh\n\nmnt/d/e:\ng\nbound:\n\nmnt:\n"
    );
}
