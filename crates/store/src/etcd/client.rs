//! Keeps a connection to one of several members: opens it when it is needed, moves on when it fails, fetches the
//! token, and says what became of a call.
//!
//! One connection carries everything, so that all of one process sees the same member. After a failure the next
//! member is tried at once; when all have failed in turn there is a pause, longer each time and never the same for
//! two clients. A call that may be made twice is asked again until its deadline; another only while it surely did
//! not happen.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_types::HeaderValue;
use prost::Message;
use rustls::ClientConfig;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::grpc::{Answers, Failure, frame};
use super::link::Link;
use super::messages::{AuthenticateRequest, AuthenticateResponse, StatusResponse, method};
use super::settings::{Endpoint, EtcdSettings};
use super::verdict::{Next, judge};
use crate::backoff;
use crate::bounds::{MAX_CALLS, MAX_WATCHES};
use crate::error::{ErrorKind, Happened, StoreError};

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// Something, but twice is as good as once.
    Settles,
    /// Something, and each time anew.
    Writes,
}

#[derive(Debug)]
pub(super) struct Client {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfig>>,
    user: Option<(String, String)>,
    call_timeout: Duration,
    slot: Mutex<Slot>,
    /// Links that failed in a row.
    failures: AtomicU32,
    /// Why the last of them did.
    last_trouble: std::sync::Mutex<Option<StoreError>>,
    calls: Semaphore,
    watches: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<Link>>,
    /// What etcd gave us to show: perhaps nothing, while users are switched off. None when it must be asked.
    token: Option<Option<HeaderValue>>,
    /// The endpoint in use, or to be tried next; grows beyond their number.
    at: usize,
    /// No connection is opened before this.
    not_before: Option<Instant>,
}

impl Client {
    pub(super) fn new(settings: EtcdSettings) -> Result<Self, StoreError> {
        let endpoints = settings.parse_endpoints()?;
        let tls = settings.client_config(&endpoints)?;
        Ok(Self {
            tls,
            user: settings.user,
            call_timeout: settings.call_timeout,
            slot: Mutex::new(Slot {
                // Not the first for everybody, or all would be on one member.
                at: backoff::below(endpoints.len()),
                ..Slot::default()
            }),
            endpoints,
            failures: AtomicU32::new(0),
            last_trouble: std::sync::Mutex::default(),
            calls: Semaphore::new(MAX_CALLS),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
        })
    }

