//! Edges and levels, and one vCPU that stays in the guest.

use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_gic::{IntId, Priority};

use crate::Case;
use crate::machine::{
    EDGE, ICENABLER, ICPENDR, ISACTIVER, ISENABLER, ISPENDR, LEVEL, OTHER, Vm, bit, is_served, task,
};
use crate::vcpu::all_stay;

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let with = |name: &str, others: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| {
            let vm = Vm::new(1);
            others(m, &vm);
            all_stay(m, &vm);
        })
    };
    vec![
        with("one injects an edge twice", |m, vm| {
            task(m, "device", vm, |vm| (0..2).for_each(|_| vm.inject(EDGE)));
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        with("two inject an edge", |m, vm| {
            (0..2).for_each(|_| task(m, "device", vm, |vm| vm.inject(EDGE)));
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        with("an edge comes from a source that was high before", |m, vm| {
            task(m, "device", vm, |vm| {
                [true, false, true].into_iter().for_each(|high| vm.sets_source(EDGE, 3, high))
            });
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        with("a level is raised, and once more when it was lowered", |m, vm| {
            task(m, "device", vm, |vm| (0..2).for_each(|_| vm.raise(0)));
            is_served(m, vm, [(LEVEL, 1..=2)]);
        }),
        with("a device raises a level that another one has raised", |m, vm| {
            vm.raise(0);
            task(m, "device", vm, |vm| vm.raise(1));
            is_served(m, vm, [(LEVEL, 2..=2)]);
        }),
        with("a level is lowered while it is in a list register", |m, vm| {
            task(m, "device", vm, |vm| {
                vm.raise(0);
                vm.withdraw(0);
                is_not_acknowledged_any_more(vm, LEVEL);
            });
            is_served(m, vm, [(LEVEL, 0..=1)]);
        }),
        with("an edge and a level share a list register", |m, vm| {
            task(m, "edge", vm, |vm| vm.inject(EDGE));
            task(m, "level", vm, |vm| vm.raise(0));
            is_served(m, vm, [(EDGE, 1..=1), (LEVEL, 1..=1)]);
        }),
        with("an edge is injected, and enabled by somebody else", |m, vm| {
            vm.write(ICENABLER, bit(EDGE));
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "enables", vm, |vm| vm.write(ISENABLER, bit(EDGE)));
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        with("an edge is injected while it is disabled", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "disables", vm, |vm| disables(vm, EDGE));
            is_disabled(m, vm, EDGE);
        }),
        with("a level is raised while it is disabled", |m, vm| {
            task(m, "device", vm, |vm| vm.raise(0));
            task(m, "disables", vm, |vm| disables(vm, LEVEL));
            is_disabled(m, vm, LEVEL);
        }),
        with("an edge is injected, enabled, and disabled", |m, vm| {
            vm.write(ICENABLER, bit(EDGE));
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "enables", vm, |vm| vm.write(ISENABLER, bit(EDGE)));
            task(m, "disables", vm, |vm| vm.write(ICENABLER, bit(EDGE)));
            is_left(m, vm, EDGE);
        }),
        with("an edge is injected while it is disabled and enabled", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "disables, then enables", vm, |vm| {
                vm.write(ICENABLER, bit(EDGE));
                vm.write(ISENABLER, bit(EDGE));
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        with("an edge is injected while it is configured", |m, vm| {
            vm.write(ICENABLER, bit(EDGE));
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "configures", vm, |vm| {
                vm.set_priority(EDGE, 0x40);
                vm.write(ISENABLER, bit(EDGE));
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        with("software sets what it clears", |m, vm| {
            task(m, "sets", vm, |vm| vm.write(ISPENDR, bit(EDGE)));
            task(m, "clears", vm, |vm| vm.write(ICPENDR, bit(EDGE)));
            is_served(m, vm, [(EDGE, 0..=1)]);
        }),
        with("an edge that is cleared does not come back", |m, vm| {
            vm.inject(EDGE);
            task(m, "clears", vm, |vm| {
                vm.write(ICPENDR, bit(EDGE));
                is_not_acknowledged_any_more(vm, EDGE);
            });
            is_served(m, vm, [(EDGE, 0..=1)]);
        }),
        with("an edge comes after one that is cleared", |m, vm| {
            vm.inject(EDGE);
            task(m, "clears", vm, |vm| {
                vm.write(ICPENDR, bit(EDGE));
                vm.inject(EDGE);
            });
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        with("an edge gets another priority twice while it waits for a list register", |m, vm| {
            [OTHER, EDGE].into_iter().for_each(|id| vm.set_priority(id, 0x80));
            [OTHER, EDGE].into_iter().for_each(|id| vm.inject(id));
            gets_another_priority_twice(m, vm, EDGE);
        }),
        with("a level gets another priority twice while it waits for a list register", |m, vm| {
            [OTHER, LEVEL].into_iter().for_each(|id| vm.set_priority(id, 0x80));
            vm.inject(OTHER);
            vm.raise(0);
            gets_another_priority_twice(m, vm, LEVEL);
        }),
    ]
}

/// Has somebody change the priority of an SPI twice, which the guest acknowledges and ends, and
/// another one.
fn gets_another_priority_twice(m: &Machine, vm: &Arc<Vm>, id: IntId) {
    task(m, "configures", vm, move |vm| {
        [0x40, 0x60].into_iter().for_each(|priority| vm.set_priority(id, priority));
    });
    is_served(m, vm, [(id, 1..=1), (OTHER, 1..=1)]);
    let vm = Arc::clone(vm);
    m.at_quiescence("it has the last priority", move || {
        let priority = vm.state(id).priority();
        (priority == Priority(0x60)).then_some(()).ok_or(format!("{priority:?}"))
    });
}

/// Disables an SPI. When the write has taken effect, the guest acknowledges it no more.
fn disables(vm: &Vm, id: IntId) {
    vm.write(ICENABLER, bit(id));
    vm.write_takes_effect();
    vm.is_signalled_no_more(id);
}

/// Has the vCPU fold. From here on its guest does not acknowledge an SPI that is not pending.
fn is_not_acknowledged_any_more(vm: &Vm, id: IntId) {
    vm.read(ISACTIVER);
    vm.is_signalled_no_more(id);
}

/// In the end, the SPI is disabled, and is pending unless it was acknowledged before.
fn is_disabled(m: &Machine, vm: &Arc<Vm>, id: IntId) {
    is_left(m, vm, id);
    let vm = Arc::clone(vm);
    m.at_quiescence("it is disabled", move || {
        (!vm.state(id).is_enabled()).then_some(()).ok_or(String::new())
    });
}

/// In the end, the SPI is pending if it was not acknowledged, which it was if it is enabled.
fn is_left(m: &Machine, vm: &Arc<Vm>, id: IntId) {
    let vm = Arc::clone(vm);
    m.at_quiescence("it is pending if it was not acknowledged", move || {
        let (state, acknowledged) = (vm.state(id), vm.acknowledged(id));
        let right = !state.is_active()
            && acknowledged <= 1
            && state.is_pending() == (acknowledged == 0)
            && !(state.is_enabled() && state.is_pending());
        right.then_some(()).ok_or(format!("{state:?}, acknowledged {acknowledged} times"))
    });
}
