//! A token bucket as one time: when it will be whole again. Pure: the time is an argument, counted from any one moment.

use std::time::Duration;

/// How much a bucket gives: `burst` at once, then one each `interval`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// What was taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    whole_at: Duration,
}

impl Bucket {
    /// How long until there is one to take; `None` when there is.
    pub(crate) fn wait(self, rate: Rate, now: Duration) -> Option<Duration> {
        let ready_at = self
            .whole_at
            .saturating_sub(rate.interval * rate.burst.saturating_sub(1));
        ready_at.checked_sub(now).filter(|wait| !wait.is_zero())
    }

    /// Takes one.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) {
        self.whole_at = now.max(self.whole_at) + rate.interval;
    }

    /// Whether it is as if nothing had ever been taken.
    pub(crate) fn is_whole(self, now: Duration) -> bool {
        self.whole_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval() {
        let rate = Rate {
            burst: 3,
            interval: Duration::from_secs(2),
        };
        let mut bucket = Bucket::default();
        let mut taken = |s: u64| {
            let now = Duration::from_secs(s);
            let mut count = 0;
            while bucket.wait(rate, now).is_none() {
                bucket.take(rate, now);
                count += 1;
            }
            count
        };
        assert_eq!([100, 101, 102, 107, 1000].map(&mut taken), [3, 0, 1, 2, 3]);
        assert!(!bucket.is_whole(Duration::from_secs(1005)));
        assert!(bucket.is_whole(Duration::from_secs(1006)));
    }
}
