//! File handles. open_by_handle_at(2) needs privileges, but many compare handles and mount ids.

use fsmodules::api::{Errno, FileKind};
use zerocopy::IntoBytes;

use crate::trap::Reply;
use crate::view::VirtualPlace;

use super::Ctx;
use super::context::Target;

const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const AT_SYMLINK_FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;
/// AT_HANDLE_MNT_ID_UNIQUE, AT_HANDLE_FID: a wide mount id; any identifier will do.
const AT_HANDLE_MNT_ID_UNIQUE: u32 = 1;
const AT_HANDLE_FID: u32 = 0x200;
/// The handle tells the directory too.
const AT_HANDLE_CONNECTABLE: u32 = 2;

/// `FILEID_INO64_GEN`, as the kernel's FUSE makes them: a node and a generation.
const NODE: i32 = 0x81;
/// `FILEID_INO64_GEN_PARENT`: those of its directory follow.
const NODE_AND_PARENT: i32 = 0x82;
/// `FILEID_IS_CONNECTABLE` and `FILEID_IS_DIR`.
const IS_CONNECTABLE: i32 = 0x1_0000;
const IS_DIRECTORY: i32 = 0x2_0000;
/// `MAX_HANDLE_SZ`
const MAX_HANDLE_LEN: u32 = 128;

/// name_to_handle_at(2): (dirfd, path, handle, mount id, flags). The handle is a length, a type and the bytes.
pub async fn name_to_handle_at(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(4);
    let contrary = AT_HANDLE_FID | AT_HANDLE_CONNECTABLE;
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_FOLLOW | AT_HANDLE_MNT_ID_UNIQUE | contrary) != 0
        || flags & contrary == contrary
    {
        return Err(Errno::EINVAL);
    }
    let follow = flags & AT_SYMLINK_FOLLOW != 0;
    let place = match cx.target_at(cx.fd(0), &cx.path(1)?, flags, follow).await? {
        Target::Native => return Ok(Reply::Passthrough),
        Target::Host(path) => return cx.with_paths(&[(1, &path)]).await,
        Target::Virtual(place) => place,
    };
    if flags & AT_HANDLE_FID == 0 && place.mount.fs().is_some_and(|fs| !fs.exports()) {
        return Err(Errno::EOPNOTSUPP);
    }
    let (handle, mount) = (cx.arg(2), cx.arg(3));
    let room: u32 = cx.read_value(handle)?;
    if room > MAX_HANDLE_LEN {
        return Err(Errno::EINVAL);
    }
    if flags & AT_HANDLE_MNT_ID_UNIQUE != 0 {
        cx.write_value(mount, &place.mount.unique_id())?;
    } else {
        cx.write_value(mount, &place.mount.id())?;
    }
    let (kind, words) = encode(&place, flags & AT_HANDLE_CONNECTABLE != 0);
    let len = size_of_val(&words[..]) as u32;
    cx.write_value(handle, &len)?;
    if room < len {
        return Err(Errno::EOVERFLOW);
    }
    cx.write_value(handle + 4, &kind)?;
    cx.write(handle + 8, words.as_bytes())?;
    Ok(Reply::Return(0))
}

/// A handle's type and its bytes.
fn encode(place: &VirtualPlace, connectable: bool) -> (i32, Vec<u32>) {
    let of = |node: u64| [node as u32, (node >> 32) as u32, 0];
    let mut words = of(place.node().id()).to_vec();
    if !connectable {
        return (NODE, words);
    }
    if place.node().kind() == FileKind::Directory {
        return (NODE | IS_CONNECTABLE | IS_DIRECTORY, words);
    }
    let parent = place.dentry.parent();
    words.extend(of(parent.as_ref().unwrap_or(&place.dentry).node().id()));
    (NODE_AND_PARENT | IS_CONNECTABLE, words)
}
