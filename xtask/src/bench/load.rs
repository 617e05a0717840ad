//! Load from programs that were not written here (wrk, h2load), and idle connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{command, output};

/// What a run of load saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency in microseconds.
    pub(crate) p50_us: f64,
    /// 99th percentile of the latency in microseconds.
    pub(crate) p99_us: f64,
}

/// As many requests as go, over `connections` kept open.
///
/// # Errors
/// When any response was not a success or any connection broke: such a run measures nothing.
pub(crate) fn full(cores: &str, url: &str, connections: u32, seconds: u32, more: &[&str]) -> Result<Seen> {
    let (connections, duration) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let mut wrk = command("taskset", &["-c", cores, "wrk", "-t1", &connections, &duration]);
    let text = output(wrk.args(more).args(["--latency", url]))?;
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk saw errors on {url}:\n{text}");
    }
    let after = |mark: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(mark));
        line.and_then(|rest| rest.split_whitespace().next())
            .with_context(|| format!("wrk printed no {mark}:\n{text}"))
    };
    let line = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .context("wrk printed no count")?;
    let requests = line
        .split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .context("wrk printed no count")?;
    Ok(Seen {
        requests,
        rate: after("Requests/sec:")?.parse()?,
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
    })
}

/// As many requests as go over HTTP/2: 32 connections with 32 streams each.
///
/// # Errors
/// When any response was not a success: such a run measures nothing.
pub(crate) fn http2(cores: &str, url: &str, seconds: u32) -> Result<Seen> {
    let duration = format!("-D{seconds}");
    let args = ["-c", cores, "h2load", "-t1", "-c32", "-m32", &duration, url];
    let text = output(&mut command("taskset", &args))?;
    let number_before = |line: &str, word: &str| -> Result<f64> {
        let words: Vec<&str> = text
            .lines()
            .find(|l| l.starts_with(line))
            .with_context(|| format!("h2load printed no line `{line}`:\n{text}"))?
            .split([' ', ','])
            .filter(|w| !w.is_empty())
            .collect();
        let at = words.iter().position(|w| *w == word).unwrap_or(0);
        let number = words.get(at.wrapping_sub(1)).and_then(|w| w.parse().ok());
        number.with_context(|| format!("h2load printed no number before `{word}`:\n{text}"))
    };
    let requests = number_before("requests:", "succeeded")?;
    let wrong = number_before("requests:", "failed")? + number_before("requests:", "errored")?;
    let good = number_before("status codes:", "2xx")?;
    if wrong > 0.0 || good < requests || requests < 1.0 {
        bail!("h2load saw errors on {url}:\n{text}");
    }
    Ok(Seen {
        requests: requests as u64,
        rate: requests / f64::from(seconds),
        p50_us: 0.0,
        p99_us: 0.0,
    })
}

/// `rate` requests per second, evenly spread over `connections`; latencies from every single request.
///
/// # Errors
/// As [`full`]; also when less than nine tenths of the rate was reached.
pub(crate) fn paced(
    cores: &str,
    url: &str,
    connections: u32,
    seconds: u32,
    rate: f64,
    dir: &Path,
) -> Result<Seen> {
    let log = dir.join("h2load.log");
    if log.exists() {
        std::fs::remove_file(&log)?;
    }
    let per_connection = format!("--rps={:.2}", rate / f64::from(connections));
    let (connections, duration) = (format!("-c{connections}"), format!("-D{seconds}"));
    let log_file = format!("--log-file={}", log.display());
    let args = [
        "-c",
        cores,
        "h2load",
        "--h1",
        "-t1",
        &connections,
        &duration,
        &per_connection,
        &log_file,
        url,
    ];
    output(&mut command("taskset", &args))?;
    let text = std::fs::read_to_string(&log).context("h2load wrote no log")?;
    let mut latencies = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let (status, took) = (fields.nth(1), fields.next());
        if status != Some("200") {
            bail!("h2load saw status {} on {url}", status.unwrap_or("none"));
        }
        latencies.push(
            took.and_then(|t| t.parse::<f64>().ok())
                .context("h2load's log is not understood")?,
        );
    }
    latencies.sort_by(f64::total_cmp);
    let reached = latencies.len() as f64 / f64::from(seconds);
    if reached < rate * 0.9 {
        bail!("only {reached:.0} of {rate:.0} requests per second were reached");
    }
    let at = |share: f64| {
        latencies
            .get((latencies.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(0.0)
    };
    Ok(Seen {
        requests: latencies.len() as u64,
        rate: reached,
        p50_us: at(0.50),
        p99_us: at(0.99),
    })
}

/// Opens connections, sends one request on each and keeps them open.
///
/// # Errors
/// When one cannot be opened or answers anything but 200.
pub(crate) fn idle(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| one_request(address, "/small").map(|(stream, _)| stream))
        .collect()
}

