//! INTx of an assigned device, whose handler, user space and trigger meet.

use std::rc::Rc;
use std::sync::Arc;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{DropUnlocked, Ghost, Model};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_hardware::intx::{Device, Registers};
use doorbell_host::intx::{Exchanged, Fired, Intx, IntxLine, IntxPending, Status, Tell};
use doorbell_host::msi::Signal;
use doorbell_platform::{CpuId, Platform, ReadDomain, Vector};

/// The programs of this file: a name, and what is set up.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("INTx fires twice, and user space unmasks on the CPU of the handler", |m| {
            let all = World::new(m, Some(0));
            all.device(m, 2);
            all.user(m, HERE, 0);
            all.is_masked_at_the_end(m, false);
        }),
        Program::new("INTx fires twice, and user space unmasks on another CPU", |m| {
            let all = World::new(m, Some(0));
            all.device(m, 2);
            all.user(m, THERE, 0);
            all.is_masked_at_the_end(m, false);
        }),
        Program::new("INTx fires, and another masks and unmasks", |m| {
            let all = World::new(m, Some(0));
            all.device(m, 1);
            all.user(m, THERE, 0);
            all.masks_and_unmasks(m);
            all.is_masked_at_the_end(m, false);
        }),
        Program::new("INTx fires while it gets its first trigger", |m| {
            let all = World::new(m, None);
            all.device(m, 1);
            all.user(m, THERE, 1);
            let sets = Rc::clone(&all);
            m.task("sets the trigger", move || {
                assert!(sets.exchange(1).act().synchronize().is_none(), "there was none");
            });
            all.is_masked_at_the_end(m, false);
        }),
        Program::new(
            "INTx fires while its trigger is exchanged, and the former one is freed",
            |m| {
                let all = World::new(m, Some(0));
                all.device(m, 1);
                all.user(m, THERE, 0);
                all.user(m, CpuId(4), 1);
                let sets = Rc::clone(&all);
                m.task("exchanges the trigger", move || {
                    let former = sets.exchange(1).act().synchronize();
                    former.expect("there was one").memory.free();
                });
                all.is_masked_at_the_end(m, false);
            },
        ),
        Program::new(
            "INTx fires and is unmasked while it is shut, and the trigger is freed",
            |m| shut(m, Waits::Yes),
        ),
        Program::new("INTx is shut while another masks and unmasks it", |m| {
            let all = World::new(m, Some(0));
            all.never_fires();
            all.masks_and_unmasks(m);
            all.shuts(m, Waits::Yes);
            all.is_masked_at_the_end(m, true);
        }),
        Program::new(
            "INTx without a trigger fires for a moment, and is unmasked while it is shut",
            |m| {
                let all = World::new(m, None);
                let device = Rc::clone(&all);
                m.hardware("device", move || {
                    device.line().set_pending(true);
                    device.line().set_pending(false);
                });
                let unmasks = Rc::clone(&all);
                m.task_on(THERE, "unmask eventfd", move || act(unmasks.intx.unmask()));
                let shuts = Rc::clone(&all);
                m.task("shuts", move || {
                    assert!(shuts.intx.shut().act().synchronize().is_none(), "there was none")
                });
                all.is_masked_at_the_end(m, true);
            },
        ),
    ]
}

/// F07: the handler, and an unmask, signal what they have found.
#[test]
fn a_trigger_that_is_freed_before_its_grace_period_is_used_after_that() {
    let report = Explore::new("freed too early").run(|m| shut(m, Waits::No));
    report.assert_found(FailureKind::UseAfterFree);
}

/// Where the handler runs. The domain of the triggers has a task on the first CPU.
const HERE: CpuId = CpuId(2);
const THERE: CpuId = CpuId(3);

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Yes,
    No,
}

/// An eventfd, which is freed when user space has it back.
struct Trigger {
    count: Arc<Model<u64>>,
    memory: Arc<Ghost>,
    _dropped: DropUnlocked,
}

impl Signal for Trigger {
    fn signal(&self, count: u64) {
        self.memory.access();
        self.count.change(|all| *all += count);
    }
}

/// The device's line, as `doorbell-host` uses it.
struct Line(Device);

impl IntxLine for Line {
    fn status(&self) -> Status {
        let Registers { pending, masked } = self.0.registers();
        Status { pending: if pending { IntxPending::Yes } else { IntxPending::No }, masked }
    }

