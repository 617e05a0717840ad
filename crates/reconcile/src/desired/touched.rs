//! Which routes a change touches, and what each of them was before it.
//!
//! A route is touched when it says something else than before, when a pool that it leads to does, or when requests may
//! have come to it from another route: when routes were added, removed, put in another order or match something else,
//! or the listeners in front of them changed, every route of that load balancer is.
//!
//! Routes are often named by their place (`route-2`), so a name says little about what a route was. Its forebear is the
//! route that matched the same; where there is none, the one of the same name, unless that one lives on under another.

use model::config::{LoadBalancer, Name, Route};

/// What answered the requests of a route before the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forebear {
    /// A route of this name.
    Route(Name),
    /// It is new: any route of its load balancer may have.
    LoadBalancer,
}

/// What a change did to a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It touched these routes.
    Routes(Vec<(Name, Forebear)>),
    /// Nobody knows what: each route counts as touched.
    All,
}

/// The routes of a load balancer that are touched when it becomes `after`. None of one that is new or gone: what
/// was refused before cannot get worse.
pub fn touched(before: Option<&LoadBalancer>, after: Option<&LoadBalancer>) -> Touch {
    let (Some(before), Some(after)) = (before, after) else {
        return Touch::Routes(Vec::new());
    };
    let everything = requests_move(before, after);
    // Most routes stand behind the one that they stood behind: so all are found in about one pass.
    let mut expected = 0;
    let each = after.routes.iter().filter_map(|route| {
        let forebear = forebear(route, before, after, expected);
        expected = forebear.map_or(expected, |(place, _)| place + 1);
        let old = forebear.map(|(_, old)| old);
        let same = old.is_some_and(|old| is_same(old, route) && leads_to_same(route, before, after));
        let of = old.map_or(Forebear::LoadBalancer, |old| Forebear::Route(old.name.clone()));
        (everything || !same).then(|| (route.name.clone(), of))
    });
    Touch::Routes(each.collect())
}

/// Whether a request may be taken by another route than before.
fn requests_move(before: &LoadBalancer, after: &LoadBalancer) -> bool {
    let same_order = before.routes.len() == after.routes.len()
        && before
            .routes
            .iter()
            .zip(&after.routes)
            .all(|(a, b)| matches_same(a, b));
    !same_order || before.listeners != after.listeners || before.default_language != after.default_language
}

/// What a route was, with its place; it is looked for from the place on where it is expected.
fn forebear<'a>(
    route: &Route,
    before: &'a LoadBalancer,
    after: &LoadBalancer,
    expected: usize,
) -> Option<(usize, &'a Route)> {
    let lives_on = |old: &Route| after.routes.iter().any(|new| matches_same(old, new));
    let old = || before.routes.iter().enumerate();
    let mut around = old().skip(expected).chain(old().take(expected));
    around.find(|(_, old)| matches_same(old, route)).or_else(|| {
        let named = old().find(|(_, old)| old.name == route.name)?;
        (!lives_on(named.1)).then_some(named)
    })
}

fn matches_same(a: &Route, b: &Route) -> bool {
    a.priority == b.priority && a.matches == b.matches
}

fn is_same(old: &Route, new: &Route) -> bool {
    let Route {
        name: _,
        priority,
        matches,
        target,
        rate_limits,
        timeouts,
        actions,
    } = old;
    (priority, matches, target) == (&new.priority, &new.matches, &new.target)
        && (rate_limits, timeouts, actions) == (&new.rate_limits, &new.timeouts, &new.actions)
}

fn leads_to_same(route: &Route, before: &LoadBalancer, after: &LoadBalancer) -> bool {
    route
        .target
        .pools()
        .all(|pool| before.pools.get(pool) == after.pools.get(pool))
}
