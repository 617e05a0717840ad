//! Which route a request takes.
//!
//! The config's routes are ordered already ([`model::config::Route::rank`]); the first that matches is taken. An
//! index by host and path leaves only those to look at whose host and path fit, so that thousands of routes cost
//! about as much as ten. Paths are compared byte by byte in the normal form that is forwarded, hosts ignoring
//! ASCII case and one final dot.

mod conditions;
mod facts;
mod index;
mod language;

use std::collections::BTreeSet;

use model::config::{LoadBalancer, Name, RouteMatch};
use model::explain::RouteStep;

use conditions::View;
pub use conditions::is_credential;
pub use facts::Facts;
use index::Index;

/// The routes of one load balancer, ready for matching.
#[derive(Clone, Debug)]
pub struct Router {
    rules: Vec<Rule>,
    index: Index,
    /// The first route matches everything: the common case of one pool.
    takes_all: bool,
    /// Every language that a route names, lower case; the default first.
    languages: Vec<String>,
    default_language: bool,
    geography: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Name,
    matches: RouteMatch,
    /// Nothing but host and path is to be compared.
    plain: bool,
    /// The index leaves the path to be compared.
    by_pattern: bool,
}

impl Router {
    /// Takes the routes of a load balancer, in their order.
    pub fn new(lb: &LoadBalancer) -> Self {
        let rule = |route: &model::config::Route| Rule {
            name: route.name.clone(),
            matches: route.matches.clone(),
            plain: route.matches.further_conditions() == 0,
            by_pattern: matches!(route.matches.path, Some(model::config::PathMatch::Pattern(_))),
        };
        let rules: Vec<Rule> = lb.routes.iter().map(rule).collect();
        let default = lb.default_language.iter().cloned();
        let mut named = BTreeSet::new();
        let mut geography = false;
        for rule in &rules {
            gather(&rule.matches, &mut named, &mut geography);
        }
        let others = named
            .into_iter()
            .filter(|tag| Some(tag) != lb.default_language.as_ref());
        Self {
            index: Index::new(rules.iter().map(|rule| &rule.matches)),
            takes_all: rules.first().is_some_and(Rule::takes_all),
            languages: default.chain(others).collect(),
            default_language: lb.default_language.is_some(),
            geography,
            rules,
        }
    }

    /// Index of the first route that matches, in the order of [`LoadBalancer::routes`].
    pub fn find(&self, facts: &Facts<'_>) -> Option<usize> {
        if self.takes_all {
            return Some(0);
        }
        let view = self.view(facts);
        let path = facts.path();
        let takes = |place: u32| {
            self.rules.get(place as usize).is_some_and(|rule| {
                let path_fits = || match &rule.matches.path {
                    Some(wanted) if rule.by_pattern => conditions::path_is(wanted, path),
                    _ => true,
                };
                path_fits() && (rule.plain || conditions::further_holds(&rule.matches, &view))
            })
        };
        self.index
            .first(facts.host(), path, takes)
            .map(|place| place as usize)
    }

    /// The routes tried in order, with why each did or did not match, up to the one taken.
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<RouteStep> {
        let view = self.view(facts);
        let mut steps = Vec::new();
        for rule in &self.rules {
            let failing = conditions::failing(&rule.matches, &view);
            let matched = failing.is_none();
            let why = failing.unwrap_or_else(|| match conditions::holding(&rule.matches, &view) {
                all if all.is_empty() => "matches everything".to_owned(),
                all => all,
            });
            steps.push(RouteStep {
                route: rule.name.clone(),
                matched,
                why,
            });
            if matched {
                break;
            }
        }
        steps
    }

    /// The language negotiated, where a route asks for one.
    pub fn language(&self, facts: &Facts<'_>) -> Option<String> {
        self.view(facts).language().map(str::to_owned)
    }

    /// Whether a route asks where a client is.
    pub fn asks_geography(&self) -> bool {
        self.geography
    }

    fn view<'v, 'a>(&'v self, facts: &'v Facts<'a>) -> View<'v, 'a> {
        View {
            facts,
            languages: &self.languages,
            default_language: self.default_language,
        }
    }
}

impl Rule {
    fn takes_all(&self) -> bool {
        let any_path = match &self.matches.path {
            None => true,
            Some(model::config::PathMatch::Prefix(prefix)) => conditions::is_everything(prefix),
            Some(_) => false,
        };
        self.plain && self.matches.host.is_none() && any_path
    }
}

/// The languages that a match names, and whether it asks where a client is.
fn gather(matches: &RouteMatch, languages: &mut BTreeSet<String>, geography: &mut bool) {
    languages.extend(matches.languages.iter().cloned());
    *geography |= !matches.countries.is_empty() || !matches.continents.is_empty();
    for nested in matches.nested() {
        gather(nested, languages, geography);
    }
}
