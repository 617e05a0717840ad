//! Matching a route and picking a backend.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use balance::{Balancer, Load, PoolLoad, Rng};
use http::RequestHead;
use http::route::{Facts, Router};
use model::config::{Config, ListenerLimits, Name};
use model::geography::Geography;
use model::snapshot::{Layers, Snapshot};
use model::state::{Observed, Overrides, Timestamp};

/// Backends of the pool that is picked from.
const BACKENDS: u16 = 10;

/// One of so many routes by host and prefix: the one in the middle.
pub(crate) fn find_route(count: usize) -> Box<dyn FnMut()> {
    let mut routes = String::new();
    for n in 0..count {
        write!(
            routes,
            "[[load_balancers.counts.routes]]\npool = \"default\"\n\
             match = {{ host = \"host-{n}.example.org\", path_prefix = \"/cart\" }}\n"
        )
        .expect("a string takes all");
    }
    let config = config("algorithm = \"round_robin\"", &routes);
    let lb = config
        .load_balancers
        .get(&name("counts"))
        .expect("it was declared");
    let router = Router::new(lb);
    let text = format!(
        "GET /cart/items HTTP/1.1\r\nHost: host-{}.example.org\r\n\r\n",
        count / 2
    );
    let mut head = RequestHead::new();
    head.parse(text.as_bytes(), &ListenerLimits::default())
        .expect("a good request");
    Box::new(move || {
        let nowhere = |_| Geography::default();
        let client = IpAddr::from([127, 0, 0, 1]);
        let facts = Facts::new(black_box(&head), text.as_bytes(), client, &[], &nowhere);
        assert!(router.find(&facts).is_some());
    })
}

/// Picks from ten backends of equal weight with a few requests in flight.
pub(crate) fn pick(algorithm: &str) -> Box<dyn FnMut()> {
    let algorithm = match algorithm {
        table @ ("ring" | "maglev") => {
            format!("algorithm = \"consistent_hash\"\nhash = {{ table = \"{table}\" }}")
        }
        other => format!("algorithm = \"{other}\""),
    };
    let balancer = balancer(&algorithm);
    let (mut rng, mut key) = (Rng::new(1), 0u64);
    Box::new(move || {
        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let picked = balancer.pick(black_box(key), &[], 1_000_000, &mut rng);
        assert!(picked.is_some());
    })
}

fn balancer(algorithm: &str) -> Balancer {
    let config = Arc::new(config(algorithm, ""));
    let (overrides, observed) = (Overrides::default(), Observed::default());
    let layers = Layers {
        revision: 1,
        config: &config,
        overrides: &overrides,
        observed: &observed,
    };
    let snapshot = Snapshot::build(layers, None, Timestamp(0));
    let state = snapshot
        .pool(&name("counts"), &name("default"))
        .expect("the pool was declared")
        .clone();
    let loads: Vec<Arc<Load>> = state.members.iter().map(|_| Arc::new(Load::new())).collect();
    for (index, load) in loads.iter().enumerate() {
        (0..index % 3).for_each(|_| load.begin());
    }
    Balancer::new(state, Arc::new(PoolLoad::new()), loads)
}

/// One load balancer with one pool of ten.
fn config(algorithm: &str, routes: &str) -> Config {
    let backends: Vec<String> = (0..BACKENDS)
        .map(|n| format!("\"127.0.0.1:{}\"", 9000 + n))
        .collect();
    let text = format!(
        "[load_balancers.counts]\nlisten = \"127.0.0.1:8080\"\n\
         [load_balancers.counts.pools.default]\n{algorithm}\nbackend_servers = [{}]\n{routes}",
        backends.join(", ")
    );
    model::parse::parse_toml(&text, "counts").expect("a valid config")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a plain name")
}