    /// A call with one answer.
    pub(super) async fn call<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
        effect: Effect,
    ) -> Result<A, StoreError> {
        let deadline = Instant::now() + self.call_timeout;
        let Ok(permit) = timeout_at(deadline, self.calls.acquire()).await else {
            let detail = format!("{MAX_CALLS} calls are under way");
            return Err(StoreError::not_done(ErrorKind::Busy, detail));
        };
        let answer = self.repeat(method, frame(question), effect, deadline).await;
        drop(permit);
        answer
    }

    async fn repeat<A: Message + Default>(
        &self,
        method: &str,
        question: Bytes,
        effect: Effect,
        deadline: Instant,
    ) -> Result<A, StoreError> {
        let mut renewed = false;
        loop {
            let (link, token) = self.link(deadline).await?;
            let within = deadline.saturating_duration_since(Instant::now());
            let caller = link.caller(token.clone());
            let asked = timeout_at(deadline, caller.ask(method, question.clone(), within)).await;
            let failure = match asked {
                Ok(Ok(answer)) => {
                    self.good(&link, method);
                    return Ok(answer);
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(timed_out(effect, "no answer")),
            };
            match judge(&failure) {
                Next::Tell(error) => return Err(of(effect, error)),
                Next::Renew(error) if renewed || self.user.is_none() => return Err(error),
                Next::Renew(_) => {
                    renewed = true;
                    self.forget_token(token.as_ref(), deadline).await;
                }
                Next::Move(error) => {
                    self.give_up(&link, error.clone(), deadline).await;
                    if effect == Effect::Writes && error.happened() == Happened::Unknown {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A call that stays open. The link lives for as long as the answer is held.
    pub(super) async fn open<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
    ) -> Result<Open<A>, StoreError> {
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else {
            let detail = format!("{MAX_WATCHES} watches are open");
            return Err(StoreError::not_done(ErrorKind::Busy, detail));
        };
        let deadline = Instant::now() + self.call_timeout;
        loop {
            let (link, token) = self.link(deadline).await?;
            let caller = link.caller(token.clone());
            let failure = match timeout_at(deadline, caller.stream(method, frame(question))).await {
                Ok(Ok(answers)) => {
                    return Ok(Open {
                        answers,
                        link,
                        token,
                        deadline,
                        _permit: permit,
                    });
                }
                Ok(Err(failure)) => failure,
                Err(_) => return Err(timed_out(Effect::Reads, "no answer")),
            };
            match judge(&failure) {
                Next::Tell(error) | Next::Renew(error) => {
                    self.forget_token(token.as_ref(), deadline).await;
                    return Err(of(Effect::Reads, error));
                }
                Next::Move(error) => self.give_up(&link, error, deadline).await,
            }
        }
    }

    /// How the member in use is, and which it is.
    pub(super) async fn status(&self) -> Result<(StatusResponse, String), StoreError> {
        let deadline = Instant::now() + self.call_timeout;
        loop {
            let (link, token) = self.link(deadline).await?;
            let place = link.caller(None).authority;
            let failure = match timeout_at(deadline, link.status(token, self.call_timeout)).await {
                Ok(Ok(status)) => return Ok((status, place)),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(timed_out(Effect::Reads, "no answer")),
            };
            match judge(&failure) {
                Next::Tell(error) | Next::Renew(error) => return Err(of(Effect::Reads, error)),
                Next::Move(error) => self.give_up(&link, error, deadline).await,
            }
        }
    }

    /// The token is no longer good: the next call fetches another. Who cannot say so in time leaves it to the next that
    /// is refused.
    pub(super) async fn forget_token(&self, token: Option<&HeaderValue>, deadline: Instant) {
        let Ok(mut slot) = timeout_at(deadline, self.slot.lock()).await else {
            return;
        };
        if slot
            .token
            .as_ref()
            .is_some_and(|current| current.as_ref() == token)
        {
            slot.token = None;
        }
    }

    fn good(&self, link: &Link, method: &str) {
        // Leases are kept alive out of memory, also by a member that carries nothing out.
        if method != method::LEASE_KEEP_ALIVE && method != method::LEASE_TIME_TO_LIVE {
            link.heard().now();
        }
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Leaves a link that failed for the next endpoint. Who cannot say so in time, because another call is connecting,
    /// leaves it to the next one: that finds the link ended.
    async fn give_up(&self, link: &Arc<Link>, error: StoreError, deadline: Instant) {
        link.end();
        let Ok(mut slot) = timeout_at(deadline, self.slot.lock()).await else {
            return;
        };
        if slot
            .link
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, link))
        {
            self.move_on(&mut slot, of(Effect::Reads, error));
        }
    }

    /// The connection in use and the token, or a new one.
    async fn link(&self, deadline: Instant) -> Result<(Arc<Link>, Option<HeaderValue>), StoreError> {
        let Ok(mut slot) = timeout_at(deadline, self.slot.lock()).await else {
            return Err(self.trouble());
        };
        loop {
            if slot.link.as_ref().is_some_and(|link| !link.lives()) {
                self.move_on(
                    &mut slot,
                    StoreError::not_done(ErrorKind::Unreachable, "the connection ended"),
                );
            }
            let link = match &slot.link {
                Some(link) => Arc::clone(link),
                None => match self.connect(&mut slot, deadline).await {
                    Some(Ok(link)) => link,
                    Some(Err(error)) => {
                        self.move_on(&mut slot, error);
                        continue;
                    }
                    None => return Err(self.trouble()),
                },
            };
            if self.user.is_none() {
                return Ok((link, None));
            }
            if let Some(token) = &slot.token {
                return Ok((link, token.clone()));
            }
            match timeout_at(deadline, self.authenticate(&link)).await {
                Ok(Ok(token)) => slot.token = Some(token),
                Ok(Err(Next::Move(error))) => {
                    link.end();
                    self.move_on(&mut slot, of(Effect::Reads, error));
                }
                Ok(Err(Next::Tell(error) | Next::Renew(error))) => return Err(of(Effect::Reads, error)),
                Err(_) => return Err(StoreError::not_done(ErrorKind::TimedOut, "no token")),
            }
        }
    }

    /// One attempt with the next endpoint; none when it is too late for one.
    async fn connect(&self, slot: &mut Slot, deadline: Instant) -> Option<Result<Arc<Link>, StoreError>> {
        if let Some(not_before) = slot.not_before {
            sleep_until(not_before.min(deadline)).await;
            if not_before >= deadline {
                return None;
            }
            slot.not_before = None;
        }
        let endpoint = self.endpoints.get(slot.at % self.endpoints.len())?;
        let opening = Link::open(endpoint, self.tls.as_ref());
        let opened = timeout_at(deadline, opening).await.ok()?;
        Some(opened.map(|link| {
            let link = Arc::new(link);
            slot.link = Some(Arc::clone(&link));
            link
        }))
    }

    /// Leaves the endpoint that failed for the next one; after the last of them, not before a pause.
    fn move_on(&self, slot: &mut Slot, error: StoreError) {
        tracing::debug!(%error, "an endpoint of etcd failed");
        slot.link = None;
        slot.at = slot.at.wrapping_add(1) % self.endpoints.len();
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let members = u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX);
        if failures.is_multiple_of(members) {
            slot.not_before = Some(Instant::now() + backoff::pause(failures / members));
        }
        *self.last_trouble() = Some(error);
    }

    /// Why there is no connection.
    fn trouble(&self) -> StoreError {
        let last = self.last_trouble().clone();
        last.unwrap_or_else(|| StoreError::not_done(ErrorKind::Unreachable, "no endpoint was tried in time"))
    }

    fn last_trouble(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.last_trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a token; none where etcd has authentication switched off.
    async fn authenticate(&self, link: &Link) -> Result<Option<HeaderValue>, Next> {
        let Some((name, password)) = &self.user else {
            return Ok(None);
        };
        let question = AuthenticateRequest {
            name: name.clone(),
            password: password.clone(),
        };
        let caller = link.caller(None);
        let asked = caller
            .ask(method::AUTHENTICATE, frame(&question), self.call_timeout)
            .await;
        match asked {
            Ok(AuthenticateResponse { token }) => match HeaderValue::try_from(token) {
                Ok(token) => Ok(Some(token)),
                Err(_) => Err(judge(&Failure::Malformed("a token that is no header".to_owned()))),
            },
            Err(Failure::Status { message, .. }) if message.contains("authentication is not enabled") => {
                Ok(None)
            }
            Err(failure) => Err(judge(&failure)),
        }
    }
}

/// A call that stays open.
#[derive(Debug)]
pub(super) struct Open<A> {
    pub(super) answers: Answers<A>,
    pub(super) link: Arc<Link>,
    /// The token that it was opened with.
    pub(super) token: Option<HeaderValue>,
    /// By when the first answer must have come.
    pub(super) deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// A call that only reads never happened.
pub(super) fn of(effect: Effect, error: StoreError) -> StoreError {
    match effect {
        Effect::Writes | Effect::Settles => error,
        Effect::Reads => StoreError::not_done(error.kind(), error.detail()),
    }
}

fn timed_out(effect: Effect, detail: &str) -> StoreError {
    of(effect, StoreError::unknown(ErrorKind::TimedOut, detail))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// Another call is connecting, for as long as its own time lasts. A call whose time is over before does not wait for
    /// that to tell of a link that failed, or of a token that lapsed; and the link is ended all the same.
    #[tokio::test]
    async fn a_call_ends_in_its_time_whoever_is_connecting() {
        let client = Client::new(EtcdSettings::new(vec!["http://127.0.0.1:1".to_owned()])).unwrap();
        let (near, _far) = tokio::io::duplex(1024);
        let link = Arc::new(Link::over(near, &client.endpoints[0]).await.unwrap());
        let connecting = client.slot.lock().await;
        let error = StoreError::not_done(ErrorKind::Lost, "the member died");
        let over = Instant::now();
        let told = async {
            client.give_up(&link, error, over).await;
            client.forget_token(None, over).await;
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.unwrap();
        drop(connecting);
        while link.lives() {
            tokio::task::yield_now().await;
        }
    }
}
