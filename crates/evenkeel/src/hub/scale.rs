//! A thousand load balancers with a hundred backends each: what a change of one backend and one verdict cost.
//!
//! The figures of time in `docs/performance.md` come from [`measured`], which passes or fails nothing; run it with
//! `cargo test --release -p evenkeel --bin evenkeel -- --ignored --nocapture hub::scale`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use dataplane::Dataplane;
use model::config::{Config, LoadBalancer, Name};
use model::scrape::Scope;
use model::snapshot::{PoolState, Snapshot};
use model::state::{
    BackendId, Health, Life, Mode, Order, OrderAction, OverrideKey, Overrides, Timestamp, Verdict,
};

use cluster::Standing;

use super::core::{Core, Effect, Input};
use super::fixture::{name, started};

/// One load balancer with so many backends in one pool, the first of this weight.
fn balancer(index: usize, backends: usize, weight: u32) -> String {
    let mut text = format!(
        "[load_balancers.lb{index}]\nlisten = \"127.{}.{}.1:8000\"\n\
         health = {{ type = \"http\", path = \"/health\", interval = \"1h\" }}\nbackend_servers = [",
        100 + index / 256,
        index % 256
    );
    for backend in 0..backends {
        let (a, b) = (index / 256, index % 256);
        match backend {
            0 => write!(
                text,
                "{{ address = \"10.{a}.{b}.{backend}:80\", weight = {weight} }},"
            )
            .unwrap(),
            _ => write!(text, "\"10.{a}.{b}.{}:{}\",", backend % 256, 80 + backend / 256).unwrap(),
        }
    }
    text + "]\n"
}

fn parsed(text: &str) -> Config {
    let parsed = model::parse::parse_toml(text, "test.toml");
    parsed.unwrap_or_else(|errors| panic!("{}\n{text}", errors[0]))
}

fn parse_one(index: usize, backends: usize, weight: u32) -> Arc<LoadBalancer> {
    let config = parsed(&balancer(index, backends, weight));
    config.load_balancers.into_values().next().unwrap()
}

/// So many load balancers, each parsed for itself.
fn config(balancers: usize, backends: usize) -> Arc<Config> {
    let mut config = parsed(&balancer(0, backends, 1));
    for index in 1..balancers {
        let lb = parse_one(index, backends, 1);
        config.load_balancers.insert(lb.name.clone(), lb);
    }
    Arc::new(config)
}

/// The same with the weight of one backend changed.
fn changed(config: &Config, index: usize, backends: usize, weight: u32) -> Arc<Config> {
    let lb = parse_one(index, backends, weight);
    let mut config = config.clone();
    config.load_balancers.insert(lb.name.clone(), lb);
    Arc::new(config)
}

fn id(index: usize, backend: usize) -> BackendId {
    BackendId {
        load_balancer: name(&format!("lb{index}")),
        pool: name("default"),
        address: format!("10.{}.{}.{backend}:80", index / 256, index % 256)
            .parse()
            .unwrap(),
    }
}

fn verdict(index: usize, backend: usize, health: Health) -> Input {
    Input::Verdicts(vec![Verdict {
        backend: id(index, backend),
        health,
        reason: "status 200".into(),
        life: Life::default(),
    }])
}

/// Processor time of a step in all threads, in the order taken: other programs do not count.
#[derive(Default)]
struct Steps(Vec<(String, Vec<Duration>)>);

/// What the threads of this process have run so far; exact, unlike the ticks of `/proc/self/stat`.
fn processor_time() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(of_thread).sum())
}

impl Steps {
    fn time<R>(&mut self, step: (&str, &str), work: impl FnOnce() -> R) -> R {
        let begun = processor_time();
        let result = work();
        let took = processor_time().saturating_sub(begun);
        let step = format!("{}: {}", step.0, step.1);
        match self.0.iter_mut().find(|(known, _)| *known == step) {
            Some((_, times)) => times.push(took),
            None => self.0.push((step, vec![took])),
        }
        result
    }

