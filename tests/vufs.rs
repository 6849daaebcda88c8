//! `mount -t vufs`: VUOS' ways to put one tree in front of another.

mod common;

use common::{Work, stdout, text};

/// A source, a target with files that the user owns and may not write to, and a mount of one in front of the other.
fn mounted(mode: &str, script: &str) -> String {
    let work = Work::new();
    let trees = "mkdir -p s/both s/mine t/both t/theirs/in; echo s > s/f; echo s > s/both/s; echo s > s/mine/f; \
        echo t > t/f; echo t > t/both/t; echo t > t/theirs/f; echo t > t/only; echo t > t/fixed; \
        chmod 444 t/fixed; chmod 555 t/theirs; chmod 640 t/only; ln -s only t/link; ";
    let script = script.replace('\n', "; ");
    let command = format!("{trees} vumount -t vufs s t -o {mode} || exit 1; exec 2>&1; {script}");
    stdout(&work.sh(&command))
}

#[test]
fn a_source_that_is_moved() {
    let seen = mounted(
        "move",
        "ls t\ncat t/f\necho new > t/new\ncat s/new\nmv t/new t/both/moved\nls s/both\nrm t/f\nls s\numount t\nls t",
    );
    let expected = "both\nf\nmine\ns\nnew\nmoved\ns\nboth\nmine\nboth\nf\nfixed\nlink\nonly\ntheirs\n";
    assert_eq!(seen, expected);
}

#[test]
fn a_source_that_is_merged() {
    let seen = mounted(
        "merge",
        "ls t t/both\ncat t/f t/only t/link\nsh -c 'echo no > t/f'\nrm t/f t/both/s\nmv t/f t/only\nmv t/only t/f\n\
         ln t/f t/hard\nchmod 600 t/mine\nmkdir t/mine/d\necho more >> t/only\nmkdir t/new t/both/new\nmv t/only t/both/moved\n\
         ln t/both/moved t/hard\nchmod 600 t/hard\nrm t/both/t\nrmdir t/new\numount t\nls s s/both\nls t t/both\ncat t/hard",
    );
    let expected = "t:\nboth\nf\nfixed\nlink\nmine\nonly\ntheirs\n\nt/both:\ns\nt\ns\nt\nt\n\
        sh: 1: cannot create t/f: Read-only file system\n\
        rm: cannot remove 't/f': Read-only file system\nrm: cannot remove 't/both/s': Read-only file system\n\
        mv: cannot move 't/f' to 't/only': Read-only file system\nmv: cannot move 't/only' to 't/f': Read-only file system\n\
        ln: failed to create hard link 't/hard': Read-only file system\n\
        chmod: changing permissions of 't/mine': Read-only file system\n\
        mkdir: cannot create directory 't/mine/d': Read-only file system\n\
        s:\nboth\nf\nmine\n\ns/both:\ns\nt:\nboth\nf\nfixed\nhard\nlink\ntheirs\n\nt/both:\nmoved\nnew\nt\nmore\n";
    assert_eq!(seen, expected);
}

#[test]
fn copies_on_write() {
    let seen = mounted(
        "cow",
        "echo more >> t/only\necho more >> t/f\nmkdir t/new\necho x >> t/fixed\nrm t/theirs/f\nrm -r t/both\nmv t/link t/moved\nchmod 600 t/fixed\n\
         ls t t/theirs\ncat t/moved\nstat -c %a t/only\numount t\nls t t/both t/theirs\ncat t/only t/f\nls s\ncat s/only s/f\n\
         mount -t vufs s t -o cow\nls t t/theirs",
    );
    let merged = "t:\nf\nfixed\nmine\nmoved\nnew\nonly\ntheirs\n\nt/theirs:\nin\n";
    let expected = format!(
        "{merged}t\nmore\n640\nt:\nboth\nf\nfixed\nlink\nonly\ntheirs\n\nt/both:\nt\n\nt/theirs:\nf\nin\nt\nt\n\
         both\nf\nfixed\nlink\nmine\nmoved\nnew\nonly\ntheirs\nt\nmore\ns\nmore\n{merged}"
    );
    assert_eq!(seen, expected);
}

