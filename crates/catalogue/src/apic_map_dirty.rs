//! X12: a dirty flag that is cleared after the scan loses a request that came during the scan.
//!
//! KVM sends inter-processor interrupts by a map from APIC ids to virtual CPUs. Whoever changes an
//! APIC id marks the map dirty and then asks for it to be computed again; who finds it clean,
//! returns. The computation runs under a mutex, publishes the new map under RCU, and declares it
//! clean at its end. Whoever changes an id that the scan has passed already, and marks the map
//! dirty while the scan runs, has the mark wiped off by that declaration: interrupts go by a map
//! that nobody will ever compute again.
//!
//! `shipped` is [`ApicMap`] of `doorbell-apic`, which has the three states, and lets nobody mark
//! the map without asking for it to be computed again.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_apic::{ApicMap, ApicTable, DestinationMode, Registers, Who};
use doorbell_explore::sim::{fail, remark};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_platform::{Atomic, LockClass, Mutex, Platform, RcuCell, ReadDomain, WaitType};

use crate::case::{self, variant};
use crate::{Case, Expected, Variant};

static APIC_MAP_LOCK: LockClass = LockClass::new("apic_map_lock", WaitType::Sleep);

/// The case.
pub(crate) fn case() -> Case {
    let lost = Expected::Found(FailureKind::Quiescence);
    let late = Expected::Found(FailureKind::Invariant);
    let exhausted = Expected::Exhausted;
    Case::new(
        "apic-map-dirty",
        "a dirty flag that is cleared after the scan loses a request that came during the scan",
        "known-races X12: Linux 44d527170731 (2020)",
        vec![
            variant(
                "as-reported",
                lost,
                "the flag is cleared when the scan is over, and with it the request of a vCPU that changed its id behind the scan",
                Scope { ..TWO },
            ),
            variant(
                "look-under-lock-only",
                lost,
                "the request is wiped off all the same: what is wrong is when the flag is cleared, not where it is read",
                Scope { early_look: false, ..TWO },
            ),
            variant(
                "mark-under-lock",
                exhausted,
                "who marks the map dirty under the mutex cannot do so during a scan, and pays by waiting for it",
                Scope { mark: Mark::UnderLock, ..TWO },
            ),
            variant(
                "clear-before-scan",
                exhausted,
                "a request that comes during the scan stays, and whoever made it finds it and scans again",
                Scope { clear: Clear::BeforeScan, ..TWO },
            ),
            variant(
                "clear-before-scan-current-on-return",
                late,
                "the early look says 'clean' while the scan that saw the change has not published its map yet",
                Scope { clear: Clear::BeforeScan, current_on_return: true, ..TWO },
            ),
            variant(
                "clear-before-scan-mark-before-change",
                lost,
                "the mark is used up by a scan that comes before the change which it announces",
                Scope { clear: Clear::BeforeScan, mark: Mark::BeforeChange, ..TWO },
            ),
            variant(
                "fixed",
                exhausted,
                "the scan declares clean only what is still 'in progress', so a request that came meanwhile stays",
                Scope { clear: Clear::Exchange, ..TWO },
            ),
            variant(
                "fixed-current-on-return",
                exhausted,
                "'in progress' is not 'clean', so the early look waits for the scan: this is what the third state buys",
                Scope { clear: Clear::Exchange, current_on_return: true, ..TWO },
            ),
            variant(
                "fixed-mark-before-change",
                lost,
                "three states are no better than two if the mark comes before the change",
                Scope { clear: Clear::Exchange, mark: Mark::BeforeChange, ..TWO },
            ),
            variant(
                "fixed-3-vcpus",
                exhausted,
                "a third vCPU that changes its id finds no way to lose it either",
                Scope { clear: Clear::Exchange, vcpus: 3, ..TWO },
            ),
            variant(
                "fixed-3-vcpus-current-on-return",
                exhausted,
                "nor a way to return before the map has its id",
                Scope { clear: Clear::Exchange, current_on_return: true, vcpus: 3, ..TWO },
            )
            .full_only(),
            shipped("shipped", "a change is in the map when its call returns, and none is lost", 2),
            shipped("shipped-3-vcpus", "nor with a third vCPU", 3).full_only(),
        ],
    )
}

fn shipped(name: &'static str, summary: &'static str, vcpus: u32) -> Variant {
    let text = format!(
        "doorbell-apic, {vcpus} vCPUs, each changes its APIC id once, map right on return and in the end"
    );
    Variant::new(name, Expected::Exhausted, summary, text, move |m| shipped_program(m, vcpus))
}

/// When the flag is cleared.
#[derive(Clone, Copy, PartialEq)]
enum Clear {
    AfterScan,
    BeforeScan,
    /// `DIRTY → SCANNING` before the scan, and `SCANNING → CLEAN` after it, if it is still so.
    Exchange,
}

/// When the flag is set, seen from the change of the id.
#[derive(Clone, Copy, PartialEq)]
enum Mark {
    After,
    UnderLock,
    BeforeChange,
}

#[derive(Clone, Copy)]
struct Scope {
    clear: Clear,
    mark: Mark,
    /// Whether the flag is looked at before the mutex is taken.
    early_look: bool,
    /// Whether the map must have an id as soon as the write that sets it returns, and not only in
    /// the end.
    current_on_return: bool,
    vcpus: usize,
}

const TWO: Scope = Scope {
    clear: Clear::AfterScan,
    mark: Mark::After,
    early_look: true,
    current_on_return: false,
    vcpus: 2,
};

