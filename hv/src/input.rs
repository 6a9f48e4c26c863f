//! What is typed: the machine's PL011 interrupts, and who supervises the VMs passes it on.

use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::{Lock, LockClass, OnceCell, WaitType};

use crate::bare::Bare;
use crate::console;
use crate::fifo::Fifo;
use crate::irq::{self, Handled};
use crate::task::Task;

/// The SPI of the machine's PL011.
const UART: u32 = 33;

static CLASS: LockClass = LockClass::new("hv.input", WaitType::Spin).leaf();
static TYPED: Lock<Bare, Fifo<256>> = Lock::constant(&CLASS, Fifo::new());
/// Whether there is something that a guest had no room for.
static LEFT: AtomicBool = AtomicBool::new(false);
/// The task that passes it on.
static READER: OnceCell<Bare, &'static Task> = OnceCell::new();

/// Has the current task woken when something is typed. Once.
pub(crate) fn init() {
    let _ = READER.set(alloc::boxed::Box::new(Task::current()));
    irq::handle(UART, || {
        // What has no room is lost, as in a FIFO of hardware.
        let mut typed = TYPED.lock();
        console::read_all(|byte| _ = typed.push(byte));
        drop(typed);
        wake();
        Handled::Done
    });
    irq::enable(UART);
    console::interrupt_when_typed();
}

/// Calls `each` with what was typed, while there is room for it. By the reader.
pub(crate) fn take(has_room: impl Fn() -> bool, mut each: impl FnMut(u8)) {
    // Before the look: whoever makes room after it wakes this task.
    LEFT.store(true, SeqCst);
    while has_room() {
        let Some(byte) = TYPED.lock_irqsave().pop() else {
            LEFT.store(false, SeqCst);
            return;
        };
        each(byte);
    }
}

/// Takes note that a guest has room again. By anybody.
pub(crate) fn has_room() {
    if LEFT.load(SeqCst) {
        wake();
    }
}

fn wake() {
    if let Some(reader) = READER.get() {
        reader.wake();
    }
}
