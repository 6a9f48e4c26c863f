//! The active state of an SPI, which its holder's CPU knows.

use std::sync::Arc;

use doorbell_explore::{Machine, sim};

use crate::Case;
use crate::machine::{EDGE, ICACTIVER, ISACTIVER, OTHER, Vm, bit, is_served, task};
use crate::vcpu::{Idle, Vcpu, all_stay, runs};

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let by_itself = |name: &str, run: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| run(m, &Vm::new(2)))
    };
    vec![
        by_itself("an edge that its vCPU handles is read as active", |m, vm| {
            vm.inject(EDGE);
            task(m, "reads", vm, |vm| {
                vm.waits(0);
                if vm.read(ISACTIVER) != bit(EDGE) {
                    sim::fail("it is handled, and not active");
                }
            });
            runs(m, vm, 0, |mut vcpu| {
                handles_until_it_is_kicked(&mut vcpu);
                vcpu.stays();
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        by_itself(
            "an edge is made inactive while its vCPU handles it, and comes again",
            |m, vm| {
                vm.inject(EDGE);
                task(m, "makes it inactive, then injects", vm, |vm| {
                    vm.waits(0);
                    vm.write(ICACTIVER, bit(EDGE));
                    vm.inject(EDGE);
                });
                runs(m, vm, 0, |mut vcpu| {
                    handles_until_it_is_kicked(&mut vcpu);
                    vcpu.stays();
                });
                is_served(m, vm, [(EDGE, 2..=2)]);
            },
        ),
        by_itself("an edge that is pending is made active and inactive", |m, vm| {
            vm.inject(EDGE);
            task(m, "makes it active, and inactive", vm, |vm| {
                vm.write(ISACTIVER, bit(EDGE));
                vm.write(ICACTIVER, bit(EDGE));
            });
            runs(m, vm, 0, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        by_itself(
            "an edge is made inactive, when its vCPU hears that it was made active and routed elsewhere",
            |m, vm| {
                all_stay(m, vm);
                vm.write(ISACTIVER, bit(EDGE));
                vm.route(EDGE, 1);
                vm.inject(EDGE);
                task(m, "makes it inactive", vm, |vm| vm.write(ICACTIVER, bit(EDGE)));
                is_served(m, vm, [(EDGE, 1..=1)]);
            },
        ),
        by_itself("two vCPUs read what is active on each other, and on themselves", |m, vm| {
            vm.route(OTHER, 1);
            [EDGE, OTHER].into_iter().for_each(|id| vm.inject(id));
            for number in 0..2 {
                runs(m, vm, number, move |mut vcpu| {
                    vcpu.leaves_in_handler = true;
                    let _ = vcpu.run(Idle::Halts);
                    let own = bit([EDGE, OTHER][number]);
                    if vcpu.vm.read(ISACTIVER) & own == 0 {
                        sim::fail("it is handled, and not active");
                    }
                    let _ = vcpu.run(Idle::Halts);
                });
            }
            is_served(m, vm, [(EDGE, 1..=1), (OTHER, 1..=1)]);
        }),
        by_itself("a vCPU deactivates what another one has dropped", |m, vm| {
            vm.inject(EDGE);
            runs(m, vm, 0, |mut vcpu| {
                vcpu.drops_and_deactivates();
                vcpu.in_handler = Some(Box::new(|vm| vm.comes(0)));
                vcpu.stays();
            });
            runs(m, vm, 1, |mut vcpu| {
                vcpu.vm.waits(0);
                vcpu.deactivates(EDGE);
                vcpu.vm.inject(EDGE);
            });
            let vm = Arc::clone(vm);
            m.at_quiescence("it was acknowledged once more, and is active", move || {
                let (times, state) = (vm.acknowledged(EDGE), vm.state(EDGE));
                let right = times == 2 && state.is_active() && !state.is_pending();
                right.then_some(()).ok_or(format!("{times} times, {state:?}"))
            });
        }),
    ]
}

/// The guest is in the handler of the edge, says so, and stays there until it is kicked.
fn handles_until_it_is_kicked(vcpu: &mut Vcpu) {
    vcpu.in_handler = Some(Box::new(|vm| {
        vm.comes(0);
        let _ = vm.cpus[0].hear();
    }));
}
