//! Checks over HTTP/2: an ordinary request, or a call of gRPC's health service.
//!
//! The service is one method with one text in and one number out, so its two messages are written and read here
//! by hand (`grpc.health.v1`, <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).

use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, SendRequest};
use http_types::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TE, USER_AGENT};
use http_types::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use memchr::memmem;
use model::config::{GrpcCheck, HttpCheck};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{BODY_LIMIT, CLOSED_BEFORE_RESPONSE, Failed, expect_status, quoted};

/// Bytes of a header list; the default of the library would be 16 MiB.
const HEADER_LIMIT: u32 = 64 * 1024;

/// Makes an HTTP check over a connection that was just opened.
pub(super) async fn ask<S>(
    stream: S,
    scheme: &str,
    address: SocketAddr,
    check: &HttpCheck,
) -> Result<String, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    over(stream, async |sender| http(sender, scheme, address, check).await).await
}

/// Calls the health service over a connection that was just opened.
pub(super) async fn call<S>(
    stream: S,
    scheme: &str,
    address: SocketAddr,
    check: &GrpcCheck,
) -> Result<String, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    over(stream, async |sender| grpc(sender, scheme, address, check).await).await
}

/// Drives the connection for as long as `work` takes.
async fn over<S>(
    stream: S,
    work: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<String, Failed>,
) -> Result<String, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .max_header_list_size(HEADER_LIMIT)
        .initial_window_size(u32::try_from(BODY_LIMIT).unwrap_or(HEADER_LIMIT));
    let (sender, connection) = builder.handshake(stream).await.map_err(|e| failed(&e))?;
    let mut work = pin!(work(sender));
    tokio::select! {
        biased;
        result = &mut work => result,
        // What came before the end may still be a whole answer.
        _ = connection => work.await,
    }
}

fn failed(error: &h2::Error) -> Failed {
    match error.reason() {
        Some(reason) if !error.is_io() => Failed::Backend(format!("HTTP/2 error: {}", reason.description())),
        _ => Failed::backend(CLOSED_BEFORE_RESPONSE),
    }
}

async fn http(
    sender: SendRequest<Bytes>,
    scheme: &str,
    address: SocketAddr,
    check: &HttpCheck,
) -> Result<String, Failed> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let method = Method::from_bytes(check.method.as_bytes()).map_err(|_| malformed())?;
    let mut request = request(method, scheme, &host, &check.path)?;
    for (name, value) in &check.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| malformed())?;
        request.headers_mut().append(name, value);
    }
    let (head, mut body) = send(sender, request, None).await?;
    let status = head.status().as_u16();
    expect_status(check, status)?;
    let wanted = check.body_contains.as_deref().unwrap_or_default();
    let bytes = read(&mut body).await?;
    if !wanted.is_empty() && memmem::find(&bytes, wanted.as_bytes()).is_none() {
        return Err(Failed::Backend(format!("body lacks {}", quoted(wanted))));
    }
    Ok(format!("status {status}"))
}

/// A check that the config allows but the library does not: no backend is to blame.
fn malformed() -> Failed {
    Failed::Here("the check cannot be sent over HTTP/2".to_owned())
}

async fn grpc(
    sender: SendRequest<Bytes>,
    scheme: &str,
    address: SocketAddr,
    check: &GrpcCheck,
) -> Result<String, Failed> {
    let mut request = request(
        Method::POST,
        scheme,
        &address.to_string(),
        "/grpc.health.v1.Health/Check",
    )?;
    let fields = request.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(TE, HeaderValue::from_static("trailers"));
    let (head, mut body) = send(sender, request, Some(message(&check.service))).await?;
    if head.status() != 200 {
        return Err(Failed::Backend(format!("status {}", head.status().as_u16())));
    }
    let bytes = match head.headers().contains_key("grpc-status") {
        true => Vec::new(),
        false => read(&mut body).await?,
    };
    let trailers = body.trailers().await.map_err(|e| failed(&e))?;
    let status = grpc_status(trailers.as_ref().unwrap_or_else(|| head.headers()));
    match (status, serving_status(&bytes)) {
        (Some(0), Some(1)) => Ok("SERVING".to_owned()),
        (Some(0), Some(2)) => Err(Failed::backend("NOT_SERVING")),
        (Some(0), Some(3)) => Err(Failed::backend("SERVICE_UNKNOWN")),
        (Some(0), _) => Err(Failed::backend("malformed answer of the health service")),
        (Some(5), _) => Err(Failed::Backend(format!(
            "service {} is not known",
            quoted(&check.service)
        ))),
        (Some(12), _) => Err(Failed::backend(
            "the server has no health service (gRPC status 12)",
        )),
        (Some(code), _) => Err(Failed::Backend(format!("gRPC status {code}"))),
        (None, _) => Err(Failed::backend("no gRPC status in the answer")),
    }
}

fn request(method: Method, scheme: &str, host: &str, path: &str) -> Result<Request<()>, Failed> {
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(host)
        .path_and_query(path)
        .build()
        .map_err(|_| malformed())?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
    Ok(request)
}

async fn send(
    sender: SendRequest<Bytes>,
    mut request: Request<()>,
    message: Option<Vec<u8>>,
) -> Result<(Response<()>, RecvStream), Failed> {
    let mut sender = sender.ready().await.map_err(|e| failed(&e))?;
    if request.method() == Method::POST && message.is_none() {
        request
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let (response, mut body) = sender
        .send_request(request, message.is_none())
        .map_err(|e| failed(&e))?;
    if let Some(message) = message {
        body.send_data(message.into(), true).map_err(|e| failed(&e))?;
    }
    let (head, body) = response.await.map_err(|e| failed(&e))?.into_parts();
    let mut answer = Response::new(());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    Ok((answer, body))
}

/// Reads the body to its end or to [`BODY_LIMIT`].
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    while bytes.len() < BODY_LIMIT
        && let Some(data) = body.data().await
    {
        let data = data.map_err(|_| Failed::backend("closed within the body"))?;
        let room = BODY_LIMIT - bytes.len();
        bytes.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        // Fails for a stream that is over, whose window nobody needs.
        let _ = body.flow_control().release_capacity(data.len());
    }
    Ok(bytes)
}

fn grpc_status(fields: &HeaderMap) -> Option<u32> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckRequest { service }` in gRPC's frame. A service is far shorter than 2^28 bytes: the config bounds it.
fn message(service: &str) -> Vec<u8> {
    let mut proto = Vec::new();
    if !service.is_empty() {
        proto.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            proto.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        proto.push(length as u8);
        proto.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(proto.len()).unwrap_or(0).to_be_bytes());
    framed.extend_from_slice(&proto);
    framed
}

/// `status` of the `HealthCheckResponse` in this frame; 0 when it is left out.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (head, proto) = framed.split_at_checked(5)?;
    let length = u32::from_be_bytes(head.get(1..5)?.try_into().ok()?);
    let mut rest = proto.get(..usize::try_from(length).ok()?)?;
    if head.first() != Some(&0) {
        return None;
    }
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_the_service() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(200));
        assert_eq!(long.get(..8), Some(&[0, 0, 0, 0, 203, 0x0a, 0xc8, 1][..]));
    }

    #[test]
    fn the_answer_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(serving_status(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(serving_status(&[0, 0, 0, 0, 0]), Some(0));
        // Fields from a later version are passed over.
        assert_eq!(serving_status(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1]), Some(1));
        for bad in [
            &[][..],
            &[0, 0, 0, 0, 9, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 1, 8],
            &[0, 0, 0, 0, 1, 15],
        ] {
            assert_eq!(serving_status(bad), None, "{bad:?}");
        }
    }
}
