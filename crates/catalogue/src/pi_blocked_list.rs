//! X03: "is there an assigned device?" is asked once when a vCPU goes on a list and once more when
//! it comes off.
//!
//! Only vCPUs of guests with assigned devices have interrupts posted by hardware, so KVM kept the
//! others off the lists of sleeping vCPUs. It asked for devices before the vCPU slept, and asked
//! again after it had been woken, and in between the last device may go: the vCPU stays on the
//! list, notified as if it slept, and when it sleeps the next time, with a device again, it is
//! added to the list that it is on. What undoes something has to ask whether it was done.
//!
//! The other way round, a vCPU that went to sleep when there was no device is on no list, and a
//! device that is assigned then posts without waking it; it has to be kicked, so that it goes to
//! sleep anew (Linux a2486020a82e, 2021).

use std::cell::Cell;
use std::rc::Rc;

use doorbell_explore::sim::{Model, note, remark};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::vmx::NOTIFY;
use doorbell_hardware::vtd::{self, Descriptor, Posted, WAKEUP};
use doorbell_platform::{CpuId, Lock, LockClass, Platform, WaitType};

use crate::case::{self, variant};
use crate::{Case, Expected};

static BLOCKED_LOCK: LockClass = LockClass::new("blocked_vcpu_on_cpu_lock", WaitType::Spin);

/// The case.
pub(crate) fn case() -> Case {
    let corrupt = Expected::Found(FailureKind::Panic);
    let exhausted = Expected::Exhausted;
    Case::new(
        "pi-blocked-list",
        "going on a list and coming off it ask the same question separately",
        "known-races X03: Linux 8b306e2f3c41 (2017)",
        vec![
            variant(
                "as-reported",
                corrupt,
                "the last device goes while the vCPU sleeps, so it stays on the list, and is added once more",
                Scope { off: Off::IfAssigned, checks_end: false, ..REPLACED },
            ),
            variant(
                "as-reported-detach",
                Expected::Found(FailureKind::Quiescence),
                "with no new device it stays on the list all the same, and is notified as if it slept",
                Scope { off: Off::IfAssigned, then: Then::Nothing, ..REPLACED },
            ),
            variant(
                "fixed",
                exhausted,
                "whether it comes off depends on whether it went on",
                Scope { off: Off::IfOn, ..REPLACED },
            ),
            variant(
                "fixed-detach",
                exhausted,
                "also if the device is not replaced",
                Scope { off: Off::IfOn, then: Then::Nothing, ..REPLACED },
            ),
            variant(
                "attach-while-asleep",
                Expected::Found(FailureKind::Deadlock),
                "who sleeps with no device is on no list, and the new device's notification wakes nobody",
                Scope { off: Off::IfOn, then: Then::AttachesAndPosts { kicks: false }, ..ASLEEP },
            ),
            variant(
                "attach-kicks",
                exhausted,
                "whoever sleeps is woken after the device was counted, and sleeps anew on the list",
                Scope { off: Off::IfOn, then: Then::AttachesAndPosts { kicks: true }, ..ASLEEP },
            ),
        ],
    )
}

/// When a vCPU that was woken comes off the list.
#[derive(Clone, Copy, PartialEq)]
enum Off {
    IfAssigned,
    /// If it is recorded that it went on.
    IfOn,
}

/// What happens after the device was detached.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    /// Another one is attached.
    Attaches,
    /// And posts an interrupt. `kicks`: whoever sleeps is woken in between.
    AttachesAndPosts {
        kicks: bool,
    },
}

#[derive(Clone, Copy)]
struct Scope {
    off: Off,
    /// Whether there is a device that is detached.
    detaches: bool,
    then: Then,
    /// Interrupts that software sends, and wakes for.
    sends: u8,
    /// Whether the list is looked at when the vCPU is done, and not only when it goes on it.
    checks_end: bool,
}

const REPLACED: Scope =
    Scope { off: Off::IfOn, detaches: true, then: Then::Attaches, sends: 2, checks_end: true };
const ASLEEP: Scope = Scope { detaches: false, sends: 0, ..REPLACED };