    fn print(&mut self) {
        for (step, times) in &mut self.0 {
            times.sort();
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "{step:<44} {:>9.3} ms ({:.3}–{:.3}), {} times",
                ms(times[times.len() / 2]),
                ms(times[0]),
                ms(times[times.len() - 1]),
                times.len()
            );
        }
    }
}

fn published(effects: &[Effect]) -> Arc<Snapshot> {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Publish(snapshot) => Some(snapshot.clone()),
        _ => None,
    });
    found.expect("something changed")
}

/// Pools whose state is not the very same in both.
fn rebuilt(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let same = |(key, pool): &(&(Name, Name), &Arc<PoolState>)| {
        before
            .pools
            .get(*key)
            .is_some_and(|before| Arc::ptr_eq(before, pool))
    };
    let rebuilt = after.pools.iter().filter(|entry| !same(entry));
    rebuilt.map(|((lb, pool), _)| format!("{lb}/{pool}")).collect()
}

/// Among fifty load balancers: a verdict, an order and a change of one backend each rebuild one pool; who is checked
/// is told anew only when somebody else is; and a config that was read anew and is the same changes nothing.
#[test]
fn one_thing_that_happens_rebuilds_one_pool() {
    let (now, many) = (started(), config(50, 4));
    let (mut core, _) = Core::new(now, "test.toml".into(), many.clone().into(), Overrides::default());
    let probes = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Probe(_)));
    let mut give = |input: Input| {
        let before = core.snapshot().clone();
        let effects = core.handle(now, input);
        (rebuilt(&before, core.snapshot()), probes(&effects))
    };
    let one = |index: usize| vec![format!("lb{index}/default")];
    assert_eq!(give(verdict(7, 1, Health::Down)), (one(7), false));
    assert_eq!(
        give(Input::Loaded(changed(&many, 9, 4, 5).into())),
        (one(9), false)
    );
    let more = changed(&many, 9, 5, 5);
    assert_eq!(give(Input::Loaded(more.clone().into())), (one(9), true));
    let texts: String = (0..50)
        .map(|index| {
            if index == 9 {
                balancer(9, 5, 5)
            } else {
                balancer(index, 4, 1)
            }
        })
        .collect();
    assert_eq!(
        give(Input::Loaded(Arc::new(parsed(&texts)).into())),
        (Vec::new(), false)
    );
    let order = Order {
        key: OverrideKey {
            load_balancer: name("lb3"),
            address: id(3, 1).address,
        },
        action: OrderAction::Mode(Mode::Maintenance),
        lasts: None,
        by: "alice".into(),
    };
    core.check(&order).unwrap();
    let overrides = ordered(Overrides::default(), &order, now);
    let before = core.snapshot().clone();
    let effects = core.handle(now, Input::Ordered { order, overrides });
    assert_eq!(
        (rebuilt(&before, core.snapshot()), probes(&effects)),
        (one(3), true)
    );
}

/// A thousand load balancers with a hundred backends each, all up, served by a data plane.
struct Measured {
    core: Core,
    dataplane: Arc<Dataplane>,
    steps: Steps,
    now: Timestamp,
}

const BALANCERS: usize = 1000;
const BACKENDS: usize = 100;

#[test]
#[ignore = "measures time, which passes or fails nothing"]
fn measured() {
    let mut all = Measured::start();
    all.first_verdicts();
    for round in 0..20 {
        let input = verdict(500, 5, [Health::Down, Health::Up][round % 2]);
        all.give("verdict", input);
        all.change(300 + round);
        all.order([Mode::Drain, Mode::Ready][round % 2]);
    }
    all.readers();
    all.steps.print();
}

fn resident(when: &str) {
    println!(
        "RSS {when}: {} KiB",
        crate::process::resident_bytes().unwrap_or(0) / 1024
    );
}

