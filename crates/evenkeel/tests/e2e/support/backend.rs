//! A backend that does what its script says, byte by byte, and remembers what it got.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;

use super::message::{Broken, Message, NoLength, Reader, of_error};
use super::{DEADLINE, free_address};

type Script = dyn Fn(&mut Conversation) + Send + Sync;

/// A server on an address of its own, which it keeps while it is dead.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    script: Box<Script>,
    /// Connections that are open, to be cut.
    open: Mutex<BTreeMap<u64, TcpStream>>,
    requests: Mutex<Vec<Message>>,
    accepted: AtomicU64,
    stopping: AtomicBool,
}

/// One connection, as its script sees it.
pub(crate) struct Conversation {
    reader: Reader,
    shared: Arc<Shared>,
    /// Which connection of this backend it is, from 1.
    pub(crate) number: u64,
}

impl Backend {
    /// Runs `script` for each connection, which closes when the script returns.
    pub(crate) fn scripted(script: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        Self::scripted_at(free_address(), script)
    }

    fn scripted_at(address: SocketAddr, script: impl Fn(&mut Conversation) + Send + Sync + 'static) -> Self {
        let backend = Self {
            address,
            shared: Arc::new(Shared {
                script: Box::new(script),
                open: Mutex::default(),
                requests: Mutex::default(),
                accepted: AtomicU64::new(0),
                stopping: AtomicBool::new(false),
            }),
            accepting: Mutex::new(None),
        };
        backend.start();
        backend
    }

    /// Answers each request with these bytes and keeps the connection.
    pub(crate) fn answering(answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::answering_at(free_address(), answer)
    }

    fn answering_at(
        address: SocketAddr,
        answer: impl Fn(&Message) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_at(address, move |conversation| {
            while let Some(request) = conversation.request() {
                if !conversation.send(answer(&request)) {
                    break;
                }
            }
        })
    }

    /// Answers each request with the same bytes.
    pub(crate) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::answering(move |_| answer.clone())
    }

    /// Answers 200 with its name, in the body and in `X-Backend`.
    pub(crate) fn named(name: &'static str) -> Self {
        Self::named_at(free_address(), name)
    }

    /// The same at this address.
    pub(crate) fn named_at(address: SocketAddr, name: &'static str) -> Self {
        Self::answering_at(address, move |request| {
            let body = if request.method() == "HEAD" { "" } else { name };
            let length = name.len();
            format!("HTTP/1.1 200 OK\r\nX-Backend: {name}\r\nContent-Length: {length}\r\n\r\n{body}").into()
        })
    }

    /// Begins (again) to listen on its address.
    pub(crate) fn start(&self) {
        self.shared.stopping.store(false, Ordering::Release);
        let listener = TcpListener::bind(self.address)
            .unwrap_or_else(|e| panic!("a backend cannot listen on {}: {e}", self.address));
        let shared = self.shared.clone();
        *self.accepting.lock().unwrap() = Some(std::thread::spawn(move || accept(&listener, &shared)));
    }

    /// Stops listening; connections go on.
    pub(crate) fn refuse_new(&self) {
        let Some(thread) = self.accepting.lock().unwrap().take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes `accept`, which then sees the flag.
        let _ = TcpStream::connect(self.address);
        thread.join().expect("the accepting thread ends");
    }

    /// What the kernel does for a process that is killed: nobody listens, every connection is closed.
    pub(crate) fn kill(&self) {
        self.refuse_new();
        self.close_all();
    }

    /// The same with a reset for each connection.
    pub(crate) fn kill_with_resets(&self) {
        self.refuse_new();
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap());
        for stream in open.into_values() {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            // The script's next read ends, it drops the last handle, and that resets.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// Closes every connection.
    pub(crate) fn close_all(&self) {
        let open = std::mem::take(&mut *self.shared.open.lock().unwrap());
        for stream in open.into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Requests that were read whole (or whose head a script took), in order.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Message {
        self.requests().pop().expect("the backend got a request")
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::AcqRel) + 1;
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(DEADLINE * 2));
        let _ = stream.set_write_timeout(Some(DEADLINE * 2));
        if let Ok(handle) = stream.try_clone() {
            shared.open.lock().unwrap().insert(number, handle);
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            let mut conversation = Conversation {
                reader: Reader::new(stream),
                shared: shared.clone(),
                number,
            };
            (shared.script)(&mut conversation);
            shared.open.lock().unwrap().remove(&number);
        });
    }
}

impl Conversation {
    /// The next request, whole; `None` when there is none.
    pub(crate) fn request(&mut self) -> Option<Message> {
        let mut request = self.reader.head().ok()?;
        self.reader.body(&mut request, NoLength::Empty).ok()?;
        self.record(&request);
        Some(request)
    }

    /// The next request's head.
    pub(crate) fn head(&mut self) -> Option<Message> {
        let request = self.reader.head().ok()?;
        self.record(&request);
        Some(request)
    }

    /// The body that belongs to a head; false when it does not come whole.
    pub(crate) fn body(&mut self, request: &mut Message) -> bool {
        self.reader.body(request, NoLength::Empty).is_ok()
    }

    fn record(&self, request: &Message) {
        self.shared.requests.lock().unwrap().push(request.clone());
    }

    /// False when the other side is gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.reader.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Reads raw bytes, at most so many; none at the end.
    pub(crate) fn read_some(&mut self, most: usize) -> Vec<u8> {
        self.reader.some(most).unwrap_or_default()
    }

    /// Reads exactly so many; false when there are not.
    pub(crate) fn read_all(&mut self, count: usize) -> bool {
        let mut left = count;
        while left > 0 {
            match self.read_some(left).len() {
                0 => return false,
                n => left -= n,
            }
        }
        true
    }

    /// Waits for the other side to end the connection, taking what comes until then; how it did.
    pub(crate) fn end(&mut self) -> Broken {
        loop {
            match self.reader.some(4096) {
                Ok(bytes) if bytes.is_empty() => return Broken::Closed,
                Ok(_) => {}
                Err(error) => return of_error(&error),
            }
        }
    }

    /// Says and does nothing more until the other side closes.
    pub(crate) fn hold(&mut self) {
        while !self.read_some(4096).is_empty() {}
    }

    /// Lets the end of the script be a reset.
    pub(crate) fn reset(&mut self) {
        let _ = SockRef::from(&self.reader.stream).set_linger(Some(Duration::ZERO));
        // This handle must be the last one.
        self.shared.open.lock().unwrap().remove(&self.number);
    }
}
