//! Writing to a regular file (`fs/fuse/file.c`, `fuse_file_write_iter`).

use bytes::Bytes;
use fuse_compat::wire::abi::{FopenFlags, InitFlags, WRITE_KILL_SUIDGID};

use super::background::Background;
use super::content::PAGE;
use super::file::FuseFile;
use super::node::DATA;
use super::setattr::lock_owner;
use crate::api::{AttrMask, Cx, Errno};

impl FuseFile {
    /// How much of it a file may take there (`generic_write_checks`).
    fn allowed(&self, cx: Cx<'_>, at: u64, len: usize) -> Result<usize, Errno> {
        let limit = cx.caller.file_size_limit().min(i64::MAX as u64);
        if at >= limit && len > 0 {
            return Err(cx.caller.beyond_file_size_limit());
        }
        Ok(len.min(limit.saturating_sub(at) as usize))
    }

    pub(super) async fn write_at(&self, cx: Cx<'_>, at: u64, append: bool, data: Bytes) -> Result<(usize, u64), Errno> {
        self.node.check()?;
        if self.is_stream() {
            return self.write_stream(cx, data).await;
        }
        let node = &self.node;
        let cached = node.owns_size() && !self.is_direct();
        if cached {
            node.valid(cx.caller, Some(self.fh()), AttrMask::SIZE | AttrMask::MODE)
                .await?;
        }
        let alone = node.write_lock.lock().await;
        let at = match append {
            true => node.known().size,
            false => at,
        };
        let len = self.allowed(cx, at, data.len())?;
        if len == 0 {
            return Ok((0, at));
        }
        node.before_write(cx).await?;
        if !self.has(FopenFlags::DIRECT_IO) {
            node.touch();
        }
        let data = data.slice(..len);
        let done = match cached && !self.server_clears_set_id(cx) {
            true => self.write_cached(cx, at, data).await?,
            false => self.write_through(cx, at, data).await?,
        };
        drop(alone);
        if node.fs.synchronous {
            self.sync(cx, false).await?;
        }
        Ok((done, at + done as u64))
    }

    /// Has the file set-id bits that the server clears when it sees a write?
    fn server_clears_set_id(&self, cx: Cx<'_>) -> bool {
        let by_flag = self.node.fs.negotiated(InitFlags::HANDLE_KILLPRIV_V2);
        by_flag && cx.caller.ids().fsuid != 0 && self.node.has_set_id()
    }

    /// The server will hear of it.
    async fn write_cached(&self, cx: Cx<'_>, at: u64, data: Bytes) -> Result<usize, Errno> {
        let (content, mut end) = (self.pages()?, at + data.len() as u64);
        while let Some(page) = content.missing_edge(at..end) {
            let start = page.start;
            let Some(gap) = content.gap(page).await else { continue };
            match content.load(&self.node, cx.caller, &self.handle, gap).await {
                // The pages before the last one can be written.
                Err(_) if start > at => end = start,
                loaded => loaded?,
            }
        }
        let data = data.slice(..(end - at) as usize);
        let size = self.node.known().size.max(end);
        content.write_later(at, &data, size)?;
        content.changed_by.set(Background::of(cx.caller));
        self.node.wrote_until(size);
        self.node.balance(content).await;
        Ok(data.len())
    }

    async fn write_through(&self, cx: Cx<'_>, at: u64, data: Bytes) -> Result<usize, Errno> {
        let direct = self.is_direct();
        if direct {
            self.node.settle(cx.caller).await?;
        }
        let most = self.node.fs.connection.max_write() as usize;
        let owner = direct.then(|| lock_owner(cx.caller.files_id()));
        let kill = if cx.caller.ids().fsuid == 0 {
            0
        } else {
            WRITE_KILL_SUIDGID
        };
        let (mut done, len) = (0, data.len());
        while done < len {
            let offset = at + done as u64;
            let mut piece = (len - done).min(most);
            if !direct && piece < len - done {
                // Pieces after the first begin on a page.
                piece -= ((offset + piece as u64) % PAGE) as usize;
            }
            let piece = data.slice(done..done + piece);
            let written = self
                .node
                .calls(cx)
                .write(&self.handle, offset, piece.clone(), kill, owner)
                .await;
            let n = match written {
                Err(_) if done > 0 => break,
                n => n?,
            };
            self.written(offset, &piece[..n], direct);
            done += n;
            if n < piece.len() {
                break;
            }
        }
        if done == 0 { Err(Errno::EIO) } else { Ok(done) }
    }

    /// The server has taken it.
    fn written(&self, at: u64, data: &[u8], direct: bool) {
        let end = at + data.len() as u64;
        self.node.grown_to(end);
        if let Some(content) = self.node.content() {
            if !direct || content.is_mapped() {
                let _ = content.put(at, data, self.node.known().size);
            } else {
                content.invalidate(at..end);
            }
        }
    }

    async fn write_stream(&self, cx: Cx<'_>, data: Bytes) -> Result<(usize, u64), Errno> {
        let at = if self.has(FopenFlags::STREAM) {
            0
        } else {
            self.position.get()
        };
        let len = data.len().min(self.node.fs.connection.max_write() as usize);
        let owner = Some(lock_owner(cx.caller.files_id()));
        let n = self
            .node
            .calls(cx)
            .write(&self.handle, at, data.slice(..len), 0, owner)
            .await?;
        self.position.set(at + n as u64);
        self.node.invalidate(DATA);
        self.readiness_changed();
        Ok((n, at + n as u64))
    }
}
