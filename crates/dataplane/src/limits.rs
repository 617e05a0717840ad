//! The rate limits of a route: asked before anything else is done for a request.
//!
//! What is told is what draft-ietf-httpapi-ratelimit-headers-10 describes: `RateLimit-Policy` names the limit with
//! its quota and window, `RateLimit` what is left of it; `Retry-After` (RFC 9110 section 10.2.3) says the same to
//! those who do not know the other two.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use balance::{RateLimiter, Verdict};
use http::FieldList;
use model::config::RateLimit;

use crate::counters::{Counter, PerShard};
use crate::keys::Sender;
use crate::shard::Shard;

/// A rate limit with its buckets and counts; outlives changes of everything but the limit itself.
#[derive(Debug)]
pub(crate) struct LimitCell {
    pub(crate) config: RateLimit,
    pub(crate) limiter: RateLimiter,
    pub(crate) counters: PerShard<LimitCounters>,
    /// Value of `RateLimit-Policy`.
    policy: String,
}

/// What one shard counts about one limit.
#[derive(Debug, Default)]
pub(crate) struct LimitCounters {
    pub(crate) passed: Counter,
    pub(crate) refused: Counter,
}

impl LimitCell {
    pub(crate) fn new(config: &RateLimit, shards: usize, seed: u64) -> Self {
        let mut policy = format!("\"{}\";q={}", config.name, config.requests);
        // The draft knows whole seconds only; another window is better not told than told wrong.
        if config.per.subsec_nanos() == 0 {
            // Writing into a String cannot fail.
            let _ = write!(policy, ";w={}", config.per.as_secs());
        }
        Self {
            config: config.clone(),
            limiter: RateLimiter::new(config, seed),
            counters: PerShard::new(shards),
            policy,
        }
    }
}

/// Takes a token of each limit, or, where one has none, of none; then the seconds until it has. What there is to
/// tell is added to `extra`.
pub(crate) fn admit(
    limits: &[Arc<LimitCell>],
    sender: &Sender<'_>,
    shard: &Shard,
    now_us: u64,
    extra: &mut FieldList,
) -> Result<(), u32> {
    for (at, cell) in limits.iter().enumerate() {
        let key = sender.limit_key(&cell.config.key);
        let counters = cell.counters.of(shard.index);
        match cell.limiter.take(key, now_us) {
            Verdict::Pass { left, full_in } => {
                counters.passed.add(1);
                if cell.config.announce {
                    tell(cell, left, seconds(full_in), extra);
                }
            }
            Verdict::Refuse { wait } => {
                counters.refused.add(1);
                for earlier in limits.iter().take(at) {
                    earlier.limiter.give_back(sender.limit_key(&earlier.config.key));
                }
                tell(cell, 0, seconds(wait), extra);
                return Err(seconds(wait));
            }
        }
    }
    Ok(())
}

fn tell(cell: &LimitCell, left: u64, until_s: u32, extra: &mut FieldList) {
    extra.push(b"RateLimit-Policy", cell.policy.as_bytes());
    let value = format!("\"{}\";r={left};t={until_s}", cell.config.name);
    extra.push(b"RateLimit", value.as_bytes());
}

/// Whole seconds, so that whoever waits them has waited enough; at least one.
fn seconds(wait: Duration) -> u32 {
    let up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(up).unwrap_or(u32::MAX).max(1)
}

/// What the limits would say to a request now, in words, up to the one that refuses it.
pub(crate) fn explain(limits: &[Arc<LimitCell>], sender: &Sender<'_>, now_us: u64) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    for cell in limits {
        let RateLimit { name, key, burst, .. } = &cell.config;
        match cell.limiter.look(sender.limit_key(key), now_us) {
            Verdict::Pass { left, .. } => {
                words.push(format!("{name} by {key}: passes, {} of {burst} left", left + 1));
            }
            Verdict::Refuse { wait } => {
                words.push(format!("{name} by {key}: refused for another {}s", seconds(wait)));
                return (words, true);
            }
        }
    }
    (words, false)
}
