//! A VT-d unit posts to descriptors that come and go.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{Ghost, Model, both, fail};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::entry_cache::EntryCache;
use doorbell_host::irte::intel::{IntelIrte, RemappedIrte, Source};
use doorbell_host::{IntelBinding, IntelInterrupt, Invalidate, PiTarget, RemapTable};
use doorbell_platform::{Atomic, CpuId, Platform, Vector};
use doorbell_post::{Destination, Pending, PiControl, PiDescriptor, PiGate};

use crate::machine::{Memory, Shared, Word};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("a descriptor leaves for another, and a device posts two", |m| {
            program(m, &[Act::PostToB], Waits::Yes)
        }),
        Program::new("a descriptor leaves, and a device posts two", |m| {
            program(m, &[Act::Unbind], Waits::Yes)
        }),
        Program::new("a descriptor leaves, comes back, and the host moves it", |m| {
            program(m, &[Act::Unbind, Act::SetHost, Act::PostToB], Waits::Yes)
        }),
    ]
}

#[test]
fn a_descriptor_that_is_freed_before_the_invalidation_has_completed_is_used_after_that() {
    let report = Explore::new("freed too early").run(|m| program(m, &[Act::Unbind], Waits::No));
    report.assert_found(FailureKind::UseAfterFree);
}

#[derive(Clone, Copy)]
enum Act {
    PostToB,
    Unbind,
    /// Another task changes where the interrupt arrives in the host.
    SetHost,
}

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Yes,
    No,
}

const SOURCE: Source = Source::Function(1);

fn host(destination: u32) -> RemappedIrte {
    RemappedIrte {
        destination,
        logical: false,
        redirection_hint: false,
        level: false,
        delivery: 0,
        vector: 0x31,
    }
}

/// A descriptor that is freed when nobody owns it any more. Hardware knows its address only.
struct Owned {
    address: u64,
    memory: Arc<Ghost>,
}

impl PiTarget for Owned {
    fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        Sim::assert_no_leaf("frees a descriptor");
        self.memory.free();
    }
}

/// What is at the addresses.
struct Physical {
    descriptor: PiDescriptor<Sim>,
    memory: Arc<Ghost>,
}

struct World {
    memory: Memory,
    unit: EntryCache<IntelIrte>,
    descriptors: [Physical; 2],
    /// Interrupts that arrived in the host.
    in_host: Model<u32>,
}

impl World {
    /// An interrupt of the device (VT-d specification, section 5.2.3): what it reads of the entry
    /// it may cache.
    fn msi(&self) {
        let used = self.unit.comes().unwrap_or_else(|| {
            let read = IntelIrte::from_bits(self.memory[0].load(SeqCst));
            self.unit.keep(read);
            read
        });
        match used.as_posted() {
            Some(posted) => {
                let Physical { descriptor, memory } =
                    &self.descriptors[posted.descriptor as usize / 64 - 1];
                memory.access();
                both(&descriptor.layout().words()[0], descriptor.gate().word(), |pir, control| {
                    (
                        pir | 1 << posted.vector,
                        PiControl::from_bits(control).with_outstanding(true).bits(),
                    )
                });
            }
            None if used.as_remapped().is_some() => self.in_host.change(|count| *count += 1),
            None => fail("an interrupt meets an entry that is not present"),
        }
        self.unit.done();
    }

    fn invalidate<T>(&self, token: Invalidate<T>, waits: Waits) -> T {
        token.by(|_| {
            if waits == Waits::Yes {
                self.unit.invalidate();
            }
        })
    }
}

fn program(m: &Machine, acts: &'static [Act], waits: Waits) {
    let memory: Memory = Arc::new([Word::new(0)]);
    let entry = RemapTable::new(Shared(Arc::clone(&memory)))
        .expect("its words are lock-free")
        .allocate()
        .expect("there is one");
    let mut binding = IntelBinding::new(IntelInterrupt::new(entry, SOURCE, host(1)));
    let descriptors = ["descriptor A", "descriptor B"].map(|name| Physical {
        descriptor: PiDescriptor::new(
            Pending::new(),
            PiGate::new(Destination::x2apic(0), Vector(0xf2)),
        ),
        memory: Arc::new(Ghost::new(name)),
    });
    let owned = |at: usize| {
        Arc::new(Owned {
            address: 64 * (at as u64 + 1),
            memory: Arc::clone(&descriptors[at].memory),
        })
    };
    let former = binding.post_to(owned(0), 0, false).expect("it is aligned").by(|_| ());
    assert!(former.is_none());
    let spare = owned(1);
    let world = Rc::new(World {
        memory,
        unit: EntryCache::new("VT-d unit"),
        descriptors,
        in_host: Model::new("the host's handler", 0),
    });
    let moves = acts.iter().any(|act| matches!(act, Act::SetHost));
    if moves {
        let (interrupt, world) = (Arc::clone(binding.interrupt()), Rc::clone(&world));
        m.task("the host moves it", move || world.invalidate(interrupt.set_host(host(2)), waits));
    }
    let (changes, keep) = (Rc::clone(&world), Rc::new(Model::new("binding", None)));
    let kept = Rc::clone(&keep);
    m.task_on(CpuId(2), "changes it", move || {
        for act in acts {
            match act {
                // The descriptor that it was posted to is freed.
                Act::Unbind => {
                    drop(changes.invalidate(binding.unbind().expect("it is posted"), waits))
                }
                Act::PostToB => {
                    let token =
                        binding.post_to(Arc::clone(&spare), 0, false).expect("it is aligned");
                    drop(changes.invalidate(token, waits));
                }
                Act::SetHost => {}
            }
        }
        kept.change(|kept| *kept = Some((binding, spare)));
    });
    let posts = Rc::clone(&world);
    m.hardware("device", move || {
        posts.msi();
        posts.msi();
    });
    m.at_quiescence("each interrupt has arrived somewhere", move || {
        let announced = |physical: &Physical| {
            let bit = physical.descriptor.layout().words()[0].load(SeqCst) == 1;
            let on = physical.descriptor.gate().load().outstanding();
            (bit == on).then_some(u32::from(bit)).ok_or("a bit that nobody is told of")
        };
        let [a, b] = [announced(&world.descriptors[0])?, announced(&world.descriptors[1])?];
        let in_host = world.in_host.observe(|count| *count);
        // A descriptor coalesces the two.
        let right = in_host == 2 || in_host == 1 && a + b == 1 || in_host == 0 && a + b > 0;
        let _keep = &keep;
        right.then_some(()).ok_or_else(|| format!("{in_host} in the host, {a} by A, {b} by B"))
    });
}
