//! Files whose content is a part of the config: error pages and bodies of fixed responses.
//!
//! Reading them is the caller's; here is which they are, and where their content goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Config, Content, ErrorPages, LoadBalancer, MAX_PAGE_BYTES, Route, RouteTarget};

/// What was read of a file so far: the same file is read once, however many routes name it.
type Known = BTreeMap<PathBuf, Result<Arc<[u8]>, String>>;

impl Config {
    /// Reads every file with `read`, which gives at most a byte more than [`MAX_PAGE_BYTES`], or what hinders.
    /// Returns what hindered, each with the path of its key, in which routes go by their names.
    pub fn load_files(
        &mut self,
        mut read: impl FnMut(&Path) -> Result<Vec<u8>, String>,
    ) -> Vec<(String, String)> {
        let mut known = Known::new();
        let mut problems = Vec::new();
        for balancer in self.load_balancers.values_mut() {
            if !has_files(balancer) {
                continue;
            }
            let balancer = Arc::make_mut(balancer);
            for route in &mut balancer.routes {
                let place = format!("load_balancers.{}.routes.{}", balancer.name, route.name);
                if let RouteTarget::Respond(respond) = &mut route.target {
                    let loaded = load(&mut respond.body, &mut known, &mut read);
                    problems.extend(
                        loaded
                            .err()
                            .map(|why| (format!("{place}.respond.body_file"), why)),
                    );
                }
                if route.actions.error_pages.pages.is_empty() {
                    continue;
                }
                for (statuses, page) in &mut Arc::make_mut(&mut route.actions.error_pages).pages {
                    let key = || format!("{place}.error_pages.{}", ErrorPages::written(*statuses));
                    let loaded = load(page, &mut known, &mut read);
                    problems.extend(loaded.err().map(|why| (key(), why)));
                }
            }
        }
        problems
    }

    /// Every such file that is named.
    #[must_use]
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let of_route = |route: &Route| {
            let body = match &route.target {
                RouteTarget::Respond(respond) => respond.body.file.clone(),
                _ => None,
            };
            let pages = route.actions.error_pages.pages.iter();
            let pages = pages.filter_map(|(_, page)| page.file.clone());
            body.into_iter().chain(pages).collect::<Vec<_>>()
        };
        let balancers = self.load_balancers.values();
        balancers
            .flat_map(|balancer| balancer.routes.iter().flat_map(of_route))
            .collect()
    }
}

fn has_files(balancer: &LoadBalancer) -> bool {
    balancer.routes.iter().any(|route| {
        let body = matches!(&route.target, RouteTarget::Respond(respond) if respond.body.file.is_some());
        body || !route.actions.error_pages.pages.is_empty()
    })
}

fn load(
    content: &mut Content,
    known: &mut Known,
    read: &mut impl FnMut(&Path) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    let Some(path) = &content.file else {
        return Ok(());
    };
    let bytes = known.entry(path.clone()).or_insert_with(|| {
        let bytes = read(path)?;
        match bytes.len() as u64 > MAX_PAGE_BYTES {
            true => Err(format!("{} is greater than 1 MiB", path.display())),
            false => Ok(bytes.into()),
        }
    });
    content.bytes = bytes.clone()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::parse::parse_toml;

    const TEXT: &str = "[load_balancers.x]\nbackend_servers = [\"10.0.0.1:1\"]\n\
        [[load_balancers.x.routes]]\npool = \"default\"\nerror_pages = { \"5xx\" = \"a.html\", \"502\" = \"b.html\" }\n\
        [[load_balancers.x.routes]]\nmatch.path = \"/x\"\nrespond.body_file = \"a.html\"\n";

    #[test]
    fn each_file_is_read_once_and_stands_in_every_place() {
        let mut config = parse_toml(TEXT, "x.toml").unwrap();
        let mut reads = 0;
        let problems = config.load_files(|path| {
            reads += 1;
            Ok(path.display().to_string().into_bytes())
        });
        assert_eq!((problems, reads), (Vec::new(), 2));
        assert_eq!(config.files(), ["a.html", "b.html"].map(PathBuf::from).into());
        let routes = &config.load_balancers.values().next().unwrap().routes;
        let page = |status| {
            let pages = &routes[1].actions.error_pages;
            String::from_utf8(pages.page(status).unwrap().bytes.to_vec()).unwrap()
        };
        assert_eq!((page(502), page(503)), ("b.html".into(), "a.html".into()));
        let RouteTarget::Respond(respond) = &routes[0].target else {
            panic!("{routes:?}");
        };
        assert_eq!(&respond.body.bytes[..], b"a.html");
    }

    #[test]
    fn what_cannot_be_read_or_is_too_big_is_told_with_its_key() {
        let mut config = parse_toml(TEXT, "x.toml").unwrap();
        let problems = config.load_files(|path| match path.to_str() {
            Some("a.html") => Err("cannot read a.html".into()),
            _ => Ok(vec![0; 1024 * 1024 + 1]),
        });
        let told: Vec<_> = problems.iter().map(|(k, w)| format!("{k}: {w}")).collect();
        assert_eq!(
            told,
            [
                "load_balancers.x.routes.route-2.respond.body_file: cannot read a.html",
                "load_balancers.x.routes.default.error_pages.502: b.html is greater than 1 MiB",
                "load_balancers.x.routes.default.error_pages.5xx: cannot read a.html",
            ]
        );
    }
}
