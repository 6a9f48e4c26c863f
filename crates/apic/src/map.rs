//! The vCPUs by APIC id.
//!
//! Deliveries read the table in force; a vCPU that changes its id has it made anew.
//!
//! ```text
//!   who has changed its registers     who looks, one at a time
//!   changes them                      says SCANNING
//!   says DIRTY                        reads the registers of all, publishes a table
//!   looks itself, unless CLEAN        says CLEAN, if it still is SCANNING
//! ```
//!
//! A change that the look may have missed has put DIRTY in place of SCANNING, so the mark is not
//! used up (X12 is about a flag that was). Who has changed something returns when a table is in
//! force that has it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Atomic, LockClass, Mutex, Platform, RcuCell, RcuRef, WaitType};

use crate::{DestinationMode, InterruptMessage};

pub(crate) static APIC_MAP: LockClass = LockClass::new("apic.map", WaitType::Sleep);

/// How an xAPIC understands logical destinations: its destination format register (Intel SDM vol.
/// 3, section 12.6.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogicalIds {
    /// Each bit is an APIC.
    Flat,
    /// Bits 7:4 are a cluster, and each of bits 3:0 is an APIC in it.
    Cluster,
}

/// What the registers of a vCPU's APIC say of where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registers {
    /// The APIC is disabled: nothing reaches it.
    Disabled,
    /// The APIC is an xAPIC.
    XApic {
        /// The APIC's id, which a guest may change.
        id: u8,
        /// Bits 31:24 of its logical destination register.
        logical: u8,
        /// The APIC's destination format register.
        format: LogicalIds,
    },
    /// The APIC is an x2APIC. Its logical id is made of its id.
    X2Apic {
        /// The APIC's id, which no guest can change.
        id: u32,
    },
}

impl Registers {
    /// The APIC's id; `None` if the APIC is disabled.
    pub const fn id(&self) -> Option<u32> {
        match *self {
            Registers::Disabled => None,
            Registers::XApic { id, .. } => Some(id as u32),
            Registers::X2Apic { id } => Some(id),
        }
    }

    /// Returns whether a message is for this APIC (or for it among others).
    pub const fn accepts(&self, destination: u32, mode: DestinationMode) -> bool {
        if destination == InterruptMessage::ALL {
            return !matches!(self, Registers::Disabled);
        }
        match (*self, mode) {
            (Registers::Disabled, _) => false,
            (Registers::XApic { id, .. }, DestinationMode::Physical) => {
                destination == 0xff || destination == id as u32
            }
            (Registers::XApic { logical, format, .. }, DestinationMode::Logical) => {
                if destination > 0xff {
                    return false;
                }
                let destination = destination as u8;
                match format {
                    LogicalIds::Flat => destination & logical != 0,
                    // Cluster 15 means all clusters.
                    LogicalIds::Cluster => {
                        (destination >> 4 == 15 || destination >> 4 == logical >> 4)
                            && destination & logical & 15 != 0
                    }
                }
            }
            (Registers::X2Apic { id }, DestinationMode::Physical) => destination == id,
            // Section 12.12.10.2: logical x2APIC id = x2APIC id bits 19:4 << 16 | 1 << x2APIC id
            // bits 3:0.
            (Registers::X2Apic { id }, DestinationMode::Logical) => {
                destination >> 16 == id >> 4 & 0xffff && destination & 1 << (id & 15) != 0
            }
        }
    }
}

/// The vCPUs that a message is for, by their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who<'a, T> {
    /// None.
    Nobody,
    /// That one.
    One(&'a T),
    /// More than one.
    Several,
}

/// Several vCPUs have this APIC id: a message to it is for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DuplicateId(pub u32);

/// All vCPUs of a VM and their APICs, as they were when somebody looked.
#[doc(alias = "Table")]
pub struct ApicTable<T> {
    vcpus: Vec<(Registers, T)>,
    /// For each physical destination below its length, the one that it means; nothing if it is none
    /// or several.
    physical: Box<[Option<T>]>,
    duplicate: Option<DuplicateId>,
}

