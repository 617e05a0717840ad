//! A server of HTTP/2 that answers with the frames it is told, and counts what it gets.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, encode};
use super::free_address;

/// `:status: 200`, as a block of fields.
pub(crate) const STATUS_200: &[u8] = &[0x88];
/// `:status: 503`, without the dynamic table.
pub(crate) const STATUS_503: &[u8] = &[0x08, 3, b'5', b'0', b'3'];

/// The error code of a stream that nobody needs any more.
pub(crate) const CANCEL: u32 = 8;
/// The error code of a stream that was not looked at.
pub(crate) const REFUSED_STREAM: u32 = 7;

/// A field of a block, as it is.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    let mut bytes = vec![0, length(name)];
    bytes.extend(name.as_bytes());
    bytes.push(length(value));
    bytes.extend(value.as_bytes());
    bytes
}

type Script = dyn Fn(&Asked) + Send + Sync;

/// A request whose head has come.
pub(crate) struct Asked {
    /// How many came before it.
    pub(crate) number: usize,
    stream: u32,
    writer: Arc<Mutex<TcpStream>>,
}

#[derive(Default)]
struct Seen {
    requests: usize,
    connections: usize,
    resets: Vec<u32>,
    open: Vec<TcpStream>,
}

struct Shared {
    script: Box<Script>,
    seen: Mutex<Seen>,
    stopping: AtomicBool,
}

/// The server.
pub(crate) struct FramesServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Asked {
    /// Sends a head with this block of fields, and a body; the stream ends with it.
    pub(crate) fn answer(&self, block: &[u8], body: &[u8]) {
        self.send(HEADERS, END_HEADERS, block);
        self.send(DATA, END_STREAM, body);
    }

    /// Sends a head that is the whole response.
    pub(crate) fn head_only(&self, block: &[u8]) {
        self.send(HEADERS, END_HEADERS | END_STREAM, block);
    }

    /// Ends the stream with this code.
    pub(crate) fn reset(&self, code: u32) {
        self.send(RST_STREAM, 0, &code.to_be_bytes());
    }

    /// Ends the connection; the last stream that was looked at is this one if it was `looked` at, or the one
    /// before it.
    pub(crate) fn leave(&self, looked: bool) {
        let last = if looked {
            self.stream
        } else {
            self.stream.saturating_sub(2)
        };
        let payload = [last.to_be_bytes(), [0; 4]].concat();
        let mut writer = self.writer.lock().unwrap();
        let _ = writer.write_all(&encode(GOAWAY, 0, 0, &payload));
        let _ = writer.shutdown(Shutdown::Write);
    }

    /// Sends a frame of the stream; nobody may be there to take it.
    pub(crate) fn send(&self, kind: u8, flags: u8, payload: &[u8]) {
        let frame = encode(kind, flags, self.stream, payload);
        let _ = self.writer.lock().unwrap().write_all(&frame);
    }
}

impl FramesServer {
    /// Runs `script` for the head of each request.
    pub(crate) fn start(script: impl Fn(&Asked) + Send + Sync + 'static) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("a listener");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            seen: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepted = shared.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepted.stopping.load(SeqCst) {
                    return;
                }
                let shared = accepted.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self {
            address,
            shared,
            accepting: Some(accepting),
        }
    }

    /// Requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.seen.lock().unwrap().requests
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.seen.lock().unwrap().connections
    }

    /// Codes with which streams were reset by the other side.
    pub(crate) fn resets(&self) -> Vec<u32> {
        self.shared.seen.lock().unwrap().resets.clone()
    }
}

impl Drop for FramesServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        // Wakes `accept`, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepting.take() {
            let _ = thread.join();
        }
        for stream in &self.shared.seen.lock().unwrap().open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// One connection, to its end.
fn serve(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    let writer = stream.try_clone().ok()?;
    {
        let mut seen = shared.seen.lock().unwrap();
        seen.open.push(stream.try_clone().ok()?);
    }
    let writer = Arc::new(Mutex::new(writer));
    stream.read_exact(&mut [0; 24]).ok()?;
    shared.seen.lock().unwrap().connections += 1;
    writer
        .lock()
        .unwrap()
        .write_all(&encode(SETTINGS, 0, 0, &[]))
        .ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let [_, _, _, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        match kind {
            // What is said back to settings and pings is the same frame, acknowledged.
            SETTINGS | PING if flags & 1 == 0 => {
                let answer = if kind == PING { payload } else { Vec::new() };
                writer
                    .lock()
                    .unwrap()
                    .write_all(&encode(kind, 1, 0, &answer))
                    .ok()?;
            }
            HEADERS if flags & END_HEADERS != 0 => {
                let number = {
                    let mut seen = shared.seen.lock().unwrap();
                    seen.requests += 1;
                    seen.requests - 1
                };
                (shared.script)(&Asked {
                    number,
                    stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                    writer: writer.clone(),
                });
            }
            RST_STREAM => {
                let code = u32::from_be_bytes(payload.try_into().ok()?);
                shared.seen.lock().unwrap().resets.push(code);
            }
            _ => {}
        }
    }
}
