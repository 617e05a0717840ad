//! A client that sends exactly the bytes it is told and reads what comes back.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::DEADLINE;
use super::message::{Broken, Message, NoLength, Reader};

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: Reader,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"))
    }

    /// The same where nobody may be there any more.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&address, DEADLINE).map(Self::on)
    }

    /// A connection that reads at most about this much ahead of its user.
    pub(crate) fn with_small_window(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("a receive buffer");
        socket.connect(&address.into()).expect("a connection");
        Self::on(socket.into())
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.set_write_timeout(Some(DEADLINE)).expect("an option");
        Self {
            reader: Reader::new(stream),
        }
    }

    /// Whether the connection is taken at all.
    pub(crate) fn refused(address: SocketAddr) -> bool {
        TcpStream::connect_timeout(&address, DEADLINE)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the bytes can be sent");
        self
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// A GET on this connection.
    pub(crate) fn get(&mut self, target: &str) -> Message {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n\r\n"))
    }

    /// Sends a request and reads its response.
    pub(crate) fn ask(&mut self, request: &str) -> Message {
        self.send(request).response()
    }

    /// The next final response, with its interim ones.
    pub(crate) fn response(&mut self) -> Message {
        match self.try_response() {
            Ok(response) => response,
            Err(broken) => panic!("no response: {broken:?}"),
        }
    }

    pub(crate) fn try_response(&mut self) -> Result<Message, Broken> {
        let mut interim = Vec::new();
        let mut response = loop {
            let response = self.reader.head()?;
            if response.status() >= 200 {
                break response;
            }
            interim.push(response.head);
        };
        response.interim = interim;
        if !matches!(response.status(), 204 | 304) {
            self.reader.body(&mut response, NoLength::UntilClose)?;
        }
        Ok(response)
    }

    /// The next head, interim or final, without a body.
    pub(crate) fn head(&mut self) -> Message {
        match self.reader.head() {
            Ok(head) => head,
            Err(broken) => panic!("no head: {broken:?}"),
        }
    }

    /// The body of the response with this head.
    pub(crate) fn body(&mut self, response: &mut Message) -> Result<(), Broken> {
        self.reader.body(response, NoLength::UntilClose)
    }

    /// Says that nothing more is sent.
    pub(crate) fn finish_sending(&mut self) {
        self.reader
            .stream
            .shutdown(Shutdown::Write)
            .expect("a half close");
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.reader.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("an option");
    }

    /// Waits for the other side to end the connection; how it did.
    pub(crate) fn end(&mut self) -> Broken {
        match self.reader.head() {
            Err(broken) => broken,
            Ok(message) => panic!("there was one more message: {message:?}"),
        }
    }

    /// Whether the other side ends the connection, without or with a reset.
    pub(crate) fn is_ended(&mut self) -> bool {
        matches!(self.end(), Broken::Closed | Broken::Reset)
    }

    /// Whether something has come that was not read yet.
    pub(crate) fn has_answer(&self) -> bool {
        let stream = &self.reader.stream;
        stream.set_nonblocking(true).expect("an option");
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false).expect("an option");
        seen.is_ok()
    }

    /// Reads some raw bytes.
    pub(crate) fn read_some(&mut self, most: usize) -> Vec<u8> {
        self.reader.some(most).expect("bytes")
    }
}