impl Measured {
    fn start() -> Self {
        let (now, mut steps) = (started(), Steps::default());
        let text: String = (0..BALANCERS).map(|index| balancer(index, BACKENDS, 1)).collect();
        println!("the config as text: {} bytes", text.len());
        resident("before");
        let config = Arc::new(steps.time(("start", "parse all"), || parsed(&text)));
        resident("with the config");
        let (core, first) = steps.time(("start", "core"), || {
            Core::new(
                now,
                "test.toml".into(),
                config.clone().into(),
                Overrides::default(),
            )
        });
        drop(first);
        resident("with the core");
        let (events, _) = tokio::sync::mpsc::channel(16);
        let options = dataplane::Options {
            threads: 2,
            snapshot: core.snapshot().clone(),
            managed_dir: std::env::temp_dir(),
            secrets: vec![model::config::Secret::new("0123456789abcdef".into())],
            events,
        };
        let dataplane = Arc::new(steps.time(("start", "data plane"), || Dataplane::start(options).unwrap()));
        resident("with the data plane");
        Self {
            core,
            dataplane,
            steps,
            now,
        }
    }

    /// What the shell does with an input.
    fn give(&mut self, what: &'static str, input: Input) {
        let Self {
            core,
            dataplane,
            steps,
            now,
        } = self;
        let effects = steps.time((what, "core"), || core.handle(*now, input));
        let snapshot = published(&effects);
        steps.time((what, "publish"), || dataplane.publish(&snapshot));
        steps.time((what, "view"), || core.view());
        steps.time((what, "next deadline"), || core.deadline());
    }

    /// Every backend up, as it is a while after the start.
    fn first_verdicts(&mut self) {
        let all = (0..BALANCERS).flat_map(|index| (0..BACKENDS).map(move |backend| id(index, backend)));
        let up = |backend| Verdict {
            backend,
            health: Health::Up,
            reason: "status 200".into(),
            life: Life::default(),
        };
        let all: Vec<Verdict> = all.map(up).collect();
        for some in all.chunks(1024) {
            self.give("1024 first verdicts", Input::Verdicts(some.to_vec()));
        }
        resident("with all verdicts");
    }

    fn change(&mut self, index: usize) {
        let Self {
            core,
            dataplane,
            steps,
            ..
        } = self;
        let config = steps.time(("change", "parse one, merge"), || {
            changed(&core.snapshot().config, index, BACKENDS, 2)
        });
        steps.time(("change", "look at TLS"), || dataplane.tls_problems(&config));
        self.give("change", Input::Loaded(config.into()));
        let Self {
            core,
            dataplane,
            steps,
            now,
        } = self;
        let listeners = steps.time(("change", "listeners"), || dataplane.listeners());
        steps.time(("change", "core takes listeners"), || {
            core.handle(*now, Input::Listeners(listeners))
        });
    }

    fn order(&mut self, mode: Mode) {
        let order = Order {
            key: OverrideKey {
                load_balancer: name("lb7"),
                address: id(7, 3).address,
            },
            action: OrderAction::Mode(mode),
            lasts: None,
            by: "alice".into(),
        };
        let Self { core, steps, now, .. } = self;
        steps.time(("order", "check"), || core.check(&order).unwrap());
        let overrides = ordered(Overrides::default(), &order, *now);
        self.give("order", Input::Ordered { order, overrides });
    }

    fn readers(&mut self) {
        let Self {
            core,
            dataplane,
            steps,
            now,
        } = self;
        let process = super::view::Process { started: *now };
        let live = (
            |id: &BackendId| dataplane.live(id),
            |lb: &Name, pool: &Name| dataplane.pool_live(lb, pool),
        );
        let (view, listeners) = (core.view(), dataplane.listeners());
        let status = steps.time(("status", "made"), || {
            view.status(process, *now, &listeners, (&Standing::default(), None), live)
        });
        let json = steps.time(("status", "as JSON"), || serde_json::to_vec(&status).unwrap());
        println!("status: {} bytes", json.len());
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(dataplane.metrics(Scope {
            load_balancer: None,
            backends: usize::MAX,
        }));
        let mut text = String::new();
        steps.time(("metrics", "of the data plane"), || {
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        });
        println!("metrics of the data plane: {} bytes", text.len());
        resident("after a scrape");
    }
}

fn ordered(mut overrides: Overrides, order: &Order, now: Timestamp) -> Overrides {
    super::simulation::stored_with(&mut overrides, order, now)
}
