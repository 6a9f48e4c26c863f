//! What `doorbell-gic` does: a vCPU's owner alone knows its lists, and whoever changes an interrupt
//! changes one word.
//!
//! Three vCPUs on two CPUs, with two list registers, enter and exit once each while two devices
//! inject and an interrupt is routed elsewhere (`shipped`, some 860,000 executions); further
//! variants have what one list register is too few for. Then each vCPU runs once more, alone, and
//! nothing may be left.

mod machine;

use crate::{Expected, Variant};
use machine::{
    EDGE, ICENABLER, ICPENDR, LEVEL, OTHER, PROCESSOR_SLEEP, Vcpu, Vm, WAKER, bit, is_served,
};

pub(super) fn variants() -> Vec<Variant> {
    let mut variants = vec![routed()];
    variants.extend(overflowing());
    variants.push(powered_off());
    variants
}

/// A task beside the vCPUs.
type Other = (&'static str, fn(&Vm));

const DEVICE: Other = ("device", |vm| vm.inject(EDGE));

fn once(vcpu: &mut Vcpu) {
    let _ = vcpu.run();
}

fn routed() -> Variant {
    Variant::new(
        "shipped",
        Expected::Exhausted,
        "the word names the one vCPU that may signal the interrupt, and whoever changes the word sees which",
        "3 vCPUs on 2 CPUs, 2 list registers, 1 entry and exit each; 2 SPIs, each injected once, 1 of them routed to \
         another vCPU",
        |m| {
            let vm = Vm::new(2);
            vm.route(OTHER, 2);
            let others: [Other; 3] = [
                DEVICE,
                ("other device", |vm| vm.inject(OTHER)),
                ("routes", |vm| vm.route(EDGE, 1)),
            ];
            let vcpus = vm.tasks(m, once, &others);
            is_served(m, &vm, vcpus, &[(EDGE, 1..=1), (OTHER, 1..=1)]);
        },
    )
}

fn overflowing() -> Vec<Variant> {
    let variant = |name, why, what: &str, others: &'static [Other], times: &'static _| {
        let scope = format!(
            "3 vCPUs on 2 CPUs, 1 list register, with an SPI of an edge in it and one of a level active behind, which \
             the guest ends both; 1 entry and exit each; {what}"
        );
        Variant::new(name, Expected::Exhausted, why, scope, move |m| {
            let vm = Vm::new(1);
            let vcpus = vm.tasks(m, once, others);
            // The guest is in the handler of the level when the edge comes, which preempts it.
            vm.set_priority(LEVEL, 0x80);
            vm.set_level(true);
            vcpus[0].borrow_mut().run_into_handler();
            vm.set_level(false);
            vm.inject(EDGE);
            is_served(m, &vm, vcpus, times);
            m.at_quiescence("the source of the level was told once", move || {
                let told = vm.told.get();
                (told == 1).then_some(()).ok_or(format!("{told} times"))
            });
        })
    };
    vec![
        variant(
            "shipped-disable",
            "what the guest has ended is seen by the bit that its priority held: no list is walked that others change",
            "1 other disables and clears the edge",
            &[("disables and clears", |vm| {
                vm.write(ICENABLER, bit(EDGE));
                vm.write(ICPENDR, bit(EDGE));
            })],
            &[(LEVEL, 1..=1), (EDGE, 0..=1)],
        ),
        variant(
            "shipped-disable-and-inject",
            "an edge that comes while another one is withdrawn from a list register is in the word, and stays",
            "1 other clears the edge, 1 device injects it",
            &[("clears", |vm| vm.write(ICPENDR, bit(EDGE))), DEVICE],
            &[(LEVEL, 1..=1), (EDGE, 0..=2)],
        ),
        variant(
            "shipped-asleep",
            "a vCPU whose redistributor falls asleep folds, and what it had is pending in the words",
            "1 other sets ProcessorSleep of vCPU 0, and clears it",
            &[("sleeps and wakes", |vm| {
                vm.write_redistributor(0, WAKER, PROCESSOR_SLEEP);
                vm.write_redistributor(0, WAKER, 0);
            })],
            &[(LEVEL, 1..=1), (EDGE, 1..=1)],
        ),
        variant(
            "shipped-route",
            "the edge goes to the new vCPU when the old one has folded, and the level is ended where it is active",
            "1 other routes both elsewhere",
            &[("routes", |vm| {
                vm.route(EDGE, 1);
                vm.route(LEVEL, 1);
            })],
            &[(LEVEL, 1..=1), (EDGE, 1..=1)],
        ),
    ]
}

/// What the case `vgic-prune` has: a vCPU hands an interrupt over.
pub(super) fn handed_over() -> Variant {
    Variant::new(
        "shipped",
        Expected::Exhausted,
        "there is no list to take it off: the exchange that names the new vCPU sees all that is pending, or fails",
        "3 vCPUs; 1 SPI that is pending at vCPU0, which enters and exits ‖ vCPU1 routes it to itself, injects it again, and \
         enters and exits ‖ vCPU2 disables it",
        |m| {
            let vm = Vm::new(2);
            vm.inject(EDGE);
            let first = |vcpu: &mut Vcpu| match vcpu.number {
                0 => once(vcpu),
                1 => {
                    vcpu.vm.route(EDGE, 1);
                    vcpu.vm.inject(EDGE);
                    once(vcpu);
                }
                _ => vcpu.vm.write(ICENABLER, bit(EDGE)),
            };
            let vcpus = vm.tasks(m, first, &[]);
            is_served(m, &vm, vcpus, &[(EDGE, 1..=2)]);
        },
    )
}

fn powered_off() -> Variant {
    Variant::new(
        "shipped-power-off",
        Expected::Exhausted,
        "a vCPU that is powered off hands over what any vCPU may have, and takes part again only when it is on",
        "3 vCPUs on 2 CPUs, 2 list registers; 1 SPI that any vCPU may have, injected twice; 1 vCPU is powered off and on, \
         the others enter and exit once",
        |m| {
            let vm = Vm::new(2);
            vm.route(EDGE, 1);
            vm.route_to_any(EDGE);
            vm.inject(EDGE);
            let first = |vcpu: &mut Vcpu| {
                if vcpu.number == 1 { vcpu.power_off_and_on() } else { once(vcpu) }
            };
            let vcpus = vm.tasks(m, first, &[DEVICE]);
            is_served(m, &vm, vcpus, &[(EDGE, 1..=2)]);
        },
    )
}
