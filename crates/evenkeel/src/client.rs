//! A thin client of the admin API: one request, one answer, and errors a person can act on.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, Timeout};

use crate::cli::ClientArgs;
use crate::client_tls;
use crate::token;

/// Longest wait for an answer: the admin API itself gives up before.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Said when the answer to something that may have changed something was lost.
const IN_DOUBT: &str = "\nWhat was asked for may have been done all the same: look before asking again.";

/// The admin API of one process.
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
}

impl Client {
    /// # Errors
    /// When a file that is named cannot be read, or is not what it should be; when the token would go over a network in
    /// the clear.
    pub(crate) fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let token = args.token_file.as_deref().map(token::read).transpose()?;
        if token.is_some() && leaves_in_the_clear(&args.admin) {
            bail!(
                "{} is another machine, and in the clear: everybody on the way could read the token. Write `https://`",
                args.admin
            );
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            // It sends nobody elsewhere; who does is none.
            .max_redirects(0)
            // The admin API is one's own process: never a proxy of the environment.
            .proxy(None);
        let config = match client_tls::settings(args)? {
            Some(tls) => config.tls_config(tls).build(),
            None => config.build(),
        };
        Ok(Self {
            base: args.admin.clone(),
            token,
            agent: Agent::new_with_config(config),
        })
    }

    /// `GET`; the answer as text.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<String> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        self.answer(request.call(), "")
    }

    /// `POST` of JSON; the answer as text.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Content-Type", "application/json");
        let request = match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        self.answer(request.send(body.to_string()), IN_DOUBT)
    }

    /// The answer as text. `in_doubt` is what is to be said when it was lost.
    fn answer(
        &self,
        result: Result<Response<Body>, ureq::Error>,
        in_doubt: &'static str,
    ) -> anyhow::Result<String> {
        let mut response = result.map_err(|error| match never_arrived(&error) {
            true => self.unreachable(&error),
            false => anyhow!("no answer of the admin API at {}: {error}{in_doubt}", self.base),
        })?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .with_context(|| format!("the answer of {} broke off{in_doubt}", self.base))?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(anyhow!(problem(status.as_u16(), &text)))
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        if let Some(failure) = client_tls::failure(error) {
            return anyhow!("no TLS with the admin API at {}: {failure}", self.base);
        }
        let cause = match error {
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        anyhow!(
            "cannot reach the admin API at {}: {cause}\n\
             Is evenkeel running there? Its address is `admin.listen` in the config (or `run --admin`);\n\
             name it with --admin ADDR or EVENKEEL_ADMIN.",
            self.base
        )
    }
}

/// Whether a request surely did not come to where it was sent.
fn never_arrived(error: &ureq::Error) -> bool {
    match error {
        // TLS failures look like any other.
        ureq::Error::Io(io) => !matches!(
            io.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => false,
        _ => true,
    }
}

/// Whether what is sent to this URL goes over a network, for all to read.
fn leaves_in_the_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return false;
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None => authority.split(':').next(),
    };
    let host = host.unwrap_or_default();
    let here = |ip: IpAddr| ip.to_canonical().is_loopback();
    !host.eq_ignore_ascii_case("localhost") && !host.parse().is_ok_and(here)
}

/// A problem document (RFC 9457) in words.
fn problem(status: u16, text: &str) -> String {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let member = |name: &str| {
        document
            .get(name)
            .and_then(Value::as_str)
            .filter(|s| !s.is_empty())
    };
    let mut message = match (member("title"), member("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => format!("the admin API answered with status {status}"),
    };
    for error in document
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        message.push('\n');
        message.push_str(error.as_str().unwrap_or_default());
    }
    if status == 401 {
        message.push_str("\nThe admin API wants a login: name the file of a token with --token-file.");
    }
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_problem_document_is_told_in_words() {
        let document = r#"{"type":"about:blank","title":"Unknown backend","status":404,"detail":"`shop` has 10.0.0.1:80"}"#;
        assert_eq!(problem(404, document), "Unknown backend: `shop` has 10.0.0.1:80");
        assert_eq!(problem(500, "<html>"), "the admin API answered with status 500");
        assert!(problem(401, "{}").ends_with("--token-file."));
        let refused =
            r#"{"title":"The new config has errors","detail":"1 error","errors":["a.toml:1:1: no"]}"#;
        assert_eq!(
            problem(422, refused),
            "The new config has errors: 1 error\na.toml:1:1: no"
        );
    }

    fn args(url: &str, token_file: Option<PathBuf>) -> ClientArgs {
        ClientArgs {
            admin: url.to_owned(),
            token_file,
            ca: None,
            client_certificate: None,
            client_key: None,
        }
    }

    /// Scenario: `https://` was forgotten. The token stays here; without one, and on this machine, nothing is lost.
    #[test]
    fn a_token_goes_over_no_network_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "s3cret\n").unwrap();
        for away in [
            "http://lb.internal:7700",
            "http://10.0.0.5:7700/api",
            "http://[2001:db8::1]:7700",
            "http://127.0.0.1.example.org",
        ] {
            let refused = Client::new(&args(away, Some(token.clone()))).err().unwrap();
            assert!(refused.to_string().contains("in the clear"), "{refused}");
            assert!(Client::new(&args(away, None)).is_ok());
        }
        for here in [
            "http://127.0.0.1:7700",
            "http://localhost:7700",
            "http://[::1]:7700",
        ] {
            assert!(Client::new(&args(here, Some(token.clone()))).is_ok(), "{here}");
        }
    }

    /// Scenario: the process dies after it was asked and before it answers. A change may have been made; a question has
    /// no answer, and that is all.
    #[test]
    fn an_answer_that_was_lost_is_not_told_as_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&args(&format!("http://{}", listener.local_addr().unwrap()), None)).unwrap();
        let dies = std::thread::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(std::io::Read::read(&mut stream, &mut [0; 4096]).unwrap() > 0);
            }
        });
        let posted = client
            .post("/api/v1/reload", &Value::Null)
            .unwrap_err()
            .to_string();
        assert!(posted.contains("may have been done"), "{posted}");
        let asked = client.get("/api/v1/status").unwrap_err().to_string();
        assert!(
            asked.starts_with("no answer") && !asked.contains("may have"),
            "{asked}"
        );
        dies.join().unwrap();
    }

    /// Nobody listens: the message names the URL and what to do.
    #[test]
    fn an_api_that_is_not_there_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let error = Client::new(&args(&url, None))
            .unwrap()
            .get("/livez")
            .unwrap_err()
            .to_string();
        assert!(error.contains(&url) && error.contains("refused"), "{error}");
        assert!(error.contains("--admin ADDR"), "{error}");
    }
}
