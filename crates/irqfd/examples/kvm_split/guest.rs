//! The guest: 32-bit code that programs the IOAPIC, waits, and counts its interrupts.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::machine::Failed;

/// The vector of the first counter; others follow.
const VECTOR: u8 = 0x40;
/// A port that is nothing.
pub const PORT: u16 = 0x80;
/// A port: what the guest writes to it ends the VM.
pub const STOP_PORT: u16 = 0x10;

const GDT: u32 = 0x800;
const IDT: u32 = 0x1000;
const CODE: u32 = 0x2000;
const HANDLERS: u32 = 0x2800;
const COUNTS: u32 = 0x3000;
const STACK: u32 = 0x8000;

const IOAPIC: u32 = 0xfec0_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;

#[repr(C, align(4096))]
struct Memory([AtomicU32; 0x2400]);

/// The guest's memory, as the VMM sees it.
#[derive(Clone, Copy)]
pub struct Guest(&'static Memory);

impl Guest {
    /// The words in which the guest counts; one more says that the guest is ready, and the vector
    /// of that number ends it.
    pub const COUNTERS: u8 = 4;

    /// Returns the vector that counts there.
    pub fn vector(counter: u8) -> u32 {
        (VECTOR + counter).into()
    }

    pub fn count(self, counter: u8) -> u32 {
        self.word(COUNTS + 4 * u32::from(counter)).load(SeqCst)
    }

    pub fn is_ready(self) -> bool {
        self.count(Self::COUNTERS) != 0
    }

    fn word(self, at: u32) -> &'static AtomicU32 {
        &self.0.0[at as usize / 4]
    }

    /// Makes a VM's memory with the guest in it, and its CPU. `pins` are the IOAPIC's with the low
    /// halves of their redirection entries.
    pub fn boot(vm: &VmFd, pins: &[(u32, u32)]) -> Result<(Guest, VcpuFd), Failed> {
        // KVM has it as long as the VM lives: it is never freed.
        let guest = Guest(Box::leak(Box::new(Memory([const { AtomicU32::new(0) }; 0x2400]))));
        let region = kvm_userspace_memory_region {
            memory_size: size_of::<Memory>() as u64,
            userspace_addr: std::ptr::from_ref(guest.0) as u64,
            ..Default::default()
        };
        // SAFETY: that memory lives on, and its words are atomic: the guest may write to them.
        unsafe { vm.set_user_memory_region(region)? };

        // A flat segment of code (8) and one of data (16).
        for (index, word) in [0, 0, 0xffff, 0x00cf_9b00, 0xffff, 0x00cf_9300].iter().enumerate() {
            guest.word(GDT + 4 * index as u32).store(*word, SeqCst);
        }
        for counter in 0..=Self::COUNTERS {
            let at = HANDLERS + 0x40 * u32::from(counter);
            guest.put(at, &Self::handler(counter));
            // An interrupt gate (Intel SDM vol. 3A, section 6.11).
            let gate = IDT + 8 * Self::vector(counter);
            guest.word(gate).store(8 << 16 | at, SeqCst);
            guest.word(gate + 4).store(0x8e00, SeqCst);
        }
        // The local APIC is enabled by its spurious-interrupt vector register.
        let mut code = store(LOCAL_APIC + 0xf0, 0x1ff);
        for &(pin, entry) in pins {
            code.extend(store(IOAPIC, 0x10 + 2 * pin));
            code.extend(store(IOAPIC + 0x10, entry));
        }
        code.extend(store(COUNTS + 4 * u32::from(Self::COUNTERS), 1));
        code.extend([0xfb, 0xf4, 0xeb, 0xfd]); // sti; hlt; jmp to hlt
        guest.put(CODE, &code);

        let cpu = vm.create_vcpu(0)?;
        let mut sregs = cpu.get_sregs()?;
        let flat = kvm_segment { limit: !0, present: 1, s: 1, db: 1, g: 1, ..Default::default() };
        sregs.cs = kvm_segment { selector: 8, type_: 0xb, ..flat };
        let data = kvm_segment { selector: 16, type_: 3, ..flat };
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        (sregs.gdt.base, sregs.gdt.limit) = (GDT.into(), 23);
        (sregs.idt.base, sregs.idt.limit) = (IDT.into(), 0x7ff);
        sregs.cr0 |= 1; // protected mode
        cpu.set_sregs(&sregs)?;
        cpu.set_regs(&kvm_regs {
            rip: CODE.into(),
            rsp: STACK.into(),
            rflags: 2,
            ..Default::default()
        })?;
        Ok((guest, cpu))
    }

    /// A handler that counts, ends its interrupt, and returns; or, as the last one, ends the VM.
    fn handler(counter: u8) -> Vec<u8> {
        if counter == Self::COUNTERS {
            return vec![0xe6, STOP_PORT as u8, 0xf4]; // out STOP_PORT, al; hlt
        }
        let mut code = vec![0xff, 0x05]; // inc dword [COUNTS + 4 * counter]
        code.extend((COUNTS + 4 * u32::from(counter)).to_le_bytes());
        code.extend(store(LOCAL_APIC + 0xb0, 0)); // EOI
        // out 0x80, al: an exit. Where KVM emulates such a guest, many instructions at a time, it
        // would else be halted before it is told that this EOI is to be told of.
        code.extend([0xe6, PORT as u8]);
        // sti; retf 4: an iret, without the flags that nobody needs. KVM's emulator has no iret of
        // protected mode.
        code.extend([0xfb, 0xca, 4, 0]);
        code
    }

    fn put(self, at: u32, code: &[u8]) {
        for (word, bytes) in (at..).step_by(4).zip(code.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            self.word(word).store(u32::from_le_bytes(whole), SeqCst);
        }
    }
}

/// `mov dword [at], value`
fn store(at: u32, value: u32) -> Vec<u8> {
    let mut code = vec![0xc7, 0x05];
    code.extend(at.to_le_bytes());
    code.extend(value.to_le_bytes());
    code
}
