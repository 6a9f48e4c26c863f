//! Hardware posts by a copy of the vCPU's mode, which it reads in one step (X08): an IOMMU with
//! IRTEs.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{DropUnlocked, Model, local_irq_disable, local_irq_enable};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::copies::{self, Vcpu};
use doorbell_platform::{Atomic, CpuId, Platform, Vector};
use doorbell_post::{Bit, Layout, Mirror, Residency, ResidencyCopies};

const HERE: CpuId = CpuId(0);
const THERE: CpuId = CpuId(1);
/// The vCPU is switched away from, and back to.
const SWITCH: Vector = Vector(0x20);

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    let of = |name: &str, scope| Program::new(name, move |m| program(m, scope));
    vec![
        of("an IRTE is bound while the vCPU begins to run", Scope { binds: true, ..QUIET }),
        of(
            "an IRTE is bound while the vCPU goes to sleep",
            Scope { binds: true, sleeps: true, ..QUIET },
        ),
        of(
            "an IRTE is bound, and unbound, while the vCPU begins to run",
            Scope { binds: true, unbinds: true, ..QUIET },
        ),
        of(
            "two IRTEs are bound at once",
            Scope { binds: true, binds_another: true, posts: false, ..QUIET },
        ),
        of(
            "who binds is interrupted by a switch",
            Scope { binds: true, switched: true, posts: false, ..QUIET },
        ),
        of(
            "who unbinds is interrupted by a switch",
            Scope { binds: true, unbinds: true, switched: true, posts: false, ..QUIET },
        ),
        of(
            "the vCPU is switched away from while it writes",
            Scope { switched: true, posts: false, ..QUIET },
        ),
        of("the vCPU moves while a device posts", Scope { moves: true, ..QUIET }),
    ]
}

#[test]
fn an_irte_that_is_bound_with_what_the_entry_said_before_the_lock_stays_wrong() {
    let scope = Scope { binds: true, stale: true, ..QUIET };
    let report = Explore::new("X08").run(move |m| program(m, scope));
    report.assert_found(FailureKind::Quiescence);
}

#[derive(Clone, Copy)]
struct Scope {
    /// Otherwise the device's IRTE is bound from the beginning.
    binds: bool,
    binds_another: bool,
    unbinds: bool,
    /// Whoever binds an IRTE writes what the vCPU's entry said before it took the lock.
    stale: bool,
    sleeps: bool,
    moves: bool,
    posts: bool,
    /// An interrupt switches away from the vCPU, on the CPU where it runs or is bound.
    switched: bool,
}

const QUIET: Scope = Scope {
    binds: false,
    binds_another: false,
    unbinds: false,
    stale: false,
    sleeps: false,
    moves: false,
    posts: true,
    switched: false,
};

/// What the device posts.
const BIT: Bit<1> = Bit::new(0).unwrap();

const RUN: u64 = 1 << 32;
const LOG: u64 = 1 << 33;
/// The entry refers to the vCPU. Otherwise the device's interrupt goes to a handler of the host,
/// which posts.
const GUEST_MODE: u64 = 1 << 34;

/// A table entry: the one of the vCPU, or an IRTE. One 64-bit word.
struct Entry {
    bits: <Sim as Platform>::AtomicU64,
    _dropped: DropUnlocked,
}

impl Entry {
    fn new() -> Self {
        Entry {
            bits: <Sim as Platform>::AtomicU64::new(0),
            _dropped: DropUnlocked("drops an entry"),
        }
    }

    fn write(&self, residency: Residency) {
        let bits = match residency {
            Residency::Running { apic_id } => RUN | u64::from(apic_id),
            Residency::Away { log } => u64::from(log) * LOG,
        };
        self.bits.store(GUEST_MODE | bits, SeqCst);
    }
}

impl Mirror for Entry {
    fn reflect(&self, residency: Residency) {
        self.write(residency);
    }
}

struct System {
    vcpu: Arc<Vcpu<Entry, Entry>>,
    irte: Arc<Entry>,
    /// Posts of the device.
    under_way: Model<u32>,
    /// Where its hooks have put the vCPU. Used with interrupts off only.
    on: Cell<Option<CpuId>>,
}

impl System {
    fn load(&self, cpu: CpuId) {
        self.on.set(Some(cpu));
        self.vcpu.load(cpu);
    }

    fn put(&self) {
        self.on.set(None);
        self.vcpu.put();
    }

