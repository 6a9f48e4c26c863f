//! What hardware defines: AMD64 Architecture Programmer's Manual, volume 2 (24593), section 15.29
//! "Advanced Virtual Interrupt Controller", numbered as in the revisions that have x2AVIC_EXT; AMD
//! I/O Virtualization Technology specification (48882, revision 3.08) for the guest virtual APIC
//! log.

/// An APIC ID of a CPU of the host, as the physical ID table, IRTEs and the doorbell register hold
/// it: 8 bits, or 12 where x2AVIC is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostApicId(u16);

impl HostApicId {
    /// Creates the ID of a CPU in xAPIC mode.
    pub const fn xapic(id: u8) -> Self {
        HostApicId(id as u16)
    }

    /// Creates the ID of a CPU in x2APIC mode, if the field can hold it.
    pub const fn x2apic(id: u32) -> Option<Self> {
        if id < 1 << 12 { Some(HostApicId(id as u16)) } else { None }
    }

    /// The ID: what is written to the doorbell register ([`DOORBELL`]).
    pub const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// The MSR that rings the doorbell of the CPU whose APIC ID is written to it (section 15.29.8.2).
pub const DOORBELL: u32 = 0xc001_011b;

/// The address of a page that hardware is told of: bits 51:12, the others are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageAddress(u64);

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

impl PageAddress {
    /// Creates the address from a physical address in bytes, if it is that of a page below 2^52.
    pub const fn new(address: u64) -> Option<Self> {
        if address & !ADDRESS == 0 { Some(PageAddress(address)) } else { None }
    }

    /// The address, in bytes.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// An entry of the physical APIC ID table (table 15-23): where the vCPU of that ID has its page,
/// and where it runs.
///
/// There is nothing else in it: that KVM keeps a bit beside it that says whether IRTEs are to make
/// log entries is KVM's own bookkeeping, and hardware never gets to see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PhysicalEntry(u64);

impl PhysicalEntry {
    const VALID: u64 = 1 << 63;
    const RUNNING: u64 = 1 << 62;
    const HOST_ID: u64 = 0xfff;

    /// No vCPU has that ID.
    pub const NONE: Self = PhysicalEntry(0);

    /// Creates the entry of a vCPU with that backing page, which runs on `host` if there is one.
    pub const fn new(page: PageAddress, host: Option<HostApicId>) -> Self {
        let running = match host {
            Some(host) => Self::RUNNING | host.0 as u64,
            None => 0,
        };
        PhysicalEntry(Self::VALID | page.0 | running)
    }

    /// Creates an entry from its word.
    pub const fn from_bits(bits: u64) -> Self {
        PhysicalEntry(bits)
    }

    /// The word.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns Valid, bit 63.
    pub const fn valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// The backing page pointer, bits 51:12.
    pub const fn page(self) -> PageAddress {
        PageAddress(self.0 & ADDRESS)
    }

    /// Returns the host's physical APIC ID, bits 11:0 (of which AVIC uses 7:0), if IsRunning, bit
    /// 62, is set.
    pub const fn running(self) -> Option<HostApicId> {
        if self.0 & Self::RUNNING != 0 {
            Some(HostApicId((self.0 & Self::HOST_ID) as u16))
        } else {
            None
        }
    }
}

/// An entry of the logical APIC ID table (table 15-24): which vCPU a bit of a logical destination
/// means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogicalEntry(u32);

impl LogicalEntry {
    const VALID: u32 = 1 << 31;

    /// The bit means nobody.
    pub const NONE: Self = LogicalEntry(0);

    /// Creates the entry of the vCPU of that physical ID.
    pub const fn new(id: u8) -> Self {
        LogicalEntry(Self::VALID | id as u32)
    }

    /// Creates an entry from its word.
    pub const fn from_bits(bits: u32) -> Self {
        LogicalEntry(bits)
    }

