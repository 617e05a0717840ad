//! Which route a request takes.
//!
//! The config's routes are already ordered, most specific first; the first that matches is taken. Paths are
//! compared byte by byte in the normal form that is forwarded, hosts ignoring ASCII case and one final dot.

use model::config::{HostMatch, LoadBalancer, Name, PathMatch, Pattern};
use model::explain::RouteStep;

/// The routes of one load balancer, ready for matching.
#[derive(Clone, Debug)]
pub struct Router {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: Name,
    host: Option<HostMatch>,
    path: PathRule,
}

#[derive(Clone, Debug)]
enum PathRule {
    Any,
    Exact(String),
    /// Ends in `/` only where the config says so.
    Prefix(String),
    Pattern(Pattern),
}

impl Router {
    /// Takes the routes of a load balancer, in their order.
    pub fn new(lb: &LoadBalancer) -> Self {
        let rule = |route: &model::config::Route| Rule {
            name: route.name.clone(),
            host: route.matches.host.clone(),
            path: match &route.matches.path {
                None => PathRule::Any,
                // Every path, and `*` too.
                Some(PathMatch::Prefix(prefix)) if prefix == "/" || prefix.is_empty() => PathRule::Any,
                Some(PathMatch::Prefix(prefix)) => PathRule::Prefix(prefix.clone()),
                Some(PathMatch::Exact(path)) => PathRule::Exact(path.clone()),
                Some(PathMatch::Pattern(pattern)) => PathRule::Pattern(pattern.clone()),
            },
        };
        Self {
            rules: lb.routes.iter().map(rule).collect(),
        }
    }

    /// Index of the first route that matches, in the order of [`LoadBalancer::routes`].
    pub fn find(&self, host_name: &[u8], path: &[u8]) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| rule.takes_host(host_name) && rule.path.takes(path))
    }

    /// The routes tried in order, with why each did or did not match, up to the one taken.
    pub fn explain(&self, host_name: &[u8], path: &[u8]) -> Vec<RouteStep> {
        let mut steps = Vec::new();
        for rule in &self.rules {
            let matched = rule.takes_host(host_name) && rule.path.takes(path);
            steps.push(RouteStep {
                route: rule.name.clone(),
                matched,
                why: rule.why(host_name, path),
            });
            if matched {
                break;
            }
        }
        steps
    }
}

impl Rule {
    fn takes_host(&self, host_name: &[u8]) -> bool {
        match &self.host {
            None => true,
            Some(HostMatch::Exact(host)) => host.as_bytes().eq_ignore_ascii_case(without_root(host_name)),
            Some(HostMatch::Under(suffix)) => {
                let name = without_root(host_name);
                let label = name.len().checked_sub(suffix.len()).filter(|label| *label > 0);
                label
                    .and_then(|label| name.get(label..))
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
            }
        }
    }

    fn why(&self, host_name: &[u8], path: &[u8]) -> String {
        if let Some(host) = &self.host
            && !self.takes_host(host_name)
        {
            return format!("host `{}` is not `{host}`", String::from_utf8_lossy(host_name));
        }
        let host = self.host.as_ref().map(|host| format!("host is `{host}`"));
        let taken = self.path.takes(path);
        let path = String::from_utf8_lossy(path);
        let path = match (&self.path, taken) {
            (PathRule::Any, _) => None,
            (PathRule::Exact(exact), true) => Some(format!("path is `{exact}`")),
            (PathRule::Exact(exact), false) => return format!("path `{path}` is not `{exact}`"),
            (PathRule::Prefix(prefix), true) => Some(format!("path `{path}` is under `{prefix}`")),
            (PathRule::Pattern(pattern), true) => {
                Some(format!("path `{path}` matches `{}`", pattern.as_str()))
            }
            (PathRule::Pattern(pattern), false) => {
                return format!("path `{path}` does not match `{}`", pattern.as_str());
            }
            (PathRule::Prefix(prefix), false) => return format!("path `{path}` is not under `{prefix}`"),
        };
        match (host, path) {
            (Some(host), Some(path)) => format!("{host}, {path}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "matches everything".to_owned(),
        }
    }
}

impl PathRule {
    fn takes(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact.as_bytes(),
            Self::Pattern(pattern) => pattern.matches(path),
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_bytes())
                .is_some_and(|rest| prefix.ends_with('/') || matches!(rest.first(), None | Some(b'/'))),
        }
    }
}

/// Without the final dot that names the root of the domain system: the same host.
fn without_root(host: &[u8]) -> &[u8] {
    host.strip_suffix(b".").unwrap_or(host)
}
