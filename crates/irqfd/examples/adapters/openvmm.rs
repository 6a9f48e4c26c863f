//! The shape of OpenVMM's targets: messages that a device signals with its requester id, routes
//! with an event of their own, and lines whose level devices set.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use it"))]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use doorbell_irqfd::eventfd::Served;
use doorbell_irqfd::{Controller, Error, Gsi, Line, Msi, NoBypass, Outcome, Route};
use doorbell_platform::Std;

use crate::board::{Board, Chip, refused};

/// A target of messages.
pub trait SignalMsi: Send + Sync {
    /// Signals a message of a device; `false` if nothing takes it.
    fn signal_msi(&self, rid: u32, address: u64, data: u32) -> bool;
}

impl SignalMsi for Board {
    fn signal_msi(&self, rid: u32, address: u64, data: u32) -> bool {
        let delivery = self.vm.controller().msi(Msi::from_device(rid, address, data));
        delivery != Outcome::Failed
    }
}

/// A partition that makes routes with an event each.
pub trait IrqFd {
    fn new_irqfd_route(&self) -> io::Result<IrqFdRoute>;
}

/// A route. Its event is the device's; masked, what the device signals waits.
pub struct IrqFdRoute {
    board: Arc<Board>,
    gsi: Gsi,
    event: OwnedFd,
    served: Served,
}

impl IrqFd for Arc<Board> {
    fn new_irqfd_route(&self) -> io::Result<IrqFdRoute> {
        let gsi = self.routes.allocate().map_err(refused)?;
        // Nobody has the event yet, so that nothing goes by this message.
        self.routes.set(gsi, &[Route::Msi(Msi::new(0, 0))]).map_err(refused)?;
        self.routes.publish().map_err(refused)?.follow(&NoBypass);
        let opened = self.events.open(&self.vm, gsi).inspect_err(|_| _ = self.routes.free(gsi));
        let (event, served) = opened.map_err(io::Error::other)?;
        let route = IrqFdRoute { board: Arc::clone(self), gsi, event, served };
        route.put(&[]).map_err(refused)?;
        Ok(route)
    }
}

impl IrqFdRoute {
    pub fn event(&self) -> &OwnedFd {
        &self.event
    }
    pub fn enable(&self, address: u64, data: u32) -> Result<(), Error> {
        self.put(&[Route::Msi(Msi::new(address, data))])
    }
    pub fn disable(&self) -> Result<(), Error> {
        self.put(&[])
    }
    fn put(&self, routes: &[Route]) -> Result<(), Error> {
        self.board.routes.set(self.gsi, routes)?;
        self.board.routes.publish().map(|rerouted| rerouted.follow(&NoBypass))
    }
}

impl Drop for IrqFdRoute {
    fn drop(&mut self) {
        let _ = self.board.events.deassign(self.served);
        let _ = self.board.routes.free(self.gsi);
        let _ = self.board.routes.publish().map(|rerouted| rerouted.follow(&NoBypass));
    }
}

/// A line with a label, whose level a device sets as often as it likes.
#[derive(Debug)]
pub struct LineInterrupt(Line<Std, Chip>);

impl LineInterrupt {
    pub fn new(board: &Board, vector: u32, label: &str) -> Result<Self, Error> {
        board.vm.line(Gsi(vector), label).map(LineInterrupt)
    }
    pub fn set_level(&self, high: bool) {
        self.0.set(high);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn messages_routes_and_lines_reach_the_guest_and_what_a_masked_route_gets_waits() {
        let board = Board::new().unwrap();
        assert!(board.signal_msi(0x10, 0xfee0_0000, 0x40));
        assert_eq!(board.messages(0x40), 1);

        let route = board.new_irqfd_route().unwrap();
        let mut device = File::from(route.event().try_clone().unwrap());
        let mut signal = || device.write_all(&1_u64.to_ne_bytes()).unwrap();
        signal();
        assert_eq!((board.messages(0), board.messages(0x41)), (0, 0));
        route.enable(0xfee0_0000, 0x41).unwrap();
        assert_eq!(board.messages(0x41), 1);
        route.disable().unwrap();
        signal();
        assert_eq!(board.messages(0x41), 1);
        drop(route);
        assert_eq!(board.vm.assigned(), 0);

        let lines = ["uart", "rtc"].map(|label| LineInterrupt::new(&board, 4, label).unwrap());
        lines.iter().for_each(|line| line.set_level(true));
        lines[0].set_level(false);
        assert!(board.is_high(4) && format!("{:?}", lines[1]).contains("rtc"));
        drop(lines);
        assert!(!board.is_high(4));
    }
}
