//! When a certificate is ordered anew.
//!
//! A certificate is renewed when a third of its lifetime is left, moved earlier at random by up to a tenth of its
//! lifetime, so that many names, and many machines, do not ask their authority in the same minute. A certificate
//! that is missing is ordered at once. After a failure the next try waits, longer each time, but never so long
//! that a day of trouble is noticed only at the end: authorities limit failed orders per hour, not per day.
//!
//! Times are seconds since the Unix epoch. The clock may be set back or forth: only the due time moves with it.

/// First wait after a failed order, in seconds.
pub const FIRST_WAIT_S: u64 = 60;
/// Longest wait after a failed order while a valid certificate is in use, in seconds.
pub const LONGEST_WAIT_S: u64 = 6 * 3600;
/// Longest wait after a failed order while there is no valid certificate, in seconds.
pub const LONGEST_WAIT_WITHOUT_S: u64 = 1800;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_s: u64,
    /// Last second.
    pub not_after_s: u64,
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordered {
    /// With a certificate.
    Issued(Validity),
    /// Without one. `wait_s`: what the authority asked to wait, if it did.
    Failed {
        /// Seconds (`Retry-After`).
        wait_s: Option<u64>,
    },
}

/// The renewal of one certificate.
#[derive(Clone, Debug)]
pub struct Renewal {
    validity: Option<Validity>,
    failures: u32,
    due_s: u64,
}

impl Renewal {
    /// Begins with the certificate there is, if any. `rand`: any 64 random bits.
    pub fn new(now_s: u64, validity: Option<Validity>, rand: u64) -> Self {
        let due_s = validity.map_or(now_s, |v| renewal_time(v, rand));
        Self {
            validity,
            failures: 0,
            due_s,
        }
    }

    /// When to order next; in the past when it is overdue.
    pub fn due_s(&self) -> u64 {
        self.due_s
    }

    /// Orders that failed since the last one that did not.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Takes the end of an order.
    pub fn handle(&mut self, now_s: u64, ordered: Ordered, rand: u64) {
        match ordered {
            Ordered::Issued(validity) => {
                self.validity = Some(validity);
                self.failures = 0;
                // An authority that hands out what is all but over must not be asked in a loop.
                self.due_s = renewal_time(validity, rand).max(now_s + FIRST_WAIT_S);
            }
            Ordered::Failed { wait_s } => {
                let doubled = FIRST_WAIT_S << self.failures.min(16);
                self.failures = self.failures.saturating_add(1);
                let valid = self.validity.is_some_and(|v| v.not_after_s > now_s);
                let longest = if valid {
                    LONGEST_WAIT_S
                } else {
                    LONGEST_WAIT_WITHOUT_S
                };
                let wait = doubled.min(longest);
                let jittered = wait - wait / 10 + fraction(rand, wait / 5);
                // What the authority asks for counts, within a day: it knows its limits.
                let asked = wait_s.unwrap_or(0).min(86_400);
                self.due_s = now_s + jittered.max(asked);
            }
        }
    }
}

/// When two thirds of the lifetime are over, or up to a tenth of it earlier.
fn renewal_time(validity: Validity, rand: u64) -> u64 {
    let lifetime = validity.not_after_s.saturating_sub(validity.not_before_s);
    let latest = validity.not_after_s.saturating_sub(lifetime / 3);
    latest.saturating_sub(fraction(rand, lifetime / 10))
}

/// Evenly in 0..=`most`.
fn fraction(rand: u64, most: u64) -> u64 {
    let scaled = (u128::from(rand) * (u128::from(most) + 1)) >> 64;
    u64::try_from(scaled).unwrap_or(most)
}
