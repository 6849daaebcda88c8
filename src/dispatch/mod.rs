//! Serves caught calls: from a call number to a handler, and from a path to a place in the view.
//!
//! A handler is one `async fn` named after its call. It gives a [`Reply`], or the errno that the caller sees; the
//! session applies it. Calls on files of the host pass through to the kernel, with the path rewritten where the view
//! shows the file elsewhere.

mod agent;
mod aio;
mod carrier;
mod context;
mod copy;
mod dir;
pub mod dnotify;
mod elf;
mod exec;
mod fdinfo;
mod fds;
pub mod fifo;
mod handle;
mod host;
mod ids;
pub mod inotify;
mod install;
mod io;
mod ioctl;
mod lease;
mod link;
mod lock;
mod mem;
mod meta;
mod mount;
mod open;
mod owners;
mod process;
mod procfs;
pub mod protected;
mod root;
mod settings;
mod signals;
pub mod socket;
mod stream;
mod upkeep;
mod xattr;

pub mod control;

pub use agent::{Agents, before_threads, forked, keep_up};
pub use context::Ctx;
pub use elf::Copies;
pub use exec::executed;
pub use fds::{close_all, close_on_exec};

use fsmodules::api::Errno;

use crate::trap::Reply;

/// Serves a call of the table's `Serve` rows.
pub async fn serve(cx: &Ctx) -> Result<Reply, Errno> {
    if let Some(comm) = cx.task.comm.take() {
        // A thread that cannot be named works all the same.
        let _ = exec::set_comm(cx, &comm).await;
    }
    if cx.task.fs.borrow().moved.take() {
        // Where the kernel cannot stand, the view can all the same.
        let _ = dir::move_to(cx, cx.place_of(context::CWD)?).await;
    }
    match i64::from(cx.call.nr) {
        libc::SYS_openat => open::openat(cx).await,
        libc::SYS_openat2 => open::openat2(cx).await,
        libc::SYS_close => fds::close(cx).await,
        libc::SYS_close_range => fds::close_range(cx).await,
        libc::SYS_dup => fds::dup(cx).await,
        libc::SYS_dup2 | libc::SYS_dup3 => fds::dup2(cx).await,
        libc::SYS_unshare => fds::unshare(cx).await,
        libc::SYS_fcntl => fds::fcntl(cx).await,

        libc::SYS_read => io::read(cx).await,
        libc::SYS_readv => io::readv(cx).await,
        libc::SYS_pread64 => io::pread(cx).await,
        libc::SYS_preadv | libc::SYS_preadv2 => io::preadv(cx).await,
        libc::SYS_write => io::write(cx).await,
        libc::SYS_writev => io::writev(cx).await,
        libc::SYS_pwrite64 => io::pwrite(cx).await,
        libc::SYS_pwritev | libc::SYS_pwritev2 => io::pwritev(cx).await,
        libc::SYS_lseek => io::lseek(cx).await,
        libc::SYS_ftruncate => io::ftruncate(cx).await,
        libc::SYS_fallocate => io::fallocate(cx).await,
        libc::SYS_fsync | libc::SYS_fdatasync => io::fsync(cx).await,
        libc::SYS_sync_file_range => io::sync_file_range(cx).await,
        libc::SYS_sync => io::sync(cx).await,
        libc::SYS_syncfs => io::syncfs(cx).await,
        libc::SYS_readahead => io::readahead(cx).await,
        libc::SYS_fadvise64 => io::fadvise(cx).await,
        libc::SYS_io_submit => aio::io_submit(cx).await,
        libc::SYS_ioctl => ioctl::ioctl(cx).await,
        libc::SYS_sendfile => copy::sendfile(cx).await,
        libc::SYS_splice => copy::splice(cx).await,
        libc::SYS_tee => copy::tee(cx).await,
        libc::SYS_vmsplice => copy::vmsplice(cx).await,
        libc::SYS_copy_file_range => copy::copy_file_range(cx).await,
        libc::SYS_mmap => mem::mmap(cx).await,
        libc::SYS_msync => mem::msync(cx).await,
        libc::SYS_flock => lock::flock(cx).await,

        libc::SYS_newfstatat => meta::newfstatat(cx).await,
        libc::SYS_fstat => meta::fstat(cx).await,
        libc::SYS_statx => meta::statx(cx).await,
        libc::SYS_faccessat | libc::SYS_faccessat2 => meta::faccessat(cx).await,
        libc::SYS_fchmodat | libc::SYS_fchmodat2 => meta::fchmodat(cx).await,
        libc::SYS_fchmod => meta::fchmod(cx).await,
        libc::SYS_fchownat => meta::fchownat(cx).await,
        libc::SYS_fchown => meta::fchown(cx).await,
        libc::SYS_utimensat => meta::utimensat(cx).await,
        libc::SYS_utime => meta::utime(cx).await,
        libc::SYS_utimes => meta::utimes(cx).await,
        libc::SYS_futimesat => meta::futimesat(cx).await,
        libc::SYS_truncate => meta::truncate(cx).await,
        libc::SYS_name_to_handle_at => handle::name_to_handle_at(cx).await,
        libc::SYS_statfs => meta::statfs(cx).await,
        libc::SYS_fstatfs => meta::fstatfs(cx).await,

        libc::SYS_getdents64 => dir::getdents64(cx).await,
        libc::SYS_getdents => dir::getdents(cx).await,
        libc::SYS_mkdirat => dir::mkdirat(cx).await,
        libc::SYS_chdir => dir::chdir(cx).await,
        libc::SYS_fchdir => dir::fchdir(cx).await,
        libc::SYS_getcwd => dir::getcwd(cx).await,
        libc::SYS_chroot => root::chroot(cx).await,
        libc::SYS_pivot_root => root::pivot_root(cx).await,

        libc::SYS_mknodat => link::mknodat(cx).await,
        libc::SYS_symlinkat => link::symlinkat(cx).await,
        libc::SYS_linkat => link::linkat(cx).await,
        libc::SYS_unlinkat => link::unlinkat(cx).await,
        libc::SYS_rmdir => link::rmdir(cx).await,
        libc::SYS_renameat | libc::SYS_renameat2 => link::renameat2(cx).await,
        libc::SYS_readlinkat => link::readlinkat(cx).await,

        libc::SYS_getxattr | libc::SYS_lgetxattr => xattr::getxattr(cx).await,
        libc::SYS_fgetxattr => xattr::fgetxattr(cx).await,
        libc::SYS_listxattr | libc::SYS_llistxattr => xattr::listxattr(cx).await,
        libc::SYS_flistxattr => xattr::flistxattr(cx).await,
        libc::SYS_setxattr | libc::SYS_lsetxattr => xattr::setxattr(cx).await,
        libc::SYS_fsetxattr => xattr::fsetxattr(cx).await,
        libc::SYS_removexattr | libc::SYS_lremovexattr => xattr::removexattr(cx).await,
        libc::SYS_fremovexattr => xattr::fremovexattr(cx).await,
        xattr::SYS_SETXATTRAT => xattr::setxattrat(cx).await,
        xattr::SYS_GETXATTRAT => xattr::getxattrat(cx).await,
        xattr::SYS_LISTXATTRAT => xattr::listxattrat(cx).await,
        xattr::SYS_REMOVEXATTRAT => xattr::removexattrat(cx).await,

        libc::SYS_inotify_init | libc::SYS_inotify_init1 => inotify::inotify_init(cx).await,
        libc::SYS_inotify_add_watch => inotify::inotify_add_watch(cx).await,
        libc::SYS_inotify_rm_watch => inotify::inotify_rm_watch(cx).await,

        libc::SYS_mount => mount::mount(cx).await,
        libc::SYS_umount2 => mount::umount2(cx).await,

        libc::SYS_execve => exec::execve(cx).await,
        libc::SYS_execveat => exec::execveat(cx).await,

        libc::SYS_prctl => process::prctl(cx).await,
        libc::SYS_seccomp | libc::SYS_landlock_restrict_self => process::confine(cx).await,
        libc::SYS_umask => process::umask(cx).await,
        libc::SYS_setuid
        | libc::SYS_setgid
        | libc::SYS_setreuid
        | libc::SYS_setregid
        | libc::SYS_setresuid
        | libc::SYS_setresgid
        | libc::SYS_setfsuid
        | libc::SYS_setfsgid
        | libc::SYS_setgroups => ids::set(cx).await,
        libc::SYS_getuid | libc::SYS_geteuid | libc::SYS_getgid | libc::SYS_getegid => ids::get(cx).await,
        libc::SYS_getresuid | libc::SYS_getresgid => ids::get_all(cx).await,
        libc::SYS_getgroups => ids::getgroups(cx).await,
        libc::SYS_capget => ids::capget(cx).await,
        libc::SYS_capset => ids::capset(cx).await,

        libc::SYS_sendmsg => socket::sendmsg(cx).await,
        libc::SYS_sendmmsg => socket::sendmmsg(cx).await,
        libc::SYS_recvmsg => socket::recvmsg(cx).await,
        libc::SYS_recvmmsg => socket::recvmmsg(cx).await,
        libc::SYS_getsockname | libc::SYS_getpeername => socket::name(cx).await,
        libc::SYS_bind => socket::with_address(cx, 1, true).await,
        libc::SYS_connect => socket::with_address(cx, 1, false).await,
        libc::SYS_sendto => socket::with_address(cx, 4, false).await,
        libc::SYS_accept | libc::SYS_accept4 => socket::with_peer(cx, 1).await,
        libc::SYS_recvfrom => socket::with_peer(cx, 4).await,

        _ => cx.elsewhere().await,
    }
}
