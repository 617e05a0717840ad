//! Names of the DNS: one task looks a name up for all pools that want it, and one for each pool tells what was found.
//!
//! Every question leaves from a port of its own, which the system chooses at random, and takes messages from the
//! server's address only. At most [`AT_ONCE`] names are looked up together, and [`PER_SECOND`] questions are sent in a
//! second; the others wait their turn.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::config::{DnsLookup, Name};
use model::state::{Listed, Members, Source};
use reconcile::discovery::dns::{Exchange, Failure, Lookup, Outcome, Seen, Transport, Watch, resolv};
use reconcile::discovery::{Listing, usable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Running, Target, Teller};

/// Names that are looked up at the same time.
pub const AT_ONCE: usize = 256;
/// Questions sent in a second, over all names.
pub const PER_SECOND: u32 = 500;

/// By so much questions that were late may be made up for: a timer is late by a millisecond or two. Beyond it they are
/// not, or a process that stood still would send all at once.
const MADE_UP: Duration = Duration::from_millis(10);

/// Room for a datagram: more than was asked for.
const UDP_ROOM: usize = 4096;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most of it that is read.
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// What is known of the names that are looked up, for whoever shows it.
#[derive(Clone, Debug)]
pub struct Book {
    /// Zero of all milliseconds.
    epoch: Instant,
    names: Arc<Mutex<BTreeMap<DnsLookup, watch::Receiver<Seen>>>>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            names: Arc::default(),
        }
    }
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub struct Looked {
    /// What is asked; without a port.
    pub lookup: DnsLookup,
    /// What is known.
    pub seen: Seen,
    /// For how long no look has brought every answer; `None` before the first that did.
    pub age: Option<Duration>,
}

impl Book {
    /// All names.
    pub fn all(&self) -> Vec<Looked> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now_ms();
        let looked = names.iter().map(|(lookup, seen)| {
            let seen = seen.borrow().clone();
            let age = seen.answered_ms.map(|at| now.saturating_sub(at));
            Looked {
                lookup: lookup.clone(),
                age: age.map(Duration::from_millis),
                seen,
            }
        });
        looked.collect()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The names that are looked up.
pub(super) struct Names {
    running: BTreeMap<DnsLookup, Looking>,
    /// What was wanted last: pools with their lookups.
    pools: BTreeMap<(Name, Name), DnsLookup>,
    /// Members of the process before, of pools whose names were not looked up yet.
    earlier: Members,
    budget: Arc<Budget>,
    book: Book,
}

/// A name that is being looked up.
struct Looking {
    seen: watch::Receiver<Seen>,
    /// Whom it began with.
    earlier: BTreeMap<SocketAddr, u32>,
    _task: Running,
}

impl Looking {
    /// Who is known.
    fn known(&self) -> BTreeMap<SocketAddr, u32> {
        match &self.seen.borrow().members {
            Some(members) => members.as_ref().clone(),
            None => self.earlier.clone(),
        }
    }
}

impl Names {
    pub(super) fn new(earlier: Members, book: Book) -> Self {
        Self {
            running: BTreeMap::new(),
            pools: BTreeMap::new(),
            earlier,
            budget: Arc::default(),
            book,
        }
    }

