//! The console: lines on the machine's PL011.

use core::fmt::{self, Write};
use core::ptr::NonNull;

use arm_pl011_uart::{PL011Registers, Uart, UniqueMmioPointer};
use doorbell_platform::{Lock, LockClass, Platform, WaitType};

use crate::bare::Bare;

/// Where the PL011 of the virt machine is. (The console comes before the device tree is read.)
pub(crate) const UART: usize = 0x0900_0000;

/// Writes without a lock. QEMU's PL011 is set up from the start.
struct Console(Uart<'static>);

impl Console {
    fn new() -> Self {
        let registers = NonNull::new(core::ptr::with_exposed_provenance_mut::<PL011Registers>(UART));
        let registers = registers.expect("it is not 0");
        // SAFETY: the PL011 of the virt machine is there, mapped as device memory for ever. Others
        // that write to it at the same time may mix up characters, and no more.
        Console(Uart::new(unsafe { UniqueMmioPointer::new(registers) }))
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while self.0.is_tx_fifo_full() {
                Bare::cpu_relax();
            }
            self.0.write_word(byte);
        }
        Ok(())
    }
}

static CLASS: LockClass = LockClass::new("hv.console", WaitType::Spin).leaf();
/// Whoever holds this writes.
static WRITER: Lock<Bare, ()> = Lock::constant(&CLASS, ());

/// Writes a line. By anybody; does not sleep.
pub fn line(text: fmt::Arguments<'_>) {
    let _writer = WRITER.lock_irqsave();
    line_of_nobody_else(text);
}

/// Writes a line, whoever is writing. By who panics.
pub(crate) fn line_of_nobody_else(text: fmt::Arguments<'_>) {
    let _ = Console::new().write_fmt(format_args!("{text}\n"));
}

/// Writes a line to the console, with the arguments of `format_args!`.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}