doorbell_platform::opaque_debug!([T] ApicTable<T>);

/// How many physical destinations are looked up; of larger ones, all vCPUs are asked. A guest
/// cannot make a table larger than that, whatever it writes.
const DIRECT: u32 = 4096;

impl<T> ApicTable<T> {
    /// Creates the table of these vCPUs. It has up to two of each `T`, which is an `Arc`, or a
    /// number.
    pub fn new(vcpus: impl IntoIterator<Item = (Registers, T)>) -> Self
    where
        T: Clone,
    {
        let vcpus: Vec<_> = vcpus.into_iter().collect();
        let mut ids: Vec<(u32, usize)> =
            (0..vcpus.len()).filter_map(|at| Some((vcpus[at].0.id()?, at))).collect();
        ids.retain(|(id, _)| *id < DIRECT);
        ids.sort_unstable();
        let len = ids.last().map_or(0, |(id, _)| id + 1);
        let mut physical = vec![None; len as usize].into_boxed_slice();
        let mut duplicate = None;
        for same in ids.chunk_by(|a, b| a.0 == b.0) {
            let (id, at) = same[0];
            if same.len() > 1 {
                duplicate = Some(DuplicateId(id));
            } else if id != 0xff {
                // 0xff means all xAPICs, and perhaps one x2APIC as well.
                physical[id as usize] = Some(vcpus[at].1.clone());
            }
        }
        ApicTable { vcpus, physical, duplicate }
    }

    /// Returns an APIC id below 4096 that several vCPUs have, if there is one. Messages reach all
    /// of them.
    pub fn duplicate(&self) -> Option<DuplicateId> {
        self.duplicate
    }

    /// Returns all vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = &(Registers, T)> {
        self.vcpus.iter()
    }

    /// Returns the vCPUs that a message is for.
    pub fn targets(&self, destination: u32, mode: DestinationMode) -> impl Iterator<Item = &T> {
        let accepts = move |(registers, vcpu)| {
            Registers::accepts(registers, destination, mode).then_some(vcpu)
        };
        self.vcpus.iter().map(|(registers, vcpu)| (registers, vcpu)).filter_map(accepts)
    }

    /// Returns whether a message is for no vCPU, for one or for several.
    #[inline]
    pub fn who(&self, destination: u32, mode: DestinationMode) -> Who<'_, T> {
        match self.direct(destination, mode) {
            Some(vcpu) => Who::One(vcpu),
            None => self.ask_all(destination, mode),
        }
    }

    /// The one vCPU of a physical destination, if it can be looked up.
    #[inline]
    pub(crate) fn direct(&self, destination: u32, mode: DestinationMode) -> Option<&T> {
        if mode != DestinationMode::Physical {
            return None;
        }
        self.physical.get(destination as usize)?.as_ref()
    }

    #[cold]
    pub(crate) fn ask_all(&self, destination: u32, mode: DestinationMode) -> Who<'_, T> {
        let mut targets = self.targets(destination, mode);
        match (targets.next(), targets.next()) {
            (None, _) => Who::Nobody,
            (Some(vcpu), None) => Who::One(vcpu),
            (Some(_), Some(_)) => Who::Several,
        }
    }
}

const CLEAN: u32 = 0;
const DIRTY: u32 = 1;
const SCANNING: u32 = 2;

/// The table of a VM, replaced as a whole whenever an APIC's registers have changed.
///
/// Whoever changes a register calls [`changed`](ApicMap::changed) after the change. When that
/// returns, the table has it: either this call has looked at the registers after it, or another
/// has. The word that says whether there is anything to do has three states for that (known race
/// X12): a scan that is under way declares the table clean only if nobody has changed anything
/// since it began, and as long as it has not, nobody takes the table for clean.
pub struct ApicMap<P: Platform, T: Send + Sync + 'static> {
    state: P::AtomicU32,
    scan: Mutex<P, ()>,
    table: RcuCell<P, P::Rcu, ApicTable<T>>,
}

