//! When a change on trial is taken back, by what its routes answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_reconcile::desired::records::Pending;
use evenkeel_reconcile::desired::touched::{Forebear, Touch, touched};
use evenkeel_reconcile::desired::trial::{
    LEAST_FAILURES, LEAST_REQUESTS, SAMPLE_MS, Totals, Watcher, Why, is_worse,
};
use model::config::{LoadBalancer, Name};
use model::desired::Traffic;
use model::node::{MAX_TRIAL_PARTS, TrialShare};
use model::parse::check_declared;
use model::plan::Format;
use model::state::Timestamp;
use sim::Random;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn traffic(requests: u64, failures: u64) -> Traffic {
    Traffic { requests, failures }
}

/// Totals of the routes of `shop`.
fn totals(routes: &[(&str, u64, u64)]) -> Totals {
    let each = routes
        .iter()
        .map(|(route, requests, failures)| (name(route), traffic(*requests, *failures)));
    BTreeMap::from([(name("shop"), each.collect())])
}

fn pending(revision: u64) -> Pending {
    Pending {
        revision,
        back_to: revision - 1,
        lasts_ms: 120_000,
        until: Timestamp(0),
    }
}

/// These routes of `shop` were touched and are what they were.
fn shop(routes: &[&str]) -> BTreeMap<Name, Touch> {
    let each = routes
        .iter()
        .map(|route| (name(route), Forebear::Route(name(route))));
    BTreeMap::from([(name("shop"), Touch::Routes(each.collect()))])
}

fn alone<'a>() -> std::iter::Empty<&'a TrialShare> {
    std::iter::empty()
}

#[test]
fn worse_is_more_by_far_and_not_by_chance() {
    for (before, after, judged, worse) in [
        // A few failures may be chance.
        (traffic(20, 0), traffic(20, 1), 1, false),
        (traffic(1000, 0), traffic(100, 7), 1, false),
        (traffic(1000, 0), traffic(100, 8), 1, true),
        (traffic(1000, 5), traffic(100, 8), 1, false),
        // What breaks wholly is found soon, sooner the more is known of before.
        (traffic(20, 0), traffic(8, 8), 2, true),
        (traffic(20, 0), traffic(8, 8), 1000, false),
        (traffic(1000, 0), traffic(8, 8), 100_000, true),
        (traffic(20, 0), traffic(20, 20), 1000, true),
        (traffic(1000, 0), traffic(7, 7), 1, false),
        (traffic(19, 0), traffic(1000, 1000), 1, false),
        // By far.
        (traffic(1_000_000, 10_000), traffic(1_000_000, 50_000), 1, false),
        (traffic(1_000_000, 10_000), traffic(1_000_000, 70_000), 1, true),
        (traffic(1000, 500), traffic(1000, 900), 1, false),
        (traffic(1000, 100), traffic(1000, 200), 1, true),
        (traffic(1000, 100), traffic(1000, 0), 1, false),
        (traffic(u64::MAX, 0), traffic(u64::MAX, 0), 1, false),
    ] {
        let found = is_worse(before, after, judged);
        assert_eq!(found, worse, "{before:?} {after:?} {judged}");
    }
}

/// Scenario: 50 routes on 8 LB servers, all of which fail 1 % of their requests before and after a harmless change; each
/// is looked at each second for two minutes, by each LB server and by one that hears all of them.
#[test]
fn a_harmless_change_is_hardly_ever_taken_back() {
    let runs = sim::seeds(20);
    let reverted = (0..runs)
        .filter(|seed| many_routes(*seed, None).is_some())
        .count();
    println!("{reverted} of {runs} taken back");
    assert!(
        reverted * 100 <= usize::try_from(runs).unwrap(),
        "{reverted} of {runs}"
    );
}

