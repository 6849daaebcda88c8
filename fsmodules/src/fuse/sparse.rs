//! Loading what is about to be mapped, which may be much larger than what the server has data for: its holes are not
//! read.

use std::ops::Range;

use fuse_compat::kernel::{Client, Handle};

use super::content::{Content, PAGE};
use super::file::{SEEK_DATA, SEEK_HOLE};
use super::node::Node;
use crate::api::Errno;

/// From this size on, asking for holes costs less than reading zeros would.
const LARGE: u64 = 64 << 20;

impl Content {
    /// As [`Content::load`]. `ENOMEM` if there is more data in one place than memory has room for.
    pub async fn load_to_map(
        &self,
        node: &Node,
        client: &dyn Client,
        handle: &Handle,
        wanted: Range<u64>,
    ) -> Result<(), Errno> {
        while let Some(mut gap) = self.gap(wanted.clone()).await {
            if gap.end - gap.start >= LARGE {
                match self.skip_hole(node, client, handle, gap).await? {
                    Some(data) => gap = data,
                    None => continue,
                }
                if gap.end - gap.start >= LARGE && gap.end - gap.start > available_memory() {
                    return Err(Errno::ENOMEM);
                }
            }
            self.read_in(node, client, handle, gap).await?;
        }
        Ok(())
    }

    /// If a gap begins with a hole, that is valid from now on. If it begins with data: where that is.
    async fn skip_hole(
        &self,
        node: &Node,
        client: &dyn Client,
        handle: &Handle,
        gap: Range<u64>,
    ) -> Result<Option<Range<u64>>, Errno> {
        let load = self.begin_load(gap);
        let Range { start, end } = load.range();
        let calls = node.fs.connection.by(client);
        let hole_end = match calls.lseek(handle, start, SEEK_DATA).await {
            Ok(data) => (data / PAGE * PAGE).min(end),
            Err(Errno::ENXIO) => end,
            Err(Errno::EINTR) => return Err(Errno::EINTR),
            // A server that cannot tell; for others too, reading shows what is wrong.
            Err(_) => return Ok(Some(start..end)),
        };
        if hole_end <= start {
            let data_end = match calls.lseek(handle, start, SEEK_HOLE).await {
                Ok(hole) if hole > start => hole.checked_next_multiple_of(PAGE).unwrap_or(end),
                _ => end,
            };
            return Ok(Some(start..data_end.min(end)));
        }
        if !load.is_stale() {
            self.fill_hole(start..hole_end)?;
        }
        Ok(None)
    }
}

/// In bytes, as the kernel estimates it (proc(5)).
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |n| n.saturating_mul(1024))
}
