//! A change on trial: whether it is to be taken back.
//!
//! A change that awaits its confirmation is taken back when its time is over, or when what it touched fails more than
//! before. What is looked at is the share of failed responses of each **route** that it touched ([`super::touched`]): a
//! quiet route that breaks is not hidden by a busy one beside it. And that of all touched routes of a load balancer
//! together: many quiet ones say what none of them says alone. The share since the change was seen is held beside that
//! of the minute before; of a route that is new, beside that of its whole load balancer: some other route of it, or
//! none, answered those requests before.
//!
//! Little traffic before says nothing, nor do a few failures since; a share counts as worse only when it is [`TIMES`] as
//! large *and* [`MARGIN`] larger, so that a route that always fails a little more or less is left alone. And only when
//! that is hardly chance: see [`is_worse`]. Many shares are looked at again and again, by every node: what would be rare
//! at one look is certain to happen among thousands.
//!
//! Every LB server judges by its own traffic, so that what is broken on one of them is seen; and tells it to the others
//! ([`Watcher::share`]), so that who hears all of them judges by the sum, too: a route may have too few requests on each
//! LB server and enough on all.
//!
//! Times are milliseconds of one clock that never goes back.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use model::config::Name;
use model::desired::Traffic;
use model::node::{MAX_TRIAL_PARTS, TrialPart, TrialShare};

use super::records::Pending;
use super::touched::{Forebear, Touch};

/// Requests before the change without which a share says nothing.
pub const LEAST_REQUESTS: u64 = 20;
/// Failures since the change without which nothing is taken back.
pub const LEAST_FAILURES: u64 = 8;
/// How much larger the share of failures must be, in percent of all requests.
pub const MARGIN: f64 = 5.0;
/// And how many times as large.
pub const TIMES: f64 = 2.0;
/// How probable it may be that a node takes a change back for mere chance, in all its looks at all its shares together,
/// where a request that fails makes no other one fail.
pub const CHANCE: f64 = 1e-4;
/// Time between two samples of what is before a change.
pub const SAMPLE_MS: u64 = 15_000;
/// Samples that are kept: a minute.
const SAMPLES: usize = 5;

/// What has been answered by the routes of each load balancer since the process began.
pub type Totals = BTreeMap<Name, Routes>;

/// What each route has answered.
pub type Routes = BTreeMap<Name, Traffic>;

/// What was answered before and since, by each touched route, and by all those of a load balancer together (`None`).
type Shares = BTreeMap<(Name, Option<Name>), (Traffic, Traffic)>;

/// Looks on.
#[derive(Debug, Default)]
pub struct Watcher {
    samples: VecDeque<Totals>,
    trial: Option<Trial>,
}

#[derive(Debug)]
struct Trial {
    pending: Pending,
    ends_at: u64,
    /// What was touched, by load balancer.
    touched: BTreeMap<Name, BTreeMap<Name, Before>>,
    /// The totals of the touched load balancers when it was seen.
    seen: Totals,
}

/// What a touched route answered in the time before.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// The route that it was.
    Route(Traffic),
    /// Its whole load balancer: it is new.
    LoadBalancer(Traffic),
}

/// Why a change is taken back.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Nobody confirmed it in time.
    NotConfirmed,
    /// What it touched fails more than before.
    Worse {
        /// Of which load balancer.
        load_balancer: Name,
        /// Which route; `None`: all that it touched, together.
        route: Option<Name>,
        /// Before.
        before: Traffic,
        /// Since.
        after: Traffic,
        /// On so many nodes.
        nodes: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Worse {
            load_balancer,
            route,
            before,
            after,
            nodes,
        } = self
        else {
            return f.write_str("not confirmed in time");
        };
        match route {
            Some(route) => write!(f, "route {route} of {load_balancer} failed more than before: ")?,
            None => write!(
                f,
                "the routes of {load_balancer} that it touched failed more than before, taken together: "
            )?,
        }
        let (before, all_before) = (percent(*before), before.requests);
        let (after, all_after) = (percent(*after), after.requests);
        write!(
            f,
            "{after:.1} % of {all_after} requests, before {before:.1} % of {all_before}"
        )?;
        match nodes {
            0 | 1 => Ok(()),
            _ => write!(f, ", on {nodes} nodes"),
        }
    }
}

