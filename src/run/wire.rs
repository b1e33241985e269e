//! What the command and its guard say to each other, over a pair of sockets.
//!
//! A message is its length (u32, little endian) and that many bytes of JSON. The wish to run a
//! program carries two open descriptors beside the length (`SCM_RIGHTS`): where the program's
//! standard output and standard error go. Must not know: what is run, or why.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Descriptors that come with a wish to run.
const DESCRIPTORS: usize = 2;

/// A message longer than this is none (64 MiB).
const LONGEST: u32 = 64 << 20;

/// What the command wants.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wish {
    /// Start a program; two descriptors come along.
    Run(Start),
    /// Ask what was started under this number to end.
    Term(u64),
    /// End it.
    Kill(u64),
}

/// A program to start.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The command's number for it.
    pub(crate) id: u64,
    /// The program and its arguments.
    pub(crate) line: Vec<String>,
    /// Its working directory.
    pub(crate) folder: PathBuf,
    /// Its whole environment.
    pub(crate) env: Vec<(String, String)>,
    /// Its standard input; empty means none.
    pub(crate) input: String,
}

/// What the guard has to say.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Word {
    /// A program runs, as the leader of the process group of this number.
    Started { id: u64, group: i32 },
    /// A program and its whole group are gone; the exit code as shells have it.
    Ended { id: u64, code: u8 },
}

/// Sends one message, with descriptors or without.
pub(crate) fn send(
    mut socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|len| *len <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("the message is too long"))?;
    if descriptors.is_empty() {
        let mut whole = length.to_le_bytes().to_vec();
        whole.extend_from_slice(&body);
        return socket.write_all(&whole);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let head = length.to_le_bytes();
    let parts = [IoSlice::new(&head), IoSlice::new(&body)];
    let sent = sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    // The descriptors went with the first byte; the rest may take several writes.
    if sent < head.len() {
        socket.write_all(&head[sent..])?;
    }
    socket.write_all(&body[sent.saturating_sub(head.len())..])
}

/// The next message and what came with it; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let parts = &mut [IoSliceMut::new(&mut head)];
        match recvmsg(
            socket.as_fd(),
            parts,
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    if got == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    socket.read_exact(&mut head[got..])?;
    let length = u32::from_le_bytes(head);
    if length > LONGEST {
        return Err(io::Error::other("the message is too long"));
    }
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let (mut out, write_out) = io::pipe().expect("a pipe");
        let (_err, write_err) = io::pipe().expect("a pipe");
        let run = |id: u64, size: usize| {
            Wish::Run(Start {
                id,
                line: vec!["sh".into()],
                folder: "/".into(),
                env: vec![("A".into(), "1".into())],
                input: "x".repeat(size),
            })
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&one, &Wish::Term(7), &[]).expect("it is heard");
                // Far more than a socket's buffer holds.
                let fds = [write_out.as_fd(), write_err.as_fd()];
                send(&one, &run(8, 3 << 20), &fds).expect("it is heard");
                send(&one, &Wish::Kill(8), &[]).expect("it is heard");
            });
            let next = || receive::<Wish>(&other).expect("it is said").expect("more");
            assert_eq!(next().0, Wish::Term(7));
            let (wish, descriptors) = next();
            assert_eq!(wish, run(8, 3 << 20));
            assert_eq!(descriptors.len(), 2);
            let mut writer = std::fs::File::from(descriptors.into_iter().next().expect("two"));
            writer.write_all(b"hello").expect("the pipe is open");
            let (last, none) = next();
            assert_eq!((last, none.len()), (Wish::Kill(8), 0));
        });
        drop((one, write_out, write_err));
        assert!(receive::<Wish>(&other).expect("an end").is_none());
        let mut heard = String::new();
        out.read_to_string(&mut heard).expect("text");
        assert_eq!(heard, "hello");
    }
}
