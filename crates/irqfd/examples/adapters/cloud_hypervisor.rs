//! The shape of cloud-hypervisor's interrupts: a manager makes groups of sources, whose messages
//! the device model updates, and which it triggers by index or hands out as eventfds.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use it"))]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use doorbell_irqfd::eventfd::{Descriptor, Served};
use doorbell_irqfd::{Gsi, Msi, NoBypass, Route};
use doorbell_platform::fd;

use crate::board::{Board, refused};

/// A group of interrupt sources of one device.
pub trait InterruptSourceGroup: Send + Sync {
    fn enable(&self) -> io::Result<()>;
    fn disable(&self) -> io::Result<()>;
    fn trigger(&self, index: usize) -> io::Result<()>;
    fn notifier(&self, index: usize) -> Option<OwnedFd>;
    fn update(&self, index: usize, message: Msi, masked: bool) -> io::Result<()>;
}

/// A maker of groups.
pub trait InterruptManager {
    fn create_group(&self, count: usize) -> io::Result<Arc<dyn InterruptSourceGroup>>;
}

struct Source {
    gsi: Gsi,
    event: File,
    served: Mutex<Option<Served>>,
}

/// Messages behind irqfds.
struct MsiGroup {
    board: Arc<Board>,
    sources: Vec<Source>,
}

impl InterruptManager for Arc<Board> {
    fn create_group(&self, count: usize) -> io::Result<Arc<dyn InterruptSourceGroup>> {
        let mut group = MsiGroup { board: Arc::clone(self), sources: Vec::new() };
        for _ in 0..count {
            let gsi = self.routes.allocate().map_err(refused)?;
            let (event, served) = (File::from(fd::eventfd()?), Mutex::new(None));
            group.sources.push(Source { gsi, event, served });
        }
        Ok(Arc::new(group))
    }
}

impl InterruptSourceGroup for MsiGroup {
    /// Serves what has a route; what is signalled meanwhile stays in the eventfd.
    fn enable(&self) -> io::Result<()> {
        let Board { vm, events, .. } = &*self.board;
        for source in &self.sources {
            let mut served = source.served.lock().unwrap();
            if served.is_none() && vm.table().routes(source.gsi).next().is_some() {
                let descriptor = Descriptor::eventfd(&source.event);
                let assigned = descriptor.and_then(|event| events.assign(vm, event, source.gsi));
                *served = Some(assigned.map_err(io::Error::other)?);
            }
        }
        Ok(())
    }
    fn disable(&self) -> io::Result<()> {
        let served = self.sources.iter().filter_map(|of| of.served.lock().unwrap().take());
        self.board.events.deassign_all(served);
        Ok(())
    }
    fn trigger(&self, index: usize) -> io::Result<()> {
        let source = self.sources.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        (&source.event).write_all(&1_u64.to_ne_bytes())
    }
    fn notifier(&self, index: usize) -> Option<OwnedFd> {
        self.sources.get(index)?.event.as_fd().try_clone_to_owned().ok()
    }
    /// Masked, it has no route, and its event waits for one.
    fn update(&self, index: usize, message: Msi, masked: bool) -> io::Result<()> {
        let source = self.sources.get(index).ok_or(io::ErrorKind::InvalidInput)?;
        let routes = &[Route::Msi(message)][..usize::from(!masked)];
        self.board.routes.set(source.gsi, routes).map_err(refused)?;
        self.board.routes.publish().map_err(refused)?.follow(&NoBypass);
        self.enable()
    }
}

impl Drop for MsiGroup {
    fn drop(&mut self) {
        let _ = self.disable();
        self.sources.iter().for_each(|source| _ = self.board.routes.free(source.gsi));
        let _ = self.board.routes.publish().map(|rerouted| rerouted.follow(&NoBypass));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_delivers_by_its_messages_keeps_what_is_masked_and_gives_its_gsis_back() {
        let board = Board::new().unwrap();
        let group = board.create_group(2).unwrap();
        let message = |data| Msi::new(0xfee0_0000, data);
        group.update(0, message(0x41), false).unwrap();
        group.update(1, message(0x42), true).unwrap();
        group.enable().unwrap();
        group.trigger(0).unwrap();
        let mut device = File::from(group.notifier(1).unwrap());
        device.write_all(&1_u64.to_ne_bytes()).unwrap();
        assert_eq!([0x41, 0x42].map(|data| board.messages(data)), [1, 0]);
        group.update(1, message(0x43), false).unwrap();
        assert_eq!([0x42, 0x43].map(|data| board.messages(data)), [0, 1]);
        group.update(0, message(0x41), true).unwrap();
        group.trigger(0).unwrap();
        assert_eq!(board.messages(0x41), 1, "masked while it was served");
        group.update(0, message(0x44), false).unwrap();
        assert_eq!(board.messages(0x44), 1);
        group.disable().unwrap();
        group.trigger(0).unwrap();
        assert_eq!(board.messages(0x44), 1);
        group.enable().unwrap();
        assert_eq!(board.messages(0x44), 2);
        assert!(group.trigger(2).is_err() && group.notifier(2).is_none());
        drop(group);
        assert_eq!((board.vm.assigned(), board.routes.allocate()), (0, Ok(Gsi(24))));
    }
}