impl Watcher {
    /// Remembers what was answered until now. To be given every [`SAMPLE_MS`].
    pub fn sample(&mut self, mut totals: Totals) {
        for routes in totals.values_mut() {
            // The others are found to have answered nothing.
            routes.retain(|_, traffic| traffic.requests > 0);
        }
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(totals);
    }

    /// A change that awaits confirmation was seen: what it touched of each load balancer, how long it still waits, and
    /// what was answered until now. The same one seen again changes nothing.
    pub fn see(
        &mut self,
        now: u64,
        pending: Pending,
        touched: &BTreeMap<Name, Touch>,
        left_ms: u64,
        mut totals: Totals,
    ) {
        if self.awaits().is_some_and(|known| *known == pending) {
            return;
        }
        totals.retain(|name, _| touched.contains_key(name));
        let of = |sample: Option<&Totals>, name| -> Routes {
            sample
                .and_then(|totals| totals.get(name))
                .cloned()
                .unwrap_or_default()
        };
        let befores = touched.iter().map(|(name, touch)| {
            // What is served already may lack a route that was there a moment ago.
            let mut now = of(self.samples.back(), name);
            now.extend(of(Some(&totals), name));
            let minute = since(&now, &of(self.samples.front(), name));
            (name.clone(), before(touch, &minute))
        });
        let touched = befores.collect();
        self.trial = Some(Trial {
            pending,
            ends_at: now.saturating_add(left_ms),
            touched,
            seen: totals,
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

    /// What this node has seen of the change, for the others; nothing where nothing was asked.
    pub fn share(&self, totals: &Totals) -> Option<TrialShare> {
        let trial = self.trial.as_ref()?;
        let shares = trial.shares(totals);
        let mut asked: Vec<_> = shares
            .into_iter()
            .filter(|(_, (_, after))| after.requests > 0)
            .collect();
        // Load balancers as a whole first, then what fails most.
        asked.sort_by_key(|((_, route), (_, after))| {
            (route.is_some(), Reverse(after.failures), Reverse(after.requests))
        });
        asked.truncate(MAX_TRIAL_PARTS);
        let parts = asked
            .into_iter()
            .map(|((load_balancer, route), (before, after))| TrialPart {
                load_balancer,
                route,
                before,
                after,
            });
        let parts: Vec<TrialPart> = parts.collect();
        (!parts.is_empty()).then_some(TrialShare {
            revision: trial.pending.revision,
            parts,
        })
    }

    /// Whether the change is to be taken back now, by what was answered here until now, and by what other nodes tell.
    pub fn judge<'a>(
        &self,
        now: u64,
        totals: &Totals,
        others: impl Iterator<Item = &'a TrialShare>,
    ) -> Option<Why> {
        let trial = self.trial.as_ref()?;
        if now >= trial.ends_at {
            return Some(Why::NotConfirmed);
        }
        let mut shares = trial.shares(totals);
        // Each is judged alone and with what others tell.
        let each = trial.touched.values().map(|routes| routes.len() + 1);
        let judged = 2 * each.sum::<usize>();
        let own = worst(&shares, 1, judged);
        if own.is_some() {
            return own;
        }
        let mut nodes = usize::from(shares.values().any(|(_, after)| after.requests > 0));
        for other in others.filter(|other| other.revision == trial.pending.revision) {
            nodes += 1;
            for part in &other.parts {
                let key = (part.load_balancer.clone(), part.route.clone());
                let (before, after) = shares.entry(key).or_default();
                add(before, part.before);
                add(after, part.after);
            }
        }
        let judged = judged.max(2 * shares.len());
        worst(&shares, nodes, judged)
    }
}

impl Trial {
    fn shares(&self, totals: &Totals) -> Shares {
        let mut shares = Shares::new();
        let nothing = Routes::new();
        for (lb, touched) in &self.touched {
            let now = totals.get(lb).unwrap_or(&nothing);
            let after = since(now, self.seen.get(lb).unwrap_or(&nothing));
            let mut whole = (Traffic::default(), Traffic::default());
            for (route, before) in touched {
                let Some(after) = after.get(route) else { continue };
                let before = match before {
                    Before::Route(before) => {
                        add(&mut whole.0, *before);
                        before
                    }
                    Before::LoadBalancer(before) => before,
                };
                add(&mut whole.1, *after);
                shares.insert((lb.clone(), Some(route.clone())), (*before, *after));
            }
            shares.insert((lb.clone(), None), whole);
        }
        shares
    }
}

/// What each touched route answered in the minute before.
fn before(touch: &Touch, minute: &Routes) -> BTreeMap<Name, Before> {
    let of = |name: &Name| minute.get(name).copied().unwrap_or_default();
    match touch {
        Touch::All => minute
            .keys()
            .map(|name| (name.clone(), Before::Route(of(name))))
            .collect(),
        Touch::Routes(routes) => {
            let mut whole = Traffic::default();
            minute.values().for_each(|traffic| add(&mut whole, *traffic));
            let each = routes.iter().map(|(name, forebear)| {
                let before = match forebear {
                    Forebear::Route(was) => Before::Route(of(was)),
                    Forebear::LoadBalancer => Before::LoadBalancer(whole),
                };
                (name.clone(), before)
            });
            each.collect()
        }
    }
}

/// The first that is worse: a route rather than all together.
fn worst(shares: &Shares, nodes: usize, judged: usize) -> Option<Why> {
    let worse = |((load_balancer, route), (before, after)): (&(Name, Option<Name>), &(Traffic, Traffic))| {
        is_worse(*before, *after, judged).then(|| Why::Worse {
            load_balancer: load_balancer.clone(),
            route: route.clone(),
            before: *before,
            after: *after,
            nodes,
        })
    };
    let of_routes = shares.iter().filter(|((_, route), _)| route.is_some());
    let together = shares.iter().filter(|((_, route), _)| route.is_none());
    of_routes.chain(together).find_map(worse)
}

/// Whether more fails after than before, when so many shares are `judged`.
///
/// How probable it is that of all failures so many came after by chance is what Fisher's exact test says. It is held
/// against [`CHANCE`] divided by the number of shares, so that many are no more likely to be wrong than one; and, for
/// the `n`-th failure, by `n (n + 1)`, the reciprocals of which add up to 1. A share looks worse than at any look before
/// only when something failed again, so that covers all looks, however many.
#[expect(clippy::cast_precision_loss, reason = "counts; a few digits are enough")]
pub fn is_worse(before: Traffic, after: Traffic, judged: usize) -> bool {
    if before.requests < LEAST_REQUESTS || after.failures < LEAST_FAILURES {
        return false;
    }
    let (share_before, share_after) = (percent(before), percent(after));
    if share_after < share_before + MARGIN || share_after < share_before * TIMES {
        return false;
    }
    let failed = after.failures as f64;
    let allowed = CHANCE / judged.max(1) as f64 / (failed * (failed + 1.0));
    ln_chance(before, after) < allowed.ln()
}

/// The logarithm of how probable it is, at most, that of all failures these or more came after, when no request is more
/// likely to fail than another: the upper tail of the hypergeometric distribution.
///
/// To be asked where the share after is at least [`TIMES`] that before. Each further term of the tail is then about half
/// of the one before or less, ever less: a geometric series bounds them.
#[expect(clippy::cast_precision_loss, reason = "counts; a few digits are enough")]
fn ln_chance(before: Traffic, after: Traffic) -> f64 {
    let (all_before, failed_before) = (before.requests as f64, before.failures as f64);
    let (all_after, failed_after) = (after.requests as f64, after.failures as f64);
    let first = ln_choose(all_after, failed_after) + ln_choose(all_before, failed_before)
        - ln_choose(all_before + all_after, failed_before + failed_after);
    let one_more = failed_before / (failed_after + 1.0) * (all_after - failed_after)
        / (all_before - failed_before + 1.0);
    first - (1.0 - one_more.min(0.99)).ln()
}

/// The logarithm of the number of ways to choose `some` of `all`.
fn ln_choose(all: f64, some: f64) -> f64 {
    ln_factorial(all) - ln_factorial(some) - ln_factorial(all - some)
}

/// The logarithm of `n!`, by Stirling's series; right to nine digits.
fn ln_factorial(n: f64) -> f64 {
    // The series is for great numbers: of a small one it is that of a greater one, less what is between.
    let (mut n, mut less) = (n.max(0.0), 0.0);
    while n < 8.0 {
        n += 1.0;
        less += n.ln();
    }
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + series - less
}

/// What was answered between two moments. Of a route that is new since, all of it.
fn since(now: &Routes, then: &Routes) -> Routes {
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

fn add(sum: &mut Traffic, more: Traffic) {
    sum.requests = sum.requests.saturating_add(more.requests);
    sum.failures = sum.failures.saturating_add(more.failures);
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
