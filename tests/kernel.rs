//! The same scenario on a kernel FUSE mount and in a view must print the same.
//!
//! Scenarios are shell scripts that work in the mount they are given, and print what they see. The kernel's side needs
//! root and /dev/fuse; elsewhere the scripts still run in a view, where they must succeed.

mod common;

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use common::{Work, assert_same, has_kernel_fuse, stdout, text};

fn script(name: &str) -> String {
    format!("{}/tests/scenarios/{name}.sh", env!("CARGO_MANIFEST_DIR"))
}

/// The script's text, since an ordinary user may not be able to read the source tree.
fn source(name: &str) -> String {
    std::fs::read_to_string(script(name)).unwrap()
}

fn in_view(name: &str, options: &str) -> Output {
    let work = Work::new();
    let run = format!(
        "vumount -t fuse -o {options} umvu-memfs memory mnt && cd mnt && exec sh -c '{}'",
        source(name).replace('\'', "'\\''")
    );
    work.sh(&run)
}

/// `None` where the kernel's FUSE cannot be used.
fn on_kernel(name: &str, options: &str) -> Option<Output> {
    if !has_kernel_fuse(name) {
        return None;
    }
    let work = Work::new();
    let mut server = work
        .as_tester("umvu-memfs")
        .args(["-o", "allow_other", "-o", options, "memory", "mnt"])
        .spawn()
        .expect("umvu-memfs starts");
    wait_until(|| is_mountpoint(&work.mountpoint()));
    std::os::unix::fs::chown(work.mountpoint(), Some(65534), Some(65534)).unwrap();
    let output = work
        .command("sh")
        .args([
            "-c",
            &format!("cd mnt && exec sh -c '{}'", source(name).replace('\'', "'\\''")),
        ])
        .output()
        .unwrap();
    rustix::mount::unmount(work.mountpoint(), rustix::mount::UnmountFlags::DETACH).unwrap();
    server.wait().unwrap();
    Some(output)
}

fn is_mountpoint(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::metadata(path).ok().map(|meta| meta.dev());
    device(path) != device(path.parent().unwrap())
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "this does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Servers write at once, or when the cache is written back.
const OPTIONS: [&str; 2] = ["rw", "writeback"];

fn compare(name: &str) {
    for options in OPTIONS {
        let view = in_view(name, options);
        assert!(!stdout(&view).is_empty(), "{name} prints nothing");
        if let Some(kernel) = on_kernel(name, options) {
            assert_same(&view, &kernel);
        }
    }
}

/// Random operations have the same results on a mount as in an ordinary directory.
fn model(options: &str) {
    let work = Work::new();
    let program = include_str!("../fixtures/model.py");
    std::fs::write(work.path().join("model.py"), program).unwrap();
    let run = format!(
        "mkdir plain && vumount -t fuse -o {options} umvu-memfs memory mnt && \
         python3 model.py -n 4000 -s 7 mnt \"$PWD/plain\""
    );
    let output = work.sh(&run);
    assert!(
        stdout(&output).starts_with("ok 4000 operations"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn model_of_writing_at_once() {
    model(OPTIONS[0]);
}

#[test]
fn model_of_writing_back() {
    model(OPTIONS[1]);
}

/// What root starts can become another user, also in a view of root's, and where root lacks capabilities as in a
/// container.
#[test]
fn others() {
    if !has_kernel_fuse("others") {
        return;
    }
    let run = |program: &[&str]| {
        let work = Work::new();
        let mut command = work.as_tester("timeout");
        command.args(["-k", "5", "60"]).args(program);
        command
            .args(["sh", "-c", include_str!("root/others.sh")])
            .output()
            .unwrap()
    };
    let kernel = run(&["unshare", "-m"]);
    stdout(&kernel);
    assert_same(&run(&["umvu", "--"]), &kernel);
    let without = ["setpriv", "--bounding-set=-sys_ptrace,-sys_admin", "--inh-caps=-all"];
    assert_same(&run(&[&without[..], &["umvu", "--"]].concat()), &kernel);
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { compare(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let listed = [$(stringify!($name)),*];
            for entry in std::fs::read_dir(Path::new(&script("x")).parent().unwrap()).unwrap() {
                let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
                assert!(listed.contains(&name.as_str()), "{name}.sh is not listed");
            }
        }
    };
}

scenarios![
    aio,
    append,
    arguments,
    control,
    descriptors,
    dnotify,
    exec,
    fifo,
    flags,
    leases,
    limits,
    links,
    listing,
    locks,
    mapped,
    modes,
    names,
    rename,
    seek,
    sockets,
    threads,
    times,
    unlinked,
    watches,
    xattr
];
