//! Where the lines of the access log end: standard output, a file, or a syslog daemon. Used by the writer's thread
//! alone, which may block here for as long as it takes.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use model::config::LogTarget;

use super::clock::WallClock;

/// Severity `info` of the facility `local0` and version 1 (RFC 5424 section 6.2).
const PRIORITY: &[u8] = b"<134>1 ";

/// Pause before trying again where whoever started us made standard output non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// An open destination.
#[derive(Debug)]
pub(super) enum Destination {
    /// Lines as they are.
    Stream(Stream),
    /// One datagram a line.
    Syslog(Syslog),
}

/// Standard output or a file.
#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    /// The last write ended within a line: the next one begins with a line's end.
    torn: bool,
}

/// A syslog daemon.
#[derive(Debug)]
pub(super) struct Syslog {
    socket: Datagrams,
    /// Everything between a message's time and its line.
    origin: String,
    message: Vec<u8>,
}

#[derive(Debug)]
enum Datagrams {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Destination {
    /// # Errors
    /// Whatever the system says.
    pub(super) fn open(target: &LogTarget) -> io::Result<Self> {
        let stream = |file| Self::Stream(Stream { file, torn: false });
        let syslog = |socket| Self::Syslog(Syslog::new(socket));
        Ok(match target {
            // A handle of our own: nothing is kept in the buffer that `println!` shares.
            LogTarget::Stdout => stream(io::stdout().as_fd().try_clone_to_owned()?.into()),
            LogTarget::File(path) => stream(append_to(path)?),
            LogTarget::Syslog(path) => syslog(unix(path)?),
            LogTarget::SyslogUdp(address) => syslog(udp(address)?),
        })
    }

    /// Writes whole lines: how many of them were lost, and why.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        match self {
            Self::Stream(stream) => stream.write(lines),
            Self::Syslog(syslog) => syslog.write(lines),
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // Lines name clients: not for everybody's eyes.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o640)
        .open(path)
}

fn unix(path: &Path) -> io::Result<Datagrams> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(Datagrams::Unix(socket))
}

fn udp(address: &str) -> io::Result<Datagrams> {
    let mut last = ErrorKind::NotFound.into();
    for address in address.to_socket_addrs()? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        match socket.connect(address) {
            Ok(()) => return Ok(Datagrams::Udp(socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Stream {
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        if self.torn {
            self.all(b"\n").map_err(|(_, error)| (lines_in(lines), error))?;
            self.torn = false;
        }
        self.all(lines).map_err(|(written, error)| {
            let (whole, lost) = lines.split_at(written);
            self.torn = whole.last().is_some_and(|last| *last != b'\n');
            (lines_in(lost), error)
        })
    }

    /// Writes all, or says how much was written and what hinders the rest.
    fn all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => return Err((at, ErrorKind::WriteZero.into())),
                Ok(n) => at += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
                Err(error) => return Err((at, error)),
            }
        }
        Ok(())
    }
}

impl Syslog {
    fn new(socket: Datagrams) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host: String = host
            .trim()
            .chars()
            .filter(char::is_ascii_graphic)
            .take(255)
            .collect();
        let host = if host.is_empty() { "-" } else { &host };
        Self {
            socket,
            origin: format!(" {host} evenkeel {} access - ", std::process::id()),
            message: Vec::new(),
        }
    }

    /// One message a line, each with the time of the write.
    fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let clock = WallClock::default();
        clock.set(0);
        let mut lost = (0, None);
        for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            self.message.clear();
            self.message.extend_from_slice(PRIORITY);
            clock.write_rfc3339(&mut self.message, clock.unix_us(0));
            self.message.extend_from_slice(self.origin.as_bytes());
            self.message.extend_from_slice(line);
            // A second try: over UDP an error may tell of the message before this one.
            if let Err(error) = self
                .socket
                .send(&self.message)
                .or_else(|_| self.socket.send(&self.message))
            {
                lost = (lost.0 + 1, Some(error));
            }
        }
        match lost {
            (count, Some(error)) => Err((count, error)),
            _ => Ok(()),
        }
    }
}

impl Datagrams {
    fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.send(message),
            Self::Udp(socket) => socket.send(message),
        }
    }
}

/// Lines that end in `bytes`.
fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// After a write that a full disk cut within a line, the next line stands on a line of its own.
    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let path = std::env::temp_dir().join(format!("evenkeel-torn-{}", std::process::id()));
        std::fs::write(&path, "half a li").unwrap();
        let mut stream = Stream {
            file: append_to(&path).unwrap(),
            torn: true,
        };
        stream.write(b"one\n").unwrap();
        stream.write(b"two\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text, "half a li\none\ntwo\n");
    }

    #[test]
    fn what_a_full_disk_loses_is_counted_by_lines() {
        let mut stream = Stream {
            file: append_to(Path::new("/dev/full")).unwrap(),
            torn: false,
        };
        let (lost, error) = stream.write(b"one\ntwo\n").unwrap_err();
        assert_eq!((lost, error.kind()), (2, ErrorKind::StorageFull));
        assert!(!stream.torn, "nothing of a line is there");
    }
}
