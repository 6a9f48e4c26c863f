//! V02: a remapping entry of 128 bits is changed in several stores, and a device interrupts in
//! between.
//!
//! The entry is read by the IOMMU in one access. As it was reported, software switches it off,
//! changes it and switches it on again, so that what comes meanwhile is aborted: the device has
//! sent it, and nobody gets it. What was done about it is to exchange the entry whole; and because
//! an interrupt's affinity and a vCPU's whereabouts are written to the same 128 bits by different
//! parties, to exchange it against what it was when it was read.

mod cache;
mod irte;
mod shipped;

use std::rc::Rc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{Model, note};
use doorbell_explore::trace::FailureKind;
use doorbell_host::irte::amd::AmdIrte;

use crate::case::{self, variant};
use crate::{Case, Expected};
use irte::{GUEST, NEW, OLD, RUNS, name, remap};

/// RemapEn, bit 0.
const REMAP_EN: u64 = 1;

/// How the affinity is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Update {
    /// Off, the upper half, then the lower half, which is on.
    OffAndOn,
    /// The halves, one after the other.
    Halves,
    /// Whole, whatever it was.
    Store,
    /// Whole, if it is what it was.
    Exchange,
}

#[derive(Clone, Copy)]
struct Scope {
    update: Update,
    /// A vCPU begins to have it posted meanwhile, and then to run, each of which is written in the
    /// same manner.
    posts: bool,
    /// Aborted and torn interrupts are reported when they happen.
    strict: bool,
}

const REPORTED: Scope = Scope { update: Update::OffAndOn, posts: false, strict: true };

/// The case.
pub(crate) fn case() -> Case {
    let found = Expected::Found(FailureKind::Invariant);
    let left = Expected::Found(FailureKind::Quiescence);
    let posts = |update| Scope { update, posts: true, ..REPORTED };
    let rendered = vec![
        variant(
            "as-reported",
            found,
            "the IOMMU aborts an interrupt that comes while the entry is off",
            REPORTED,
        ),
        variant(
            "as-reported-lost",
            left,
            "nobody sends it again: its device waits",
            Scope { strict: false, ..REPORTED },
        ),
        variant(
            "halves",
            found,
            "without switching it off, the old destination is sent the new vector",
            Scope { update: Update::Halves, ..REPORTED },
        ),
        variant(
            "whole",
            Expected::Exhausted,
            "one store of 128 bits: the IOMMU reads the old entry or the new one",
            Scope { update: Update::Store, ..REPORTED },
        ),
        variant(
            "whole-posted",
            left,
            "whoever stores what he has read and changed undoes what another has written since",
            posts(Update::Store),
        ),
        variant(
            "exchanged",
            Expected::Exhausted,
            "nor does the exchange leave a moment in between",
            Scope { update: Update::Exchange, ..REPORTED },
        ),
        variant(
            "exchanged-posted",
            Expected::Exhausted,
            "an exchange fails if the entry has changed since it was read, and then both changes are made",
            posts(Update::Exchange),
        ),
    ];
    Case::new(
        "irte-window",
        "an interrupt remapping entry is switched off while it is changed, and the device interrupts",
        "known-races V02: Linux e52d58d54a32 (2020), 26e495f34107; Xen 9e0e225a3aec (2019)",
        [rendered, cache::variants(), shipped::variants()].into_iter().flatten().collect(),
    )
}

impl case::Scope for Scope {
    fn text(self) -> String {
        let posts =
            if self.posts { "; 1 vCPU that it is posted to, and that begins to run" } else { "" };
        format!("1 entry, 1 change of affinity, 1 interrupt{posts}")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

struct Entry(Model<u128>);

impl Entry {
    #[track_caller]
    fn read(&self) -> AmdIrte {
        let irte = AmdIrte::from_bits(self.0.observe(|bits| *bits));
        note(|| format!("reads IRTE: {}", name(irte)));
        irte
    }

    #[track_caller]
    fn write(&self, irte: AmdIrte) {
        self.0.change(|bits| *bits = irte.bits());
        note(|| format!("IRTE := {}", name(irte)));
    }

    #[track_caller]
    fn write_low(&self, low: u64) {
        let now = self.0.change(|bits| {
            *bits = *bits >> 64 << 64 | u128::from(low);
            AmdIrte::from_bits(*bits)
        });
        note(|| format!("lower half: {}", name(now)));
    }

    #[track_caller]
    fn write_high(&self, high: u64) {
        let now = self.0.change(|bits| {
            *bits = u128::from(high) << 64 | u128::from(*bits as u64);
            AmdIrte::from_bits(*bits)
        });
        note(|| format!("upper half: {}", name(now)));
    }

    /// `true` if it was `before`.
    #[track_caller]
    fn exchange(&self, before: AmdIrte, irte: AmdIrte) -> bool {
        let mut done = false;
        self.0.change_if(|bits| {
            done = *bits == before.bits();
            if done {
                *bits = irte.bits();
            }
            done
        });
        note(|| {
            format!("IRTE {} {}", if done { ":=" } else { "has changed, not written:" }, name(irte))
        });
        done
    }

    /// Writes what `change` makes of the entry, unless it leaves it as it is.
    fn update(&self, how: Update, change: impl Fn(AmdIrte) -> Option<AmdIrte>) {
        loop {
            let before = self.read();
            let Some(after) = change(before) else { return };
            let (low, high) = (after.bits() as u64, (after.bits() >> 64) as u64);
            match how {
                Update::OffAndOn => {
                    self.write_low(before.bits() as u64 & !REMAP_EN);
                    self.write_high(high);
                    self.write_low(low);
                }
                Update::Halves => {
                    self.write_high(high);
                    self.write_low(low);
                }
                Update::Store => self.write(after),
                Update::Exchange if self.exchange(before, after) => {}
                Update::Exchange => continue,
            }
            return;
        }
    }
}

fn program(m: &Machine, scope: Scope) {
    let entry = Rc::new(Entry(Model::new("IRTE", AmdIrte::host(OLD).bits())));
    let arrived = Rc::new(Model::new("arrived", false));
    {
        let entry = Rc::clone(&entry);
        // While it is posted, where it would arrive in the host is kept elsewhere.
        let affinity = |irte: AmdIrte| (!irte.is_guest()).then(|| AmdIrte::host(NEW));
        m.task("affinity", move || entry.update(scope.update, affinity));
    }
    if scope.posts {
        let entry = Rc::clone(&entry);
        m.task("vCPU", move || {
            entry.update(scope.update, |_| Some(AmdIrte::guest(GUEST)));
            entry.update(scope.update, |irte| irte.moved(RUNS));
        });
    }
    {
        let (entry, arrived) = (Rc::clone(&entry), Rc::clone(&arrived));
        m.hardware("IOMMU", move || {
            if remap(entry.read(), scope.strict) {
                arrived.change(|arrived| *arrived = true);
                note(|| "the interrupt arrives".to_owned());
            }
        });
    }
    m.at_quiescence(
        "the interrupt has arrived, and the entry says what was written last",
        move || {
            let irte = entry.read();
            let last = if scope.posts {
                irte.as_guest().is_some_and(|guest| guest.residency == RUNS)
            } else {
                irte.as_host() == Some(NEW)
            };
            match (arrived.observe(|arrived| *arrived), last) {
                (false, _) => Err("it has not arrived".to_owned()),
                (_, false) => Err(format!("it says {}", name(irte))),
                _ => Ok(()),
            }
        },
    );
}
