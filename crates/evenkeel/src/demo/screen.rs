//! What the demo shows: on a terminal one screen drawn again each second, elsewhere a line now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::config::DEFAULT_ADMIN_LISTEN;
use model::state::Health;
use model::status::{BackendStatus, Status};

use super::children::{AWAY, Children};
use super::visitor::Visits;
use crate::hub;
use crate::table::{Cell, Paint, Table, Tone};
use crate::text::{counted, duration, utc};

/// Events shown on the screen.
const EVENTS_SHOWN: usize = 8;
/// Pause between two pictures on a terminal.
const PICTURE: Duration = Duration::from_secs(1);
/// Pause between two lines elsewhere.
const LINE: Duration = Duration::from_secs(5);

/// The view.
pub(super) struct Screen {
    is_terminal: bool,
    paint: Paint,
    listen: SocketAddr,
    admin: SocketAddr,
    introduced: bool,
    events_told: BTreeSet<(u64, String, String)>,
    before: BTreeMap<SocketAddr, u64>,
    before_at: Instant,
}

impl Screen {
    pub(super) fn new(is_terminal: bool, paint: Paint, listen: SocketAddr, admin: SocketAddr) -> Self {
        Self {
            is_terminal,
            paint,
            listen,
            admin,
            introduced: false,
            events_told: BTreeSet::new(),
            before: BTreeMap::new(),
            before_at: Instant::now(),
        }
    }

    /// Time to the next call of [`Screen::show`].
    pub(super) fn pause(&self) -> Duration {
        if self.is_terminal { PICTURE } else { LINE }
    }

