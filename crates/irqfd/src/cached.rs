//! The cached route of one irqfd: three words under a sequence counter.
//!
//! A delivery reads them in one go and takes no lock; a routing update writes them under the VM's
//! lock with interrupts off, because a delivery in a hard interrupt that interrupted the writer
//! would wait for it for good. An irqfd with several routes, or with none that fits, caches that,
//! and its deliveries look at the table.

use crate::{Error, Gsi, Msi, Pin, Route, RoutingTable};

/// How many words a cached route has.
pub(crate) const WORDS: usize = 3;

/// Where an irqfd's event goes, short enough to be copied into the irqfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cached {
    /// The GSI has no route.
    Nowhere,
    Msi(Msi),
    Edge(Pin),
    /// A resampling irqfd with one pin that it can hold up.
    Level(Pin),
    /// A plain irqfd with one pin, of whatever trigger mode.
    Pulse(Pin),
    /// Several routes: look at the table.
    Table(Gsi),
    /// The same for a resampling irqfd.
    LevelTable(Gsi),
}

impl Cached {
    /// What an irqfd on `gsi` caches under `table`.
    pub(crate) fn of(table: &RoutingTable, gsi: Gsi, resample: bool) -> Self {
        let mut routes = table.routes(gsi);
        match (routes.next(), routes.next()) {
            (None, _) => Cached::Nowhere,
            (Some(&Route::Msi(msi)), None) => Cached::Msi(msi),
            (Some(&Route::Edge(pin)), None) => Cached::Edge(pin),
            (Some(&(Route::Level(pin) | Route::Pin(pin))), None) if resample => Cached::Level(pin),
            (Some(&Route::Pin(pin)), None) => Cached::Pulse(pin),
            _ if resample => Cached::LevelTable(gsi),
            _ => Cached::Table(gsi),
        }
    }

    /// [`of`](Cached::of), for an irqfd that is about to be assigned.
    pub(crate) fn checked(table: &RoutingTable, gsi: Gsi, resample: bool) -> Result<Self, Error> {
        let any = |is: fn(&Route) -> bool| table.routes(gsi).any(is);
        match Self::of(table, gsi, resample) {
            Cached::Nowhere => Err(Error::UnknownGsi(gsi)),
            _ if resample && !any(Route::has_level) => Err(Error::NotLevel(gsi)),
            _ if !resample && any(|route| matches!(route, Route::Level(_))) => {
                Err(Error::NeedsResampling(gsi))
            }
            route => Ok(route),
        }
    }

    /// The kind is the first word; zeroes are `Nowhere`.
    pub(crate) fn pack(self) -> [u64; WORDS] {
        match self {
            Cached::Nowhere => [0, 0, 0],
            Cached::Msi(Msi { message, device: None }) => [1, message.address, message.data.into()],
            Cached::Msi(Msi { message, device: Some(id) }) => {
                [2, message.address, u64::from(id) << 32 | u64::from(message.data)]
            }
            Cached::Edge(pin) => [3, pin.chip.into(), pin.number.into()],
            Cached::Level(pin) => [4, pin.chip.into(), pin.number.into()],
            Cached::Table(gsi) => [5, gsi.0.into(), 0],
            Cached::LevelTable(gsi) => [6, gsi.0.into(), 0],
            Cached::Pulse(pin) => [7, pin.chip.into(), pin.number.into()],
        }
    }

    /// [`unpack`](Cached::unpack) of the most frequent kind, a message of a device that nobody
    /// needs to know.
    #[inline]
    pub(crate) fn unpack_msi([kind, a, b]: [u64; WORDS]) -> Option<Msi> {
        (kind == 1).then_some(Msi::new(a, b as u32))
    }

    #[inline]
    pub(crate) fn unpack([kind, a, b]: [u64; WORDS]) -> Self {
        let pin = Pin { chip: a as u16, number: b as u32 };
        match kind {
            1 => Cached::Msi(Msi::new(a, b as u32)),
            2 => Cached::Msi(Msi::from_device((b >> 32) as u32, a, b as u32)),
            3 => Cached::Edge(pin),
            4 => Cached::Level(pin),
            5 => Cached::Table(Gsi(a as u32)),
            6 => Cached::LevelTable(Gsi(a as u32)),
            7 => Cached::Pulse(pin),
            _ => Cached::Nowhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_route_comes_back_whole() {
        let pin = Pin::new(u16::MAX, u32::MAX);
        let msi = Msi::new(u64::MAX, u32::MAX);
        for cached in [
            Cached::Nowhere,
            Cached::Msi(msi),
            Cached::Msi(Msi { device: Some(0), ..msi }),
            Cached::Msi(Msi::from_device(u32::MAX, u64::MAX, 0)),
            Cached::Edge(pin),
            Cached::Level(pin),
            Cached::Pulse(pin),
            Cached::Table(Gsi(4095)),
            Cached::LevelTable(Gsi(0)),
        ] {
            assert_eq!(Cached::unpack(cached.pack()), cached);
            if let Some(msi) = Cached::unpack_msi(cached.pack()) {
                assert_eq!(Cached::Msi(msi), cached);
            }
        }
    }
}
