//! One order, from the account to the certificate.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use model::acme::{Challenge, ChallengeCertificate, Challenges, Managed};
use reconcile::renewal::Validity;
use sha2::{Digest, Sha256};

use super::{Publish, files};

/// A certificate as it came.
#[derive(Debug)]
pub(super) struct Issued {
    /// Private key and chain.
    pub(super) pem: String,
    pub(super) validity: Validity,
}

/// Orders a certificate for all domains of `managed`. The caller withdraws what was published.
///
/// # Errors
/// What went wrong, for people.
pub(super) async fn order(directory: &Path, managed: &Managed, publish: &Publish) -> Result<Issued, String> {
    let account = account(directory, managed).await?;
    let identifiers: Vec<_> = managed.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account
        .new_order(&NewOrder::new(&identifiers))
        .await
        .map_err(|error| format!("the order was refused: {error}"))?;
    answer_challenges(&mut order, managed.challenge, publish).await?;
    match order.poll_ready(&RetryPolicy::default()).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(failed_challenges(&mut order, "").await),
        Err(error) => return Err(failed_challenges(&mut order, &error.to_string()).await),
    }
    let key = rcgen::KeyPair::generate().map_err(|error| format!("no key could be made: {error}"))?;
    let request = rcgen::CertificateParams::new(managed.domains.clone())
        .and_then(|mut params| {
            // The names stand in the extension; a common name would be a second truth.
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.serialize_request(&key)
        })
        .map_err(|error| format!("no certificate request could be made: {error}"))?;
    order
        .finalize_csr(request.der())
        .await
        .map_err(|error| format!("the certificate request was refused: {error}"))?;
    let chain = order
        .poll_certificate(&RetryPolicy::default())
        .await
        .map_err(|error| format!("the certificate did not come: {error}"))?;
    let (validity, _) = files::facts(&chain)?;
    let pem = format!("{}{chain}", key.serialize_pem());
    Ok(Issued { pem, validity })
}

/// The account kept on disk, or a new one.
async fn account(directory: &Path, managed: &Managed) -> Result<Account, String> {
    let builder = || match &managed.directory_ca {
        Some(ca) => Account::builder_with_root(ca)
            .map_err(|error| format!("cannot use the directory's CA {}: {error}", ca.display())),
        None => Account::builder().map_err(|error| format!("no roots to verify the directory with: {error}")),
    };
    let id = account_id(managed);
    if let Some(kept) = files::load_account(directory, &id)
        && let Ok(credentials) = serde_json::from_str(&kept)
        && let Ok(account) = builder()?.from_credentials(credentials).await
    {
        return Ok(account);
    }
    let contact = managed.email.as_ref().map(|email| format!("mailto:{email}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder()?
        .create(&new, managed.directory.clone(), None)
        .await
        .map_err(|error| format!("no account at {}: {}", managed.directory, with_causes(&error)))?;
    let json = serde_json::to_string(&credentials).map_err(|error| error.to_string())?;
    files::store_account(directory, &id, &json)?;
    Ok(account)
}

/// An error with what caused it: of a connection that failed, only that says why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// A file name that differs for each directory and contact.
fn account_id(managed: &Managed) -> String {
    let email = managed.email.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{email}", managed.directory));
    digest.iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Publishes the answers to all challenges of the order, then says that they can be looked at.
async fn answer_challenges(order: &mut Order, challenge: Challenge, publish: &Publish) -> Result<(), String> {
    let kind = match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let mut answers = Challenges::default();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| format!("no authorization: {error}"))?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            other => return Err(format!("an authorization of this order is {other:?}")),
        }
        let offered: Vec<String> = authorization
            .challenges
            .iter()
            .map(|c| format!("{:?}", c.r#type))
            .collect();
        let Some(mut handle) = authorization.challenge(kind.clone()) else {
            return Err(format!(
                "the authority does not offer {}; it offers {}",
                challenge.as_str(),
                offered.join(", ")
            ));
        };
        let domain = handle.identifier().to_string();
        let answer = handle.key_authorization();
        match challenge {
            Challenge::Http01 => {
                answers
                    .http
                    .insert(handle.token.clone(), answer.as_str().to_owned());
            }
            Challenge::TlsAlpn01 => {
                let certificate = challenge_certificate(&domain, answer.digest().as_ref())?;
                answers.tls_alpn.insert(domain.clone(), certificate);
            }
        }
        publish(answers.clone());
        handle
            .set_ready()
            .await
            .map_err(|error| format!("the challenge for {domain} was not taken: {error}"))?;
    }
    Ok(())
}

/// The self-signed certificate that proves control of a domain (RFC 8737 section 3).
fn challenge_certificate(domain: &str, digest: &[u8]) -> Result<ChallengeCertificate, String> {
    let made = || -> Result<ChallengeCertificate, rcgen::Error> {
        let mut params = rcgen::CertificateParams::new([domain.to_owned()])?;
        params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
        let key = rcgen::KeyPair::generate()?;
        Ok(ChallengeCertificate {
            certificate: params.self_signed(&key)?.der().to_vec(),
            key: key.serialize_der(),
        })
    };
    made().map_err(|error| format!("no challenge certificate for {domain}: {error}"))
}

/// What the authority says about each challenge that it did not accept; `error` where it says nothing.
async fn failed_challenges(order: &mut Order, error: &str) -> String {
    let mut complaints = BTreeMap::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        // The state from before the challenge was looked at says nothing.
        if authorization.refresh().await.is_err() {
            continue;
        }
        let domain = authorization.identifier().to_string();
        for challenge in &authorization.challenges {
            if let Some(problem) = &challenge.error {
                complaints.insert(domain.clone(), problem.to_string());
            }
        }
    }
    if complaints.is_empty() {
        return format!("the authority did not accept the answers to its challenges: {error}");
    }
    let lines: Vec<_> = complaints
        .into_iter()
        .map(|(domain, why)| format!("{domain}: {why}"))
        .collect();
    format!("the authority could not verify {}", lines.join("; "))
}