    /// Draws the state.
    pub(super) fn show(&mut self, status: &Status, children: &Children, visits: Option<Visits>) {
        let rates = self.rates(status);
        let text = if self.is_terminal {
            self.picture(status, children, visits, &rates)
        } else {
            self.lines(status, children, visits, &rates)
        };
        let mut out = std::io::stdout().lock();
        // Whoever closed the other end does not want to see more; the demo itself goes on.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Requests per second of each backend since the last call.
    fn rates(&mut self, status: &Status) -> BTreeMap<SocketAddr, f64> {
        let seconds = self.before_at.elapsed().as_secs_f64().max(0.001);
        let first = self.before.is_empty();
        let mut rates = BTreeMap::new();
        for backend in &backends(status) {
            let before = self.before.insert(backend.address, backend.live.requests);
            let more = backend.live.requests.saturating_sub(before.unwrap_or(0));
            rates.insert(backend.address, if first { 0.0 } else { more as f64 / seconds });
        }
        self.before_at = Instant::now();
        rates
    }

    fn picture(
        &self,
        status: &Status,
        children: &Children,
        visits: Option<Visits>,
        rates: &BTreeMap<SocketAddr, f64>,
    ) -> String {
        let mut text = self.introduction(children);
        text.push('\n');
        let mut table = Table::new(&[
            "BACKEND",
            "ADDRESS",
            "PROCESS>",
            "STATE",
            "HEALTH",
            "PER SECOND>",
            "REQUESTS>",
            "FAILURES>",
        ]);
        for b in &backends(status) {
            table.row(vec![
                Cell::text(children.at(b.address).map_or("", |c| c.name.as_str())),
                Cell::text(b.address.to_string()),
                Cell::number(process(children, b.address)),
                Cell::tone(b.eligibility.replace('_', " "), tone(b)),
                Cell::text(format!("{}: {}", b.health.as_str(), b.health_reason)),
                Cell::number(format!("{:.1}", rates.get(&b.address).unwrap_or(&0.0))),
                Cell::number(b.live.requests),
                Cell::number(b.live.failures),
            ]);
        }
        text.push_str(&table.render(2, self.paint));
        if let Some(visits) = visits {
            let _ = writeln!(text, "\n  {}", self.visits(visits));
        }
        text.push('\n');
        for event in status.events.iter().rev().take(EVENTS_SHOWN).rev() {
            let tone = if hub::is_bad(&event.kind) {
                Tone::Bad
            } else {
                Tone::Plain
            };
            let line = format!(
                "{} {} {}: {}",
                utc(event.at),
                event.kind,
                event.subject,
                event.message
            );
            let _ = writeln!(text, "  {}", self.paint.text(tone, &line));
        }
        // Home; each line cleared to its end; what is below, cleared: drawing over does not flicker.
        format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
    }

    fn lines(
        &mut self,
        status: &Status,
        children: &Children,
        visits: Option<Visits>,
        rates: &BTreeMap<SocketAddr, f64>,
    ) -> String {
        let mut text = String::new();
        if !std::mem::replace(&mut self.introduced, true) {
            text.push_str(&self.introduction(children));
            text.push('\n');
        }
        for event in &status.events {
            let key = (event.at.0, event.kind.clone(), event.subject.clone());
            if self.events_told.insert(key) {
                let _ = writeln!(
                    text,
                    "{} {} {}: {}",
                    utc(event.at),
                    event.kind,
                    event.subject,
                    event.message
                );
            }
        }
        let oldest = status.events.first().map_or(0, |e| e.at.0);
        self.events_told.retain(|(at, ..)| *at >= oldest);
        let _ = write!(text, "{}", utc(status.now));
        for b in &backends(status) {
            let name = children.at(b.address).map_or("", |c| c.name.as_str());
            let rate = rates.get(&b.address).unwrap_or(&0.0);
            let _ = write!(text, " | {name} {} {rate:.1}/s", b.eligibility.replace('_', " "));
        }
        if let Some(visits) = visits {
            let _ = write!(text, " | {}", self.visits(visits));
        }
        text.push('\n');
        text
    }

    fn introduction(&self, children: &Children) -> String {
        let url = format!("http://{}/", self.listen);
        // Commands can be short where the admin API is at its usual place.
        let admin = if self.admin.to_string() == DEFAULT_ADMIN_LISTEN {
            String::new()
        } else {
            format!(" --admin {}", self.admin)
        };
        // By the name it was started with: who runs it from a build directory has no `evenkeel` in the path.
        let me = std::env::args().next().unwrap_or_else(|| "evenkeel".to_owned());
        let mut text = format!(
            "{} {url}\n\n  Try, in another terminal:\n    curl {url}\n",
            self.paint.text(Tone::Title, "Evenkeel demo: open")
        );
        if let Some((backend, pid)) = children.first_running().and_then(|b| Some((b, b.pid()?))) {
            let back = duration(AWAY);
            let what = format!("# {} dies; nobody notices; it is back in {back}", backend.name);
            let _ = writeln!(text, "    kill -9 {pid}        {}", self.faint(&what));
        }
        if let Some(last) = children.addresses().last() {
            let _ = writeln!(text, "    {me} backend drain demo {last}{admin}");
            let _ = writeln!(text, "    {me} backend ready demo {last}{admin}");
        }
        let _ = writeln!(
            text,
            "    curl {url} -H 'X-Beta-User: 1'        {}",
            self.faint("# a route of its own: to two of the three")
        );
        let _ = writeln!(
            text,
            "    curl -i {url}limited        {}",
            self.faint("# the fourth within ten seconds is refused")
        );
        let _ = writeln!(text, "    {me} status{admin}");
        let _ = writeln!(text, "    {me} explain --listener demo GET /limited{admin}");
        let _ = writeln!(
            text,
            "    {me} why --all{admin}        {}",
            self.faint("# what became of the last requests")
        );
        let _ = writeln!(text, "    curl http://{}/metrics", self.admin);
        text.push_str("  Ctrl-C ends it and everything it started.\n");
        text
    }

    fn faint(&self, text: &str) -> String {
        self.paint.text(Tone::Faint, text)
    }

    fn visits(&self, visits: Visits) -> String {
        let ok = usize::try_from(visits.ok).unwrap_or(usize::MAX);
        let tone = if visits.failed == 0 { Tone::Good } else { Tone::Bad };
        let failed = self.paint.text(tone, &format!("{} failed", visits.failed));
        format!("the visitor saw {}, {failed}", counted(ok, "page"))
    }
}

/// The backends, each once with what it did in all pools.
fn backends(status: &Status) -> Vec<BackendStatus> {
    let mut merged: Vec<BackendStatus> = Vec::new();
    let pools = status.load_balancers.iter().flat_map(|lb| &lb.pools);
    // The pool of all of them comes last by name.
    for backend in pools.rev().flat_map(|pool| &pool.backends) {
        match merged.iter_mut().find(|known| known.address == backend.address) {
            Some(known) => {
                known.live.requests += backend.live.requests;
                known.live.failures += backend.live.failures;
            }
            None => merged.push(backend.clone()),
        }
    }
    merged
}

fn process(children: &Children, address: SocketAddr) -> String {
    let Some(child) = children.at(address) else {
        return String::new();
    };
    match (child.pid(), child.back_in()) {
        (Some(pid), _) => pid.to_string(),
        (None, Some(back)) => format!("back in {}s", back.as_secs()),
        (None, None) => String::new(),
    }
}

fn tone(backend: &BackendStatus) -> Tone {
    match (backend.eligibility.as_str(), backend.health) {
        (_, Health::Down) | ("ejected", _) => Tone::Bad,
        ("eligible", _) => Tone::Good,
        _ => Tone::Warning,
    }
}