/// Scenario: the same, but one route, with a request a second on each LB server, fails every other time since.
#[test]
fn a_quiet_route_that_fails_half_its_requests_is_found_among_many() {
    let runs = sim::seeds(20);
    let mut seconds: Vec<u64> = (0..runs)
        .filter_map(|seed| many_routes(seed, Some(500)))
        .collect();
    seconds.sort_unstable();
    println!("{} of {runs} taken back, after {seconds:?} s", seconds.len());
    assert!(
        seconds.len() as u64 * 100 >= runs * 99,
        "{} of {runs}",
        seconds.len()
    );
    assert!(seconds[seconds.len() / 2] < 30, "{seconds:?}");
}

/// A run of two minutes after one before; the second in which the change was taken back. The first route has a request
/// a second on each LB server, and fails so often in a thousand times since; the others have up to eight, and fail ten.
fn many_routes(seed: u64, failing: Option<u64>) -> Option<u64> {
    const ROUTES: usize = 50;
    const NODES: usize = 8;
    let mut random = Random(seed);
    let routes: Vec<String> = (0..ROUTES).map(|route| format!("r{route}")).collect();
    let rates: Vec<u64> = (0..ROUTES)
        .map(|route| if route == 0 { 1 } else { random.within(1, 9) })
        .collect();
    let all: Vec<&str> = routes.iter().map(String::as_str).collect();
    let touched = shop(&all);
    let mut counted = vec![totals(&all.iter().map(|route| (*route, 0, 0)).collect::<Vec<_>>()); NODES];
    let second = |random: &mut Random, counted: &mut Vec<Totals>, failing: Option<u64>| {
        for totals in counted {
            for (at, traffic) in totals.values_mut().flat_map(BTreeMap::values_mut).enumerate() {
                // In the order of their names: the first is the first.
                let often = failing.filter(|_| at == 0).unwrap_or(10);
                traffic.requests += rates[at];
                traffic.failures += (0..rates[at]).filter(|_| random.chance(often)).count() as u64;
            }
        }
    };
    let mut watchers: Vec<Watcher> = Vec::new();
    watchers.resize_with(NODES + 1, Watcher::default);
    watchers
        .iter_mut()
        .zip(&counted)
        .for_each(|(watcher, totals)| watcher.sample(totals.clone()));
    (0..60).for_each(|_| second(&mut random, &mut counted, None));
    for (node, watcher) in watchers.iter_mut().enumerate() {
        let seen = counted.get(node).cloned().unwrap_or_default();
        watcher.see(60_000, pending(7), &touched, 120_000, seen);
    }
    for at in 1..120 {
        second(&mut random, &mut counted, failing);
        let now = 60_000 + at * 1000;
        let alone = watchers
            .iter()
            .zip(&counted)
            .any(|(watcher, totals)| watcher.judge(now, totals, alone()).is_some());
        let shares: Vec<TrialShare> = watchers
            .iter()
            .zip(&counted)
            .filter_map(|(watcher, totals)| watcher.share(totals))
            .collect();
        let together = watchers[NODES].judge(now, &Totals::new(), shares.iter());
        if alone || together.is_some() {
            return Some(at);
        }
    }
    None
}

/// Scenario: the minute before was good; the failures of last week do not excuse those since the change.
#[test]
fn the_minute_before_is_what_counts() {
    let mut watcher = Watcher::default();
    let each = SAMPLE_MS / 1000 * 20;
    for moment in 0..40 {
        watcher.sample(totals(&[("api", 100_000 + moment * each, 50_000)]));
    }
    let seen = 100_000 + 40 * each;
    let now = 40 * SAMPLE_MS;
    let at = |more, failed: u64| totals(&[("api", seen + more, 50_000 + failed)]);
    watcher.see(now, pending(7), &shop(&["api"]), 120_000, at(0, 0));
    assert_eq!(watcher.judge(now + 1000, &at(100, 2), alone()), None);
    let why = watcher.judge(now + 2000, &at(200, 40), alone()).unwrap();
    assert_eq!(
        why.to_string(),
        "route api of shop failed more than before: 20.0 % of 200 requests, before 0.0 % of 1500"
    );
}

