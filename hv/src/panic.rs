//! What a panic does: one line, and the machine is off.

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (place, message) = (info.location(), info.message());
    match place {
        Some(place) => crate::console::line_of_nobody_else(format_args!("panic: {message}, at {place}")),
        None => crate::console::line_of_nobody_else(format_args!("panic: {message}")),
    }
    crate::machine::power_off()
}
