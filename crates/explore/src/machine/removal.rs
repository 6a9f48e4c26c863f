//! Taking something out of the code that runs, and noting what could be.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Mutex;

use crate::ids::{CtxId, ObjId};
use crate::machine::cell::with;
use crate::machine::flags::removing;
use crate::machine::world::World;
use crate::search::removal::{Acquisition, Removal, Site, Taken};

/// Whether something is taken out here.
#[inline]
pub(crate) fn taken(location: &'static Location<'static>, what: Taken) -> bool {
    removing() && look(location, what)
}

#[cold]
fn look(location: &'static Location<'static>, what: Taken) -> bool {
    let site = Site::at(location, what);
    with(|w| match &w.search.settings.removal {
        Some(Removal::Collect(sites)) => {
            sites.lock().expect("no panic while it is held").entry(site).or_default();
            false
        }
        Some(Removal::Without(out)) => *out == site,
        None => false,
    })
}

impl World {
    fn collected(&self) -> Option<&Mutex<BTreeMap<Site, bool>>> {
        match &self.search.settings.removal {
            Some(Removal::Collect(sites)) => Some(sites),
            _ => None,
        }
    }

    /// `id` takes a lock: the step that is being done.
    pub(crate) fn takes_lock(&mut self, id: CtxId, lock: ObjId, site: &'static Location<'static>) {
        let Some(sites) = self.collected() else { return };
        sites
            .lock()
            .expect("no panic while it is held")
            .entry(Site::at(site, Taken::Exclusion))
            .or_default();
        let before = self.acquisitions.iter().position(|before| before.lock == lock);
        let before = before.map(|place| self.acquisitions.swap_remove(place));
        let new = self.search.last_is_new();
        let (events, born) = (&self.search.events, self.ctx(id).born);
        let ordered = |before: u32| {
            let knew = |born: u32| events.happens_before(before as usize, born as usize);
            events.known_by(before, id) || born.is_some_and(knew)
        };
        let races = before.filter(|before| new && !ordered(before.event));
        let races = races.map(|before| (before.site, before.changes));
        let event = self.search.depth() as u32 - 1;
        self.acquisitions.push(Acquisition { lock, site, event, changes: false, races });
    }

    /// What a lock protects is changed by who holds it.
    pub(crate) fn changes_under(&mut self, lock: ObjId) {
        if let Some(last) = self.acquisitions.iter_mut().find(|last| last.lock == lock) {
            last.changes = true;
        }
    }

    /// Notes that the holder of a lock releases it.
    pub(crate) fn leaves_lock(&mut self, lock: ObjId) {
        let Some(last) = self.acquisitions.iter().find(|last| last.lock == lock) else { return };
        if let (Some((before, changed)), Some(sites)) = (last.races, self.collected())
            && (changed || last.changes)
        {
            let mut sites = sites.lock().expect("no panic while it is held");
            for site in [before, last.site] {
                sites.insert(Site::at(site, Taken::Exclusion), true);
            }
        }
    }
}
