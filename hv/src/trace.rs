//! The last exits of each CPU: what a panic tells.

use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// How many exits are remembered.
const EXITS: usize = 16;

/// The exits of a CPU, which writes them with interrupts off.
pub struct Trace {
    /// How many there were.
    count: AtomicU64,
    /// ESR_EL2 and the PC of the last ones. An interrupt has no ESR_EL2: what is there is the one
    /// before.
    last: [[AtomicU64; 2]; EXITS],
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// Returns one without exits.
    pub const fn new() -> Self {
        Trace {
            count: AtomicU64::new(0),
            last: [const { [const { AtomicU64::new(0) }; 2] }; EXITS],
        }
    }

    /// Takes note of an exit.
    #[inline(always)]
    pub fn exit(&self, esr: u64, pc: u64) {
        let count = self.count.load(Relaxed);
        let [last_esr, last_pc] = &self.last[count as usize % EXITS];
        last_esr.store(esr, Relaxed);
        last_pc.store(pc, Relaxed);
        self.count.store(count + 1, Relaxed);
    }

    /// Returns how many exits there were.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

impl fmt::Display for Trace {
    /// Writes the last exits, the latest first: ESR_EL2 and PC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        write!(f, "{count} exits")?;
        for number in (count.saturating_sub(EXITS as u64)..count).rev() {
            let [esr, pc] = &self.last[number as usize % EXITS];
            write!(f, ", {:#x} at {:#x}", esr.load(Relaxed), pc.load(Relaxed))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn the_last_exits_are_told_the_latest_first() {
        let trace = Trace::new();
        assert_eq!(format!("{trace}"), "0 exits");
        for number in 0..20 {
            trace.exit(number, 0x4000_0000 + number);
        }
        let text = format!("{trace}");
        assert!(text.starts_with("20 exits, 0x13 at 0x40000013, 0x12 at "), "{text}");
        assert!(
            text.ends_with(", 0x4 at 0x40000004") && text.matches(" at ").count() == EXITS,
            "{text}"
        );
    }
}
