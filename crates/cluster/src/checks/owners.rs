//! Which orchestrator checks which address, as far as this node sees.

use std::net::SocketAddr;
use std::sync::Arc;

use model::config::Name;
use reconcile::cluster::Slot;
use reconcile::cluster::view::View;

/// The orchestrator of each slot. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    slots: Arc<[Option<Name>]>,
}

impl Owners {
    /// Those who have said that they check what they were given, and nothing else any more.
    pub(super) fn of(view: &View, slots: u16) -> Self {
        let mut owners = vec![None; usize::from(slots)];
        let settled = view.assignments.iter().filter(|(name, _)| view.is_settled(name));
        for (name, given) in settled {
            for slot in given.value.slots.range(..Slot(slots)) {
                owners[usize::from(slot.0)] = Some(name.clone());
            }
        }
        Self { slots: owners.into() }
    }

    /// Who checks this address; none: nobody at this moment.
    #[must_use]
    pub fn checks(&self, address: SocketAddr) -> Option<&Name> {
        let slots = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        let slot = Slot::of(address, slots);
        self.slots.get(usize::from(slot.0))?.as_ref()
    }
}
