//! The handshake with a client, within its deadline.

use std::future::poll_fn;
use std::pin::pin;

use rustls::server::Acceptor;
use tls::{Failure, FailureKind, ServerSettings};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::{ListenerTls, TlsFacts};
use crate::serving::ListenerServing;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::timers::{Expired, Timer};

/// What became of a new connection.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// TLS as it should be.
    Tls(Stream, TlsFacts),
    /// A client that speaks HTTP in the clear; it can be told so.
    PlainHttp(TcpStream),
    /// Counted, and over; where the client was told why, the connection is left so that it can read that.
    Failed(Option<TcpStream>),
}

/// Makes the handshake. Whatever fails is counted; nobody is answered but by TLS alerts.
pub(crate) async fn accept(
    shard: &Shard,
    serving: &ListenerServing,
    tls: &ListenerTls,
    tcp: TcpStream,
    timer: &Timer,
) -> Accepted {
    let counters = serving.cell.tls.of(shard.index);
    let count = |failure: Failure| {
        counters.fail(failure.kind);
        tracing::debug!(listener = %serving.config.name, reason = failure.kind.as_str(), "TLS handshake failed: {}", failure.words);
    };
    let failed = |failure: Failure| {
        count(failure);
        Accepted::Failed(None)
    };
    let Some(settings) = tls.server() else {
        return failed(Failure::new(
            FailureKind::NoCertificate,
            "there is nothing to serve with",
        ));
    };
    let began_us = shard.timers.now_us();
    timer.arm(serving.config.timeouts.tls_handshake);
    let too_long = || {
        Failure::new(
            FailureKind::Timeout,
            "it took longer than `timeouts.tls_handshake`",
        )
    };
    match timer.bound(first_byte(&tcp)).await {
        Err(Expired) => return failed(too_long()),
        Ok(None) => {
            return failed(Failure::new(
                FailureKind::Closed,
                "the client closed before it sent anything",
            ));
        }
        // A method of HTTP; a handshake begins with 22 (RFC 8446 section 5.1).
        Ok(Some(b'A'..=b'Z')) => {
            counters.fail(FailureKind::PlainHttp);
            return Accepted::PlainHttp(tcp);
        }
        Ok(Some(_)) => {}
    }
    match timer.bound(handshake(&settings, tcp, tls.asks_clients())).await {
        Err(Expired) => failed(too_long()),
        Ok(Err((failure, tcp))) => {
            let told = !matches!(failure.kind, FailureKind::Closed | FailureKind::Alert);
            count(failure);
            Accepted::Failed(tcp.filter(|_| told))
        }
        Ok(Ok((stream, facts))) => {
            let time_us = shard.timers.now_us().saturating_sub(began_us);
            counters.complete(facts.is_1_3(), facts.resumed, time_us);
            tracing::debug!(listener = %serving.config.name, version = facts.version, cipher = facts.cipher, resumed = facts.resumed, "TLS handshake done");
            Accepted::Tls(stream, facts)
        }
    }
}

/// The first byte, left where it is; `None` at the end.
async fn first_byte(tcp: &TcpStream) -> Option<u8> {
    let mut byte = [0];
    let mut buffer = ReadBuf::new(&mut byte);
    let peeked = poll_fn(|cx| tcp.poll_peek(cx, &mut buffer)).await;
    peeked.ok()?;
    buffer.filled().first().copied()
}

async fn handshake(
    settings: &ServerSettings,
    tcp: TcpStream,
    asks: bool,
) -> Result<(Stream, TlsFacts), (Failure, Option<TcpStream>)> {
    let hello = {
        let mut acceptor = pin!(LazyConfigAcceptor::new(Acceptor::default(), tcp));
        let hello = acceptor.as_mut().await;
        hello.map_err(|error| (Failure::of(&error), acceptor.take_io()))?
    };
    let config = settings.for_offer(hello.client_hello().cipher_suites()).clone();
    let stream = hello.into_stream(config).into_fallible().await;
    let stream = stream.map_err(|(error, tcp)| (Failure::of(&error), Some(tcp)))?;
    let facts = TlsFacts::of(stream.get_ref().1, asks);
    Ok((Stream::tls(stream.into()), facts))
}