/// Scenario: a route with a request now and then is broken by the change, beside one with thousands a second that is
/// well: of all requests 1 % fail, of that route's all.
#[test]
fn a_quiet_route_is_not_hidden_by_a_busy_one() {
    let mut watcher = Watcher::default();
    watcher.sample(totals(&[("busy", 0, 0), ("quiet", 0, 0)]));
    let at = |busy, quiet, failed| totals(&[("busy", busy, 0), ("quiet", quiet, failed)]);
    let both = shop(&["busy", "quiet"]);
    watcher.see(60_000, pending(7), &both, 120_000, at(100_000, 30, 0));
    assert_eq!(watcher.judge(62_000, &at(102_000, 37, 7), alone()), None);
    let why = watcher.judge(63_000, &at(103_000, 38, 8), alone()).unwrap();
    assert!(why.to_string().starts_with("route quiet of shop failed"), "{why}");
}

/// Scenario: thirty routes, each with so little traffic that it says nothing, all broken at once.
#[test]
fn many_quiet_routes_say_together_what_none_says_alone() {
    let names: Vec<String> = (0..30).map(|n| format!("r{n}")).collect();
    let at = |requests, failures| -> Totals {
        let each: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), requests, failures))
            .collect();
        totals(&each)
    };
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut watcher = Watcher::default();
    watcher.sample(at(0, 0));
    watcher.see(60_000, pending(7), &shop(&all), 120_000, at(10, 0));
    assert_eq!(watcher.judge(61_000, &at(12, 0), alone()), None);
    let why = watcher.judge(62_000, &at(12, 1), alone()).unwrap();
    assert_eq!(
        why.to_string(),
        "the routes of shop that it touched failed more than before, taken together: 50.0 % of 60 requests, \
         before 0.0 % of 300"
    );
}

/// Scenario: the change did not touch the route that begins to fail; then one that touched nothing of what is served.
#[test]
fn what_it_did_not_touch_is_no_reason() {
    for touched in [shop(&["api"]), BTreeMap::new()] {
        let mut watcher = Watcher::default();
        watcher.sample(totals(&[("other", 0, 0), ("api", 0, 0)]));
        let seen = totals(&[("other", 1000, 0), ("api", 1000, 0)]);
        watcher.see(60_000, pending(7), &touched, 120_000, seen);
        let now = totals(&[("other", 2000, 1000), ("api", 2000, 0)]);
        assert_eq!(watcher.judge(70_000, &now, alone()), None);
    }
}

/// Scenario: a route is new. Its requests were answered by the rest of the load balancer before, so that is what it is
/// held against: it fails, and is taken back. With a load balancer that failed as much before, it is not.
#[test]
fn a_new_route_is_held_against_its_load_balancer() {
    for (failed_before, worse) in [(0, true), (600, false)] {
        let mut watcher = Watcher::default();
        watcher.sample(totals(&[("default", 0, 0)]));
        let new = Touch::Routes(vec![
            (name("canary"), Forebear::LoadBalancer),
            (name("default"), Forebear::Route(name("default"))),
        ]);
        let touched = BTreeMap::from([(name("shop"), new)]);
        let at =
            |default, failed, canary, lost| totals(&[("default", default, failed), ("canary", canary, lost)]);
        watcher.see(
            60_000,
            pending(7),
            &touched,
            120_000,
            at(1000, failed_before, 0, 0),
        );
        let why = watcher.judge(61_000, &at(2000, failed_before, 40, 40), alone());
        assert_eq!(why.is_some(), worse, "{why:?}");
    }
}

#[test]
fn time_is_counted_from_when_it_was_seen_and_ends_with_the_confirmation() {
    let mut watcher = Watcher::default();
    let nothing = Totals::new();
    watcher.see(10_000, pending(7), &shop(&["api"]), 120_000, Totals::new());
    // Seen again after a reconnect: the time goes on.
    watcher.see(90_000, pending(7), &shop(&["api"]), 120_000, Totals::new());
    assert_eq!(watcher.judge(129_999, &nothing, alone()), None);
    assert_eq!(watcher.judge(130_000, &nothing, alone()), Some(Why::NotConfirmed));
    watcher.over();
    assert_eq!(watcher.judge(200_000, &nothing, alone()), None);
    // The next one has its own time.
    watcher.see(200_000, pending(9), &shop(&["api"]), 1_000, Totals::new());
    assert_eq!(watcher.judge(201_000, &nothing, alone()), Some(Why::NotConfirmed));
}

