//! X06: AVIC is turned off between a sender's look at it and the interrupt that it posts.
//!
//! Whoever sends an interrupt to a vCPU sets a bit in its IRR and then notifies it: by a doorbell
//! while AVIC is on, by a request and a kick while it is off. The vCPU turns AVIC off by itself,
//! outside of the guest, and looks at its IRR afterwards. If the sender decides which way to notify
//! before it sets the bit, the vCPU may look in between: then the doorbell rings at a guest that
//! has no AVIC, and no request is made.
//!
//! What is shipped runs in another case, with IRTEs: `avic-irte/shipped-inhibited` and those beside
//! it.

use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Machine, Sim};
use doorbell_hardware::avic::{AvicCpu, BackingPage, Memory};
use doorbell_platform::{Atomic, Platform};

use crate::case::{self, variant};
use crate::{Case, Expected};

/// The case.
pub(crate) fn case() -> Case {
    let lost = Expected::Found(FailureKind::Quiescence);
    let exhausted = Expected::Exhausted;
    Case::new(
        "avic-inhibit",
        "AVIC is turned off between the look at it and the interrupt: a doorbell that nobody hears",
        "known-races X06: Linux 66fa226c131f, 30811174f0db, 0a5f784273aa (2022)",
        vec![
            variant(
                "as-reported",
                lost,
                "which way to notify is decided before the bit is set, and the vCPU turns AVIC off and looks in between",
                Scope { sender: Sender::ActiveFirst, ..FIXED },
            ),
            variant(
                "fixed",
                exhausted,
                "the bit comes first: a sender that still sees AVIC on has set it before the vCPU looks",
                FIXED,
            ),
            variant(
                "fixed-active-before-mode",
                exhausted,
                "on one order of all accesses the two looks may be swapped: what counts is that both come after the bit",
                Scope { sender: Sender::ActiveBeforeMode, ..FIXED },
            ),
            variant(
                "inhibited-in-guest-mode",
                lost,
                "the sender's order is no use if the vCPU turns AVIC off when it has looked and declared itself in the guest",
                Scope { target: Target::TurnsOffLate, ..FIXED },
            ),
            variant(
                "kick-by-first-look",
                lost,
                "the request comes after the look at the mode, so the vCPU may enter between the two and nobody kicks it",
                Scope { sender: Sender::KicksByFirstLook, ..FIXED },
            ),
            variant(
                "no-recheck",
                lost,
                "a request that comes after the vCPU's look and before its mode says 'guest' is not kicked for",
                Scope { target: Target::NoRecheck, ..FIXED },
            ),
            variant(
                "fixed-turned-on",
                exhausted,
                "the other way round AVIC looks at the IRR by itself on entry, and a kick of the old way is one exit too many",
                Scope { turns: Turns::On, ..FIXED },
            ),
            variant(
                "fixed-two-senders",
                exhausted,
                "a second sender finds no way to lose one either",
                Scope { senders: 2, ..FIXED },
            ),
        ],
    )
}

#[derive(Clone, Copy, PartialEq)]
enum Sender {
    /// Looks whether AVIC is on, sets the bit, looks at the mode.
    ActiveFirst,
    /// Sets the bit, looks at the mode, looks whether AVIC is on.
    ActiveLast,
    /// Sets the bit, looks whether AVIC is on, looks at the mode.
    ActiveBeforeMode,
    /// As `ActiveLast`, but a request is kicked for by what the look before it said of the mode.
    KicksByFirstLook,
}

#[derive(Clone, Copy, PartialEq)]
enum Target {
    Fixed,
    /// AVIC is declared off after the mode says 'guest'.
    TurnsOffLate,
    /// Requests are not looked at again after the mode says 'guest'.
    NoRecheck,
}

#[derive(Clone, Copy, PartialEq)]
enum Turns {
    Off,
    On,
}

