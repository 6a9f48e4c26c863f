//! Lines on the PL011.

use core::fmt::{self, Write};

use crate::mmio;

const UART: usize = 0x0900_0000;
/// UARTFR, and TXFF: no room.
const FR: usize = 0x18;
const FULL: u32 = 1 << 5;

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while mmio::read(UART + FR) & FULL != 0 {}
            mmio::write(UART, byte.into());
        }
        Ok(())
    }
}

/// Writes a line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(format_args!("{text}\n"));
}
