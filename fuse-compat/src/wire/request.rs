//! Requests on their way to a server.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use zerocopy::{Immutable, IntoBytes};

use super::abi::{InHeader, Opcode};

/// A message as the server reads it: the parts in order.
pub type Message = SmallVec<[Bytes; 2]>;

/// How long the payload of a successful reply may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Exactly(usize),
    UpTo(usize),
    /// There is no reply, and one would be an error.
    Nothing,
}

/// What is asked, without the header.
#[derive(Clone, Debug)]
pub struct Request {
    pub opcode: Opcode,
    body: BytesMut,
    data: Bytes,
    pub expect: Expect,
}

impl Request {
    /// Asks for something; a reply carries nothing unless [`Request::expect`] says so.
    pub fn new(opcode: Opcode) -> Request {
        Request {
            opcode,
            body: BytesMut::new(),
            data: Bytes::new(),
            expect: Expect::Exactly(0),
        }
    }

    /// Appends a structure.
    pub fn arg(mut self, arg: &(impl IntoBytes + Immutable)) -> Request {
        self.body.extend_from_slice(arg.as_bytes());
        self
    }

    /// Appends the first bytes of a structure, as servers of old versions know it.
    pub fn arg_prefix(mut self, arg: &(impl IntoBytes + Immutable), len: usize) -> Request {
        self.body.extend_from_slice(&arg.as_bytes()[..len]);
        self
    }

    /// Appends a string with its NUL.
    pub fn name(mut self, name: &[u8]) -> Request {
        self.body.extend_from_slice(name);
        self.body.extend_from_slice(&[0]);
        self
    }

    /// Appends data, which is not copied.
    pub fn data(mut self, data: Bytes) -> Request {
        self.data = data;
        self
    }

    pub fn expect(mut self, expect: Expect) -> Request {
        self.expect = expect;
        self
    }

    /// Length of the whole message.
    pub fn message_len(&self) -> usize {
        size_of::<InHeader>() + self.body.len() + self.data.len()
    }

    /// The message, with its header's length filled in.
    pub fn message(&self, mut header: InHeader) -> Message {
        header.len = self.message_len() as u32;
        header.opcode = self.opcode as u32;
        let mut head = BytesMut::with_capacity(size_of::<InHeader>() + self.body.len());
        head.extend_from_slice(header.as_bytes());
        head.extend_from_slice(&self.body);
        let mut message = Message::new();
        message.push(head.freeze());
        if !self.data.is_empty() {
            message.push(self.data.clone());
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::abi::{MkdirIn, WriteIn};

    #[test]
    fn parts_come_in_order() {
        let request = Request::new(Opcode::MKDIR)
            .arg(&MkdirIn { mode: 0o755, umask: 0 })
            .name(b"d");
        let message = request.message(InHeader::default());
        assert_eq!(message.len(), 1);
        assert_eq!(message[0].len(), 40 + 8 + 2);
        assert_eq!(&message[0][..4], 50u32.to_ne_bytes());
        assert_eq!(&message[0][48..], b"d\0");
    }

    #[test]
    fn data_is_not_copied() {
        let data = Bytes::from(vec![1u8; 100]);
        let message = Request::new(Opcode::WRITE)
            .arg(&WriteIn::default())
            .data(data.clone())
            .message(InHeader::default());
        assert_eq!(message[1].as_ptr(), data.as_ptr());
    }
}
