//! A client of HTTP/2 that writes frames as it is told, right or wrong, and reads their headers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// `GET / HTTP/2`, `https`, `:authority: a`, without the dynamic table.
pub(crate) const GET: &[u8] = &[0x82, 0x87, 0x84, 0x01, 1, b'a'];
/// The same with POST.
pub(crate) const POST: &[u8] = &[0x83, 0x87, 0x84, 0x01, 1, b'a'];

/// A frame that was received.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A frame as it goes over the wire.
pub(crate) fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection.
pub(crate) struct Frames(TcpStream);

impl Frames {
    /// Connects, and sends preface and settings (pairs of identifier and value).
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::connect_with(address, settings, &[])
    }

    /// The same with these bytes behind, in one write.
    pub(crate) fn connect_with(address: SocketAddr, settings: &[(u16, u32)], more: &[u8]) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        let mut frames = Self(stream);
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let settings = encode(SETTINGS, 0, 0, &payload);
        let first = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], more].concat();
        frames.0.write_all(&first).expect("the preface");
        frames
    }

    /// Sends a frame; false when the other side is gone.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.write_all(&encode(kind, flags, stream, payload)).is_ok()
    }

    /// Sends these bytes, whatever they are; the other side may be gone before all are sent.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes(head[5..9].try_into().unwrap()),
            payload,
        })
    }

    /// The next frame of this kind, past all others.
    pub(crate) fn wait_for(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }
}