#[derive(Clone, Copy)]
struct Scope {
    sender: Sender,
    target: Target,
    turns: Turns,
    senders: u8,
}

const FIXED: Scope =
    Scope { sender: Sender::ActiveLast, target: Target::Fixed, turns: Turns::Off, senders: 1 };

impl case::Scope for Scope {
    fn text(self) -> String {
        let turns = if self.turns == Turns::Off { "off" } else { "on" };
        let senders = if self.senders == 1 { "1 sender" } else { "2 senders" };
        format!(
            "1 vCPU that turns AVIC {turns} once and stays in the guest; {senders}, 1 interrupt each"
        )
    }

    fn program(self, m: &Machine) {
        program(m, self);
    }
}

type Flag = <Sim as Platform>::AtomicBool;

struct Vcpu {
    scope: Scope,
    page: BackingPage,
    cpu: AvicCpu,
    apicv_active: Flag,
    in_guest_mode: Flag,
    /// "Look at your IRR".
    event: Flag,
}

impl Vcpu {
    fn send(&self, vector: u8) {
        let active = || self.apicv_active.load(SeqCst);
        let early = (self.scope.sender == Sender::ActiveFirst).then(active);
        self.page.post(vector);
        let middle = (self.scope.sender == Sender::ActiveBeforeMode).then(active);
        let in_guest_mode = self.in_guest_mode.load(SeqCst);
        if early.or(middle).unwrap_or_else(active) {
            // Outside of the guest there is nobody to ring for: entry looks at the IRR.
            if in_guest_mode {
                self.cpu.doorbell();
            }
        } else {
            self.event.store(true, SeqCst);
            // The kick looks at the mode anew.
            let in_guest_mode = match self.scope.sender {
                Sender::KicksByFirstLook => in_guest_mode,
                _ => self.in_guest_mode.load(SeqCst),
            };
            if in_guest_mode {
                self.cpu.interrupt();
            }
        }
    }

    fn turn(&self) {
        self.apicv_active.store(self.scope.turns == Turns::On, SeqCst);
    }

    /// The vCPU's loop, from where it has been asked to turn AVIC on or off.
    fn run(&self) {
        let late = self.scope.target == Target::TurnsOffLate;
        let active = self.scope.turns == Turns::On;
        if !late {
            self.turn();
        }
        // Whoever turns AVIC off makes itself a request.
        let mut look = true;
        let mut turned = !late;
        loop {
            look |= self.event.swap(false, SeqCst);
            if std::mem::take(&mut look) && !active {
                self.page.deliver();
            }
            self.in_guest_mode.store(true, SeqCst);
            if !std::mem::replace(&mut turned, true) {
                self.turn();
            }
            let again = self.scope.target != Target::NoRecheck && self.event.load(SeqCst);
            if !again && self.cpu.run(active.then_some(&self.page)).is_err() {
                return;
            }
            self.in_guest_mode.store(false, SeqCst);
        }
    }
}

fn program(m: &Machine, scope: Scope) {
    let vcpu = Rc::new(Vcpu {
        scope,
        page: BackingPage::new(&Memory::new(1), 0),
        cpu: AvicCpu::new("the vCPU's CPU"),
        apicv_active: Flag::new(scope.turns == Turns::Off).named("apicv_active"),
        in_guest_mode: Flag::new(false).named("in_guest_mode"),
        event: Flag::new(false).named("KVM_REQ_EVENT"),
    });
    let [running, checked] = [(); 2].map(|()| Rc::clone(&vcpu));
    m.task("vCPU", move || running.run());
    for sender in 0..scope.senders {
        let vcpu = Rc::clone(&vcpu);
        m.task(format!("sender {sender}"), move || vcpu.send(sender));
    }
    m.at_quiescence("a vCPU in guest mode has nothing pending", move || match checked.page.pending() {
        0 => Ok(()),
        _ => Err("an interrupt is pending, and neither a doorbell nor a request will make anybody look".to_owned()),
    });
}
