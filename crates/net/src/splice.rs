//! Moving bytes from socket to socket inside the kernel (`splice(2)`), through a pipe, without copying them to
//! user space. Worth it for large bodies only: each hop costs two system calls.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

/// Size asked for the pipe; the kernel may give less to a process without privileges.
const PIPE_BYTES: i32 = 1024 * 1024;

/// A pipe with a count of what is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// Makes an empty pipe, not blocking.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // A refusal leaves the default of 64 KiB, which works as well, with more calls.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Self { read, write, held: 0 })
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `limit` bytes from `source` into the pipe. `Ok(0)` is the end of the source.
    ///
    /// # Errors
    /// `WouldBlock` when the source has nothing or the pipe is full; else the source's error.
    pub fn fill(&mut self, source: &impl AsFd, limit: usize) -> io::Result<usize> {
        let moved = splice(source, None, &self.write, None, limit, flags())?;
        self.held += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds to `sink`.
    ///
    /// # Errors
    /// `WouldBlock` when the sink is full; else the sink's error.
    pub fn drain(&mut self, sink: &impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, sink, None, self.held, flags())?;
        self.held -= moved.min(self.held);
        Ok(moved)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// What comes of filling once there is something, or the end: over loopback too that may be a moment later.
    fn fill(pipe: &mut Pipe, source: &TcpStream) -> usize {
        loop {
            match pipe.fill(source, 100) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(1)); // condition poll
                }
                filled => return filled.unwrap(),
            }
        }
    }

    #[test]
    fn bytes_cross_from_socket_to_socket_and_the_end_is_seen() {
        let (mut from, from_far) = pair();
        let (to_far, mut to) = pair();
        let mut pipe = Pipe::new().unwrap();
        from.write_all(b"hello").unwrap();
        assert_eq!(fill(&mut pipe, &from_far), 5);
        assert_eq!(pipe.held(), 5);
        assert_eq!(pipe.drain(&to_far).unwrap(), 5);
        assert_eq!(pipe.held(), 0);
        let mut got = [0; 5];
        to.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(from);
        assert_eq!(fill(&mut pipe, &from_far), 0);
    }
}
