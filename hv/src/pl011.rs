//! The PL011 of a guest (Arm DDI 0183): what it writes comes out in lines, or as it is.

use alloc::vec::Vec;

use crate::fifo::Fifo;

/// The data register.
pub const DR: u32 = 0x000;
const FR: u32 = 0x018;
const IBRD: u32 = 0x024;
const FBRD: u32 = 0x028;
const LCR_H: u32 = 0x02c;
const CR: u32 = 0x030;
const IFLS: u32 = 0x034;
const IMSC: u32 = 0x038;
const RIS: u32 = 0x03c;
const MIS: u32 = 0x040;
const ICR: u32 = 0x044;
const PERIPHERAL_ID: u32 = 0xfe0;

/// FR: the transmit FIFO is empty, as always.
const SENT: u32 = 1 << 7;
/// FR: the receive FIFO is full, or empty.
const FULL: u32 = 1 << 6;
const EMPTY: u32 = 1 << 4;
/// RIS: there is something in the receive FIFO. (What comes is seen at once, however few it is.)
const RECEIVE: u32 = 1 << 4;
/// RIS: the transmit FIFO has room.
const TRANSMIT: u32 = 1 << 5;
/// The interrupts that there are.
const INTERRUPTS: u32 = 0x7ff;

/// What UARTPeriphID0 to 3 and UARTPCellID0 to 3 read as.
const IDENTIFICATION: [u32; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// How long a line may be: a longer one is broken.
const LINE: usize = 200;

/// The registers of a PL011.
pub struct Pl011 {
    line: Vec<u8>,
    received: Fifo<32>,
    divisor: [u32; 2],
    line_control: u32,
    control: u32,
    levels: u32,
    mask: u32,
    raised: u32,
}

impl Default for Pl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Pl011 {
    /// Returns one as after a reset.
    pub fn new() -> Self {
        let (line, received) = (Vec::with_capacity(LINE), Fifo::new());
        Pl011 {
            line,
            received,
            divisor: [0; 2],
            line_control: 0,
            control: 0x300,
            levels: 0x12,
            mask: 0,
            raised: 0,
        }
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u32) -> u32 {
        match offset {
            DR => self.received.pop().unwrap_or(0).into(),
            FR if self.received.is_empty() => SENT | EMPTY,
            FR if self.received.is_full() => SENT | FULL,
            FR => SENT,
            IBRD => self.divisor[0],
            FBRD => self.divisor[1],
            LCR_H => self.line_control,
            CR => self.control,
            IFLS => self.levels,
            IMSC => self.mask,
            RIS => self.raised(),
            MIS => self.raised() & self.mask,
            PERIPHERAL_ID..0x1000 => {
                IDENTIFICATION.get((offset - PERIPHERAL_ID) as usize / 4).copied().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Writes a register. Calls `out` with a line that is complete.
    pub fn write(&mut self, offset: u32, value: u32, out: impl FnOnce(&str)) {
        match offset {
            DR => self.transmit(value as u8, out),
            IBRD => self.divisor[0] = value & 0xffff,
            FBRD => self.divisor[1] = value & 0x3f,
            LCR_H => self.line_control = value & 0xff,
            CR => self.control = value & 0xff87,
            IFLS => self.levels = value & 0x3f,
            IMSC => self.mask = value & INTERRUPTS,
            ICR => self.raised &= !value,
            _ => {}
        }
    }

    /// Returns whether the interrupt is high.
    pub fn interrupt(&self) -> bool {
        self.raised() & self.mask != 0
    }

    /// Returns whether there is room for what comes in.
    pub fn has_room(&self) -> bool {
        !self.received.is_full()
    }

    /// Takes a byte that comes in, if there is room.
    pub fn receive(&mut self, byte: u8) {
        let _ = self.received.push(byte);
    }

    fn raised(&self) -> u32 {
        self.raised | if self.received.is_empty() { 0 } else { RECEIVE }
    }

    fn transmit(&mut self, byte: u8, out: impl FnOnce(&str)) {
        // Sent at once, so that there is room again.
        self.raised |= TRANSMIT;
        match byte {
            b'\r' => {}
            b'\n' => self.flush(out),
            byte => {
                let shown = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
                self.line.push(shown);
                if self.line.len() == LINE {
                    self.flush(out);
                }
            }
        }
    }

    fn flush(&mut self, out: impl FnOnce(&str)) {
        out(core::str::from_utf8(&self.line).unwrap_or_default());
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    fn written(bytes: &[u8]) -> Vec<String> {
        let (mut uart, mut lines) = (Pl011::new(), Vec::new());
        for &byte in bytes {
            uart.write(DR, byte.into(), |line| lines.push(line.into()));
        }
        lines
    }

    #[test]
    fn what_is_written_comes_out_in_lines() {
        assert_eq!(written(b"one\r\n\ntwo\x1b[m\xff\nthree"), ["one", "", "two?[m?"]);
        let long = written(&[b'x'; 2 * LINE + 1]);
        assert_eq!(long.iter().map(String::len).collect::<Vec<_>>(), [LINE, LINE]);
    }

    #[test]
    fn the_interrupt_is_high_while_room_is_not_masked_and_not_cleared() {
        let mut uart = Pl011::new();
        uart.write(IMSC, TRANSMIT, |_| ());
        assert!(!uart.interrupt(), "nothing was sent");
        uart.write(DR, b'x'.into(), |_| ());
        assert_eq!((uart.interrupt(), uart.read(RIS), uart.read(MIS)), (true, TRANSMIT, TRANSMIT));
        uart.write(IMSC, 0, |_| ());
        assert_eq!((uart.interrupt(), uart.read(RIS), uart.read(MIS)), (false, TRANSMIT, 0));
        uart.write(ICR, TRANSMIT, |_| ());
        assert_eq!(uart.read(RIS), 0);
    }

    #[test]
    fn what_comes_in_is_read_once_and_interrupts_until_it_is() {
        let mut uart = Pl011::new();
        uart.write(IMSC, RECEIVE, |_| ());
        assert_eq!((uart.read(DR), uart.interrupt()), (0, false));
        for byte in 0..40 {
            assert_eq!(uart.has_room(), byte < 32);
            uart.receive(byte);
        }
        assert_eq!((uart.read(FR), uart.read(MIS), uart.interrupt()), (SENT | FULL, RECEIVE, true));
        uart.write(ICR, RECEIVE, |_| ());
        assert_eq!((uart.interrupt(), uart.read(DR), uart.read(FR)), (true, 0, SENT));
        assert!((1..32).all(|byte| uart.read(DR) == byte) && !uart.interrupt());
        assert_eq!(uart.read(FR), SENT | EMPTY);
    }

    #[test]
    fn a_driver_finds_a_pl011() {
        let mut uart = Pl011::new();
        let part = uart.read(0xfe0) | (uart.read(0xfe4) & 0xf) << 8;
        assert_eq!(
            (part, uart.read(0xff0), uart.read(0xffc), uart.read(FR) & EMPTY),
            (0x011, 0x0d, 0xb1, EMPTY)
        );
        assert_eq!((uart.read(0x1000), uart.read(0xfff)), (0, 0xb1));
    }
}