impl case::Scope for Scope {
    fn text(self) -> String {
        let detaches = if self.detaches { "1 device is detached" } else { "no device at first" };
        let then = match self.then {
            Then::Nothing => "",
            Then::Attaches => ", 1 is attached",
            Then::AttachesAndPosts { .. } => ", 1 is attached and posts 1 interrupt",
        };
        let sends = if self.sends > 0 {
            format!("; software sends {} interrupts", self.sends)
        } else {
            String::new()
        };
        let end = if self.checks_end { "" } else { "; what is left on the list is not looked at" };
        format!("1 vCPU; {detaches}{then}{sends}{end}")
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

/// The vector of the device that is attached.
const DEVICE: u8 = 7;

struct Kvm {
    scope: Scope,
    assigned: Model<u32>,
    descriptor: Descriptor,
    /// How often the vCPU is on the list of CPU0, on which it runs.
    blocked: Lock<Sim, u32>,
    /// Whether it went on. Its own affair.
    went_on: Cell<bool>,
    wake_up: Model<bool>,
}

impl Kvm {
    fn has_assigned_device(&self) -> bool {
        let has = self.assigned.observe(|count| *count > 0);
        note(|| if has { "a device is assigned" } else { "no device is assigned" }.to_owned());
        has
    }

    fn pre_block(&self) {
        if !self.has_assigned_device() {
            return;
        }
        let mut blocked = self.blocked.lock_irqsave();
        assert!(*blocked == 0, "the vCPU is added to the list that it is on");
        remark(|| "goes on the list".to_owned());
        *blocked += 1;
        self.went_on.set(true);
        let outstanding = self.descriptor.change(|posted| {
            posted.nv = WAKEUP;
            posted.on
        });
        drop(blocked);
        if outstanding {
            Sim::send_ipi(CpuId(0), WAKEUP);
        }
    }

    fn post_block(&self) {
        let off = match self.scope.off {
            Off::IfAssigned => self.has_assigned_device(),
            Off::IfOn => true,
        };
        if off && self.went_on.replace(false) {
            let mut blocked = self.blocked.lock_irqsave();
            remark(|| "comes off the list".to_owned());
            self.descriptor.change(|posted| posted.nv = NOTIFY);
            *blocked -= 1;
        }
    }

    /// Sleeps until something is posted, and takes it.
    fn halt(&self) -> u8 {
        let posted = |posted: &Posted| posted.pir != 0;
        loop {
            self.pre_block();
            if !self.descriptor.observe(posted) {
                self.wake_up.take(|woken| *woken, |woken| *woken = false);
                note(|| "was woken".to_owned());
            }
            self.post_block();
            if self.descriptor.observe(posted) {
                return self.descriptor.change(|posted| {
                    posted.on = false;
                    std::mem::take(&mut posted.pir)
                });
            }
        }
    }

    fn wakeup_handler(&self) {
        let blocked = self.blocked.lock();
        if *blocked > 0 && self.descriptor.observe(|posted| posted.on) {
            self.wake();
        }
    }

    fn wake(&self) {
        self.wake_up.change(|woken| *woken = true);
        note(|| "wakes the vCPU".to_owned());
    }

    /// Software posts an interrupt, and wakes.
    fn send(&self, vector: u8) {
        if self.descriptor.change(|posted| posted.post(vector)).is_some() {
            self.wake();
        }
    }

    fn replace_device(&self) {
        if self.scope.detaches {
            self.assigned.change(|count| *count -= 1);
            note(|| "detaches the only device".to_owned());
        }
        if self.scope.then != Then::Nothing {
            self.assigned.change(|count| *count += 1);
            note(|| "attaches a device".to_owned());
        }
        if self.scope.then == (Then::AttachesAndPosts { kicks: true }) {
            self.wake();
        }
    }

    /// While the vCPU runs.
    fn check(&self) -> Result<(), String> {
        let (listed, nv) = (*self.blocked.lock(), self.descriptor.observe(|posted| posted.nv));
        if listed == 0 && nv == NOTIFY { Ok(()) } else { Err("it is still on the list".to_owned()) }
    }
}

fn program(m: &Machine, scope: Scope) {
    let kvm = Rc::new(Kvm {
        scope,
        assigned: Model::new("assigned devices", scope.detaches.into()),
        descriptor: Descriptor::new("descriptor", NOTIFY, CpuId(0)),
        blocked: Lock::new(&BLOCKED_LOCK, 0),
        went_on: Cell::new(false),
        wake_up: Model::new("a wake-up", false),
    });
    let posts = matches!(scope.then, Then::AttachesAndPosts { .. });
    let all = ((1 << scope.sends) - 1) | u8::from(posts) << DEVICE;
    let [vcpu, handles, device, sender, manager] = [(); 5].map(|()| Rc::clone(&kvm));
    m.task_on(CpuId(0), "vCPU", move || {
        let mut got = 0;
        while got != all {
            got |= vcpu.halt();
        }
    });
    m.handler(CpuId(0), WAKEUP, "wake-up", move || handles.wakeup_handler());
    // The CPU is in no guest while its vCPU sleeps, or is about to.
    m.handler(CpuId(0), NOTIFY, "notification", || ()).may_not_run();
    m.task("VFIO", move || manager.replace_device());
    if scope.sends > 0 {
        m.task("sender", move || (0..scope.sends).for_each(|vector| sender.send(vector)));
    }
    if posts {
        m.hardware("IOMMU", move || {
            device.assigned.wait(|count| *count > 0, |_| ());
            note(|| "its device is attached".to_owned());
            vtd::post(&device.descriptor, DEVICE);
        });
    }
    if scope.checks_end {
        m.at_quiescence("a vCPU that runs is on no list", move || kvm.check());
    }
}
