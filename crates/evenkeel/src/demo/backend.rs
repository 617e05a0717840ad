//! The demo's sample backend: a small HTTP/1.1 server on plain threads, in a process of its own so that a person
//! can kill it. It lives no longer than the demo: it ends when its standard input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Context;

use crate::cli::DemoBackendArgs;

/// Connections served at once; more are closed.
const MAX_CONNECTIONS: usize = 512;
/// Bytes of a request's header.
const MAX_HEADER_BYTES: u64 = 64 * 1024;

/// What all connections share.
struct Backend {
    name: String,
    address: String,
    requests: AtomicU64,
    connections: AtomicUsize,
}

pub(crate) fn run(args: DemoBackendArgs) -> anyhow::Result<ExitCode> {
    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    println!("{address}");
    std::thread::spawn(|| {
        // Whatever comes, the end of it is the end of the demo.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    let backend = Arc::new(Backend {
        name: args.name,
        address: address.to_string(),
        requests: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
    });
    for stream in listener.incoming() {
        // An `accept` that fails concerns that client alone.
        let Ok(stream) = stream else { continue };
        if backend.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            backend.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let backend = backend.clone();
        std::thread::spawn(move || {
            // A client that goes away is no error of a server.
            let _ = serve(&backend, &stream);
            backend.connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
    Ok(ExitCode::SUCCESS)
}

/// Serves requests on one connection until it closes.
fn serve(backend: &Backend, stream: &TcpStream) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input)? {
        let response = backend.answer(&request);
        (&mut &*stream).write_all(response.as_bytes())?;
        if request.close {
            break;
        }
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    method: String,
    path: String,
    chunked: bool,
    close: bool,
}

/// Reads a request and passes over its body; `None` at the end of the connection.
fn read_request(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut head = input.take(MAX_HEADER_BYTES);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_ascii_whitespace();
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        ..Request::default()
    };
    let mut length = 0;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                length = value
                    .parse()
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            }
            "transfer-encoding" => request.chunked = true,
            "connection" => request.close = value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    // A body of unknown length is not read, so the connection cannot go on.
    request.close |= request.chunked;
    io::copy(&mut head.into_inner().take(length), &mut io::sink())?;
    Ok(Some(request))
}

impl Backend {
    fn answer(&self, request: &Request) -> String {
        let (status, body) = match request.path.as_str() {
            _ if request.chunked => ("411 Length Required", "send a Content-Length\n".to_owned()),
            "/health" => ("200 OK", "ok\n".to_owned()),
            _ => {
                let count = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
                let greeting = format!(
                    "Hello from {} at {}.\n{} {}: my request number {count}\n",
                    self.name, self.address, request.method, request.path
                );
                ("200 OK", greeting)
            }
        };
        let connection = if request.close { "close" } else { "keep-alive" };
        let sent = if request.method == "HEAD" {
            ""
        } else {
            body.as_str()
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nX-Backend: {}\r\n\
             Content-Length: {}\r\nConnection: {connection}\r\n\r\n{sent}",
            self.name,
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn backend() -> Backend {
        Backend {
            name: "backend-1".into(),
            address: "127.0.0.1:1".into(),
            requests: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
        }
    }

    #[test]
    fn requests_follow_each_other_on_one_connection() {
        let bytes =
            b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nConnection: close\r\n\r\n";
        let mut input = BufReader::new(&bytes[..]);
        let first = read_request(&mut input).unwrap().unwrap();
        assert_eq!(
            (first.method.as_str(), first.path.as_str(), first.close),
            ("POST", "/a", false)
        );
        let second = read_request(&mut input).unwrap().unwrap();
        assert_eq!(
            (second.method.as_str(), second.path.as_str(), second.close),
            ("GET", "/b", true)
        );
        assert_eq!(read_request(&mut input).unwrap(), None);
    }

    #[test]
    fn a_page_names_its_backend_and_health_does_not_count() {
        let backend = backend();
        let get = |path: &str| Request {
            method: "GET".into(),
            path: path.into(),
            ..Request::default()
        };
        assert!(backend.answer(&get("/health")).ends_with("\r\n\r\nok\n"));
        let page = backend.answer(&get("/x"));
        assert!(page.contains("Hello from backend-1") && page.contains("GET /x: my request number 1\n"));
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let head = Request {
            method: "HEAD".into(),
            path: "/health".into(),
            ..Request::default()
        };
        let response = backend().answer(&head);
        assert!(response.contains("Content-Length: 3\r\n") && response.ends_with("\r\n\r\n"));
    }
}
