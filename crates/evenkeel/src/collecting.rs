//! Old orders in the store: whether what they are about is declared anywhere, and who deletes them when it is not.

use std::sync::Arc;

use cluster::nodes::Nodes;
use cluster::orders::collect::{self, Terms, When};
use cluster::orders::{InForce, OrderKey};
use cluster::{Desired, Space, Standing, Sync};
use model::config::{Config, LoadBalancer, RouteTarget, StoreConfig};
use tokio::sync::watch;

use crate::checking::Checkers;
use crate::hub::View;
use crate::registry::Registration;

/// What the store says, and how this node stands to it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    stored: watch::Receiver<Option<Arc<Desired>>>,
    standing: watch::Receiver<Standing>,
}

impl Known {
    /// Of what `sync` follows.
    pub(crate) fn of(sync: &Sync) -> Self {
        Self {
            stored: sync.stored(),
            standing: sync.standing(),
        }
    }

    /// What the store says; nothing where its newest revision could not be read or is not served here. Who does not know
    /// what is declared deletes nothing.
    fn newest(&self) -> Option<Arc<Desired>> {
        let standing = self.standing.borrow();
        let is_served = standing.known && standing.refused.is_none() && standing.head == standing.served;
        let stored = self.stored.borrow().clone();
        stored.filter(|_| is_served)
    }
}

/// Has old orders deleted by this process, where that is for it to do, in the tokio runtime that this is called in.
pub(crate) fn start(
    config: &Config,
    space: &Space,
    checkers: &Checkers,
    registration: &Registration,
    (view, known): (watch::Receiver<View>, Known),
) {
    let when = match (&config.store, checkers.post()) {
        (StoreConfig::Embedded, _) => When::Always,
        (_, Some(post)) => When::Leading(post),
        (_, None) => When::NobodyLeads,
    };
    let nodes = registration.nodes.clone();
    let declared = move |key: &OrderKey, order: Option<&InForce>| {
        let file = view.borrow().declared.file.clone();
        is_declared((key, order), &file, known.newest().as_deref(), &nodes.borrow())
    };
    tokio::spawn(collect::run(
        space.clone(),
        when,
        Arc::new(declared),
        Terms::default(),
    ));
}

/// Whether what an order is about is declared: in the store, or in the file of a node that is there.
fn is_declared(
    (key, order): (&OrderKey, Option<&InForce>),
    file: &Config,
    stored: Option<&Desired>,
    nodes: &Nodes,
) -> bool {
    let Some(stored) = stored else {
        return true;
    };
    let name = match key {
        OrderKey::Backend(key) => &key.load_balancer,
        OrderKey::Route(key) => &key.load_balancer,
    };
    let in_files = nodes
        .values()
        // One that does not say what its file has may have anything.
        .any(|node| node.declares.as_ref().is_none_or(|names| names.contains(name)));
    let mut here = [&file.load_balancers, &stored.load_balancers].into_iter();
    in_files || here.any(|all| all.get(name).is_some_and(|lb| has(lb, key, order)))
}

