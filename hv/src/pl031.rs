//! The PL031 of a guest (Arm DDI 0224), a clock that says the time of day. Its alarm has no
//! interrupt in the device tree, and does not go off.

const DR: u32 = 0x00;
const MR: u32 = 0x04;
const LR: u32 = 0x08;
const CR: u32 = 0x0c;
const IMSC: u32 = 0x10;
const PERIPHERAL_ID: u32 = 0xfe0;

/// What RTCPeriphID0 to 3 and RTCPCellID0 to 3 read as.
const IDENTIFICATION: [u32; 8] = [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The registers of a PL031.
#[derive(Debug)]
pub struct Pl031 {
    /// What the time is more than that of the machine, in seconds.
    offset: u32,
    alarm: u32,
    mask: u32,
}

impl Pl031 {
    /// Returns one that says the time of the machine.
    pub const fn new() -> Self {
        Pl031 { offset: 0, alarm: 0, mask: 0 }
    }

    /// Reads a register, at a time of the machine.
    pub fn read(&self, offset: u32, now: u32) -> u32 {
        match offset {
            DR | LR => now.wrapping_add(self.offset),
            MR => self.alarm,
            CR => 1,
            IMSC => self.mask,
            PERIPHERAL_ID..0x1000 => {
                IDENTIFICATION.get((offset - PERIPHERAL_ID) as usize / 4).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Writes a register, at a time of the machine.
    pub fn write(&mut self, offset: u32, now: u32, value: u32) {
        match offset {
            LR => self.offset = value.wrapping_sub(now),
            MR => self.alarm = value,
            IMSC => self.mask = value & 1,
            _ => {}
        }
    }
}

impl Default for Pl031 {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_the_machines_until_it_is_set_and_goes_on_then() {
        let mut clock = Pl031::new();
        assert_eq!(clock.read(DR, 1_800_000_000), 1_800_000_000);
        clock.write(LR, 1_800_000_000, 5);
        assert_eq!((clock.read(DR, 1_800_000_000), clock.read(DR, 1_800_000_009)), (5, 14));
        clock.write(LR, 10, u32::MAX);
        assert_eq!((clock.read(DR, 10), clock.read(DR, 12)), (u32::MAX, 1));
    }

    #[test]
    fn a_driver_finds_a_pl031() {
        let clock = Pl031::new();
        let part = clock.read(0xfe0, 0) | (clock.read(0xfe4, 0) & 0xf) << 8;
        assert_eq!(
            (part, clock.read(0xff0, 0), clock.read(0xffc, 0), clock.read(0x1000, 0)),
            (0x031, 0x0d, 0xb1, 0)
        );
    }
}