impl case::Scope for Scope {
    fn text(self) -> String {
        let when =
            if self.current_on_return { "map right on return" } else { "map right in the end" };
        format!("{} vCPUs, each changes its APIC id once, {when}", self.vcpus)
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

const CLEAN: u32 = 0;
const DIRTY: u32 = 1;
const SCANNING: u32 = 2;

type Word = <Sim as Platform>::AtomicU32;

struct Vm {
    scope: Scope,
    /// The APIC id of each virtual CPU.
    ids: Vec<Word>,
    dirty: Word,
    apic_map_lock: Mutex<Sim, ()>,
    apic_map: RcuCell<Sim, <Sim as Platform>::Rcu, Vec<u32>>,
}

impl Vm {
    /// What the guest does when it writes the register.
    fn change_id(&self, vcpu: usize, id: u32) {
        match self.scope.mark {
            Mark::After => {
                self.ids[vcpu].store(id, SeqCst);
                self.dirty.store(DIRTY, SeqCst);
            }
            Mark::BeforeChange => {
                self.dirty.store(DIRTY, SeqCst);
                self.ids[vcpu].store(id, SeqCst);
            }
            Mark::UnderLock => {
                self.ids[vcpu].store(id, SeqCst);
                let _map = self.apic_map_lock.lock();
                self.dirty.store(DIRTY, SeqCst);
            }
        }
        self.recalculate();
    }

    fn recalculate(&self) {
        if self.scope.early_look && self.dirty.load(SeqCst) == CLEAN {
            return;
        }
        let lock = self.apic_map_lock.lock();
        let wanted = match self.scope.clear {
            Clear::AfterScan => self.dirty.load(SeqCst) != CLEAN,
            Clear::BeforeScan => self.dirty.swap(CLEAN, SeqCst) != CLEAN,
            Clear::Exchange => {
                let found = self.dirty.compare_exchange(DIRTY, SCANNING, SeqCst, SeqCst);
                remark(|| "in progress".to_owned());
                found != Err(CLEAN)
            }
        };
        if !wanted {
            return;
        }
        let map = self.scan();
        let former = self.apic_map.replace(Box::new(map));
        match self.scope.clear {
            Clear::AfterScan => self.dirty.store(CLEAN, SeqCst),
            Clear::Exchange => {
                // If this fails, the map is dirty again, and whoever made it so is on its way to
                // the mutex.
                let _ = self.dirty.compare_exchange(SCANNING, CLEAN, SeqCst, SeqCst);
            }
            Clear::BeforeScan => {}
        }
        drop(lock);
        former.reclaim_later();
    }

    fn scan(&self) -> Vec<u32> {
        self.ids.iter().map(|id| id.load(SeqCst)).collect()
    }
}

fn program(m: &Machine, scope: Scope) {
    let rcu = Arc::new(<Sim as Platform>::Rcu::new("rcu"));
    let first: Vec<u32> = (0..scope.vcpus as u32).collect();
    let vm = Arc::new(Vm {
        scope,
        ids: first.iter().map(|id| Word::new(*id).named("APIC id")).collect(),
        dirty: Word::new(CLEAN).named("dirty"),
        apic_map_lock: Mutex::new(&APIC_MAP_LOCK, ()),
        apic_map: RcuCell::new(&rcu, Box::new(first)).named("apic_map"),
    });
    for vcpu in 0..scope.vcpus {
        let vm = vm.clone();
        m.task(format!("vCPU {vcpu}"), move || {
            let id = 10 + vcpu as u32;
            vm.change_id(vcpu, id);
            if scope.current_on_return {
                let map = vm.apic_map.read();
                if map[vcpu] != id {
                    fail(format_args!("its id is {id}, and the map still says {}", map[vcpu]));
                }
            }
        });
    }
    m.at_quiescence("map == recompute(ids)", move || {
        let (map, ids) = (vm.apic_map.read().to_vec(), vm.scan());
        if map == ids { Ok(()) } else { Err(format!("the map is of {map:?}, the ids are {ids:?}")) }
    });
}

fn shipped_program(m: &Machine, vcpus: u32) {
    let rcu = Arc::new(<Sim as Platform>::Rcu::new("apic map"));
    let ids: Arc<Vec<Word>> = Arc::new((0..vcpus).map(Word::new).collect());
    let look = |ids: &[Word]| {
        ApicTable::new(
            (0..).zip(ids).map(|(vcpu, id)| (Registers::X2Apic { id: id.load(SeqCst) }, vcpu)),
        )
    };
    let map = Arc::new(ApicMap::<Sim, u32>::new(&rcu, look(&ids)));
    for vcpu in 0..vcpus {
        let (ids, map) = (Arc::clone(&ids), Arc::clone(&map));
        m.task(format!("vCPU {vcpu}"), move || {
            let id = 10 + vcpu;
            ids[vcpu as usize].store(id, SeqCst);
            map.changed(|| look(&ids));
            let found = map.read().who(id, DestinationMode::Physical) == Who::One(&vcpu);
            assert!(found, "the id of vCPU {vcpu} is {id}, and the map does not have it");
        });
    }
    m.at_quiescence("map == recompute(ids)", move || {
        let table = map.read();
        let right = (0..vcpus)
            .all(|vcpu| table.who(10 + vcpu, DestinationMode::Physical) == Who::One(&vcpu));
        let left = (0..vcpus).any(|id| table.who(id, DestinationMode::Physical) != Who::Nobody);
        if right && !left {
            Ok(())
        } else {
            Err("the map has ids that nobody has, or misses some".into())
        }
    });
}
