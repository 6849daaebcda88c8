//! Bind mounts, other roots and other users in a view, compared with what the kernel does for root.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Running, Work, compare, is_root, on_kernel, stdout, text, unique};

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
         echo yes > x/f; cat bound/f; mount -o remount,bind,rw bound; echo again > bound/f; cat x/f; mount -o remount,bind,ro bound; \
         python3 -c '
import os, errno
def tried(what, call, *args):
    try: call(*args); print(what, \"done\")
    except OSError as e: print(what, errno.errorcode[e.errno])
for path in (\"bound/f\", \"bound/d\", \"x/f\"):
    f = os.open(path, os.O_RDONLY)
    tried(path, os.fchmod, f, 0o700)
    tried(path, os.fchown, f, -1, -1)
    tried(path, os.utime, f)
    tried(path, os.setxattr, f, \"user.colour\", b\"red\")
    tried(path, os.removexattr, f, \"user.colour\")
    os.close(f)
os.open(\"bound/f\", os.O_RDONLY); os.close(3); tried(\"another\", os.fchmod, os.open(\"x/new\", os.O_CREAT | os.O_WRONLY), 0o600)
'",
    );
    assert!(seen.ends_with("another done\n"), "{seen}");
}

#[test]
fn descriptors_of_a_read_only_bind() {
    let script = include_str!("process/read_only.py");
    compare(&format!(
        "mkdir x bound; echo hello > x/f; mount --bind x bound; mount -o remount,bind,ro bound; python3 -u - <<'END'\n{script}\nEND\n"
    ));
}

#[test]
fn binds_of_files_moves_and_mounts_on_mounts() {
    // `mount --move` as an ordinary user complains that it cannot write /run/mount/utab, after it has moved.
    compare(
        "mkdir a b c d; echo one > a/f; echo two > b/f; echo three > g; mount --bind g a/f; cat a/f; echo more >> a/f; cat g; \
         mount --make-private a/f; mount --make-rprivate /; mount --make-private b 2>/dev/null || echo no mount; \
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

#[test]
fn another_root_of_the_view() {
    compare(
        "mkdir plain new; mount --bind new new; mkdir -p new/old new/sub; echo here > new/f; echo plain > plain/f; \
         python3 -c '
import os, ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def pivot(new, old):
    done = libc.syscall(155, new.encode(), old.encode()) == 0
    return \"done\" if done else errno.errorcode[ctypes.get_errno()]
work = os.getcwd()
print(pivot(\"plain\", \"plain\"), pivot(\"new/f\", \"new/old\"), pivot(\"new\", \"plain\"), pivot(\"nothere\", \"new/old\"), pivot(\"/\", \"/tmp\"), flush=True)
etc = os.open(\"/etc\", os.O_RDONLY)
os.chdir(\"/\")
def child(directory):
    start, end = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        os.chdir(directory)
        os.write(end[1], b\"there\")
        os.read(start[0], 1)
        shown = os.path.exists(\"f\"), os.path.exists(\"/f\"), os.readlink(\"/proc/self/cwd\") if os.path.exists(\"/proc\") else None
        print(os.getcwd() == \"/\", sorted(os.listdir(\".\")) == sorted(os.listdir(\"/\")), shown, flush=True)
        if (inner := os.fork()) == 0:
            print(os.getcwd() == \"/\", os.path.exists(\"sub\"), flush=True); os._exit(0)
        os.waitpid(inner, 0)
        os._exit(0)
    os.read(end[0], 5)
    return lambda: (os.write(start[1], b\"x\"), os.waitpid(pid, 0))
at_root, elsewhere = child(\"/\"), child(\"/etc\")
print(pivot(work + \"/new\", work + \"/new/old\"), flush=True)
at_root(); elsewhere()
print(sorted(os.listdir(\"/\")), open(\"/f\").read(), os.getcwd(), sorted(os.listdir(\".\")), os.path.exists(\"/etc\"))
print(open(\"/old\" + work + \"/plain/f\").read(), os.path.exists(\"/old/etc/passwd\"), os.readlink(\"/old/proc/self/cwd\"))
os.fchdir(etc); print(os.getcwd(), sorted(os.listdir(\"..\")) == sorted(os.listdir(\"/old\")))
os.chdir(\"/sub\"); print(os.getcwd(), sorted(os.listdir(\"..\")), sorted(os.listdir(\"../..\")))
'",
    );
}

#[test]
fn a_bind_over_the_root_is_seen_by_who_enters_it() {
    compare(
        "mkdir -p t/sub t/usr; echo in > t/sub/f; mount --rbind / t/usr; ls -d t/usr/etc; ls t/usr/$PWD/t/sub; \
         cat t/usr/$PWD/t/sub/f; mount --bind t/sub t/usr/$PWD/mnt; ls mnt; ls t/usr/$PWD/mnt; cd t/usr/$PWD/t/sub; \
         pwd | sed 's,.*/t/usr/,,; s,.*/WORK,WORK,'; cat ../sub/f; umount -R ../../../usr 2>/dev/null; cd /; ls -d /etc",
    );
}

/// A root tree with a shell, some programs and their libraries, copied from this machine.
fn tree(work: &Work) {
    let script = "mkdir -p tree/bin tree/etc tree/tmp tree/dev tree/proc tree/sys tree/sub/dir && cd tree && \
        for p in sh cat ls readlink mkdir ln stat id chown chmod mknod touch rm su env head tail sed grep; do \
          path=$(readlink -f $(command -v $p)); cp $path bin/$p; \
          ldd $path | grep -o '/[^ ]*' | while read lib; do mkdir -p .$(dirname $lib); cp -L $lib .$lib; done; \
        done; \
        echo root:x:0:0::/:/bin/sh > etc/passwd; echo user:x:1000:1000::/tmp:/bin/sh >> etc/passwd; \
        echo root:x:0: > etc/group; echo user:x:1000: >> etc/group; echo extra:x:77:user >> etc/group; \
        printf '#!/bin/sh -e\\necho script $0 $*\\n' > bin/script; chmod 755 bin/script";
    assert!(
        work.command("sh")
            .args(["-c", script])
            .output()
            .unwrap()
            .status
            .success()
    );
}

/// Runs the script in the tree, in a view and by the kernel's chroot(2); both must print the same.
#[track_caller]
fn compare_in_tree(options: &[&str], script: &str) -> String {
    let work = Work::new();
    tree(&work);
    let mut args = vec!["--root", "tree"];
    args.extend(options);
    args.extend(["--", "/bin/sh", "-c", script]);
    let view = work.umvu(&args);
    let seen = stdout(&view);
    assert!(!seen.is_empty());
    let work = Work::new();
    tree(&work);
    let chroot = "chown -R 0:0 tree; mount --bind tree tree; for d in dev proc sys; do mount --rbind /$d tree/$d; done; \
                  HOME=/root exec chroot tree /bin/sh -c \"$SCRIPT\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", chroot])
        .current_dir(work.path())
        .env("LC_ALL", "C")
        .env("SCRIPT", script);
    if on_kernel(&work, "true").is_some() {
        let kernel = command.output().unwrap();
        assert_eq!(seen, stdout(&kernel), "left: in the view; right: the kernel");
        assert_eq!(
            text(&view.stderr),
            text(&kernel.stderr),
            "left: in the view; right: the kernel"
        );
    }
    seen
}

#[test]
fn a_root_of_its_own() {
    let seen = compare_in_tree(
        &[],
        "ls -d /*; pwd; cd ..; pwd; cd sub/dir; pwd; cd ../../../..; ls -d etc; ln -s /etc/passwd abs; head -n 1 abs; \
         ln -s ../../../../etc/group up; head -n 1 up; readlink /proc/self/exe /proc/self/cwd /proc/self/root; \
         cd /sub; readlink /proc/$$/cwd; ls /proc/self/root; cat /proc/$$/comm; script a b; /bin/script c; cd /bin; ./script d; \
         exec 5< /etc; readlink /proc/self/fd/5; cat < /proc/self/fd/5/passwd; echo x > /dev/null; \
         cat /proc/self/comm; mkdir -p /a/b/c; cd /a/b/c; rm -r /a; ls ..; nothere; /etc/passwd; echo $?",
    );
    assert!(seen.contains("script /bin/script c\n"), "{seen}");
}

/// What is wrong with a program is what the kernel says, whoever looks for its interpreter.
#[test]
fn programs_that_cannot_be_run() {
    let seen = compare_in_tree(
        &["--as-root"],
        "cd /tmp; head -c 18 /bin/cat > foreign; printf '\\267' >> foreign; tail -c +20 /bin/cat >> foreign; head -c 64 /bin/cat > cut; \
         printf '\\177ELF' > magic; head -c 4096 /bin/cat > short; : > empty; printf '#!/nowhere\\n' > lost; \
         printf '#!/etc/passwd\\n' > denied; printf '#!\\n' > nobody; printf '#!/tmp/cut\\n' > indirect; ln -s circle circle; \
         for l in a b; do printf '#!/tmp/%s\\n' $l > loop$l; done; printf '#!/tmp/loopb\\n' > loopa; printf '#!/tmp/loopa\\n' > loopb; \
         sed 's,/ld-linux-x86-64.so,/ld-nowhere-x86-64.so,' < /bin/cat > astray; cat /bin/cat > forbidden; \
         chmod 755 foreign cut magic short empty lost denied nobody indirect loopa loopb astray; \
         for name in foreign cut magic short empty lost denied nobody indirect loopa astray forbidden circle nothing .; do \
           env ./$name; echo $name $?; done",
    );
    // env(1) takes what the kernel does not execute for a script of the shell.
    assert!(seen.contains("foreign 2\n") && seen.contains("short 139\n"), "{seen}");
}

#[test]
fn the_interpreter_is_the_trees_own() {
    let work = Work::new();
    tree(&work);
    let lines = |file: &str| {
        let text = stdout(&work.umvu(&["--root", "tree", "/bin/cat", file]));
        let mapped = text
            .lines()
            .filter(|line| line.contains(".so") || line.ends_with("/cat"));
        mapped
            .map(|line| line.split_whitespace().last().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // smaps has the host's truth, maps what the view shows.
    let inside = format!("{}/tree/", work.path().display());
    let host = lines("/proc/self/smaps");
    assert!(host.iter().any(|path| path.contains("/ld-")), "{host:?}");
    assert!(host.iter().all(|path| path.starts_with(&inside)), "{host:?}");
    let view = lines("/proc/self/maps");
    assert!(view.iter().any(|path| path == "/bin/cat"), "{view:?}");
    assert!(
        view.iter()
            .all(|path| path.starts_with('/') && !path.contains("/tree/")),
        "{view:?}"
    );
}

#[test]
fn roots_users_and_fuse_together() {
    let work = Work::new();
    tree(&work);
    let mut umvu = work.command("umvu");
    let mount = "type=fuse,program=umvu-memfs,source=memory,target=/sub,options=default_permissions";
    let name = unique("together");
    umvu.args([
        "--root",
        "tree",
        "--as-root",
        "--name",
        &name,
        "--mount",
        mount,
        "--",
        "/bin/sh",
        "-c",
    ]);
    umvu.arg("touch sub/f; chown 5:6 sub/f; stat -c '%u %g' sub/f; cat /proc/mounts | grep -c ' /sub fuse'; read line");
    let mut umvu = Running(umvu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(umvu.0.stdout.take().unwrap()).lines();
    let mut line = || output.next().unwrap().unwrap();
    assert_eq!((line(), line()), ("5 6".into(), "1".into()));
    let joined = work.umvu(&[
        "exec",
        &name,
        "/bin/sh",
        "-c",
        "id -u; pwd; stat -c '%u %g' /sub/f; ls -d /*",
    ]);
    assert_eq!(
        stdout(&joined),
        "0\n/\n5 6\n/bin\n/dev\n/etc\n/lib\n/lib64\n/proc\n/sub\n/sys\n/tmp\n"
    );
}

/// Whatever libraries a tree has or lacks, umvu's own commands run in it.
#[test]
fn own_commands_in_a_tree() {
    let script = "vumount --bind /etc /sub && ls /sub; vusu 1000 -c 'id -u'; cd /sub; vumount --bind dir2 . 2>/dev/null || echo relative; \
        fusermount3 -V > /dev/null && vu_lsmod > /dev/null && ls -d /bin; readlink /proc/self/root; vumount -t fuse nothing x /tmp";
    let check = |options: &[&str]| {
        let work = Work::new();
        tree(&work);
        let made = "mkdir -p tree/usr/bin changes w";
        assert!(work.command("sh").args(["-c", made]).status().unwrap().success());
        let args = [options, &["--as-root", "--", "/bin/sh", "-c", script]].concat();
        let output = work.umvu(&args);
        assert_eq!(
            text(&output.stdout),
            "group\npasswd\n1000\nrelative\n/bin\n/\n",
            "{}",
            text(&output.stderr)
        );
        assert_eq!(
            text(&output.stderr),
            "vumount: cannot run nothing: No such file or directory\n"
        );
    };
    check(&["--root", "tree"]);
    check(&[
        "--mount",
        "type=overlay,lowerdir=tree,upperdir=changes,workdir=w,target=/",
    ]);
}

#[test]
fn other_users_of_a_tree() {
    compare_in_tree(
        &["--as-root"],
        "id; cd /tmp; touch f; stat -c '%u %g %a' f; chown 33:44 f; chmod 4750 f; stat -c '%u %g %a %F' f; chown 1 f; \
         stat -c '%u %g %a' f; mknod null c 1 3; mknod disk b 8 1; mknod -m 600 pipe p; stat -c '%n %F %t %T %a' null disk pipe; \
         echo gone > null; cat null; cat disk; chmod 0 f; cat f; echo still > f; stat -c %a f; chown 1000:1000 /tmp; \
         mkdir -m 2775 shared; chown :77 shared; mkdir shared/in; touch shared/g; stat -c '%n %u %g %a' shared shared/in shared/g; \
         cd shared; ln g h; rm g; stat -c '%u %g %h' h; chown -h 5:6 h; ls -ln | grep -c ' 5 *6 '; \
         grep -E '^(Uid|Gid)' /proc/self/status",
    );
}

#[test]
fn a_virtual_user_has_a_users_rights() {
    let work = Work::new();
    tree(&work);
    std::fs::copy(env!("CARGO_BIN_EXE_umvu"), work.path().join("umvu")).unwrap();
    // Outside of a tree, as umvu itself needs the host's libraries.
    let seen = stdout(&work.umvu(&[
        "--as-root",
        "sh",
        "-c",
        "mkdir -m 700 mine; echo secret > mine/f; echo open > f; chmod 644 f; mkdir -m 1777 t; echo r > t/r; mkdir -m 755 d; \
         vusu 1000 -c 'id -u; cat mine/f; cat f; echo no > f; echo yes > t/u; rm -f t/r; mv t/r t/s; mkdir d/x; rm t/u; \
           chown 0 t; chmod 777 f; stat -c %u:%g t/r; umask 77; touch t/new; kill -0 $$ && echo alive' 2>&1; \
         stat -c '%u %g %a' t/new; echo root >> t/new; chown root t/new; id -u",
    ]));
    let seen: Vec<&str> = seen.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(
        seen,
        [
            "1000",
            "Permission denied",
            "open",
            "Permission denied",
            "Operation not permitted",
            "Operation not permitted",
            "Permission denied",
            "Operation not permitted",
            "Operation not permitted",
            "0:0",
            "alive",
            "1000 1000 600",
            "0"
        ]
    );
}

#[test]
fn set_id_programs_and_what_outlives_a_view() {
    let work = Work::new();
    let run = |script: &str| stdout(&work.umvu(&["--as-root", "--owners", "state", "sh", "-c", script]));
    let made = "cp $(command -v id) myid; chown 7:8 myid; chmod 6755 myid; vusu 1000 -c './myid -u; ./myid -ru; ./myid -g'; ls -ln myid | cut -c1-10";
    assert_eq!(run(made), "7\n1000\n8\n-rwsr-sr-x\n");
    assert_eq!(
        run("stat -c '%u %g %a' myid; rm myid; touch other; stat -c '%u %a' other"),
        "7 8 6755\n0 644\n"
    );
    assert!(!work.path().join("myid").exists());
    let disk = std::fs::metadata(work.path().join("other")).unwrap();
    let owner = std::fs::metadata(work.path().join("state")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((disk.uid(), disk.mode() & 0o7777), (owner.uid(), 0o644));
}

#[test]
fn a_tree_with_changes_elsewhere() {
    let work = Work::new();
    tree(&work);
    let made = work.command("mkdir").args(["changes", "w"]).status();
    assert!(made.unwrap().success());
    let run = |script: &str| {
        let mount = "type=overlay,lowerdir=tree,upperdir=changes,workdir=w,target=/";
        stdout(&work.umvu(&[
            "--mount",
            mount,
            "--as-root",
            "--owners",
            "state",
            "--",
            "/bin/sh",
            "-c",
            script,
        ]))
    };
    let seen = run(
        "id -u; pwd; echo new > /etc/new; chown 5:6 /etc/passwd; chmod 4711 /etc/passwd; stat -c '%u %g %a' /etc/passwd /etc/group; \
        rm /bin/script; mkdir -m 2750 /own; chown :77 /own; stat -c %A /own; mkdir /own/sub; \
        stat -c '%g %a' /own/sub; rm -r /own/sub; touch /own/file; stat -c '%g %F' /own/file; mknod /etc/dev c 1 5; \
        mknod /etc/null c 1 3; echo gone > /etc/null; cat /etc/null; head -c 1 /etc/dev > /etc/zero; stat -c %s /etc/zero; \
        stat -c '%F %t %T' /etc/dev; readlink /proc/self/exe; cat < /etc/new; grep -c ^overlay /proc/mounts; ls -d /proc/self",
    );
    assert_eq!(
        seen,
        "0\n/\n5 6 4711\n0 0 644\ndrwxr-s---\n77 2755\n77 regular empty file\n1\ncharacter special file 1 5\n/bin/readlink\nnew\n1\n/proc/self\n"
    );
    let seen = run("stat -c '%u %g %a' /etc/passwd /own; ls /bin/script 2>/dev/null; cat /etc/new");
    assert_eq!(seen, "5 6 4711\n0 77 2750\nnew\n");
    assert!(work.path().join("tree/bin/script").exists() && !work.path().join("tree/etc/new").exists());
}

#[test]
fn what_another_user_gave_away_is_seen_by_all() {
    let work = Work::new();
    let seen = stdout(&work.sh(
        "id -u; touch f; vusu root -c 'chown 1000:1001 f; mknod d c 1 3; id -u'; stat -c '%u %g' f; stat -c '%F %t %T' d; \
         id -u; cat < f; touch mine; sh -c 'echo no > f' 2>/dev/null || echo denied; stat -c %u mine; rm f && ls",
    ));
    let me = if is_root() {
        "65534".to_owned()
    } else {
        rustix::process::getuid().as_raw().to_string()
    };
    assert_eq!(
        seen,
        format!("{me}\n0\n1000 1001\ncharacter special file 1 3\n{me}\ndenied\n{me}\nd\nmine\nmnt\n")
    );
}
