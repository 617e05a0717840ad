//! A thin client of the admin API: one request, one answer, and errors a person can act on.

use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body};

use crate::cli::ClientArgs;
use crate::client_tls;
use crate::token;

/// Longest wait for an answer; an admin API that needs more is broken.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// The admin API of one process.
pub(crate) struct Client {
    base: String,
    token: Option<String>,
    agent: Agent,
}

impl Client {
    /// # Errors
    /// When a file that is named cannot be read, or is not what it should be.
    pub(crate) fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let token = args.token_file.as_deref().map(token::read).transpose()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
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
        self.answer(request.call())
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
        self.answer(request.send(body.to_string()))
    }

    fn answer(&self, result: Result<Response<Body>, ureq::Error>) -> anyhow::Result<String> {
        let mut response = result.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .with_context(|| format!("the answer of {} broke off", self.base))?;
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

    /// Nobody listens: the message names the URL and what to do.
    #[test]
    fn an_api_that_is_not_there_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let args = ClientArgs {
            admin: url.clone(),
            token_file: None,
            ca: None,
            client_certificate: None,
            client_key: None,
        };
        let error = Client::new(&args).unwrap().get("/livez").unwrap_err().to_string();
        assert!(error.contains(&url) && error.contains("refused"), "{error}");
        assert!(error.contains("--admin ADDR"), "{error}");
    }
}
