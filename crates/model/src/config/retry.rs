//! What is tried on another backend.

use std::time::Duration;

/// When a failed attempt is tried on another backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Further attempts per request: 0 to 5.
    pub attempts: u8,
    /// Which failures are tried elsewhere.
    pub on: RetryOn,
    /// From the beginning of an attempt to the response's header; zero: no limit but those of `timeouts`.
    pub per_try_timeout: Duration,
    /// Retries allowed, in percent of requests over the last ten seconds (beside a small reserve): 0 to 100.
    pub budget: u8,
    /// Greatest request body kept for sending again, in bytes.
    pub replay_bytes: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: RetryOn::default(),
            per_try_timeout: Duration::ZERO,
            budget: 20,
            replay_bytes: 64 * 1024,
        }
    }
}

/// Failures that are tried elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect: bool,
    /// The connection closed before a byte of a response.
    pub reset: bool,
    /// No response header within `timeouts.first_byte` or `retries.per_try_timeout`.
    pub timeout: bool,
    /// A response with a status within one of these inclusive ranges, in order.
    pub statuses: Vec<(u16, u16)>,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect: true,
            reset: true,
            timeout: false,
            statuses: Vec::new(),
        }
    }
}

impl RetryOn {
    /// Whether a response with this status is tried elsewhere.
    pub fn status(&self, status: u16) -> bool {
        self.statuses
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// Timeouts of a pool that a route has otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// Instead of `timeouts.first_byte` of the pool.
    pub first_byte: Option<Duration>,
    /// Instead of `timeouts.total` of the pool; zero means no limit.
    pub total: Option<Duration>,
}
