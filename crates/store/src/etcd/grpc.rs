//! gRPC over one connection of HTTP/2: calls with one question, answered by one message or by a stream of them.
//!
//! A message is a byte that says it is not compressed, its length in four bytes, and the bytes. The status of a
//! call comes in the trailers, or in the head when there is no message at all.

use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http_types::header::{CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http_types::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use prost::Message;

use crate::bounds::MAX_MESSAGE_BYTES;

/// Bytes before a message.
const PREFIX: usize = 5;
/// How this client calls itself.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));
/// The header that carries etcd's token.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// Asks etcd to end a call when the member has no leader.
const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `RESOURCE_EXHAUSTED`: what an answer over our own bound is told as.
const TOO_LARGE: u32 = 8;

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The server says so: a code of gRPC and its words.
    Status { code: u32, message: String },
    /// The connection failed; `tls` when certificates are to blame.
    Broken { sent: bool, tls: bool, detail: String },
    /// The answer is none of gRPC's.
    Malformed(String),
}

/// Where and as whom to call.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) token: Option<HeaderValue>,
}

/// The bytes of a message as they are sent.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room: a BytesMut grows.
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

impl Caller {
    /// Asks, and takes the one message of the answer. `within` is what the server is told of the deadline.
    pub(super) async fn ask<A: Message + Default>(
        &self,
        method: &str,
        question: Bytes,
        within: Duration,
    ) -> Result<A, Failure> {
        let mut answers = self.start(method, question, Some(within)).await?;
        let answer = answers.next().await?;
        let answer = answer.ok_or_else(|| Failure::Malformed(format!("no message from {method}")))?;
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(Failure::Malformed(format!("two messages from {method}"))),
        }
    }

    /// Asks, and leaves the call open: each further message of the answer is another answer.
    pub(super) async fn stream<A: Message + Default>(
        &self,
        method: &str,
        question: Bytes,
    ) -> Result<Answers<A>, Failure> {
        self.start(method, question, None).await
    }

    async fn start<A: Message + Default>(
        &self,
        method: &str,
        question: Bytes,
        within: Option<Duration>,
    ) -> Result<Answers<A>, Failure> {
        let request = self.request(method, within)?;
        let mut sender = self
            .sender
            .clone()
            .ready()
            .await
            .map_err(|error| broken(false, &error))?;
        let sent = sender.send_request(request, false);
        let (response, mut body) = sent.map_err(|error| broken(false, &error))?;
        body.send_data(question, within.is_some())
            .map_err(|error| broken(true, &error))?;
        let response = response.await.map_err(|error| broken(true, &error))?;
        let (head, received) = response.into_parts();
        if head.status != 200 {
            return Err(Failure::Malformed(format!(
                "HTTP status {} from {method}",
                head.status.as_u16()
            )));
        }
        if let Some(failure) = status(&head.headers) {
            return Err(failure);
        }
        Ok(Answers {
            received,
            _asking: body,
            buffer: BytesMut::new(),
            message: PhantomData,
        })
    }

    fn request(&self, method: &str, within: Option<Duration>) -> Result<Request<()>, Failure> {
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.as_str())
            .path_and_query(method)
            .build()
            .map_err(|error| Failure::Malformed(error.to_string()))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(USER_AGENT, AGENT);
        fields.insert(HAS_LEADER, HeaderValue::from_static("true"));
        if let Some(token) = &self.token {
            fields.insert(TOKEN, token.clone());
        }
        // Eight digits are all that gRPC allows.
        let millis = within.map(|within| within.as_millis().clamp(1, 99_999_999));
        if let Some(value) = millis.and_then(|ms| HeaderValue::try_from(format!("{ms}m")).ok()) {
            fields.insert(GRPC_TIMEOUT, value);
        }
        Ok(request)
    }
}

/// The messages of an answer, as they come.
#[derive(Debug)]
pub(super) struct Answers<A> {
    received: RecvStream,
    /// Our side of the call, which ends with it.
    _asking: SendStream<Bytes>,
    buffer: BytesMut,
    message: PhantomData<A>,
}

impl<A: Message + Default> Answers<A> {
    /// The next message; none at a good end. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<A>, Failure> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            let Some(data) = self.received.data().await else {
                return self.end().await;
            };
            let data = data.map_err(|error| broken(true, &error))?;
            self.buffer.extend_from_slice(&data);
            // Fails for a stream that has ended, which the next read tells.
            let _ended = self.received.flow_control().release_capacity(data.len());
        }
    }

    /// A whole message out of what has come.
    fn take(&mut self) -> Result<Option<A>, Failure> {
        let Some((&[compressed, a, b, c, d], _)) = self.buffer.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if compressed != 0 {
            return Err(Failure::Malformed(
                "a compressed message, which nobody asked for".to_owned(),
            ));
        }
        if length > MAX_MESSAGE_BYTES {
            let message = format!("an answer of {length} bytes; {MAX_MESSAGE_BYTES} are taken");
            return Err(Failure::Status {
                code: TOO_LARGE,
                message,
            });
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let bytes = self.buffer.split_to(length).freeze();
        let message = A::decode(bytes).map_err(|error| Failure::Malformed(error.to_string()))?;
        Ok(Some(message))
    }

    async fn end(&mut self) -> Result<Option<A>, Failure> {
        if !self.buffer.is_empty() {
            return Err(Failure::Malformed("the answer ends within a message".to_owned()));
        }
        let trailers = self
            .received
            .trailers()
            .await
            .map_err(|error| broken(true, &error))?;
        let trailers = trailers.ok_or_else(|| Failure::Malformed("an answer without trailers".to_owned()))?;
        match (status(&trailers), trailers.contains_key("grpc-status")) {
            (Some(failure), _) => Err(failure),
            (None, true) => Ok(None),
            (None, false) => Err(Failure::Malformed("an answer without a status".to_owned())),
        }
    }
}

/// The failure that headers tell, if they tell one.
fn status(fields: &HeaderMap) -> Option<Failure> {
    let code = fields
        .get("grpc-status")?
        .to_str()
        .ok()
        .and_then(|code| code.parse().ok())
        .unwrap_or(2);
    if code == 0 {
        return None;
    }
    let message = fields
        .get("grpc-message")
        .map(|words| String::from_utf8_lossy(words.as_bytes()).into_owned());
    Some(Failure::Status {
        code,
        message: decoded(&message.unwrap_or_default()),
    })
}

/// gRPC sends a message with everything but printable ASCII as `%XX`.
fn decoded(message: &str) -> String {
    let mut bytes = Vec::with_capacity(message.len());
    let mut rest = message.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A failed connection; a stream that the server refused was surely not looked at.
pub(super) fn broken(sent: bool, error: &h2::Error) -> Failure {
    let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    let detail = error.to_string();
    Failure::Broken {
        sent: sent && !refused,
        // h2 keeps of rustls's error only the words; a member that does not like our certificate sends this.
        tls: detail.contains("received fatal alert"),
        detail,
    }
}

/// Whether TLS did not come about: a certificate that is not trusted, missing, or for another name.
pub(super) fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_status_are_read_as_they_were_written() {
        assert_eq!(decoded("etcdserver: user %22ü%25"), "etcdserver: user \"ü%");
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[test]
    fn a_message_is_framed_by_its_length() {
        let message = super::super::messages::LeaseRequest { id: 300 };
        assert_eq!(&frame(&message)[..], [0, 0, 0, 0, 3, 8, 0xac, 2]);
    }
}
