//! What a panic does: lines that say what and where, and the machine is off.

use core::panic::PanicInfo;

use crate::console::line_of_nobody_else;
use crate::cpu::Cpu;
use crate::sysreg::read_sysreg;
use crate::task::Task;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (place, message) = (info.location(), info.message());
    match place {
        Some(place) => line_of_nobody_else(format_args!("panic: {message}, at {place}")),
        None => line_of_nobody_else(format_args!("panic: {message}")),
    }
    let (task, cpu) = (Task::current(), Cpu::this());
    let (number, task) = (cpu.id().0, task.number());
    match Task::loaded_here() {
        Some(loaded) => {
            let [vmid, vcpu] = [read_sysreg!("vttbr_el2") >> 48, read_sysreg!("vmpidr_el2") & 0xff];
            let by = loaded.number();
            line_of_nobody_else(format_args!(
                "CPU {number}, task {task}; vCPU {vcpu} of VM {vmid} is loaded, of task {by}"
            ));
        }
        None => line_of_nobody_else(format_args!("CPU {number}, task {task}; no vCPU is loaded")),
    }
    line_of_nobody_else(format_args!("{}", cpu.trace));
    crate::machine::power_off()
}
