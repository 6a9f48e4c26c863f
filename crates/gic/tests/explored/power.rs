//! vCPUs that sleep, are preempted, powered off, or take no part in what any vCPU may have.

use std::sync::Arc;

use doorbell_explore::{Machine, Sim, sim};
use doorbell_platform::Platform;

use crate::Case;
use crate::machine::{
    CHILDREN_ASLEEP, DPG_GROUP_ONE, EDGE, GICD_CTLR, GICR_CTLR, GROUP_ONE, ICACTIVER,
    PROCESSOR_SLEEP, Vm, WAKER, bit, is_served, task, vcpu,
};
use crate::vcpu::{Idle, Vcpu, all_stay, runs};

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let one = |name: &str, run: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| run(m, &Vm::new(1)))
    };
    let two = |name: &str, run: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| run(m, &Vm::new(2)))
    };
    vec![
        one("an edge is injected to a vCPU that sleeps", |m, vm| {
            task(m, "device", vm, |vm| (0..2).for_each(|_| vm.inject(EDGE)));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            is_served(m, vm, [(EDGE, 1..=2)]);
        }),
        one("a group is enabled while a vCPU falls asleep", |m, vm| {
            vm.write(GICD_CTLR, 0);
            vm.inject(EDGE);
            task(m, "enables", vm, |vm| vm.write(GICD_CTLR, GROUP_ONE));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        one("a group is enabled, and disabled by somebody else", |m, vm| {
            vm.write(GICD_CTLR, 0);
            vm.inject(EDGE);
            task(m, "enables", vm, |vm| vm.write(GICD_CTLR, GROUP_ONE));
            task(m, "disables", vm, |vm| vm.write(GICD_CTLR, 0));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                vcpu.stays();
            });
            let vm = Arc::clone(vm);
            m.at_quiescence("it is pending", move || {
                let state = vm.state(EDGE);
                (state.is_pending() && !state.is_active()).then_some(()).ok_or(format!("{state:?}"))
            });
        }),
        one("a group is disabled while an edge is injected", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "disables", vm, |vm| {
                vm.write(GICD_CTLR, 0);
                vm.write_takes_effect();
                vm.is_signalled_no_more(EDGE);
            });
            runs(m, vm, 0, |mut vcpu| vcpu.stays());
            is_pending_unless_acknowledged(m, vm);
        }),
        one("a redistributor wakes while its vCPU falls asleep", |m, vm| {
            vm.write_redistributor(0, WAKER, PROCESSOR_SLEEP);
            vm.inject(EDGE);
            task(m, "wakes", vm, |vm| vm.write_redistributor(0, WAKER, 0));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        one("a redistributor falls asleep while an edge is injected", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "falls asleep", vm, |vm| {
                vm.write_redistributor(0, WAKER, PROCESSOR_SLEEP);
                while vm.read_redistributor(0, WAKER) & CHILDREN_ASLEEP == 0 {
                    Sim::cpu_relax();
                }
                vm.is_signalled_no_more(EDGE);
            });
            runs(m, vm, 0, |mut vcpu| vcpu.stays());
            is_pending_unless_acknowledged(m, vm);
        }),
        two("an edge is injected while it is routed to a vCPU that sleeps", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "routes", vm, |vm| vm.route(EDGE, 1));
            runs(m, vm, 0, |mut vcpu| vcpu.stays());
            runs(m, vm, 1, |mut vcpu| vcpu.runs_and_sleeps());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two("an edge is routed away from a vCPU that sleeps", |m, vm| {
            vm.inject(EDGE);
            task(m, "routes", vm, |vm| vm.route(EDGE, 1));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two(
            "an edge is routed away from a vCPU that is preempted in the handler, and comes again",
            |m, vm| {
                vm.inject(EDGE);
                runs(m, vm, 0, |mut vcpu| {
                    vcpu.leaves_in_handler = true;
                    let _ = vcpu.run(Idle::Halts);
                    vcpu.is_preempted();
                    vcpu.vm.comes(0);
                    vcpu.is_preempted();
                    vcpu.stays();
                });
                runs(m, vm, 1, |mut vcpu| vcpu.stays());
                task(m, "routes, then injects", vm, |vm| {
                    vm.waits(0);
                    vm.route(EDGE, 1);
                    vm.inject(EDGE);
                });
                is_served(m, vm, [(EDGE, 2..=2)]);
            },
        ),
        two("a vCPU is powered off in the handler, and another one makes it inactive", |m, vm| {
            vm.inject(EDGE);
            runs(m, vm, 0, |mut vcpu| {
                vcpu.leaves_in_handler = true;
                let _ = vcpu.run(Idle::Halts);
                vcpu.power_off();
            });
            task(m, "makes it inactive and routes it, then injects", vm, |vm| {
                vm.write(ICACTIVER, bit(EDGE));
                vm.route(EDGE, 1);
                vm.inject(EDGE);
            });
            let vm = Arc::clone(vm);
            m.at_quiescence(
                "it is pending at vCPU 1, or active, if it was acknowledged late",
                move || {
                    let state = vm.state(EDGE);
                    let right = state.is_pending()
                        && (state.is_active() || state.holder() == Some(vcpu(1)));
                    right.then_some(()).ok_or(format!("{state:?}"))
                },
            );
        }),
        one("an edge is injected while its vCPU is powered off and on", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.runs_until_it_halts();
                vcpu.power_off();
                vcpu.power_on();
                vcpu.stays();
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two("an edge is routed elsewhere while its vCPU is powered off", |m, vm| {
            task(m, "device", vm, |vm| vm.inject(EDGE));
            task(m, "routes", vm, |vm| vm.route(EDGE, 1));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.runs_until_it_halts();
                vcpu.power_off();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two("an edge that any vCPU may have is injected while one is powered off", |m, vm| {
            vm.route_to_any(EDGE);
            task(m, "device", vm, |vm| vm.inject(EDGE));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.runs_until_it_halts();
                vcpu.power_off();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two(
            "the only vCPU is powered off and on, and an edge that any may have is injected",
            |m, vm| {
                vm.route_to_any(EDGE);
                task(m, "device", vm, |vm| vm.inject(EDGE));
                Vcpu::new(vm, 0).power_off();
                runs(m, vm, 1, |mut vcpu| {
                    vcpu.power_off();
                    vcpu.power_on();
                    vcpu.stays();
                });
                is_served(m, vm, [(EDGE, 1..=1)]);
            },
        ),
        two("an edge that any vCPU may have is pending when one is not to get it", |m, vm| {
            vm.route_to_any(EDGE);
            vm.inject(EDGE);
            task(m, "DPG1NS", vm, |vm| {
                vm.write_redistributor(0, GICR_CTLR, DPG_GROUP_ONE);
                if vm.read_redistributor(0, GICR_CTLR) & DPG_GROUP_ONE == 0 {
                    sim::fail("DPG1NS is not what was written");
                }
            });
            all_stay(m, vm);
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        two(
            "an edge that any vCPU may have is pending when a redistributor falls asleep",
            |m, vm| {
                vm.route_to_any(EDGE);
                vm.inject(EDGE);
                task(m, "sleeps", vm, |vm| vm.write_redistributor(0, WAKER, PROCESSOR_SLEEP));
                all_stay(m, vm);
                is_served(m, vm, [(EDGE, 1..=1)]);
            },
        ),
        two(
            "an edge that any vCPU may have is injected while a guest has disabled its group",
            |m, vm| {
                vm.route_to_any(EDGE);
                task(m, "device", vm, |vm| vm.inject(EDGE));
                runs(m, vm, 0, |mut vcpu| {
                    vcpu.set_group_enabled(false);
                    vcpu.stays();
                });
                runs(m, vm, 1, |mut vcpu| vcpu.stays());
                is_served(m, vm, [(EDGE, 1..=1)]);
            },
        ),
        two("a guest enables its group again when no other vCPU takes part", |m, vm| {
            vm.route_to_any(EDGE);
            Vcpu::new(vm, 0).power_off();
            task(m, "device", vm, |vm| vm.inject(EDGE));
            runs(m, vm, 1, |mut vcpu| {
                vcpu.set_group_enabled(false);
                let _ = vcpu.run(Idle::Halts);
                vcpu.set_group_enabled(true);
                vcpu.stays();
            });
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
    ]
}

/// In the end, the edge is pending, or was acknowledged once.
fn is_pending_unless_acknowledged(m: &Machine, vm: &Arc<Vm>) {
    let vm = Arc::clone(vm);
    m.at_quiescence("it is pending unless it was acknowledged", move || {
        let (state, times) = (vm.state(EDGE), vm.acknowledged(EDGE));
        let right = times <= 1 && !state.is_active() && state.is_pending() == (times == 0);
        right.then_some(()).ok_or(format!("{state:?}, acknowledged {times} times"))
    });
}
