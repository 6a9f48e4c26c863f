//! A KVM that takes eventfds as the kernel's does (Linux, `virt/kvm/eventfd.c` and
//! `arch/x86/kvm/irq.c`), and writes down what it delivers. A test in `kvm.rs` compares it with the
//! kernel's where there is one.

use std::cmp;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use doorbell_irqfd::eventfd::{Irqchip, KvmVm};
use doorbell_irqfd::{Gsi, Pin, Route};
use doorbell_platform::fd;

pub const ENOMEM: i32 = 12;
pub const EBUSY: i32 = 16;
pub const EINVAL: i32 = 22;

pub struct FakeKvm {
    irqchip: Irqchip,
    state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub routes: Vec<(Gsi, Route)>,
    irqfds: Vec<Irqfd>,
    /// What was delivered, by which route.
    pub delivered: Vec<Route>,
    /// Events of GSIs that had no route, or a pin that was up already: lost.
    pub lost: u32,
    /// Pins that are up, for an event that is a pulse.
    pulsed: BTreeSet<Pin>,
    /// GSIs whose pins are to be lowered after a pulse, by the routes of that moment.
    pulses: Vec<Gsi>,
    /// Calls that are refused for want of memory.
    pub refuses: BTreeSet<Call>,
    pub calls: Vec<Call>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    Register,
    Unregister,
    Routes,
}

struct Irqfd {
    event: OwnedFd,
    gsi: Gsi,
    resample: Option<OwnedFd>,
}

fn refused(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn pin(route: Route) -> Option<Pin> {
    match route {
        Route::Edge(pin) | Route::Level(pin) | Route::Pin(pin) => Some(pin),
        Route::Msi(_) => None,
    }
}

fn is_same(one: impl AsFd, other: impl AsFd) -> bool {
    fd::compare_files(one.as_fd(), other.as_fd()) == Some(cmp::Ordering::Equal)
}

/// Whether an eventfd has a count, which stays.
fn is_readable(event: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd { fd: event.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel writes to `poll`, which is borrowed for the call.
    (unsafe { libc::poll(&raw mut poll, 1, 0) }) == 1
}

fn add(event: BorrowedFd<'_>) {
    fd::with_eventfd(event, |event| event.write(1)).unwrap();
}

impl State {
    fn inject(&mut self, gsi: Gsi, resamples: bool) {
        let routes: Vec<_> = self.of(gsi).collect();
        self.lost += u32::from(routes.is_empty());
        for route in routes {
            match pin(route).filter(|_| !resamples) {
                Some(pin) if !self.pulsed.insert(pin) => self.lost += 1,
                _ => self.delivered.push(route),
            }
        }
        self.pulses.push(gsi);
    }

    /// The other half of each pulse, which is work that is done when there is time, or when an
    /// eventfd is given back.
    pub fn end_pulses(&mut self) {
        for gsi in std::mem::take(&mut self.pulses) {
            let pins: Vec<_> = self.of(gsi).filter_map(pin).collect();
            pins.iter().for_each(|pin| _ = self.pulsed.remove(pin));
        }
    }

    fn of(&self, gsi: Gsi) -> impl Iterator<Item = Route> {
        self.routes.iter().filter(move |(of, _)| *of == gsi).map(|(_, route)| *route)
    }

    fn called(&mut self, call: Call) -> io::Result<()> {
        self.calls.push(call);
        if self.refuses.contains(&call) { Err(refused(ENOMEM)) } else { Ok(()) }
    }

    pub fn irqfds(&self) -> usize {
        self.irqfds.len()
    }

    /// GSIs with a resamplefd.
    pub fn resampling(&self) -> Vec<Gsi> {
        self.irqfds.iter().filter(|of| of.resample.is_some()).map(|of| of.gsi).collect()
    }
}

impl FakeKvm {
    pub fn new(irqchip: Irqchip) -> Self {
        FakeKvm { irqchip, state: Mutex::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A device signals: the count of an eventfd that KVM has is taken within the write, and nobody
    /// else is woken.
    pub fn signal(&self, event: impl AsFd) {
        let mut state = self.state();
        state.end_pulses();
        add(event.as_fd());
        if let Some(at) = state.irqfds.iter().position(|of| is_same(&of.event, &event)) {
            // The kernel's is one step with the write; here, somebody may have read in between.
            let _ = fd::read_now(event.as_fd(), &mut [0; 8]);
            let (gsi, resamples) = (state.irqfds[at].gsi, state.irqfds[at].resample.is_some());
            state.inject(gsi, resamples);
        }
    }

    /// The guest acknowledges: KVM lowers, and signals the resamplefds of the GSI.
    pub fn acknowledge(&self, gsi: Gsi) {
        let state = self.state();
        let listeners = state.irqfds.iter().filter(|of| of.gsi == gsi);
        listeners.filter_map(|of| of.resample.as_ref()).for_each(|resample| add(resample.as_fd()));
    }
}

impl KvmVm for FakeKvm {
    fn register_irqfd(
        &self,
        event: BorrowedFd<'_>,
        gsi: Gsi,
        resample: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut state = self.state();
        state.called(Call::Register)?;
        let takes = match self.irqchip {
            Irqchip::User => false,
            Irqchip::Split { .. } => resample.is_none(),
            Irqchip::Kernel => true,
        };
        if !takes {
            return Err(refused(EINVAL));
        }
        if state.irqfds.iter().any(|of| is_same(&of.event, event)) {
            return Err(refused(EBUSY));
        }
        let resamples = resample.is_some();
        let resample = resample.map(|resample| resample.try_clone_to_owned()).transpose()?;
        state.irqfds.push(Irqfd { event: event.try_clone_to_owned()?, gsi, resample });
        if is_readable(event) {
            state.inject(gsi, resamples);
        }
        Ok(())
    }

    fn unregister_irqfd(&self, event: BorrowedFd<'_>, gsi: Gsi) -> io::Result<()> {
        let mut state = self.state();
        state.called(Call::Unregister)?;
        state.end_pulses();
        state.irqfds.retain(|of| of.gsi != gsi || !is_same(&of.event, event));
        Ok(())
    }

    fn set_gsi_routing(&self, routes: &[(Gsi, Route)]) -> io::Result<()> {
        let mut state = self.state();
        state.called(Call::Routes)?;
        let takes = |route: &Route| match self.irqchip {
            Irqchip::User => false,
            Irqchip::Split { .. } => matches!(route, Route::Msi(_)),
            Irqchip::Kernel => true,
        };
        if self.irqchip == Irqchip::User || !routes.iter().all(|(_, route)| takes(route)) {
            return Err(refused(EINVAL));
        }
        state.routes = routes.to_vec();
        Ok(())
    }
}
