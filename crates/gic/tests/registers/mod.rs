//! The simulated registers, as a hypervisor uses them.

use doorbell_gic::{Group, ListRegisters};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec::{self, ListRegister};

pub struct Registers(pub VirtualInterface);

impl ListRegisters for Registers {
    fn vmcr(&self) -> u64 {
        self.0.vmcr()
    }

    fn set_vmcr(&mut self, value: u64) {
        self.0.set_vmcr(value);
    }

    fn hcr(&self) -> u64 {
        self.0.hcr()
    }

    fn set_hcr(&mut self, value: u64) {
        self.0.set_hcr(value);
    }

    fn list_register(&self, number: usize) -> u64 {
        self.0.lr(number).expect("it is there").bits()
    }

    fn set_list_register(&mut self, number: usize, value: u64) {
        self.0.set_lr(number, ListRegister::from_bits(value)).expect("it is there");
    }

    fn active_priorities(&self, group: Group, number: usize) -> u32 {
        let group = [spec::Group::Zero, spec::Group::One][group as usize];
        self.0.active_priorities(group, number).expect("it is there")
    }
}