#[test]
fn copies_where_it_must() {
    let seen = mounted(
        "mincow",
        "echo more >> t/only\nmkdir t/new\nrm t/theirs/f\necho x > t/theirs/x\nmv t/only t/moved\necho more >> t/mine/f\n\
         ls t t/theirs\numount t\nls t t/theirs\ncat t/moved\nls s s/theirs | grep -v : \ncat s/mine/f",
    );
    let expected = "t:\nboth\nf\nfixed\nlink\nmine\nmoved\nnew\ntheirs\n\nt/theirs:\nin\nx\n\
        t:\nboth\nf\nfixed\nlink\nmoved\nnew\ntheirs\n\nt/theirs:\nf\nin\nt\nmore\n\
        both\nf\nmine\ntheirs\n\nf\nx\ns\nmore\n";
    assert_eq!(seen, expected);
}

#[test]
fn what_is_read_only_stays_so() {
    let work = Work::new();
    let script = "mkdir s t sro tro; echo s > s/f; echo t > t/g; vumount --bind -r s sro; vumount --bind -r t tro; \
        for mode in move merge; do vumount -t vufs sro tro -o $mode && (echo no > tro/g || echo no > tro/new); umount tro; done; \
        vumount -t vufs sro t -o cow; vumount -t vufs sro t -o mincow; \
        vumount -t vufs s tro -o mincow && echo new > tro/g && touch tro/h && cat tro/g; umount tro; ls -A s t; cat t/g";
    let output = work.sh(script);
    assert_eq!(stdout(&output), "new\ns:\n.-\nf\ng\nh\n\nt:\ng\nt\n");
    let errors = text(&output.stderr);
    assert_eq!(errors.matches("Read-only file system").count(), 6, "{errors}");
}

/// Whoever can read a file has their own copy of it to change, also of the host's own files.
#[test]
fn files_of_the_host() {
    let work = Work::new();
    let script = "mkdir s; mount -t vufs s /etc -o MODE && echo mine >> /etc/passwd && tail -n 1 /etc/passwd && rm /etc/group && \
        ! test -e /etc/group && mkdir /etc/own && chmod 600 /etc/hosts && stat -c '%a %u' /etc/hosts && cat /etc/shadow; ls s; id -u";
    for mode in ["cow", "mincow"] {
        let output = work.sh(&script
            .replace("MODE", mode)
            .replace("mkdir s", "mkdir -p s; rm -rf s/* s/.-"));
        let seen = stdout(&output);
        let user = seen.lines().last().unwrap();
        assert_eq!(seen, format!("mine\n600 {user}\ngroup\nhosts\nown\npasswd\n{user}\n"));
        assert_eq!(text(&output.stderr), "cat: /etc/shadow: Permission denied\n");
    }
    let seen = stdout(&work.umvu(&[
        "--mount",
        "type=vufs,source=s,target=/etc,o=cow",
        "--as-root",
        "sh",
        "-c",
        "ls -d /etc/own; stat -c %u /etc/hosts; echo more > /etc/own/f; stat -c '%u %a' /etc/own/f; findmnt -no FSTYPE /etc",
    ]));
    assert_eq!(seen, "/etc/own\n0\n0 644\nvufs\n");
}

#[test]
fn modes_that_there_are_not() {
    let work = Work::new();
    let tried = "mkdir s s/in; for mode in nonsense cow,merge except=/proc; do vumount -t vufs s mnt -o $mode; done; \
        vumount -t vufs nothere mnt -o cow; vumount -t vufs s s/in -o cow; vumount -t vufs s s -o mincow; ls -A s";
    let output = work.sh(tried);
    let mountpoint = work.mountpoint().display().to_string();
    let errors = text(&output.stderr).replace(&mountpoint, "mnt");
    let refused = "vumount: cannot mount vufs on mnt: its one option is move, merge, cow or mincow\n";
    assert!(
        errors.starts_with(
            &[
                refused,
                refused,
                refused,
                "vumount: cannot mount vufs on mnt: No such file"
            ]
            .concat()
        ),
        "{errors}"
    );
    assert_eq!(
        errors
            .lines()
            .filter(|line| line.contains("a layer is, or lies in, another one"))
            .count(),
        2,
        "{errors}"
    );
    assert_eq!(stdout(&output), "in\n");
}
