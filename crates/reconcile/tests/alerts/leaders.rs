//! Two nodes that see the same, of which one tells at a time: whoever it is, nothing stays believed that is over.
//!
//! Leadership is handed over at random, at times nobody leads, and in the middle of it the leader dies with all that
//! it knew, its message on its way or not. To see that the shadow sees, each of these was broken, and was noticed: that
//! what was told from here is looked after once another one tells; that what fires here is taken to be told elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use evenkeel_reconcile::alerts::board::Board;
use evenkeel_reconcile::alerts::outbox::{LONGEST_PAUSE_MS, Notification, Outbox, Outcome, Timing};
use model::alert::AlertId;
use model::config::{Alerts, ReceiverKind};
use sim::{Random, seeds};

use crate::support::{at, backend_down, observe, pool_down};

const STEPS: u64 = 400;
const LONGEST_STEP_MS: u64 = 3_000;
const LONGEST_DELIVERY_MS: u64 = 8_000;

struct Node {
    board: Board,
    outbox: Outbox,
    flight: Option<(Arc<Notification>, u64, Outcome)>,
}

impl Node {
    fn new(kind: ReceiverKind, rules: &Alerts) -> Self {
        Self {
            board: Board::default(),
            outbox: Outbox::new(kind, Timing::of(kind, rules)),
            flight: None,
        }
    }
}

struct World {
    random: Random,
    rules: Alerts,
    kind: ReceiverKind,
    nodes: [Node; 2],
    /// Who leads; nobody for a moment.
    leader: Option<usize>,
    now: u64,
    holds: BTreeSet<AlertId>,
    /// What ever fired.
    fired: BTreeSet<AlertId>,
    /// What the receiver believes.
    believed: BTreeSet<AlertId>,
    is_well: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let kind = match random.chance(500) {
            true => ReceiverKind::Webhook,
            false => ReceiverKind::Alertmanager,
        };
        let rules = Alerts::default();
        Self {
            nodes: [Node::new(kind, &rules), Node::new(kind, &rules)],
            rules,
            kind,
            leader: Some(0),
            now: 0,
            holds: BTreeSet::new(),
            fired: BTreeSet::new(),
            believed: BTreeSet::new(),
            is_well: true,
            random,
        }
    }

    fn step(&mut self, calm: bool) {
        self.now += 1 + self.random.below(LONGEST_STEP_MS);
        for n in 0..2 {
            // Not all nodes look at the same moment.
            if calm || self.random.chance(800) {
                let holding: Vec<AlertId> = self.holds.iter().cloned().collect();
                observe(&mut self.nodes[n].board, self.now, &holding, &self.rules);
            }
            let shared = self.leader == Some(n);
            let node = &mut self.nodes[n];
            self.fired
                .extend(node.board.firing().map(|alert| alert.id.clone()));
            node.outbox.sync(at(self.now), &node.board, shared);
            self.deliver(n);
        }
    }

    fn deliver(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some((sent, _, outcome)) = node.flight.take_if(|(_, ends, _)| *ends <= self.now) {
            if outcome == Outcome::Delivered {
                arrive(&mut self.believed, &self.fired, &sent);
            }
            node.outbox.done(at(self.now), outcome, self.random.number());
            node.outbox
                .sync(at(self.now), &node.board, self.leader == Some(n));
        }
        if let Some(sent) = node.outbox.take(at(self.now)) {
            let outcome = match self.is_well {
                true => Outcome::Delivered,
                false => Outcome::Failed { in_doubt: false },
            };
            let ends = self.now + self.random.below(LONGEST_DELIVERY_MS);
            node.flight = Some((sent, ends, outcome));
        }
    }

    /// Something comes or goes, the receiver fails or is well again.
    fn disturb(&mut self, ids: &[AlertId]) {
        for id in ids {
            if self.random.chance(20) && !self.holds.remove(id) {
                self.holds.insert(id.clone());
            }
        }
        if self.random.chance(20) {
            self.is_well = !self.is_well;
        }
    }

    /// Another one leads, the same one again, or nobody yet.
    fn hand_over(&mut self) {
        self.leader = match self.random.below(3) {
            0 => None,
            n => usize::try_from(n - 1).ok(),
        };
    }

    /// The leader dies and comes back knowing nothing; what it had sent arrives, or not. The other one leads from now on.
    fn die(&mut self) {
        let dead = self.leader.unwrap_or(0);
        if let Some((sent, ..)) = self.nodes[dead].flight.take()
            && self.is_well
            && self.random.chance(500)
        {
            arrive(&mut self.believed, &self.fired, &sent);
        }
        self.nodes[dead] = Node::new(self.kind, &self.rules);
        self.leader = Some(1 - dead);
    }
}

fn arrive(believed: &mut BTreeSet<AlertId>, fired: &BTreeSet<AlertId>, sent: &Notification) {
    for group in &sent.groups {
        for (alert, _) in &group.resolved {
            assert!(fired.contains(&alert.id), "{} never fired", alert.id);
            believed.remove(&alert.id);
        }
        believed.extend(group.firing.iter().map(|alert| alert.id.clone()));
    }
}

/// Scenario: see above. In the end all is calm, and the receiver knows exactly what is so.
#[test]
fn whoever_leads_ends_what_others_told() {
    let ids: Vec<AlertId> = ["a", "b", "c"]
        .into_iter()
        .flat_map(|lb| [pool_down(lb), backend_down(lb, 1), backend_down(lb, 2)])
        .collect();
    for seed in 0..seeds(500) {
        let mut world = World::new(seed);
        let dies = world.random.within(50, STEPS);
        for step in 0..STEPS {
            world.disturb(&ids);
            if step == dies {
                world.die();
            } else if step < dies && world.random.chance(20) {
                world.hand_over();
            }
            world.step(false);
        }
        world.is_well = true;
        let calm_since = world.now;
        let bound = 3 * (LONGEST_PAUSE_MS + LONGEST_DELIVERY_MS);
        while world.now < calm_since + bound {
            world.step(true);
        }
        let leader = world.leader.unwrap();
        let firing = world.nodes[leader].board.firing();
        let firing: BTreeSet<AlertId> = firing.map(|alert| alert.id.clone()).collect();
        assert_eq!(world.believed, firing, "seed {seed}");
    }
}
