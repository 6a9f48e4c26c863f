//! A controller that writes down what arrives.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use doorbell_irqfd::{
    Controller, Gsi, Irqfds, Limits, Msi, Notify, Pin, Route, RoutingTable, SourceId,
};
use doorbell_platform::Platform;

/// What a controller was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Seen {
    Level(Pin, SourceId, bool),
    Edge(Pin),
    Msi(Msi),
}

#[derive(Default)]
pub struct Chip {
    pub seen: Mutex<Vec<Seen>>,
    /// Bits of the sources that hold each pin up.
    pub levels: Mutex<BTreeMap<Pin, u64>>,
}

impl Chip {
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    pub fn level(&self, pin: Pin) -> u64 {
        self.levels.lock().unwrap().get(&pin).copied().unwrap_or(0)
    }
}

pub const PINS: u32 = 64;

impl Controller for Chip {
    type Delivery = ();

    fn pins(&self, chip: u16) -> u32 {
        if chip < 2 { PINS } else { 0 }
    }
    fn set_irq(&self, pin: Pin, source: SourceId, level: bool) {
        let mut levels = self.levels.lock().unwrap();
        let sources = levels.entry(pin).or_default();
        let bit = 1 << source.number();
        *sources = if level { *sources | bit } else { *sources & !bit };
        self.seen.lock().unwrap().push(Seen::Level(pin, source, level));
    }
    fn edge(&self, pin: Pin) {
        self.seen.lock().unwrap().push(Seen::Edge(pin));
    }
    fn msi(&self, msi: Msi) {
        self.seen.lock().unwrap().push(Seen::Msi(msi));
    }
}

pub const PIN: Pin = Pin::new(0, 5);
pub const OTHER_PIN: Pin = Pin::new(1, 7);
pub const LEVEL: Gsi = Gsi(5);
pub const EDGE: Gsi = Gsi(4);
pub const MSI: Gsi = Gsi(24);
pub const UNROUTED: Gsi = Gsi(30);
pub const MESSAGE: Msi = Msi::new(0xfee0_0000, 0x41);
pub const EDGE_PIN: Pin = Pin::new(0, 4);

pub fn standard() -> Vec<(Gsi, Route)> {
    vec![(LEVEL, Route::Level(PIN)), (EDGE, Route::Edge(EDGE_PIN)), (MSI, Route::Msi(MESSAGE))]
}

pub fn table(routes: &[(Gsi, Route)]) -> RoutingTable {
    RoutingTable::new(routes).unwrap()
}

pub fn vm<P: Platform>() -> Irqfds<P, Arc<Chip>> {
    let limits = Limits { gsis: 64, ..Limits::default() };
    let vm = Irqfds::new(Arc::new(Chip::default()), limits);
    let _ = vm.reroute(table(&standard())).unwrap();
    vm
}

/// Counts its notifications.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Notify for Count {
    fn notify(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
