//! One message to one receiver: a `POST` with a deadline.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use model::config::{Alerts, Receiver, ReceiverKind, ReceiverUrl};
use reconcile::alerts::outbox::Outcome;
use rustls::pki_types::CertificateDer;
use sha2::Sha256;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

/// Most bytes of a file with a URL, a token or a secret.
const MAX_FILE_BYTES: u64 = 8 * 1024;
/// Most bytes read of a receiver's answer.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// Characters of an answer that are shown.
const SHOWN_CHARS: usize = 200;

/// Why a message was not taken.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// In words, without secrets.
    pub(super) what: String,
    /// What follows from it.
    pub(super) outcome: Outcome,
}

impl Failure {
    /// It never left.
    fn here(what: String) -> Self {
        Self {
            what,
            outcome: Outcome::Failed { in_doubt: false },
        }
    }
}

/// Sends `body` to a receiver within `timeout`.
///
/// # Errors
/// Why the receiver did not take it.
pub(super) async fn deliver(receiver: &Receiver, timeout: Duration, body: String) -> Result<(), Failure> {
    let receiver = receiver.clone();
    let sent = tokio::task::spawn_blocking(move || post(&receiver, timeout, &body)).await;
    sent.unwrap_or_else(|error| {
        Err(Failure {
            what: format!("a fault of Evenkeel: {error}"),
            outcome: Outcome::Failed { in_doubt: true },
        })
    })
}

/// What a receiver must be given besides the message.
struct Credentials {
    url: String,
    token: Option<String>,
    secret: Option<String>,
    authorities: Option<Vec<CertificateDer<'static>>>,
}

impl Credentials {
    /// Reads the files that the receiver's config names. Each time: they are changed in place.
    fn read(receiver: &Receiver) -> Result<Self, String> {
        let url = match &receiver.url {
            ReceiverUrl::Url(url) => url.clone(),
            ReceiverUrl::File(path) => {
                let url = read_line(path)?;
                // The URL itself is not shown: it is a secret.
                if !url.starts_with("https://") && !url.starts_with("http://") {
                    return Err(format!("{} holds no http:// or https:// URL", path.display()));
                }
                url
            }
        };
        let read = |path: &Option<std::path::PathBuf>| path.as_deref().map(read_line).transpose();
        let authorities = receiver.ca.as_deref().map(tls::authorities).transpose();
        Ok(Self {
            url: match receiver.kind {
                ReceiverKind::Webhook => url,
                ReceiverKind::Alertmanager => format!("{}/api/v2/alerts", url.trim_end_matches('/')),
            },
            token: read(&receiver.token_file)?,
            secret: read(&receiver.secret_file)?,
            authorities: authorities.map_err(|error| error.to_string())?,
        })
    }

    fn agent(&self, timeout: Duration) -> Result<Agent, String> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout))
            // What is late then has not been sent for certain.
            .timeout_connect(Some(timeout / 2))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("evenkeel/", env!("CARGO_PKG_VERSION")))
            // Where alerts go is said in the config, not in the environment.
            .proxy(None);
        if !self.url.starts_with("https://") {
            return Ok(config.build().into());
        }
        let found = match &self.authorities {
            Some(found) => found.clone(),
            None => rustls_native_certs::load_native_certs().certs,
        };
        if found.is_empty() {
            return Err("this system trusts no authorities (on Debian they come with the package ca-certificates): name a file as `ca`".to_owned());
        }
        let roots = found.iter().map(|found| Certificate::from_der(found).to_owned());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots.collect::<Vec<_>>()))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build();
        Ok(config.tls_config(tls).build().into())
    }

    /// The text without what must not be shown, should a receiver send it back.
    fn without_secrets(&self, text: &str) -> String {
        let secrets = [Some(&self.url), self.token.as_ref(), self.secret.as_ref()];
        let hidden = secrets.into_iter().flatten();
        hidden.fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), "<secret>")
        })
    }
}

