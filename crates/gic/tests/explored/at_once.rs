//! Two edges that come at once, with room for both: they go into the list registers without a list,
//! while somebody changes one of them.

use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_gic::IntId;

use crate::Case;
use crate::machine::{EDGE, ICENABLER, ISENABLER, OTHER, Vm, bit, is_served, task};
use crate::vcpu::all_stay;

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let with = |name: &str, vcpus: usize, changes: fn(&Vm)| {
        Case::new(name, move |m: &Machine| {
            let vm = Vm::with_list_registers(vcpus, 2);
            come(m, &vm);
            task(m, "changes", &vm, changes);
            is_served(m, &vm, [(EDGE, 1..=1), (OTHER, 1..=1)]);
            all_stay(m, &vm);
        })
    };
    vec![
        with("two edges come at once", 1, |_| ()),
        with("two edges come at once, and one gets another priority", 1, |vm| {
            vm.set_priority(OTHER, 0x40);
        }),
        with("two edges come at once, and one is disabled and enabled", 1, |vm| {
            vm.write(ICENABLER, bit(OTHER));
            vm.write(ISENABLER, bit(OTHER));
        }),
        with("two edges come at once, and one is routed elsewhere", 2, |vm| vm.route(OTHER, 1)),
        // Nobody is told of the end of a source's level, which is in the word of the edge.
        Case::new("two edges come at once, and the source of one falls", |m: &Machine| {
            let vm = Vm::with_list_registers(1, 2);
            task(m, "device", &vm, |vm| {
                vm.inject(EDGE);
                [true, false].into_iter().for_each(|high| vm.sets_source(OTHER, 3, high));
            });
            is_served(m, &vm, [(EDGE, 1..=1), (OTHER, 1..=1)]);
            all_stay(m, &vm);
        }),
    ]
}

/// Has a device inject the two, one after the other.
fn come(m: &Machine, vm: &Arc<Vm>) {
    task(m, "device", vm, |vm| [EDGE, OTHER].into_iter().for_each(|id: IntId| vm.inject(id)));
}
