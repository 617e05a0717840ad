//! Bodies and answers that may have megabytes: read and written on threads where that may take its time. The threads
//! that the API runs on carry the connection to the store too.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use model::config::AdminRole;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::Counters;
use crate::limits::{ANSWER_CHUNK_BYTES, MAX_ANSWER_WAIT, MAX_ANSWERS_AT_ONCE, MAX_CONFIG_BODY_BYTES};
use crate::order::json_problem;
use crate::problem::{Kind, Problem};

// Who administers has turns of his own: viewers who do not read what they asked for must not keep him waiting. So have
// answers about the node: a store that does not answer must not keep anybody from seeing how the node is.
static OF_NODE_TO_ADMINS: Semaphore = Semaphore::const_new(MAX_ANSWERS_AT_ONCE);
static OF_NODE_TO_OTHERS: Semaphore = Semaphore::const_new(MAX_ANSWERS_AT_ONCE);
static OF_STORE_TO_ADMINS: Semaphore = Semaphore::const_new(MAX_ANSWERS_AT_ONCE);
static OF_STORE_TO_OTHERS: Semaphore = Semaphore::const_new(MAX_ANSWERS_AT_ONCE);

/// Who knows what is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    Node,
    Store,
}

/// The right to make one large answer: over when the client has it, or has gone.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: SemaphorePermit<'static>,
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub(crate) struct Text {
    media_type: &'static str,
    bytes: Bytes,
}

/// Waits for a turn of somebody with this role, but not for long.
pub(crate) async fn turn(of: Of, role: AdminRole, counters: &Counters) -> Result<Turn, Problem> {
    let turns = match (of, role) {
        (Of::Node, AdminRole::Admin) => &OF_NODE_TO_ADMINS,
        (Of::Node, _) => &OF_NODE_TO_OTHERS,
        (Of::Store, AdminRole::Admin) => &OF_STORE_TO_ADMINS,
        (Of::Store, _) => &OF_STORE_TO_OTHERS,
    };
    match timeout(MAX_ANSWER_WAIT, turns.acquire()).await {
        Ok(Ok(permit)) => Ok(Turn { _permit: permit }),
        Ok(Err(error)) => Err(Problem::new(Kind::Internal, error.to_string())),
        Err(_) => {
            counters.refuse_answer();
            let detail = format!(
                "{MAX_ANSWERS_AT_ONCE} answers about everything are being made or read already; none ended within \
                 {MAX_ANSWER_WAIT:?}"
            );
            Err(Problem::new(Kind::NoAnswer, detail).retry_after(MAX_ANSWER_WAIT.as_secs()))
        }
    }
}

impl Turn {
    /// The response with what `make` makes, which may take the processor for long.
    pub(crate) async fn answer(
        self,
        make: impl FnOnce() -> Result<Text, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        // What has begun goes on when the client leaves, and so does its turn.
        let (made, turn) = apart(move || (make(), self)).await?;
        let Text { media_type, bytes } = made?;
        let body = Body::new(Pieces { bytes, _turn: turn });
        Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
    }
}

impl Text {
    /// A value as JSON.
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(value);
        Ok(Self {
            media_type: "application/json",
            bytes: bytes
                .map_err(|error| Problem::new(Kind::Internal, error.to_string()))?
                .into(),
        })
    }

    pub(crate) fn toml(text: String) -> Self {
        Self {
            media_type: "application/toml",
            bytes: text.into(),
        }
    }
}

/// A body that is handed over in pieces, as the client reads; whole, it would be out of hand at once and in memory for
/// as long as the client likes.
struct Pieces {
    bytes: Bytes,
    _turn: Turn,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(ANSWER_CHUNK_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }
}

/// What a body with a whole config says.
pub(crate) async fn body<T: DeserializeOwned + Send + 'static>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let bytes = bytes.map_err(|rejection| json_problem(&rejection.into(), MAX_CONFIG_BODY_BYTES))?;
    let whole = Request::from_parts(parts, Body::from(bytes));
    // It waits for nothing any more: all of it is there.
    let read = apart(move || Handle::current().block_on(Json::<T>::from_request(whole, &()))).await?;
    let Json(said) = read.map_err(|rejection| json_problem(&rejection, MAX_CONFIG_BODY_BYTES))?;
    Ok(said)
}

/// Does work that may take the processor for long.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Problem::new(Kind::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    async fn answer(role: AdminRole, counters: &Counters) -> Result<Response, Problem> {
        let turn = turn(Of::Node, role, counters).await?;
        let text = "x".repeat(3 * ANSWER_CHUNK_BYTES + 1);
        turn.answer(|| Ok(Text::toml(text))).await
    }

    /// Scenario: viewers ask for as much as may be asked for, and read nothing. One more is refused, is told when to
    /// come again, and is counted; an administrator is answered, and who asks for what the store has. Once one has read all, or has gone, there is a turn
    /// again.
    #[tokio::test]
    async fn answers_that_nobody_reads_are_few() {
        let counters = Counters::default();
        let mut unread = Vec::new();
        for _ in 0..MAX_ANSWERS_AT_ONCE {
            unread.push(answer(AdminRole::Viewer, &counters).await.unwrap());
        }
        for role in [AdminRole::Viewer, AdminRole::Operator] {
            let refused = answer(role, &counters).await.unwrap_err().into_response();
            assert_eq!(refused.status(), 503);
            assert_eq!(refused.headers()[header::RETRY_AFTER], "3");
        }
        assert_eq!(counters.refused_answers(), 2);
        turn(Of::Store, AdminRole::Viewer, &counters).await.unwrap();
        let own = answer(AdminRole::Admin, &counters).await.unwrap();
        let bytes = axum::body::to_bytes(own.into_body(), usize::MAX).await.unwrap();
        assert_eq!(bytes.len(), 3 * ANSWER_CHUNK_BYTES + 1);
        let read = unread.pop().unwrap().into_body();
        axum::body::to_bytes(read, usize::MAX).await.unwrap();
        unread.push(answer(AdminRole::Viewer, &counters).await.unwrap());
        drop(unread.pop());
        answer(AdminRole::Viewer, &counters).await.unwrap();
        assert_eq!(counters.refused_answers(), 2);
    }
}