/// Scenario: requests for some routes arrive at random at several LB servers, each of which tells what it has seen.
/// Who hears all of them judges as one would that had taken every request itself. What others tell of another change,
/// or of what nobody asked for, changes nothing; and what is told is bounded.
#[test]
fn nodes_together_judge_as_one_that_takes_all_requests() {
    let (mut reverted, mut by_the_sum, mut compared) = (0, 0, 0);
    for seed in 0..sim::seeds(500) {
        let mut random = Random(seed);
        let nodes = usize::try_from(random.within(2, 8)).unwrap();
        let routes: Vec<String> = (0..random.within(1, 6)).map(|n| format!("r{n}")).collect();
        let broken = random.below(routes.len() as u64 + 1);
        let mut counted = vec![Totals::new(); nodes + 1];
        let ask = |random: &mut Random, counted: &mut Vec<Totals>, failing: Option<u64>| {
            let route = random.below(routes.len() as u64);
            let node = usize::try_from(random.below(nodes as u64)).unwrap();
            let fails = random.chance(if failing == Some(route) { 300 } else { 5 });
            for at in [node, nodes] {
                let routes = counted[at].entry(name("shop")).or_default();
                let traffic = routes.entry(name(&format!("r{route}"))).or_default();
                traffic.requests += 1;
                traffic.failures += u64::from(fails);
            }
        };
        let mut watchers: Vec<Watcher> = Vec::new();
        watchers.resize_with(nodes + 1, Watcher::default);
        for (watcher, totals) in watchers.iter_mut().zip(&counted) {
            watcher.sample(totals.clone());
        }
        for _ in 0..random.below(400) {
            ask(&mut random, &mut counted, None);
        }
        let all: Vec<&str> = routes.iter().map(String::as_str).collect();
        for (watcher, totals) in watchers.iter_mut().zip(&counted) {
            watcher.see(60_000, pending(7), &shop(&all), 120_000, totals.clone());
        }
        let seen = counted.clone();
        for step in 0..20 {
            for _ in 0..random.below(40) {
                ask(&mut random, &mut counted, Some(broken));
            }
            let now = 61_000 + step * 1000;
            let shares: Vec<TrialShare> = (1..nodes)
                .filter_map(|node| watchers[node].share(&counted[node]))
                .collect();
            let other = TrialShare {
                revision: 6,
                ..watchers[nodes].share(&counted[nodes]).unwrap_or(TrialShare {
                    revision: 6,
                    parts: Vec::new(),
                })
            };
            assert!(shares.iter().all(|share| share.parts.len() <= MAX_TRIAL_PARTS));
            let own = watchers[0].judge(now, &counted[0], alone());
            let told = shares.iter().chain([&other]);
            let together = watchers[0].judge(now, &counted[0], told);
            let one = watchers[nodes].judge(now, &counted[nodes], alone());
            // What is broken for one of them is seen too. Of what was not asked for since, nobody tells what was before.
            if (0..nodes).all(|node| asked_since(&counted[node], &seen[node]) == routes.len()) {
                assert_eq!(together.is_some(), one.is_some() || own.is_some(), "seed {seed}");
                compared += 1;
            }
            if let Some(Why::Worse {
                route, before, after, ..
            }) = &together
            {
                assert!(
                    before.requests >= LEAST_REQUESTS && after.failures >= LEAST_FAILURES,
                    "seed {seed}"
                );
                let expected = format!("r{broken}");
                let found = route.as_ref().map(|route| route.as_str().to_owned());
                assert!(own.is_some() || found.is_none_or(|found| found == expected));
                reverted += 1;
                by_the_sum += usize::from(own.is_none());
                break;
            }
        }
    }
    println!("{reverted} taken back, {by_the_sum} of them by the sum alone; compared {compared} times");
    assert!(
        reverted > 50 && by_the_sum > 20 && compared > 1000,
        "{reverted} {by_the_sum} {compared}"
    );
}