    /// These are wanted, and no others any more.
    pub(super) fn want(&mut self, targets: &[(&Target, &DnsLookup)]) {
        let mut wanted: BTreeMap<DnsLookup, BTreeMap<SocketAddr, u32>> = BTreeMap::new();
        let mut pools = BTreeMap::new();
        for (target, lookup) in targets {
            let key = lookup.without_port();
            let pool = (target.load_balancer.clone(), target.pool.clone());
            let mut earlier = self.take_earlier(&pool);
            if !self.running.contains_key(&key) {
                earlier.extend(self.known_before(&pool, lookup));
            }
            let earlier = earlier.into_iter().map(|(mut address, weight)| {
                if lookup.port().is_some() {
                    address.set_port(0);
                }
                (address, weight)
            });
            wanted.entry(key).or_default().extend(earlier);
            pools.insert(pool, (*lookup).clone());
        }
        self.pools = pools;
        let before: BTreeSet<DnsLookup> = self.running.keys().cloned().collect();
        self.running.retain(|lookup, _| wanted.contains_key(lookup));
        for (lookup, earlier) in wanted {
            if !before.contains(&lookup) {
                let running = self.start(lookup.clone(), earlier);
                self.running.insert(lookup, running);
            }
        }
        let names = self.running.iter();
        let names = names
            .map(|(lookup, looking)| (lookup.clone(), looking.seen.clone()))
            .collect();
        *self.book.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// What is known of a name that is wanted.
    pub(super) fn seen(&self, lookup: &DnsLookup) -> Option<watch::Receiver<Seen>> {
        Some(self.running.get(&lookup.without_port())?.seen.clone())
    }

    fn start(&self, lookup: DnsLookup, earlier: BTreeMap<SocketAddr, u32>) -> Looking {
        let (tell, seen) = watch::channel(Seen::default());
        let watch = Watch::new(lookup.clone(), earlier.clone(), self.book.now_ms());
        let task = look_after(lookup, watch, self.book.clone(), self.budget.clone(), tell);
        Looking {
            seen,
            earlier,
            _task: Running(tokio::spawn(task).abort_handle()),
        }
    }

    /// Who is known of a pool's name by the lookup that it had until now, with ports as the pool has them: who is asked,
    /// how often and for what may change without anybody being gone. Another name is another list.
    fn known_before(&self, pool: &(Name, Name), now: &DnsLookup) -> BTreeMap<SocketAddr, u32> {
        let before = self.pools.get(pool).filter(|before| before.name == now.name);
        let looking = before.and_then(|before| Some((before, self.running.get(&before.without_port())?)));
        let Some((before, looking)) = looking else {
            return BTreeMap::new();
        };
        let known = looking.known().into_iter().map(|(mut address, weight)| {
            if let Some(port) = before.port() {
                address.set_port(port);
            }
            (address, weight)
        });
        known.collect()
    }

    fn take_earlier(&mut self, pool: &(Name, Name)) -> BTreeMap<SocketAddr, u32> {
        let members = self.earlier.remove(pool);
        let found = members.and_then(|members| members.sources.get(&Source::Dns).cloned());
        let found = found.unwrap_or_default();
        let weights = found
            .members
            .iter()
            .map(|(address, found)| (*address, found.weight));
        weights.collect()
    }
}

/// Tells what is found under a name as the members of a pool that listen on `port`, or on the ports found.
pub(super) async fn follow(mut seen: watch::Receiver<Seen>, port: Option<u16>, mut teller: Teller) {
    loop {
        let known = seen.borrow_and_update().clone();
        let told = match (known.members, known.fault) {
            (Some(members), fault) => {
                let listing = listing(&members, port, known.left_out);
                teller.heard(listing, fault).await
            }
            (None, Some(fault)) => teller.stale(fault).await,
            (None, None) => Ok(()),
        };
        if told.is_err() || seen.changed().await.is_err() {
            return;
        }
    }
}

fn listing(members: &BTreeMap<SocketAddr, u32>, port: Option<u16>, left_out: usize) -> Listing {
    let mut listing = Listing {
        left_out,
        ..Listing::default()
    };
    for (address, weight) in members {
        let address = port.map_or(*address, |port| SocketAddr::new(address.ip(), port));
        let listed = Listed {
            weight: *weight,
            ..Listed::default()
        };
        match usable(address) {
            Ok(address) if listing.members.len() < Teller::MOST => {
                listing.members.insert(address, listed);
            }
            _ => listing.left_out += 1,
        }
    }
    listing
}

/// What all names share.
#[derive(Debug)]
struct Budget {
    looks: Semaphore,
    /// When the next question may be sent. Who waits for that has it, and the others wait for him.
    next: tokio::sync::Mutex<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            looks: Semaphore::new(AT_ONCE),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }
}

impl Budget {
    /// Waits until a question may be sent.
    async fn question(&self) {
        let mut next = self.next.lock().await;
        sleep_until(*next).await;
        let now = Instant::now();
        let turn = now
            .checked_sub(MADE_UP)
            .map_or(now, |earliest| earliest.max(*next));
        *next = turn + Duration::from_secs(1) / PER_SECOND;
    }
}

async fn look_after(
    settings: DnsLookup,
    mut watch: Watch,
    book: Book,
    budget: Arc<Budget>,
    tell: watch::Sender<Seen>,
) {
    let random = || RandomState::new().hash_one(());
    loop {
        if let Some(due) = book.epoch.checked_add(Duration::from_millis(watch.due_ms())) {
            sleep_until(due).await;
        }
        let Ok(_turn) = budget.looks.acquire().await else {
            return;
        };
        let outcome = match servers(&settings).await {
            Ok(servers) => {
                let mut lookup = watch.look(book.now_ms(), servers);
                while let Some(exchange) = lookup.next(book.now_ms(), random()) {
                    budget.question().await;
                    exchange_messages(&exchange, &mut lookup).await;
                }
                lookup.outcome()
            }
            Err(why) => Outcome::failed(why),
        };
        watch.take(book.now_ms(), outcome, random());
        tell.send_replace(watch.seen().clone());
    }
}

/// Whom to ask: as the config says, or as the system does at this moment.
async fn servers(settings: &DnsLookup) -> Result<Vec<SocketAddr>, String> {
    if !settings.resolvers.is_empty() {
        return Ok(settings.resolvers.clone());
    }
    let read = async {
        let file = tokio::fs::File::open(RESOLV_CONF).await?;
        let mut text = Vec::new();
        file.take(MAX_RESOLV_CONF).read_to_end(&mut text).await?;
        io::Result::Ok(text)
    };
    match read.await {
        Ok(text) => Ok(resolv::servers(&String::from_utf8_lossy(&text))),
        // As the system's own resolver takes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(resolv::servers("")),
        Err(error) => Err(format!("cannot read {RESOLV_CONF}: {error}")),
    }
}

/// Sends a question and gives the lookup what comes, until that ends the exchange.
async fn exchange_messages(exchange: &Exchange, lookup: &mut Lookup) {
    let time = Duration::from_millis(exchange.timeout_ms);
    let ended = match exchange.transport {
        Transport::Udp => timeout(time, over_udp(exchange, lookup)).await,
        Transport::Tcp => timeout(time, over_tcp(exchange, lookup)).await,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => lookup.failed(Failure::Unreachable(error.to_string())),
        Err(_) => lookup.failed(Failure::TimedOut),
    }
}

async fn over_udp(exchange: &Exchange, lookup: &mut Lookup) -> io::Result<()> {
    let any: IpAddr = match exchange.server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From now on messages of others do not reach it.
    socket.connect(exchange.server).await?;
    socket.send(&exchange.message).await?;
    let mut buffer = vec![0; UDP_ROOM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if lookup.heard(buffer.get(..length).unwrap_or_default()) {
            return Ok(());
        }
    }
}

async fn over_tcp(exchange: &Exchange, lookup: &mut Lookup) -> io::Result<()> {
    let mut stream = TcpStream::connect(exchange.server).await?;
    let length = u16::try_from(exchange.message.len()).map_err(io::Error::other)?;
    let mut message = length.to_be_bytes().to_vec();
    message.extend(&exchange.message);
    stream.write_all(&message).await?;
    loop {
        let mut message = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut message).await?;
        if lookup.heard(&message) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Scenario: many questions wait for their turn, and the process stands still for ten seconds. What it has missed is
    /// not sent all at once: in no second there are more than may be, and those that a late timer is made up for.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_stood_still_sends_no_burst() {
        let budget = Arc::<Budget>::default();
        let waiting: Vec<_> = (0..1_500)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move {
                    budget.question().await;
                    Instant::now()
                })
            })
            .collect();
        for standing_still in [Duration::from_millis(200), Duration::from_secs(10)] {
            tokio::task::yield_now().await;
            tokio::time::advance(standing_still).await;
        }
        let mut sent = Vec::new();
        for question in waiting {
            sent.push(question.await.unwrap());
        }
        sent.sort();
        let most = PER_SECOND as usize + (MADE_UP.as_millis() / 2) as usize + 1;
        for (first, last) in sent.iter().zip(sent.iter().skip(most)) {
            assert!(last.duration_since(*first) >= Duration::from_secs(1));
        }
        let took = sent.last().unwrap().duration_since(sent[0]);
        assert!(
            took < Duration::from_secs(15),
            "{took:?}: it is slower than it may be"
        );
    }
}
