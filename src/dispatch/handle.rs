//! File handles. open_by_handle_at(2) needs privileges, but many compare handles and mount ids.

use fsmodules::api::Errno;
use zerocopy::IntoBytes;

use crate::trap::Reply;

use super::Ctx;
use super::context::Target;

const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
const AT_SYMLINK_FOLLOW: u32 = libc::AT_SYMLINK_FOLLOW as u32;
/// AT_HANDLE_MNT_ID_UNIQUE, AT_HANDLE_FID: a wide mount id; any identifier will do.
const AT_HANDLE_MNT_ID_UNIQUE: u32 = 1;
const AT_HANDLE_FID: u32 = 0x200;

/// `FILEID_INO64_GEN`, as the kernel's FUSE makes them: a node and a generation.
const HANDLE_TYPE: i32 = 0x81;
const HANDLE_LEN: u32 = 12;
/// `MAX_HANDLE_SZ`
const MAX_HANDLE_LEN: u32 = 128;

/// name_to_handle_at(2): (dirfd, path, handle, mount id, flags). The handle is a length, a type and the bytes.
pub async fn name_to_handle_at(cx: &Ctx) -> Result<Reply, Errno> {
    let flags = cx.int(4);
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_FOLLOW | AT_HANDLE_MNT_ID_UNIQUE | AT_HANDLE_FID) != 0 {
        return Err(Errno::EINVAL);
    }
    let follow = flags & AT_SYMLINK_FOLLOW != 0;
    let place = match cx.target_at(cx.fd(0), &cx.path(1)?, flags, follow).await? {
        Target::Native => return Ok(Reply::Passthrough),
        Target::Host(path) => return cx.with_paths(&[(1, &path)]).await,
        Target::Virtual(place) => place,
    };
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
    cx.write_value(handle, &HANDLE_LEN)?;
    if room < HANDLE_LEN {
        return Err(Errno::EOVERFLOW);
    }
    cx.write_value(handle + 4, &HANDLE_TYPE)?;
    let node = place.node().id();
    cx.write(handle + 8, [node as u32, (node >> 32) as u32, 0].as_bytes())?;
    Ok(Reply::Return(0))
}
