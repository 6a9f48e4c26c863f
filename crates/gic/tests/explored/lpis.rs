//! LPIs: messages, while their events are mapped, unmapped and moved, and redistributors disable
//! and enable them.

use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::sim::fail;
use doorbell_gic::{Frame, IntId, LpiConfig, LpiMapping, Priority, Sent, State, Width};
use doorbell_platform::CpuId;

use crate::Case;
use crate::machine::{
    EDGE, ENABLE_LPIS, GICR_CTLR, Hears, LPIS, PENDBASER, PROPBASER, Vm, is_served, task, vcpu,
};
use crate::vcpu::{Idle, Vcpu, all_stay, runs};

/// The LPI that is meant if nothing else is said, and another one.
const LPI: IntId = LPIS[0];
const OTHER: IntId = LPIS[1];

type Set = fn(&Machine, &Arc<Vm>, LpiMapping, LpiMapping);

fn case(name: &str, vcpus: usize, set: Set) -> Case {
    Case::new(name, move |m: &Machine| {
        let (vm, [lpi, other]) = Vm::with_lpis(vcpus);
        set(m, &vm, lpi, other);
    })
}

/// The programs of this file.
pub fn programs() -> Vec<Case> {
    // Those that take the most executions come last.
    let one = |name, set: Set| case(name, 1, set);
    let two = |name, set: Set| case(name, 2, set);
    vec![
        one("one sends an LPI twice", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| (0..2).for_each(|_| is_sent(vm, lpi)));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=2)]);
        }),
        one("two send an LPI", |m, vm, lpi, _| {
            (0..2).for_each(|_| task(m, "device", vm, move |vm| is_sent(vm, lpi)));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=2)]);
        }),
        one("two LPIs are sent at once", |m, vm, lpi, other| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "another", vm, move |vm| is_sent(vm, other));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1), (OTHER, 1..=1)]);
        }),
        one("an LPI is sent and an edge injected", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "another", vm, |vm| vm.inject(EDGE));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1), (EDGE, 1..=1)]);
        }),
        one("an LPI is unmapped while it is queued", |m, vm, lpi, other| {
            [other, lpi].into_iter().for_each(|lpi| is_sent(vm, lpi));
            task(m, "unmaps", vm, |vm| unmaps(vm, LPI));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 0..=1), (OTHER, 1..=1)]);
        }),
        two(
            "an LPI is unmapped, and mapped for another vCPU, while it is linked",
            |m, vm, lpi, _| {
                is_sent(vm, lpi);
                task(m, "unmaps, then maps and sends", vm, |vm| {
                    unmaps(vm, LPI);
                    vm.is_signalled_again(LPI);
                    let lpi = vm.map_lpi(LPI, 1);
                    is_sent(vm, lpi);
                });
                all_stay(m, vm);
                are_served(m, vm, [(LPI, 1..=2)]);
                is_acknowledged_once_by(m, vm, LPI, 1);
            },
        ),
        one("an LPI is cleared, and comes again", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "clears, then sends", vm, move |vm| {
                clears(vm, LPI);
                vm.is_signalled_again(LPI);
                is_sent(vm, lpi);
            });
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=2)]);
        }),
        one("an LPI that is cleared does not come back", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "clears", vm, |vm| clears(vm, LPI));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 0..=1)]);
        }),
        two("an LPI is sent while it is moved", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        two("an LPI is moved while a guest masks it", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                vcpu.stays();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            are_served(m, vm, [(LPI, 1..=1)]);
            is_acknowledged_once_by(m, vm, LPI, 1);
        }),
        two("an LPI is moved while it waits for a list register", |m, vm, lpi, other| {
            configures(vm, OTHER, true, 0x80);
            [lpi, other].into_iter().for_each(|lpi| is_sent(vm, lpi));
            task(m, "moves", vm, |vm| vm.moves(OTHER, 1));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                vcpu.stays();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            is_acknowledged_once_by(m, vm, OTHER, 1);
        }),
        two("an LPI is moved away from a vCPU that sleeps", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                vcpu.runs_and_sleeps();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        two("an LPI is moved while its guest handles it, and comes again", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "moves, then sends", vm, move |vm| {
                vm.waits(0);
                vm.moves(LPI, 1);
                is_sent(vm, lpi);
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
            are_served(m, vm, [(LPI, 2..=2)]);
            is_acknowledged_once_by(m, vm, LPI, 1);
        }),
        two("all LPIs of a vCPU are moved while they are pending", |m, vm, lpi, other| {
            [lpi, other].into_iter().for_each(|lpi| is_sent(vm, lpi));
            task(m, "moves all", vm, moves_all);
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                vcpu.stays();
            });
            let vm = Arc::clone(vm);
            m.at_quiescence("both are pending at vCPU 1", move || {
                let is_there = |state: State| state.is_pending() && state.holder() == Some(vcpu(1));
                let states = LPIS.map(|id| vm.state(id));
                states.into_iter().all(is_there).then_some(()).ok_or(format!("{states:?}"))
            });
        }),
        two("all LPIs of a vCPU are moved while one is sent", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "moves all", vm, moves_all);
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        two("an LPI that no vCPU has is sent, and gets one", |m, vm, lpi, _| {
            vm.lpi(LPI).move_to(None, &mut Hears(vm));
            task(m, "device", vm, move |vm| {
                if vm.sends(lpi) == Sent::Dropped {
                    vm.comes(0);
                }
            });
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            let vm = Arc::clone(vm);
            m.at_quiescence("it was handled, or dropped", move || {
                let dropped = vm.moments[0].observe(|moment| *moment);
                let handled = vm.acknowledged_by(1, LPI);
                (u32::from(dropped) + handled == 1 && !vm.state(LPI).is_pending())
                    .then_some(())
                    .ok_or(format!("{:?}", vm.state(LPI)))
            });
        }),
        one(
            "LPIs are disabled while the vCPU is in the guest, and enabled again",
            |m, vm, lpi, _| {
                is_sent(vm, lpi);
                task(m, "disables, then enables", vm, |vm| {
                    disables_lpis(vm);
                    vm.is_signalled_again(LPI);
                    vm.write_redistributor(0, GICR_CTLR, ENABLE_LPIS);
                });
                all_stay(m, vm);
                are_served(m, vm, [(LPI, 1..=1)]);
            },
        ),
        one(
            "LPIs that are pending are written to the table, and read from there",
            |m, vm, lpi, _| {
                vm.has_tables();
                is_sent(vm, lpi);
                task(m, "disables, then enables", vm, |vm| {
                    disables_lpis(vm);
                    let (times, state) = (vm.acknowledged(LPI), vm.state(LPI));
                    if u32::from(vm.is_in_table(LPI)) + times != 1 || state.is_pending() {
                        fail(format!("{state:?}, acknowledged {times} times"));
                    }
                    vm.is_signalled_again(LPI);
                    vm.write_redistributor(0, GICR_CTLR, ENABLE_LPIS);
                });
                all_stay(m, vm);
                are_served(m, vm, [(LPI, 1..=1)]);
            },
        ),
        one("an LPI is sent while its pending table is written, and read", |m, vm, lpi, _| {
            vm.has_tables();
            task(m, "device", vm, move |vm| {
                if vm.sends(lpi) == Sent::Delivered {
                    vm.comes(0);
                }
            });
            task(m, "disables, then enables", vm, |vm| {
                vm.write_redistributor(0, GICR_CTLR, 0);
                vm.write_redistributor(0, GICR_CTLR, ENABLE_LPIS);
            });
            let vm = Arc::clone(vm);
            m.at_quiescence("it is pending if it was delivered", move || {
                let (delivered, state) = (vm.moments[0].observe(|moment| *moment), vm.state(LPI));
                (delivered == state.is_pending()).then_some(()).ok_or(format!("{state:?}"))
            });
        }),
        one("three map the first LPIs of 128", |m, vm, _, _| {
            let before = vm.gic.lpi_bytes();
            let ids = [8320, 8321, 8322].map(|number| IntId::lpi(number).expect("it is one"));
            for id in ids {
                task(m, "maps", vm, move |vm| _ = vm.map_lpi(id, 0));
            }
            let vm = Arc::clone(vm);
            m.at_quiescence("all are mapped, and their memory is charged once", move || {
                let enabled = ids.map(|id| vm.state(id).is_enabled());
                let bytes = vm.gic.lpi_bytes();
                (enabled == [true; 3] && bytes == 2 * before && before != 0)
                    .then_some(())
                    .ok_or(format!("{enabled:?}, {bytes} bytes"))
            });
        }),
        one(
            "two write the halves of the registers that say where the tables are",
            |m, vm, _, _| {
                vm.write_redistributor(0, GICR_CTLR, 0);
                for half in 0..2 {
                    task(m, "writes a half", vm, move |vm| {
                        for register in [PROPBASER, PENDBASER] {
                            vm.write_table_register(register + 4 * half, Width::Word, 0x7_0000);
                        }
                    });
                }
                let vm = Arc::clone(vm);
                m.at_quiescence("they are both", move || {
                    let values = [PROPBASER, PENDBASER].map(|register| vm.table_register(register));
                    (values == [0x7_0000_0007_0000; 2]).then_some(()).ok_or(format!("{values:x?}"))
                });
            },
        ),
        one("LPIs are enabled while the vCPU falls asleep", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            vm.write_redistributor(0, GICR_CTLR, 0);
            task(m, "enables", vm, |vm| vm.write_redistributor(0, GICR_CTLR, ENABLE_LPIS));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        one("an LPI is sent while it is disabled, and enabled again", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "disables, then enables", vm, |vm| {
                [false, true].into_iter().for_each(|enabled| configures(vm, LPI, enabled, 0));
            });
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        one("an LPI that is disabled is signalled no more", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "disables", vm, |vm| {
                configures(vm, LPI, false, 0);
                vm.redistributor_is_done(0);
                vm.is_signalled_no_more(LPI);
            });
            all_stay(m, vm);
            let vm = Arc::clone(vm);
            m.at_quiescence("it is pending unless it was handled", move || {
                let (state, times) = (vm.state(LPI), vm.acknowledged(LPI));
                (times <= 1 && state.is_pending() == (times == 0))
                    .then_some(())
                    .ok_or(format!("{state:?}, acknowledged {times} times"))
            });
        }),
        one(
            "an LPI gets another priority twice while it waits for a list register",
            |m, vm, lpi, other| {
                LPIS.into_iter().for_each(|id| configures(vm, id, true, 0x80));
                [other, lpi].into_iter().for_each(|lpi| is_sent(vm, lpi));
                task(m, "configures", vm, |vm| {
                    [0x40, 0x60].into_iter().for_each(|to| configures(vm, LPI, true, to));
                });
                all_stay(m, vm);
                are_served(m, vm, [(LPI, 1..=1), (OTHER, 1..=1)]);
                let vm = Arc::clone(vm);
                m.at_quiescence("it has the last priority", move || {
                    let priority = vm.state(LPI).priority();
                    (priority == Priority(0x60)).then_some(()).ok_or(format!("{priority:?}"))
                });
            },
        ),
        one("an LPI is sent while its vCPU is powered off and on", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.runs_until_it_halts();
                vcpu.power_off();
                vcpu.power_on();
                vcpu.stays();
            });
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        two("an LPI is moved while its vCPU is powered on", |m, vm, lpi, other| {
            let mut off = Vcpu::new(vm, 0);
            off.power_off();
            [lpi, other].into_iter().for_each(|lpi| is_sent(vm, lpi));
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            m.task_on(CpuId(0), "vCPU 0", move || {
                off.power_on();
                off.stays();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            are_served(m, vm, [(LPI, 1..=1), (OTHER, 1..=1)]);
        }),
        one("an LPI is sent while LPIs are disabled", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| {
                if vm.sends(lpi) == Sent::Delivered {
                    vm.comes(0);
                }
            });
            task(m, "disables", vm, disables_lpis);
            all_stay(m, vm);
            let vm = Arc::clone(vm);
            m.at_quiescence("it was dropped, handled, or is pending", move || {
                let delivered = vm.moments[0].observe(|moment| *moment);
                let (state, times) = (vm.state(LPI), vm.acknowledged(LPI));
                (u32::from(delivered) == times + u32::from(state.is_pending()))
                    .then_some(())
                    .ok_or(format!("{state:?}, acknowledged {times} times"))
            });
        }),
        one("an LPI is sent to a vCPU that sleeps", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| (0..2).for_each(|_| is_sent(vm, lpi)));
            runs(m, vm, 0, |mut vcpu| vcpu.runs_and_sleeps());
            are_served(m, vm, [(LPI, 1..=2)]);
        }),
        one("an LPI is sent while it is unmapped", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| _ = vm.sends(lpi));
            task(m, "unmaps", vm, |vm| unmaps(vm, LPI));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 0..=1)]);
        }),
        one("a message of a former event comes when its LPI is another one's", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| _ = vm.sends(lpi));
            task(m, "unmaps, then maps", vm, |vm| {
                unmaps(vm, LPI);
                vm.map_lpi(LPI, 0);
            });
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 0..=1)]);
        }),
        two("an LPI that is pending is moved there and back", |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "moves", vm, |vm| [1, 0].into_iter().for_each(|to| vm.moves(LPI, to)));
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        two("an LPI is moved while its vCPU is powered off", |m, vm, lpi, _| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "moves", vm, |vm| vm.moves(LPI, 1));
            runs(m, vm, 0, |mut vcpu| {
                vcpu.masks(true);
                let _ = vcpu.run(Idle::Halts);
                vcpu.power_off();
            });
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
    ]
}