/// Whether a load balancer has what an order is about, as far as that can be known from here.
fn has(lb: &LoadBalancer, key: &OrderKey, order: Option<&InForce>) -> bool {
    match key {
        OrderKey::Route(key) => {
            let mut routes = lb.routes.iter().filter(|route| route.name == key.route);
            routes.any(|route| match (&route.target, order) {
                (RouteTarget::Split(split), Some(InForce::Route(order))) => order.fits(split),
                (RouteTarget::Split(_), _) => true,
                _ => false,
            })
        }
        OrderKey::Backend(key) => lb.pools.values().any(|pool| {
            let mut backends = pool.backends.iter();
            // Members that another node has found may not be known here.
            pool.membership.is_dynamic() || backends.any(|backend| backend.address == key.address)
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::collections::BTreeMap;

    use cluster::Refused;
    use model::config::Name;
    use model::node::{NodeLoad, NodeRecord};
    use model::state::{OverrideKey, RouteKey, RouteOrder, Timestamp};

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn config(text: &str) -> Arc<Config> {
        Arc::new(model::parse::parse_toml(text, "test.toml").unwrap())
    }

    fn backend(lb: &str, address: &str) -> OrderKey {
        OrderKey::Backend(OverrideKey {
            load_balancer: name(lb),
            address: address.parse().unwrap(),
        })
    }

    fn route(lb: &str, route: &str) -> OrderKey {
        OrderKey::Route(RouteKey {
            load_balancer: name(lb),
            route: name(route),
        })
    }

    fn nodes(declares: Option<Vec<Name>>) -> Nodes {
        let record = NodeRecord {
            version: "1".to_owned(),
            started: Timestamp(1),
            life: 1,
            roles: Vec::new(),
            zone: None,
            addresses: Vec::new(),
            served: 1,
            refused: None,
            load: NodeLoad::default(),
            trial: None,
            declares,
            leaving: false,
        };
        Arc::new(BTreeMap::from([(name("edge-1"), record)]))
    }

    /// Scenario: the store has `shop` and `auto`, the file of this node `own`, that of another one `theirs`.
    #[test]
    fn an_order_is_about_what_the_store_or_a_file_has() {
        let file =
            config("[load_balancers.own]\nlisten = \"127.0.0.1:1\"\nbackend_servers = [\"10.0.0.1:80\"]\n");
        let stored = config(
            "[load_balancers.shop]\nlisten = \"127.0.0.1:2\"\nbackend_servers = [\"10.0.0.1:80\"]\n\
             [load_balancers.auto]\nlisten = \"127.0.0.1:3\"\ndiscovery = { file = \"/m\" }\n\
             [load_balancers.split]\nlisten = \"127.0.0.1:4\"\n\
             pools = { a = { backend_servers = [\"10.0.0.1:80\"] }, b = { backend_servers = [\"10.0.0.2:80\"] } }\n\
             routes = [{ name = \"parts\", split = [{ pool = \"a\", weight = 1 }, { pool = \"b\", weight = 1 }] }]\n",
        );
        let stored = cluster::Desired {
            revision: 1,
            load_balancers: stored.load_balancers.clone(),
        };
        let is = |key: &OrderKey, stored| {
            is_declared((key, None), &file, stored, &nodes(Some(vec![name("theirs")])))
        };
        for (key, expected) in [
            (backend("shop", "10.0.0.1:80"), true),
            (backend("shop", "10.0.0.2:80"), false),
            (backend("auto", "10.0.0.2:80"), true),
            (backend("own", "10.0.0.1:80"), true),
            (backend("own", "10.0.0.2:80"), false),
            (backend("theirs", "10.0.0.2:80"), true),
            (backend("gone", "10.0.0.2:80"), false),
            (route("split", "parts"), true),
            (route("split", "canary"), false),
            (route("shop", "default"), false),
            (route("gone", "default"), false),
        ] {
            assert_eq!(is(&key, Some(&stored)), expected, "{key:?}");
            assert!(is(&key, None), "{key:?}");
        }
        let gone = backend("gone", "10.0.0.2:80");
        assert!(is_declared((&gone, None), &file, Some(&stored), &nodes(None)));
        // For a pool that the split has, and for one that it has no more.
        for (pool, expected) in [("b", true), ("c", false)] {
            let order = InForce::Route(RouteOrder {
                weights: BTreeMap::from([(name(pool), 1)]),
                by: "eva".to_owned(),
                since: Timestamp(1),
                expires: None,
            });
            let asked = (&route("split", "parts"), Some(&order));
            assert_eq!(
                is_declared(asked, &file, Some(&stored), &nodes(Some(Vec::new()))),
                expected
            );
        }
    }

    /// Scenario: an orchestrator follows the store. Of a revision that it refuses it has what the store says, and does
    /// not know what the others declare; nor while a newer one is on its way, or before anything is known.
    #[test]
    fn who_does_not_serve_the_newest_revision_does_not_know_what_is_declared() {
        let stored = Arc::new(Desired::default());
        let (_say, stored) = watch::channel(Some(stored));
        let (stand, standing) = watch::channel(Standing {
            known: true,
            head: 7,
            served: 7,
            ..Standing::default()
        });
        let known = Known { stored, standing };
        assert!(known.newest().is_some());
        let refused = Refused {
            revision: 8,
            reasons: vec!["error_pages: no such file".to_owned()],
        };
        for (is_known, head, refused) in [(true, 8, None), (true, 7, Some(refused)), (false, 7, None)] {
            stand.send_modify(|standing| {
                (standing.known, standing.head, standing.refused) = (is_known, head, refused);
            });
            assert!(known.newest().is_none(), "{:?}", stand.borrow());
        }
    }
}