/// Connections over TLS, held open by a process of their own until dropped.
pub(crate) struct HeldOverTls(std::process::Child);

impl Drop for HeldOverTls {
    fn drop(&mut self) {
        // It is gone already when it failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens connections over TLS, sends one request on each and keeps them open.
const IDLE_OVER_TLS: &str = r#"
import socket, ssl, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
held = []
for _ in range(count):
    stream = context.wrap_socket(socket.create_connection((host, port)), server_hostname="localhost")
    stream.sendall(f"GET /small HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"x" * 128):
        answer += stream.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    held.append(stream)
print("ready", flush=True)
sys.stdin.read()
"#;

/// Opens `count` connections over TLS, sends one request on each and keeps them open.
///
/// # Errors
/// When one cannot be opened or answers anything but 200.
pub(crate) fn idle_over_tls(address: SocketAddr, count: usize) -> Result<HeldOverTls> {
    use std::process::Stdio;
    let arguments = [
        "-c",
        IDLE_OVER_TLS,
        &address.ip().to_string(),
        &address.port().to_string(),
        &count.to_string(),
    ];
    let mut python = command("python3", &arguments);
    let held = HeldOverTls(python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
    let mut held = held;
    let mut line = [0; 5];
    held.0
        .stdout
        .as_mut()
        .context("no output")?
        .read_exact(&mut line)
        .context("python3 could not open the connections")?;
    Ok(held)
}

/// One request on a new connection: the connection, still open, and the response's body.
pub(crate) fn one_request(address: SocketAddr, path: &str) -> Result<(TcpStream, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
    let mut got = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        let text = String::from_utf8_lossy(&got);
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            if !head.starts_with("HTTP/1.1 200") {
                bail!("{address} answered {}", head.lines().next().unwrap_or("nothing"));
            }
            let field = |line: &str| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(|n| n.trim().parse())
            };
            let length: usize = head.lines().find_map(field).context("no Content-Length")??;
            if let Some(body) = got.get(head.len() + 4..).filter(|body| body.len() >= length) {
                let body = body.to_vec();
                return Ok((stream, body));
            }
        }
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            bail!("{address} closed in the middle of a response");
        }
        got.extend_from_slice(&buffer[..n]);
    }
}

/// wrk's `512.00us`, `1.20ms`, `1.02s` in microseconds.
fn microseconds(text: &str) -> Result<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7)];
    for (unit, factor) in units {
        if let Some(Ok(number)) = text.strip_suffix(unit).map(str::parse::<f64>) {
            return Ok(number * factor);
        }
    }
    bail!("not a time: {text}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::microseconds;

    #[test]
    fn times_of_wrk_are_read_with_their_units() {
        assert_eq!(microseconds("512.00us").unwrap(), 512.0);
        assert_eq!(microseconds("1.20ms").unwrap(), 1200.0);
        assert_eq!(microseconds("2.00s").unwrap(), 2_000_000.0);
        assert!(microseconds("fast").is_err());
    }
}