    fn set_masked(&self, masked: bool) {
        self.0.set_masked(masked);
    }
}

type SimIntx = Intx<Sim, Line, Trigger>;

struct World {
    intx: SimIntx,
    memory: Arc<Ghost>,
    told: [Arc<Model<u64>>; 2],
}

fn act(tell: Option<Tell<'_, Sim, Line, Trigger>>) {
    if let Some(tell) = tell {
        tell.act();
    }
}

impl World {
    /// A line in use, with the first trigger if `with` says so.
    fn new(m: &Machine, with: Option<usize>) -> Rc<Self> {
        let all = Rc::new(World {
            intx: Intx::new(
                Line(Device::new("device")),
                &Arc::new(<Sim as Platform>::Rcu::new("triggers")),
            ),
            memory: Arc::new(Ghost::new("the first trigger")),
            told: ["first trigger", "second trigger"].map(|name| Arc::new(Model::new(name, 0))),
        });
        if let Some(first) = with {
            std::mem::forget(all.exchange(first).act());
        }
        all.intx.enable();
        let fires = Rc::clone(&all);
        let handler = m.handler(HERE, Vector(0x41), "INTx", move || {
            if let Fired::Ours(tell) = fires.intx.fire() {
                act(tell);
            }
            fires.line().eoi();
        });
        all.line().handler.set(handler).expect("the only one");
        all
    }

    fn line(&self) -> &Device {
        &self.intx.line().0
    }

    fn exchange(&self, to: usize) -> Exchanged<'_, Sim, Line, Trigger> {
        let memory = if to == 0 {
            Arc::clone(&self.memory)
        } else {
            Arc::new(Ghost::new("the second trigger"))
        };
        self.intx.set_trigger(Some(Trigger {
            count: Arc::clone(&self.told[to]),
            memory,
            _dropped: DropUnlocked("drops a trigger"),
        }))
    }

    /// The device wants no interrupt.
    fn never_fires(&self) {
        self.line().handler.get().expect("it is set up").may_not_run();
    }

    /// The device wants so many interrupts, each after the one before was served.
    fn device(self: &Rc<Self>, m: &Machine, times: u32) {
        let this = Rc::clone(self);
        m.hardware("device", move || {
            for _ in 0..times {
                this.line().set_pending(true);
                this.line().is_served();
            }
        });
    }

    /// Reads a trigger, serves the device, and unmasks.
    fn user(self: &Rc<Self>, m: &Machine, cpu: CpuId, of: usize) {
        let this = Rc::clone(self);
        m.task_on(cpu, "user space", move || {
            while this.told[of].serve(|count| *count > 0, |count| *count = 0).is_ok() {
                this.line().set_pending(false);
                act(this.intx.unmask());
            }
        });
    }

    fn masks_and_unmasks(self: &Rc<Self>, m: &Machine) {
        let this = Rc::clone(self);
        m.task("masks and unmasks", move || {
            this.intx.mask();
            act(this.intx.unmask());
        });
    }

    fn shuts(self: &Rc<Self>, m: &Machine, waits: Waits) {
        let this = Rc::clone(self);
        m.task("shuts", move || {
            let former = this.intx.shut().act();
            if waits == Waits::Yes {
                assert!(former.synchronize().is_some(), "there was one");
            } else {
                std::mem::forget(former);
            }
            this.memory.free();
        });
    }

    fn is_masked_at_the_end(self: &Rc<Self>, m: &Machine, masked: bool) {
        let this = Rc::clone(self);
        m.at_quiescence("the device is masked if and only if the line is out of use", move || {
            let is = this.line().registers().masked;
            (is == masked).then_some(()).ok_or_else(|| format!("{is}"))
        });
    }
}

/// The device wants an interrupt, and somebody unmasks, which signals the trigger as well.
fn shut(m: &Machine, waits: Waits) {
    let all = World::new(m, Some(0));
    all.intx.mask();
    let device = Rc::clone(&all);
    m.hardware("device", move || device.line().set_pending(true));
    let unmasks = Rc::clone(&all);
    m.task_on(THERE, "unmask eventfd", move || act(unmasks.intx.unmask()));
    all.shuts(m, waits);
    all.is_masked_at_the_end(m, true);
}