/// Programs that leave out the step on which another one depends.
pub fn incomplete() -> Vec<Case> {
    vec![
        case(
            "a message that was translated before its LPI was unmapped is delivered",
            1,
            |m, vm, _, _| {
                task(m, "device", vm, |vm| _ = vm.lpi(LPI).set_pending(true, &mut Hears(vm)));
                task(m, "unmaps, then maps", vm, |vm| {
                    unmaps(vm, LPI);
                    vm.map_lpi(LPI, 0);
                });
                all_stay(m, vm);
                are_served(m, vm, [(LPI, 0..=1)]);
            },
        ),
        case("nobody waits for the fold after an LPI was unmapped", 1, |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "unmaps", vm, |vm| {
                vm.lpi(LPI).unmap(&mut Hears(vm));
                vm.is_signalled_no_more(LPI);
            });
            all_stay(m, vm);
        }),
        case("nobody waits for the fold after LPIs were disabled", 1, |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "disables", vm, |vm| {
                let frame = Frame::Redistributor(vcpu(0));
                drop(vm.gic.write(frame, GICR_CTLR, Width::Word, 0, &mut Hears(vm)));
                vm.is_signalled_no_more(LPI);
            });
            all_stay(m, vm);
        }),
        case("an LPI is unmapped and mapped where it should be moved", 2, |m, vm, lpi, _| {
            is_sent(vm, lpi);
            task(m, "moves", vm, |vm| {
                vm.lpi(LPI).unmap(&mut Hears(vm));
                vm.map_lpi(LPI, 1);
            });
            all_stay(m, vm);
            are_served(m, vm, [(LPI, 1..=1)]);
        }),
        case("LPIs are left out when all of a vCPU are moved", 2, |m, vm, lpi, other| {
            task(m, "device", vm, move |vm| is_sent(vm, lpi));
            task(m, "moves one", vm, |vm| {
                vm.lpi(LPI).move_from(Some(vcpu(0)), Some(vcpu(1)), &mut Hears(vm));
            });
            task(m, "another", vm, move |vm| is_sent(vm, other));
            runs(m, vm, 1, |mut vcpu| vcpu.stays());
            are_served(m, vm, [(LPI, 1..=1), (OTHER, 1..=1)]);
        }),
    ]
}