    /// An MSI of the device: the IOMMU sets the bit, then reads the IRTE in one step and does what
    /// it says.
    fn msi(&self) {
        self.under_way.change(|posts| *posts += 1);
        if self.irte.bits.load(SeqCst) & GUEST_MODE == 0 {
            self.vcpu.act(self.vcpu.post.post(BIT));
        } else {
            self.vcpu.post.layout().publish(BIT);
            let entry = self.irte.bits.load(SeqCst);
            if entry & RUN != 0 {
                self.vcpu.ring(entry as u32);
            } else if entry & LOG != 0 {
                self.vcpu.act(self.vcpu.post.published());
            }
        }
        self.under_way.change(|posts| *posts -= 1);
    }

    /// The IRTE refers to the vCPU no more. When no post is under way that has read it before,
    /// somebody looks.
    fn unbind(&self) {
        let removed = self.vcpu.copies.remove(&self.irte, |entry| entry.bits.store(0, SeqCst));
        removed.expect("it is there");
        self.under_way.wait(|posts| *posts == 0, |_| ());
        self.vcpu.act(self.vcpu.post.published());
    }
}

fn program(m: &Machine, scope: Scope) {
    let system = Rc::new(System {
        vcpu: Vcpu::new(0, Entry::new(), &copies::cpus()),
        irte: Arc::new(Entry::new()),
        under_way: Model::new("posts under way", 0),
        on: Cell::new(None),
    });
    let program = |entry: &Entry, residency| {
        entry.write(residency);
        Ok::<_, doorbell_post::NoSuchCopy>(())
    };
    if !scope.binds {
        let added = system.vcpu.copies.add(Arc::clone(&system.irte), program);
        added.expect("it can be programmed");
    }
    let runs = Rc::clone(&system);
    m.task_on(HERE, "vCPU", move || {
        local_irq_disable();
        runs.load(HERE);
        local_irq_enable();
        if scope.moves {
            runs.put();
            runs.load(THERE);
        }
        if scope.sleeps {
            if runs.vcpu.sleep().is_err() {
                return;
            }
            runs.load(HERE);
        }
        if scope.posts {
            runs.vcpu.stay(if scope.moves { THERE } else { HERE });
        } else {
            runs.put();
        }
    });
    let others = CpuId(2);
    if scope.binds {
        let binds = Rc::clone(&system);
        m.task_on(others, "binds", move || {
            let before = scope.stale.then(|| binds.vcpu.copies.residency());
            let add = |entry: &Entry, now| program(entry, before.unwrap_or(now));
            binds.vcpu.copies.add(Arc::clone(&binds.irte), add).expect("it can be programmed");
            if scope.unbinds {
                binds.unbind();
            }
        });
    }
    if scope.binds_another {
        let binds = Rc::clone(&system);
        m.task_on(CpuId(3), "binds another", move || {
            let copy = Arc::new(Entry::new());
            let copies = &binds.vcpu.copies;
            copies.add(Arc::clone(&copy), program).expect("it can be programmed");
            copies.remove(&copy, |entry| entry.bits.store(0, SeqCst)).expect("it is there");
        });
    }
    if scope.switched {
        let switched = Rc::clone(&system);
        // An interrupt by itself does what the hooks do: it takes the same lock.
        let on = if scope.binds { others } else { HERE };
        let handler = m.handler(on, SWITCH, "switch", move || {
            let residency = switched.on.get().map_or(Residency::Away { log: false }, |cpu| {
                Residency::Running { apic_id: cpu.0 }
            });
            switched.vcpu.copies.set(residency);
        });
        m.hardware("timer", move || handler.raise());
    }
    if scope.posts {
        let posts = Rc::clone(&system);
        m.hardware("device", move || posts.msi());
    }
    m.at_quiescence(
        "the guest has got what was posted, and the IRTE says what the vCPU's entry says",
        move || {
            if scope.posts && system.vcpu.got() != 1 {
                return Err("it has not got it".into());
            }
            let own = system.vcpu.copies.own().bits.load(SeqCst);
            let irte = system.irte.bits.load(SeqCst);
            let expected = if scope.unbinds { 0 } else { own };
            (irte == expected).then_some(()).ok_or(format!("{own:#x}, but {irte:#x}"))
        },
    );
}

/// Counts the copies while one is added: even a mere look needs the lock, which is all that orders
/// the two.
pub fn looks() -> Program {
    Program::new("an IRTE is bound while the copies are counted", |m| {
        let copies = Arc::new(ResidencyCopies::<Sim, Entry, Entry>::new(Entry::new()));
        let (runs, binds) = (Arc::clone(&copies), Arc::clone(&copies));
        m.task("runs", move || runs.set(Residency::Running { apic_id: 1 }));
        m.task("binds", move || {
            let program = |entry: &Entry, residency| {
                entry.write(residency);
                Ok::<(), ()>(())
            };
            binds.add(Arc::new(Entry::new()), program).expect("it can be");
        });
        m.task("looks", move || {
            copies.len();
            copies.residency();
        });
    })
}