    /// The word.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The guest's physical APIC ID, bits 7:0, if the entry is valid (bit 31).
    pub const fn id(self) -> Option<u8> {
        if self.0 & Self::VALID != 0 { Some(self.0 as u8) } else { None }
    }
}

/// Offsets of registers in the backing page, in bytes: those of an xAPIC (table 15-22).
pub mod register {
    /// APIC ID.
    pub const ID: usize = 0x20;
    /// Task priority.
    pub const TPR: usize = 0x80;
    /// End of interrupt.
    pub const EOI: usize = 0xb0;
    /// Remote read.
    pub const REMOTE_READ: usize = 0xc0;
    /// Logical destination.
    pub const LDR: usize = 0xd0;
    /// Destination format.
    pub const DFR: usize = 0xe0;
    /// Spurious interrupt vector.
    pub const SVR: usize = 0xf0;
    /// In service: 8 registers, 16 bytes apart.
    pub const ISR: usize = 0x100;
    /// Interrupt request: 8 registers, 16 bytes apart.
    pub const IRR: usize = 0x200;
    /// Error status.
    pub const ESR: usize = 0x280;
    /// Interrupt command, low half.
    pub const ICR_LOW: usize = 0x300;
    /// Local vector table: timer.
    pub const LVT_TIMER: usize = 0x320;
    /// Local vector table: error, the last of six, 16 bytes apart.
    pub const LVT_ERROR: usize = 0x370;
    /// Timer: initial count.
    pub const TIMER_INITIAL: usize = 0x380;
    /// Timer: divide configuration.
    pub const TIMER_DIVIDE: usize = 0x3e0;
    /// Extended local vector table: the first of eight, 16 bytes apart.
    pub const EXTENDED_LVT: usize = 0x500;
}

/// Exit code of an IPI that hardware did not complete (section 15.29.9.1).
pub const EXIT_INCOMPLETE_IPI: u64 = 0x401;
/// Exit code of an access to a register that hardware does not accelerate (section 15.29.9.2).
pub const EXIT_UNACCELERATED: u64 = 0x402;

/// EXITINFO2 of an incomplete IPI (table 15-26): why, in bits 63:32, and which entry of a table, in
/// bits 11:0.
pub(super) const fn incomplete_ipi(info2: u64) -> (u32, u16) {
    ((info2 >> 32) as u32, (info2 & 0xfff) as u16)
}

/// EXITINFO1 of an unaccelerated access (table 15-28): the offset of the register, bits 11:4, and
/// whether it was a write, bit 32.
pub(super) const fn unaccelerated(info1: u64) -> (usize, bool) {
    ((info1 & 0xff0) as usize, info1 >> 32 & 1 != 0)
}

/// An entry of an IOMMU's log of guest interrupts (48882): the GA tag of an IRTE in bits 31:0, the
/// device in 47:32, and the type of the entry in 63:60.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogEntry(pub u64);

impl LogEntry {
    const GUEST_INTERRUPT: u64 = 1;

    /// The tag of the IRTE, if it is an interrupt for a guest: other types are reserved.
    pub const fn tag(self) -> Option<u32> {
        if self.0 >> 60 == Self::GUEST_INTERRUPT { Some(self.0 as u32) } else { None }
    }

    /// Bus, device and function of the device.
    pub const fn device(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Creates the entry of a guest's interrupt.
    pub const fn new(tag: u32, device: u16) -> Self {
        LogEntry(Self::GUEST_INTERRUPT << 60 | (device as u64) << 32 | tag as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_physical_entry_are_where_the_manual_has_them() {
        let page = PageAddress::new(0x000f_edcb_a987_6000).unwrap();
        let entry = PhysicalEntry::new(page, Some(HostApicId::x2apic(0xabc).unwrap()));
        assert_eq!(entry.bits(), 0xc00f_edcb_a987_6abc);
        assert_eq!(PhysicalEntry::new(page, None).bits(), 0x800f_edcb_a987_6000);
        assert_eq!((entry.page(), entry.running()), (page, HostApicId::x2apic(0xabc)));
        assert!(entry.valid() && !PhysicalEntry::NONE.valid());
        assert_eq!(PhysicalEntry::from_bits(1 << 63 | 5).running(), None);
    }

    #[test]
    fn what_a_field_cannot_hold_is_no_address_and_no_id() {
        for address in [1, 0xfff, 0x1800, 1 << 52, u64::MAX] {
            assert_eq!(PageAddress::new(address), None, "{address:#x}");
        }
        assert_eq!(HostApicId::x2apic(0x1000), None);
        assert_eq!(HostApicId::xapic(255).number(), 255);
    }

    #[test]
    fn the_fields_of_a_logical_entry_are_where_the_manual_has_them() {
        assert_eq!(LogicalEntry::new(0x9c).bits(), 0x8000_009c);
        assert_eq!(LogicalEntry::from_bits(0xffff_ff07).id(), Some(7));
        assert_eq!(LogicalEntry::from_bits(0x7fff_ffff).id(), None);
    }

    #[test]
    fn the_fields_of_exits_and_log_entries_are_where_the_manuals_have_them() {
        assert_eq!(incomplete_ipi(0x0000_0001_ffff_f123), (1, 0x123));
        assert_eq!(unaccelerated(0xffff_ffff_ffff_ffff), (0xff0, true));
        assert_eq!(unaccelerated(0x0000_0000_ffff_f0bf), (0xb0, false));
        let entry = LogEntry::new(0xdead_beef, 0x1234);
        assert_eq!(entry, LogEntry(0x1000_1234_dead_beef));
        assert_eq!((entry.tag(), entry.device()), (Some(0xdead_beef), 0x1234));
        assert_eq!(LogEntry(0x2000_1234_dead_beef).tag(), None);
    }
}