fn post(receiver: &Receiver, timeout: Duration, body: &str) -> Result<(), Failure> {
    let credentials = Credentials::read(receiver).map_err(Failure::here)?;
    let agent = credentials.agent(timeout).map_err(Failure::here)?;
    let mut request = agent
        .post(&credentials.url)
        .header("Content-Type", "application/json");
    if let Some(token) = &credentials.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let Some(secret) = &credentials.secret {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        request = request.header("Evenkeel-Signature", signature(secret, now.as_secs(), body));
    }
    let mut response = request.send(body).map_err(|error| not_sent(&error, timeout))?;
    let status = response.status().as_u16();
    let (outcome, what) = match status {
        200..=299 => return Ok(()),
        300..=399 => (Outcome::Refused, "it redirects, which is not followed".to_owned()),
        // These may succeed later.
        408 | 425 | 429 | 500..=599 => (
            Outcome::Failed { in_doubt: false },
            credentials.without_secrets(&excerpt(response.body_mut())),
        ),
        _ => (
            Outcome::Refused,
            credentials.without_secrets(&excerpt(response.body_mut())),
        ),
    };
    let what = match what.is_empty() {
        true => format!("status {status}"),
        false => format!("status {status}: {what}"),
    };
    Err(Failure { what, outcome })
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`. The time is signed, so that an old message cannot be
/// played again.
fn signature(secret: &str, now_s: u64, body: &str) -> String {
    let mut text = format!("t={now_s},v1=");
    // Keys of any length are taken.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        mac.update(format!("{now_s}.").as_bytes());
        mac.update(body.as_bytes());
        for byte in mac.finalize().into_bytes() {
            text.push_str(&format!("{byte:02x}"));
        }
    }
    text
}

/// Why there is no answer. What may have a part of the URL in it is not repeated.
fn not_sent(error: &ureq::Error, timeout: Duration) -> Failure {
    use std::io::ErrorKind;
    let certainly_not = match error {
        ureq::Error::HostNotFound
        | ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::AddrNotAvailable
                | ErrorKind::InvalidData
        ),
        _ => false,
    };
    let what = match error {
        ureq::Error::HostNotFound => "its name is not known".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "its URL cannot be used".to_owned(),
        ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
            format!("no connection within {} ms", (timeout / 2).as_millis())
        }
        ureq::Error::Timeout(_) => format!("no answer within {} ms", timeout.as_millis()),
        other => other.to_string(),
    };
    Failure {
        what,
        outcome: Outcome::Failed {
            in_doubt: !certainly_not,
        },
    }
}

/// The beginning of an answer, on one line.
fn excerpt(body: &mut Body) -> String {
    let mut bytes = Vec::new();
    // What can be read of it will do.
    let _ = body.as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c == ' ')
        .filter(|w| !w.is_empty())
        .collect();
    let line = words.join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Whether the files that the receivers' configs name can be used.
///
/// # Errors
/// The path of each key with a sentence that says why not.
pub fn check_files(alerts: &Alerts) -> Result<(), Vec<(String, String)>> {
    let mut counts = [0_usize; 2];
    let mut problems = Vec::new();
    for receiver in &alerts.receivers {
        let (list, place) = match receiver.kind {
            ReceiverKind::Webhook => ("webhooks", &mut counts[0]),
            ReceiverKind::Alertmanager => ("alertmanagers", &mut counts[1]),
        };
        if let Err(why) = Credentials::read(receiver) {
            problems.push((format!("alerts.{list}[{place}]"), why));
        }
        *place += 1;
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// A file with one line of visible ASCII characters; the white space around it does not count.
fn read_line(path: &Path) -> Result<String, String> {
    // A pipe would be waited for without end, and the receiver would hear nothing any more.
    if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(format!("{} is not a regular file", path.display()));
    }
    let mut text = String::new();
    let opened =
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text));
    opened.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let line = text.trim();
    match !line.is_empty() && line.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(line.to_owned()),
        // The line is not shown: it is a secret.
        false => Err(format!(
            "{} is not one line of visible ASCII characters without blanks",
            path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Scenario: computed by `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn a_signature_is_what_openssl_makes() {
        assert_eq!(
            signature("secret", 1_700_000_000, "{\"a\":1}"),
            "t=1700000000,v1=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686"
        );
    }

    /// Scenario: what a receiver's secret is to be read from is a pipe that nobody writes to. It is refused at once.
    #[test]
    fn a_secret_is_in_a_regular_file() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let (told, telling) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(read_line(&pipe)));
        let answer = telling.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(answer.unwrap_err().contains("is not a regular file"));
    }

    #[test]
    fn a_secret_is_one_line_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, " hunter2\n").unwrap();
        assert_eq!(read_line(&path).unwrap(), "hunter2");
        for bad in ["", "hunter2\nhunter3", "hunter2 b", "hünter2"] {
            std::fs::write(&path, bad).unwrap();
            let error = read_line(&path).unwrap_err();
            assert!(error.contains("secret") && !error.contains("unter2"), "{error}");
        }
    }
}
