//! A guest that does anything with a GICv3, and then one that behaves: what `hostile_registers` of
//! `doorbell-gic` does with random numbers.

use doorbell_platform::IrqGuard;

use crate::bytes::Bytes;

#[path = "../../crates/gic/tests/hostile_registers/driver.rs"]
mod driver;
#[path = "../../crates/gic/tests/hostile_registers/ops.rs"]
mod ops;
#[path = "../../crates/gic/tests/registers/mod.rs"]
mod registers;
#[path = "../../crates/gic/tests/hostile_registers/vm.rs"]
mod vm;

use driver::New;
use ops::{Numbers, Op, Setup};
use vm::Vm;

impl Numbers for Bytes<'_> {
    fn bits(&mut self) -> u64 {
        self.u64() >> 8
    }

    fn below(&mut self, end: u32) -> u32 {
        let byte_is_enough = end <= 1 << 8;
        (if byte_is_enough { self.u8().into() } else { self.u32() }) % end
    }
}

/// Has a guest do what the bytes say.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let setup = Setup::draw(&mut bytes);
    let gic = vm::gic(&setup);
    let irqs_off = IrqGuard::new();
    let mut vm = Vm::new(&gic, &irqs_off, &setup);
    let new = New::of(&mut vm);
    ops::begins(&setup).into_iter().for_each(|op| vm.does(op));
    while !bytes.is_empty() {
        vm.does(Op::draw(&mut bytes, &setup));
    }
    driver::behaves(&mut vm, &setup, &new);
}
