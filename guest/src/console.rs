//! Lines on the PL011.

use core::fmt::{self, Write};

const UART: usize = 0x0900_0000;
/// UARTFR.TXFF: no room.
const FULL: u32 = 1 << 5;

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let registers: *mut u32 = core::ptr::with_exposed_provenance_mut(UART);
        for byte in text.bytes() {
            // SAFETY: the PL011 is there.
            unsafe {
                while registers.add(6).read_volatile() & FULL != 0 {}
                registers.write_volatile(byte.into());
            }
        }
        Ok(())
    }
}

/// Writes a line.
pub fn line(text: fmt::Arguments<'_>) {
    let _ = Console.write_fmt(format_args!("{text}\n"));
}
