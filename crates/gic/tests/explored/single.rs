//! What there is once: the owned half of a vCPU, a private interrupt, one that a physical one
//! backs.

use std::sync::Arc;

use doorbell_explore::{Machine, sim};
use doorbell_gic::{IntId, PhysicalIntId, SgiRegister};

use crate::Case;
use crate::machine::{
    DPG_GROUP_ONE, EDGE, GICR_CTLR, Hears, ICENABLER0, ICPENDR, ISENABLER0, Vm, bit, is_served,
    task, vcpu,
};
use crate::vcpu::{Vcpu, all_stay, runs};

const SGI: IntId = IntId::new(1).unwrap();
/// The physical interrupt that backs the edge.
const PHYSICAL: PhysicalIntId = PhysicalIntId::new(40).unwrap();

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    let with = |name: &str, run: fn(&Machine, &Arc<Vm>)| {
        Case::new(name, move |m: &Machine| run(m, &Vm::new(1)))
    };
    vec![
        with("two want the owned half of a vCPU", |m, vm| {
            for _ in 0..2 {
                task(m, "wants it", vm, |vm| {
                    if vm.gic.cpu_interface(vcpu(0)).is_ok() {
                        vm.acknowledges(0, EDGE.number());
                    }
                });
            }
            let vm = Arc::clone(vm);
            m.at_quiescence("one has it", move || {
                let has = vm.acknowledged(EDGE);
                (has == 1).then_some(()).ok_or(format!("{has} have it"))
            });
        }),
        with("an SGI is generated twice", |m, vm| {
            vm.write_redistributor(0, ISENABLER0, 1 << SGI.number());
            task(m, "generates", vm, |vm| {
                let value = u64::from(SGI.number()) << 24 | 1;
                for _ in 0..2 {
                    vm.gic
                        .generate_sgi(vcpu(0), SgiRegister::Sgi1R, value, &mut Hears(vm))
                        .expect("there is a vCPU");
                }
            });
            all_stay(m, vm);
            let vm = Arc::clone(vm);
            m.at_quiescence("it is handled", move || {
                let state = vm.gic.private(vcpu(0), SGI).expect("it is there").state();
                let times = vm.acknowledged_sgis();
                let right = !state.is_pending() && !state.is_active() && (1..=2).contains(&times);
                right.then_some(()).ok_or(format!("{state:?}, acknowledged {times} times"))
            });
        }),
        with("a physical interrupt that backs an edge is deactivated", |m, vm| {
            vm.line(EDGE).set_physical(Some(PHYSICAL));
            vm.inject(EDGE);
            task(m, "clears", vm, |vm| vm.write(ICPENDR, bit(EDGE)));
            runs(m, vm, 0, |mut vcpu| vcpu.stays());
            is_served(m, vm, [(EDGE, 0..=1)]);
            let vm = Arc::clone(vm);
            m.at_quiescence("it is deactivated", move || {
                let deactivated = vm.deactivated();
                let right = !deactivated.is_empty()
                    && deactivated.iter().all(|id| *id == PHYSICAL.number());
                right.then_some(()).ok_or(format!("deactivated: {deactivated:?}"))
            });
        }),
        with("a write has taken effect though its vCPU is kicked again", |m, vm| {
            vm.write_redistributor(0, ISENABLER0, 1 << SGI.number());
            task(m, "disables, then injects", vm, |vm| {
                vm.write_redistributor(0, ICENABLER0, 1 << SGI.number());
                vm.write_takes_effect();
                vm.inject(EDGE);
                if vm.read_redistributor(0, GICR_CTLR) != 0 {
                    sim::fail("RWP says that a write has not taken effect");
                }
            });
            all_stay(m, vm);
            is_served(m, vm, [(EDGE, 1..=1)]);
        }),
        with(
            "a redistributor is told not to let the vCPU have what any may have, while that is powered on",
            |m, vm| {
                let mut vcpu = Vcpu::new(vm, 0);
                vcpu.power_off();
                m.task("powers on", move || vcpu.power_on());
                task(m, "DPG1NS", vm, |vm| vm.write_redistributor(0, GICR_CTLR, DPG_GROUP_ONE));
                let vm = Arc::clone(vm);
                m.at_quiescence("it is told so", move || {
                    let ctlr = vm.read_redistributor(0, GICR_CTLR);
                    (ctlr == DPG_GROUP_ONE).then_some(()).ok_or(format!("{ctlr:#x}"))
                });
            },
        ),
    ]
}
