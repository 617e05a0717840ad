//! A change on trial: whether it is to be taken back.
//!
//! A change that awaits its confirmation is taken back when its time is over, or when what it touched fails more than
//! before. Every LB server judges by its own traffic: the share of failed responses of each touched load balancer
//! since the change was seen, beside that of the minute before. Little traffic says nothing, before or after; a share
//! counts as worse only when it is [`TIMES`] as large *and* [`MARGIN`] larger, so that neither a load balancer that
//! always fails a little nor one that never did is taken back for noise.
//!
//! Times are milliseconds of one clock that never goes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use model::config::Name;
use model::desired::Traffic;

use super::records::Pending;

/// Requests without which a share says nothing: before the change, and since.
pub const LEAST_REQUESTS: u64 = 20;
/// How much larger the share of failures must be, in percent of all requests.
pub const MARGIN: f64 = 5.0;
/// And how many times as large.
pub const TIMES: f64 = 2.0;
/// Time between two samples of what is before a change.
pub const SAMPLE_MS: u64 = 5_000;
/// Samples that are kept: a minute.
const SAMPLES: usize = 13;

/// What has been answered by each load balancer since the process began.
pub type Totals = BTreeMap<Name, Traffic>;

/// Looks on.
#[derive(Debug, Default)]
pub struct Watcher {
    samples: VecDeque<(u64, Totals)>,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    pending: Pending,
    ends_at: u64,
    /// What was answered in the time before, by load balancer.
    before: Totals,
    /// The totals when it was seen.
    seen: Totals,
}

/// Why a change is taken back.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Nobody confirmed it in time.
    NotConfirmed,
    /// A load balancer that it touched fails more than before.
    Worse {
        /// Which.
        load_balancer: Name,
        /// Before.
        before: Traffic,
        /// Since.
        after: Traffic,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConfirmed => f.write_str("not confirmed in time"),
            Self::Worse {
                load_balancer,
                before,
                after,
            } => write!(
                f,
                "{load_balancer} failed more than before: {:.1} % of {} requests, before {:.1} % of {}",
                percent(*after),
                after.requests,
                percent(*before),
                before.requests
            ),
        }
    }
}

impl Watcher {
    /// Remembers what was answered until now. To be given every [`SAMPLE_MS`].
    pub fn sample(&mut self, now: u64, totals: Totals) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, totals));
    }

    /// A change that awaits confirmation was seen: what it touched, how long it still waits, and what was answered
    /// until now. The same one seen again changes nothing.
    pub fn see(
        &mut self,
        now: u64,
        pending: Pending,
        touched: &BTreeSet<Name>,
        left_ms: u64,
        totals: Totals,
    ) {
        if self.awaits().is_some_and(|known| *known == pending) {
            return;
        }
        let of_touched = |totals: &Totals| -> Totals {
            let each = totals.iter().filter(|(name, _)| touched.contains(*name));
            each.map(|(name, traffic)| (name.clone(), *traffic)).collect()
        };
        let seen = of_touched(&totals);
        let oldest = self.samples.front().map(|(_, totals)| of_touched(totals));
        self.trial = Some(Trial {
            pending,
            ends_at: now.saturating_add(left_ms),
            before: since(&seen, &oldest.unwrap_or_default()),
            seen,
        });
    }

    /// Nothing awaits confirmation any more.
    pub fn over(&mut self) {
        self.trial = None;
    }

    /// What awaits confirmation, as far as is known.
    pub fn awaits(&self) -> Option<&Pending> {
        self.trial.as_ref().map(|trial| &trial.pending)
    }

    /// Whether the change is to be taken back now, by what was answered until now.
    pub fn judge(&self, now: u64, totals: &Totals) -> Option<Why> {
        let trial = self.trial.as_ref()?;
        if now >= trial.ends_at {
            return Some(Why::NotConfirmed);
        }
        let after = since(totals, &trial.seen);
        let mut pairs = trial
            .before
            .iter()
            .filter_map(|(name, before)| Some((name, *before, *after.get(name)?)));
        let (load_balancer, before, after) = pairs.find(|(_, before, after)| is_worse(*before, *after))?;
        Some(Why::Worse {
            load_balancer: load_balancer.clone(),
            before,
            after,
        })
    }
}