/// Routes of `shop` that were asked for between two moments.
fn asked_since(now: &Totals, then: &Totals) -> usize {
    let of = |totals: &Totals, route: &Name| {
        let found = totals.get(&name("shop")).and_then(|routes| routes.get(route));
        found.map_or(0, |traffic| traffic.requests)
    };
    let routes = now.values().flat_map(BTreeMap::keys);
    routes.filter(|route| of(now, route) > of(then, route)).count()
}

fn balancer(text: &str) -> Arc<LoadBalancer> {
    let text = format!("[load_balancers.shop]\nlisten = \"127.0.0.1:80\"\n{text}");
    let read = check_declared(&text, Format::Toml, "lbs.toml", |_| None).unwrap();
    read.load_balancers[&name("shop")].balancer.clone()
}

/// Touched routes with what they were.
fn touches(before: &str, after: &str) -> Vec<String> {
    let Touch::Routes(routes) = touched(Some(&balancer(before)), Some(&balancer(after))) else {
        panic!("all");
    };
    let each = routes.iter().map(|(name, forebear)| match forebear {
        Forebear::Route(was) if was == name => name.to_string(),
        Forebear::Route(was) => format!("{name} was {was}"),
        Forebear::LoadBalancer => format!("{name} is new"),
    });
    each.collect()
}

const POOLS: &str =
    "pools.a.backend_servers = [\"10.0.0.1:80\"]\npools.b.backend_servers = [\"10.0.0.2:80\"]\n";

fn routes(pools: &str, routes: &[&str]) -> String {
    let each = routes
        .iter()
        .map(|route| format!("[[load_balancers.shop.routes]]\n{route}\n"));
    pools.to_owned() + &each.collect::<String>()
}

/// Scenario: what a change touches, case by case.
#[test]
fn a_route_is_touched_by_itself_its_pool_and_what_may_bring_it_other_requests() {
    let (api, rest) = ("match.path = \"/api/*\"\npool = \"a\"", "pool = \"b\"");
    let before = routes(POOLS, &[api, rest]);
    let nobody: [&str; 0] = [];
    assert_eq!(touches(&before, &before), nobody);
    // Its pool has another backend.
    let moved = POOLS.replace("10.0.0.1:80", "10.0.0.9:80");
    assert_eq!(touches(&before, &routes(&moved, &[api, rest])), ["route-1"]);
    // It does something else, and matches the same.
    let to_b = api.replace("\"a\"", "\"b\"");
    let x = "match.path = \"/x\"\npool = \"a\"";
    let (same, other) = (routes(POOLS, &[api, rest, x]), routes(POOLS, &[&to_b, rest, x]));
    assert_eq!(touches(&same, &other), ["route-1"]);
    // One is new in front of the others, which have other names by their places then; so does who removes it.
    let with_new = routes(POOLS, &["match.path = \"/new\"\npool = \"b\"", api, rest]);
    let mut found = touches(&before, &with_new);
    found.sort();
    assert_eq!(found, ["default", "route-1 is new", "route-2 was route-1"]);
    let mut found = touches(&with_new, &before);
    found.sort();
    assert_eq!(found, ["default", "route-1 was route-2"]);
    // It matches something else under its name.
    let named = "name = \"api\"\nmatch.path = \"/api/*\"\npool = \"a\"";
    let renamed = named.replace("/api/*", "/v2/*");
    let found = touches(&routes(POOLS, &[named, rest]), &routes(POOLS, &[&renamed, rest]));
    assert!(found.contains(&"api".to_owned()) && found.len() == 2, "{found:?}");
}

/// Scenario: a load balancer is new, another is deleted: nothing of them can be worse than before.
#[test]
fn what_was_not_there_cannot_get_worse() {
    let shop = balancer("backend_servers = [\"10.0.0.1:80\"]\n");
    assert_eq!(touched(None, Some(&shop)), Touch::Routes(Vec::new()));
    assert_eq!(touched(Some(&shop), None), Touch::Routes(Vec::new()));
    assert_eq!(touched(Some(&shop), Some(&shop)), Touch::Routes(Vec::new()));
}
