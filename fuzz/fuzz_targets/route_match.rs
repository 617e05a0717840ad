//! Any bytes as a request to route: no panic, and the index finds the route that a walk through all of them finds.
#![no_main]

use std::sync::OnceLock;

use evenkeel_http::route::{Facts, Router};
use evenkeel_http::{Parsed, RequestHead};
use libfuzzer_sys::fuzz_target;
use model::config::{LoadBalancer, ListenerLimits};
use model::geography::Geography;

const ROUTES: &str = r#"
[load_balancers.x.pools.p]
backend_servers = ["10.0.0.1:80"]
[[load_balancers.x.routes]]
match = { host = "*.a.example", path_prefix = "/api" }
pool = "p"
[[load_balancers.x.routes]]
match = { host = "b.a.example", path = "/x" }
pool = "p"
[[load_balancers.x.routes]]
match = { path_regex = "/[a-z]+/[0-9]*", method = ["GET", "POST"] }
pool = "p"
[[load_balancers.x.routes]]
match = { headers = { "X-Beta" = "1" }, cookies = { "c" = { regex = "a.*" } }, query = { "q" = true } }
pool = "p"
[[load_balancers.x.routes]]
match = { any = [{ client_address = ["10.0.0.0/8"] }, { not = { path_prefix = "/b" } }], language = ["de", "en-GB"] }
pool = "p"
[[load_balancers.x.routes]]
match = { path_prefix = "/api/v1" }
pool = "p"
priority = 5
"#;

fn routes() -> &'static (LoadBalancer, Router) {
    static ROUTER: OnceLock<(LoadBalancer, Router)> = OnceLock::new();
    ROUTER.get_or_init(|| {
        let config = model::parse::parse_toml(ROUTES, "fuzz").expect("the config is valid");
        let lb = config.load_balancers.values().next().expect("one");
        (LoadBalancer::clone(lb), Router::new(lb))
    })
}

fuzz_target!(|bytes: &[u8]| {
    let mut head = RequestHead::new();
    if head.parse(bytes, &ListenerLimits::default()) != Ok(Parsed::Complete) {
        return;
    }
    let (lb, router) = routes();
    let nowhere = |_| Geography::default();
    let facts = Facts::new(&head, bytes, [10, 1, 2, 3].into(), &[], &nowhere);
    let found = router.find(&facts).and_then(|index| lb.routes.get(index));
    let walked = router.explain(&facts);
    let taken = walked.iter().find(|step| step.matched).map(|step| &step.route);
    assert_eq!(found.map(|route| &route.name), taken);
});
