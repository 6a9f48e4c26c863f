//! A VM with some vCPUs, each on a CPU of its own, that enter the guest one after the other.

use doorbell_gic::spec::Vtr;
use doorbell_gic::{
    Affinity, CpuInterface, Ended, Frame, Gic, GuestMemory, Host, IntId, Kick, NoMemory, VcpuId,
    Width,
};
use doorbell_hardware::gic::VirtualInterface;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, IrqGuard, Std};
use doorbell_post::Notice;
use std::sync::Arc;

use crate::registers::Registers;

/// What the host was asked for.
#[derive(Default, Debug)]
pub struct Asked {
    pub notices: Vec<(VcpuId, Notice<CpuId>)>,
    pub ended: Vec<Ended>,
    pub memory: Memory,
}

/// The guest's memory, from address 0 on.
#[derive(Default, Debug)]
pub struct Memory {
    pub bytes: Vec<u8>,
    /// Nothing can be read, and nothing written.
    pub is_gone: bool,
    /// How often it was accessed.
    pub accesses: usize,
}

impl Memory {
    fn at(&mut self, address: u64, len: usize) -> Result<&mut [u8], NoMemory> {
        self.accesses += 1;
        let from = usize::try_from(address).map_err(|_| NoMemory)?;
        let found = self.bytes.get_mut(from..).and_then(|bytes| bytes.get_mut(..len));
        found.filter(|_| !self.is_gone).ok_or(NoMemory)
    }
}

impl GuestMemory for Memory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), NoMemory> {
        bytes.copy_from_slice(self.at(address, bytes.len())?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), NoMemory> {
        self.at(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Kick for Asked {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        self.notices.push((vcpu, notice));
    }
}

impl Host for Asked {
    fn memory(&mut self) -> Option<&mut dyn GuestMemory> {
        Some(&mut self.memory)
    }

    fn ended(&mut self, ended: Ended) {
        self.ended.push(ended);
    }
}

pub struct Vcpu {
    pub interface: CpuInterface,
    pub registers: Registers,
}

pub struct Vm {
    pub gic: Arc<Gic<Std>>,
    pub vcpus: Vec<Vcpu>,
    pub asked: Asked,
}

pub fn vcpu(number: u32) -> VcpuId {
    VcpuId::new(number).expect("it is small")
}

pub fn intid(number: u32) -> IntId {
    IntId::new(number).expect("it is small")
}

impl Vm {
    /// Four list registers and five bits of priority; everything enabled but the interrupts.
    pub fn new(vcpus: u32, spis: u32) -> Vm {
        Vm::with(4, vcpus, spis, |gic| gic)
    }

    /// As [`new`](Vm::new), with so many list registers, and what `with` makes of the controller.
    pub fn with(
        list_registers: u8,
        vcpus: u32,
        spis: u32,
        with: impl FnOnce(Gic<Std>) -> Gic<Std>,
    ) -> Vm {
        let implementation = hw::Implementation::new(list_registers, 5, 5).expect("it is legal");
        let affinities: Vec<_> = (0..vcpus).map(Affinity).collect();
        let gic = Gic::new(Vtr::from_bits(implementation.vtr()), spis, &affinities)
            .expect("there can be one");
        let gic = Arc::new(with(gic));
        let vcpus = (0..vcpus).map(|number| {
            let mut registers = Registers(VirtualInterface::new(implementation));
            registers.0.set_vmcr(0xf8 << 24 | 0b11);
            Vcpu { interface: gic.cpu_interface(vcpu(number)).expect("nobody has it"), registers }
        });
        let mut vm = Vm { vcpus: vcpus.collect(), gic, asked: Asked::default() };
        vm.write(Frame::Distributor, 0, 3);
        for number in 0..vm.vcpus.len() as u32 {
            vm.write(Frame::Redistributor(vcpu(number)), 0x14, 0);
        }
        vm
    }

    pub fn write(&mut self, frame: Frame, offset: u32, value: u64) {
        let access = self.gic.write(frame, offset, Width::Word, value, &mut self.asked);
        let _ = access.wait(&mut self.asked);
    }

    pub fn read(&mut self, frame: Frame, offset: u32) -> u64 {
        self.gic.read(frame, offset, Width::Word, &mut self.asked).wait(&mut self.asked)
    }

    pub fn enable_spi(&mut self, number: u32) {
        self.write(Frame::Distributor, 0x100 + number / 32 * 4, 1 << (number % 32));
    }

    /// One vCPU runs, for as long as `guest` says.
    pub fn runs<R>(&mut self, number: u32, guest: impl FnOnce(&mut VirtualInterface) -> R) -> R {
        let Vcpu { interface, registers } = &mut self.vcpus[number as usize];
        let irqs_off = IrqGuard::<Std>::new();
        let in_guest =
            (interface.enter(&self.gic, &irqs_off, CpuId(number), registers, &mut self.asked))
                .expect("nothing was requested");
        registers.0.check().expect("a guest may be entered with it");
        let result = guest(&mut registers.0);
        if interface.exit(&self.gic, in_guest, registers, &mut self.asked) {
            interface.tell_ended(&mut self.asked);
        }
        result
    }

    /// One vCPU acknowledges what is signalled. Returns its INTID, or 1023.
    pub fn acknowledges(&mut self, number: u32) -> u32 {
        self.runs(number, |guest| {
            guest.read_iar(hw::Group::One).expect("it is not trapped").number()
        })
    }

    pub fn ends(&mut self, number: u32, intid: u32) {
        self.runs(number, |guest| {
            let id = hw::IntId::new(intid).expect("it is small");
            let _ = guest.write_eoir(hw::Group::One, id).expect("it is not trapped");
        });
    }
}
