//! Interrupts that are routed elsewhere, and two vCPUs that stay in the guest.

use std::sync::Arc;

use doorbell_explore::Machine;

use crate::Case;
use crate::machine::{EDGE, LEVEL, Vm, is_served, task};
use crate::vcpu::{Idle, all_stay, runs};

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let with = |name: &str, others: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| {
            let vm = Vm::new(2);
            others(m, &vm);
            all_stay(m, &vm);
        })
    };
    let by_itself = |name: &str, run: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| run(m, &Vm::new(2)))
    };
    vec![
        with("an edge is injected while it is routed elsewhere", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "routes", vm, |vm| vm.route(EDGE, 1));
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        with("an edge that is pending is routed there and back", |m, vm| {
            vm.inject(EDGE);
            task(m, "routes", vm, |vm| {
                vm.route(EDGE, 1);
                vm.route(EDGE, 0);
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        by_itself("an edge that is pending is routed by two", |m, vm| {
            vm.inject(EDGE);
            task(m, "to vCPU 1", vm, |vm| vm.route(EDGE, 1));
            task(m, "to nobody", vm, |vm| vm.route(EDGE, 7));
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            let vm = Arc::clone(vm);
            m.at_quiescence("it is where it was routed last", move || {
                let (state, router) = (vm.state(EDGE), vm.router(EDGE));
                let right = match router {
                    1 => vm.acknowledged(EDGE) == 1 && !state.is_pending(),
                    _ => {
                        state.holder().is_none()
                            && state.is_pending() == (vm.acknowledged(EDGE) == 0)
                    }
                };
                right.then_some(()).ok_or(format!("routed to {router}: {state:?}"))
            });
        }),
        by_itself("two write the halves of GICD_IROUTER", |m, vm| {
            task(m, "low", vm, |vm| vm.write_half_of_router(EDGE, 0, 1));
            task(m, "high", vm, |vm| vm.write_half_of_router(EDGE, 1, 1));
            let vm = Arc::clone(vm);
            m.at_quiescence("it is both", move || {
                let router = vm.router(EDGE);
                (router == 1 << 32 | 1).then_some(()).ok_or(format!("{router:#x}"))
            });
        }),
        with("an edge is injected when it was routed elsewhere", |m, vm| {
            vm.inject(EDGE);
            task(m, "routes, then injects", vm, |vm| {
                vm.route(EDGE, 1);
                vm.inject(EDGE);
            });
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        with("a level is raised while it is routed elsewhere", |m, vm| {
            task(m, "device", vm, |vm| vm.raise(0));
            task(m, "routes", vm, |vm| vm.route(LEVEL, 1));
            is_served(m, vm, [(LEVEL, 1..=1)]);
        }),
        by_itself(
            "an edge is routed elsewhere while it is pending in the list register of a guest that masks it",
            |m, vm| {
                vm.inject(EDGE);
                task(m, "routes", vm, |vm| vm.route(EDGE, 1));
                runs(m, vm, 0, |mut vcpu| {
                    vcpu.masks(true);
                    vcpu.stays();
                });
                runs(m, vm, 1, |mut vcpu| vcpu.stays());
                is_served(m, vm, [(EDGE, 1..=1)]);
            },
        ),
        by_itself("an edge is routed elsewhere while it is active, and comes again", |m, vm| {
            vm.inject(EDGE);
            task(m, "routes, then injects", vm, |vm| {
                vm.waits(0);
                vm.route(EDGE, 1);
                vm.inject(EDGE);
                vm.comes(1);
            });
            runs(m, vm, 0, |mut vcpu| {
                vcpu.in_handler = Some(Box::new(|vm| {
                    vm.comes(0);
                    vm.waits(1);
                }));
                vcpu.stays();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 2..=2)]);
            is_acknowledged_by_each(m, vm);
        }),
        by_itself("an edge that is active comes again, and is routed elsewhere", |m, vm| {
            vm.inject(EDGE);
            task(m, "injects, then routes", vm, |vm| {
                vm.waits(0);
                vm.inject(EDGE);
                vm.route(EDGE, 1);
                vm.comes(1);
            });
            runs(m, vm, 0, |mut vcpu| {
                // In two runs, so that it may be put into a list register again.
                vcpu.in_handler = Some(Box::new(|vm| {
                    vm.comes(0);
                    let _ = vm.cpus[0].hear();
                }));
                let _ = vcpu.run(Idle::Waits);
                vcpu.waits_in_guest(1);
                vcpu.stays();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 2..=2)]);
            is_acknowledged_by_each(m, vm);
        }),
    ]
}

/// In the end, each vCPU has acknowledged the edge once.
fn is_acknowledged_by_each(m: &Machine, vm: &Arc<Vm>) {
    let vm = Arc::clone(vm);
    m.at_quiescence("each vCPU has acknowledged it once", move || {
        let times = [0, 1].map(|number| vm.acknowledged_by(number, EDGE));
        (times == [1; 2]).then_some(()).ok_or(format!("{times:?}"))
    });
}