doorbell_platform::opaque_debug!([P: Platform, T: Send + Sync + 'static] ApicMap<P, T>);

impl<P: Platform, T: Send + Sync + 'static> ApicMap<P, T> {
    /// Creates a map that holds `table`, for readers of `rcu`.
    pub fn new(rcu: &Arc<P::Rcu>, table: ApicTable<T>) -> Self {
        ApicMap {
            state: P::AtomicU32::new(CLEAN),
            scan: Mutex::<P, _>::new(&APIC_MAP, ()),
            table: RcuCell::new(rcu, Box::new(table)),
        }
    }

    /// Returns the table, in a read section.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn read(&self) -> RcuRef<'_, P::Rcu, ApicTable<T>> {
        self.table.read()
    }

    /// The cell of the table, for readers who are in a read section already.
    #[inline]
    pub fn cell(&self) -> &RcuCell<P, P::Rcu, ApicTable<T>> {
        &self.table
    }

    /// Registers, or the set of vCPUs, have been changed. `look` makes a table of what they are
    /// now, with sequentially consistent loads or under the locks of those who change them.
    ///
    /// If `look` panics, the table that there was is in force, and whoever comes next looks.
    ///
    /// `look` is not called if another call has looked meanwhile. Senders that have read the former
    /// table may still use it for a moment, as if they had sent before.
    ///
    /// # Context
    /// Any task; may sleep, while another scans.
    pub fn changed(&self, look: impl FnOnce() -> ApicTable<T>) {
        // After the change, so that no scan that comes before the change can use the mark up.
        self.state.store(DIRTY, SeqCst);
        self.update(look);
    }

    fn update(&self, look: impl FnOnce() -> ApicTable<T>) {
        // Somebody has looked since, and published what it saw.
        if self.state.load(SeqCst) == CLEAN {
            return;
        }
        let scan = self.scan.lock();
        if self.state.load(SeqCst) == CLEAN {
            return;
        }
        self.state.store(SCANNING, SeqCst);
        let former = self.table.replace(Box::new(look()));
        // If this fails, there was a change that the scan may have missed, and whoever made it
        // waits for the mutex.
        let _ = self.state.compare_exchange(SCANNING, CLEAN, SeqCst, SeqCst);
        drop(scan);
        former.reclaim_later();
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use core::sync::atomic::AtomicU32;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::vec::Vec;

    use doorbell_platform::{ReadDomain, Std};

    use super::DestinationMode::{Logical, Physical};
    use super::*;

    const fn xapic(id: u8, logical: u8, format: LogicalIds) -> Registers {
        Registers::XApic { id, logical, format }
    }

    fn targets(table: &ApicTable<u32>, destination: u32, mode: DestinationMode) -> Vec<u32> {
        let all: Vec<u32> = table.targets(destination, mode).copied().collect();
        match table.who(destination, mode) {
            Who::Nobody => assert!(all.is_empty()),
            Who::One(one) => assert_eq!([*one], all[..]),
            Who::Several => assert!(all.len() > 1),
        }
        all
    }

    fn table(registers: &[Registers]) -> ApicTable<u32> {
        ApicTable::new(registers.iter().copied().zip(0..))
    }

    #[test]
    fn a_physical_destination_finds_the_one_who_has_that_id() {
        let x2apic = |id| Registers::X2Apic { id };
        let table = table(&[x2apic(3), Registers::Disabled, x2apic(0), x2apic(70_000)]);
        assert_eq!(targets(&table, 3, Physical), [0]);
        assert_eq!(targets(&table, 0, Physical), [2]);
        assert_eq!(targets(&table, 70_000, Physical), [3]);
        assert!(targets(&table, 1, Physical).is_empty() && targets(&table, 4, Physical).is_empty());
        assert_eq!(targets(&table, InterruptMessage::ALL, Physical), [0, 2, 3]);
        assert_eq!(table.duplicate(), None);
    }

    #[test]
    fn flat_logical_destinations_are_sets() {
        let table = table(&[
            xapic(0, 1, LogicalIds::Flat),
            xapic(1, 2, LogicalIds::Flat),
            xapic(2, 0, LogicalIds::Flat),
        ]);
        assert_eq!(targets(&table, 2, Logical), [1]);
        assert_eq!(targets(&table, 0xfe, Logical), [1]);
        assert_eq!(targets(&table, 3, Logical), [0, 1]);
        assert!(targets(&table, 4, Logical).is_empty());
        assert!(targets(&table, 0x103, Logical).is_empty());
    }

    #[test]
    fn clustered_logical_destinations_are_sets_within_a_cluster_and_cluster_15_is_all_of_them() {
        let member = |id, logical| xapic(id, logical, LogicalIds::Cluster);
        let table = table(&[member(0, 0x11), member(1, 0x12), member(2, 0x21)]);
        assert_eq!(targets(&table, 0x13, Logical), [0, 1]);
        assert_eq!(targets(&table, 0x21, Logical), [2]);
        assert_eq!(targets(&table, 0xf1, Logical), [0, 2]);
        assert!(targets(&table, 0x31, Logical).is_empty());
    }

    #[test]
    fn the_logical_id_of_an_x2apic_is_made_of_its_id() {
        let table = table(&[
            Registers::X2Apic { id: 0x25 },
            Registers::X2Apic { id: 0x26 },
            Registers::X2Apic { id: 5 },
        ]);
        assert_eq!(targets(&table, 0x0002_0020, Logical), [0]);
        assert_eq!(targets(&table, 0x0002_0060, Logical), [0, 1]);
        assert_eq!(targets(&table, 0x20, Logical), [2]);
    }

    #[test]
    fn an_id_that_a_guest_has_given_twice_is_several() {
        let twice = xapic(1, 0, LogicalIds::Flat);
        let table = table(&[twice, twice, xapic(0xff, 0, LogicalIds::Flat)]);
        assert_eq!(targets(&table, 1, Physical), [0, 1]);
        assert_eq!(table.duplicate(), Some(DuplicateId(1)));
        assert_eq!(targets(&table, 0xff, Physical), [0, 1, 2]);
    }

    #[test]
    fn xapics_take_255_for_all_and_the_x2apic_of_that_id_for_itself() {
        let table = table(&[
            Registers::X2Apic { id: 255 },
            xapic(1, 0, LogicalIds::Flat),
            Registers::X2Apic { id: 7 },
        ]);
        assert_eq!(targets(&table, 0xff, Physical), [0, 1]);
    }

    #[test]
    fn a_change_is_in_the_table_when_it_was_told_of() {
        let rcu = Arc::new(<Std as Platform>::Rcu::new("apic map"));
        let id = AtomicU32::new(1);
        let look = || ApicTable::new([(Registers::X2Apic { id: id.load(SeqCst) }, ())]);
        let map = ApicMap::<Std, ()>::new(&rcu, look());
        id.store(9, SeqCst);
        assert_eq!(map.read().who(9, Physical), Who::Nobody);
        map.changed(look);
        assert_eq!(map.read().who(9, Physical), Who::One(&()));
        assert_eq!(map.read().who(1, Physical), Who::Nobody);
        rcu.barrier();
    }

    #[test]
    fn a_look_that_panics_leaves_the_table_as_it_was_and_the_next_one_looks_again() {
        let rcu = Arc::new(<Std as Platform>::Rcu::new("apic map"));
        let map =
            ApicMap::<Std, ()>::new(&rcu, ApicTable::new([(Registers::X2Apic { id: 1 }, ())]));
        let looks = AssertUnwindSafe(|| map.changed(|| panic!("a register that is wrong")));
        assert!(catch_unwind(looks).is_err());
        assert_eq!(map.read().who(1, Physical), Who::One(&()));
        // By whoever comes, though it has changed nothing.
        map.update(|| ApicTable::new([(Registers::X2Apic { id: 9 }, ())]));
        assert_eq!(map.read().who(9, Physical), Who::One(&()));
        rcu.barrier();
    }
}
