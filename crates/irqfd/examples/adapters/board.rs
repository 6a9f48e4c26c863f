//! A board for the adapters: a controller that counts, and a VM around it.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests make one"))]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use doorbell_irqfd::eventfd::EventLoop;
use doorbell_irqfd::{
    Controller, Error, Gsi, Irqfds, Limits, Msi, NoBypass, Outcome, Pin, Route, Routes, SourceId,
};
use doorbell_platform::Std;

/// Counts messages by their data, and keeps the sources of 24 pins.
#[derive(Default)]
pub struct Chip(pub Mutex<Arrived>);

#[derive(Default)]
pub struct Arrived {
    pub messages: BTreeMap<u32, u32>,
    pub edges: u32,
    pub pins: [u32; 24],
}

impl Controller for Chip {
    type Delivery = Outcome;

    fn pins(&self, chip: u16) -> u32 {
        if chip == 0 { 24 } else { 0 }
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) -> Outcome {
        let mut arrived = self.0.lock().unwrap();
        let sources = &mut arrived.pins[pin.number as usize];
        let rises = *sources == 0 && level;
        *sources = if level { *sources | source.bit() } else { *sources & !source.bit() };
        arrived.edges += u32::from(rises);
        Outcome::Delivered
    }
    fn edge(&self, _: Pin) -> Outcome {
        self.0.lock().unwrap().edges += 1;
        Outcome::Delivered
    }
    fn msi(&self, msi: Msi) -> Outcome {
        *self.0.lock().unwrap().messages.entry(msi.message.data).or_default() += 1;
        Outcome::Delivered
    }
}

/// What a monitor has once for each VM.
pub struct Board {
    pub vm: Irqfds<Std, Chip>,
    pub routes: Routes<Std, Chip>,
    pub events: EventLoop<Std, Chip>,
}

impl Board {
    /// A board whose first 24 GSIs are its pins. Its events are dispatched by the test.
    pub fn new() -> io::Result<Arc<Self>> {
        let vm = Irqfds::new(Chip::default(), Limits::default());
        let routes = Routes::new(&vm, Gsi(24)..Gsi(4096));
        for pin in 0..24 {
            let set = routes.set(Gsi(pin), &[Route::Pin(Pin::new(0, pin))]);
            set.map_err(refused)?;
        }
        routes.publish().map_err(refused)?.follow(&NoBypass);
        Ok(Arc::new(Board { vm, routes, events: EventLoop::unthreaded()? }))
    }

    pub fn messages(&self, data: u32) -> u32 {
        self.events.dispatch().unwrap();
        self.vm.controller().0.lock().unwrap().messages.get(&data).copied().unwrap_or(0)
    }

    pub fn edges(&self) -> u32 {
        self.events.dispatch().unwrap();
        self.vm.controller().0.lock().unwrap().edges
    }

    pub fn is_high(&self, pin: usize) -> bool {
        self.vm.controller().0.lock().unwrap().pins[pin] != 0
    }
}

pub fn refused(error: Error) -> io::Error {
    io::Error::other(error)
}