/// Whether more fails after than before.
pub fn is_worse(before: Traffic, after: Traffic) -> bool {
    if before.requests < LEAST_REQUESTS || after.requests < LEAST_REQUESTS {
        return false;
    }
    let (before, after) = (percent(before), percent(after));
    after >= before + MARGIN && after >= before * TIMES
}

/// What was answered between two moments. Of a load balancer that is new since, all of it.
fn since(now: &Totals, then: &Totals) -> Totals {
    let each = now.iter().map(|(name, now)| {
        let then = then.get(name).copied().unwrap_or_default();
        let between = Traffic {
            requests: now.requests.saturating_sub(then.requests),
            failures: now.failures.saturating_sub(then.failures),
        };
        (name.clone(), between)
    });
    each.collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shares of counts; a few digits are enough"
)]
fn percent(traffic: Traffic) -> f64 {
    match traffic.requests {
        0 => 0.0,
        requests => traffic.failures as f64 / requests as f64 * 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::state::Timestamp;

    fn traffic(requests: u64, failures: u64) -> Traffic {
        Traffic { requests, failures }
    }

    fn totals(requests: u64, failures: u64) -> Totals {
        BTreeMap::from([(Name::parse("shop").unwrap(), traffic(requests, failures))])
    }

    fn pending(revision: u64) -> Pending {
        Pending {
            revision,
            back_to: revision - 1,
            lasts_ms: 120_000,
            until: Timestamp(0),
        }
    }

    fn shop() -> BTreeSet<Name> {
        BTreeSet::from([Name::parse("shop").unwrap()])
    }

    #[test]
    fn worse_is_more_by_far_and_not_by_chance() {
        for (before, after, worse) in [
            (traffic(1000, 0), traffic(100, 5), true),
            (traffic(1000, 0), traffic(100, 4), false),
            (traffic(1000, 0), traffic(19, 19), false),
            (traffic(19, 0), traffic(1000, 1000), false),
            (traffic(1000, 500), traffic(1000, 900), false),
            (traffic(1000, 100), traffic(1000, 200), true),
            (traffic(1000, 100), traffic(1000, 0), false),
        ] {
            assert_eq!(is_worse(before, after), worse, "{before:?} {after:?}");
        }
    }

    /// Scenario: the minute before was good; the failures of last week do not excuse those since the change.
    #[test]
    fn the_minute_before_is_what_counts() {
        let mut watcher = Watcher::default();
        for moment in 0..40 {
            watcher.sample(moment * SAMPLE_MS, totals(100_000 + moment * 100, 50_000));
        }
        let now = 40 * SAMPLE_MS;
        watcher.see(now, pending(7), &shop(), 120_000, totals(104_000, 50_000));
        assert_eq!(watcher.judge(now + 1000, &totals(104_100, 50_002)), None);
        let why = watcher.judge(now + 2000, &totals(104_200, 50_040)).unwrap();
        assert_eq!(
            why.to_string(),
            "shop failed more than before: 20.0 % of 200 requests, before 0.0 % of 1300"
        );
    }

    #[test]
    fn what_it_did_not_touch_is_no_reason() {
        let mut watcher = Watcher::default();
        watcher.sample(0, totals(0, 0));
        watcher.see(60_000, pending(7), &BTreeSet::new(), 120_000, totals(1000, 0));
        assert_eq!(watcher.judge(70_000, &totals(2000, 1000)), None);
    }

    #[test]
    fn time_is_counted_from_when_it_was_seen_and_ends_with_the_confirmation() {
        let mut watcher = Watcher::default();
        watcher.see(10_000, pending(7), &shop(), 120_000, Totals::new());
        // Seen again after a reconnect: the time goes on.
        watcher.see(90_000, pending(7), &shop(), 120_000, Totals::new());
        assert_eq!(watcher.judge(129_999, &Totals::new()), None);
        assert_eq!(watcher.judge(130_000, &Totals::new()), Some(Why::NotConfirmed));
        watcher.over();
        assert_eq!(watcher.judge(200_000, &Totals::new()), None);
        // The next one has its own time.
        watcher.see(200_000, pending(9), &shop(), 1_000, Totals::new());
        assert_eq!(watcher.judge(201_000, &Totals::new()), Some(Why::NotConfirmed));
    }
}
