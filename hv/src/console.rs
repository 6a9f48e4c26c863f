//! The console: lines on the machine's PL011.

use core::fmt::{self, Write};
use core::ptr::NonNull;

use arm_pl011_uart::{Interrupts, PL011Registers, Uart, UniqueMmioPointer};
use doorbell_platform::{Lock, LockClass, Platform, WaitType};

use crate::bare::Bare;

/// Where the PL011 of the virt machine is. (The console comes before the device tree is read.)
pub(crate) const UART: usize = 0x0900_0000;

/// Writes without a lock. QEMU's PL011 is set up from the start.
struct Console(Uart<'static>);

impl Console {
    fn new() -> Self {
        let registers =
            NonNull::new(core::ptr::with_exposed_provenance_mut::<PL011Registers>(UART));
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

/// Writes a byte as it is. By anybody; does not sleep.
pub(crate) fn byte(byte: u8) {
    let _writer = WRITER.lock_irqsave();
    let mut console = Console::new();
    while console.0.is_tx_fifo_full() {
        Bare::cpu_relax();
    }
    console.0.write_word(byte);
}

/// Enables the interrupt of what is typed.
pub(crate) fn interrupt_when_typed() {
    Console::new().0.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
}

/// Calls `each` with what was typed. By the handler of that interrupt.
pub(crate) fn read_all(mut each: impl FnMut(u8)) {
    let mut console = Console::new();
    // Before the look: what comes after it interrupts again.
    console.0.clear_interrupts(Interrupts::RXI | Interrupts::RTI);
    // One with an error counts as none.
    while !console.0.is_rx_fifo_empty() {
        if let Ok(Some(byte)) = console.0.read_word() {
            each(byte);
        }
    }
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