/// Sends an LPI that is mapped, and is to be handled once.
fn is_sent(vm: &Vm, lpi: LpiMapping) {
    let _ = vm.sends(lpi);
}

/// Unmaps an LPI. When that has taken effect, no guest acknowledges it any more.
fn unmaps(vm: &Vm, id: IntId) {
    let _ = vm.lpi(id).unmap(&mut Hears(vm));
    vm.redistributor_is_done(0);
    vm.is_signalled_no_more(id);
}

/// Moves the LPIs of vCPU 0 to vCPU 1.
fn moves_all(vm: &Vm) {
    for id in LPIS {
        vm.lpi(id).move_from(Some(vcpu(0)), Some(vcpu(1)), &mut Hears(vm));
    }
}

/// Takes back that an LPI is pending.
fn clears(vm: &Vm, id: IntId) {
    vm.lpi(id).set_pending(false, &mut Hears(vm));
    vm.redistributor_is_done(0);
    vm.is_signalled_no_more(id);
}

fn configures(vm: &Vm, id: IntId, enabled: bool, priority: u8) {
    let config = LpiConfig { enabled, priority: Priority(priority) };
    vm.lpi(id).configure(config, &mut Hears(vm));
}

/// Disables the LPIs of vCPU 0, and waits until that has taken effect.
fn disables_lpis(vm: &Vm) {
    vm.write_redistributor(0, GICR_CTLR, 0);
    vm.redistributor_is_done(0);
    vm.is_signalled_no_more(LPI);
}

/// In the end, nothing is pending or active, and the guests have acknowledged interrupts so often.
fn are_served(
    m: &Machine,
    vm: &Arc<Vm>,
    served: impl IntoIterator<Item = (IntId, std::ops::RangeInclusive<u32>)>,
) {
    is_served(m, vm, served);
    let vm = Arc::clone(vm);
    m.at_quiescence("no LPI is pending", move || {
        let left = LPIS.into_iter().find(|&id| vm.state(id).is_pending());
        left.map_or(Ok(()), |id| Err(format!("INTID {}: {:?}", id.number(), vm.state(id))))
    });
}

/// In the end, the guest of a vCPU has acknowledged an LPI once.
fn is_acknowledged_once_by(m: &Machine, vm: &Arc<Vm>, id: IntId, number: usize) {
    let vm = Arc::clone(vm);
    m.at_quiescence("the vCPU has acknowledged it once", move || {
        let times = vm.acknowledged_by(number, id);
        (times == 1).then_some(()).ok_or(format!("{times} times"))
    });
}
