//! Where messages, and what MSI-X adds to a function, have their fields.
//!
//! - Compatibility format: Intel SDM vol. 3 (253668-083), section 12.11 "Message Signalled
//!   Interrupts": 12.11.1 for the address, 12.11.2 for the data. It is the format of PCI Local Bus
//!   3.0, section 6.8, on x86.
//! - Remappable format: Intel Virtualization Technology for Directed I/O, Architecture
//!   Specification (D51397-015), section 5.1.2.2 "Interrupt Requests in Remappable Format".
//! - Index format: AMD I/O Virtualization Technology (IOMMU) Specification (48882, revision 3.08),
//!   section 2.2.5.
//! - MSI: PCI Local Bus 3.0, section 6.8.1, and PCI Express 6.0, section 7.7.1 "MSI Capability
//!   Structures".
//! - MSI-X: PCI Local Bus 3.0, section 6.8.2, and PCI Express 6.0, section 7.7.2 "MSI-X Capability
//!   and Table Structure".

/// Bits 31:20 of an address to which interrupts are sent.
pub const ADDRESS_BASE: u64 = 0xfee0_0000;

/// Compatibility format: bits 19:12, the destination's bits 7:0.
pub const DESTINATION_SHIFT: u32 = 12;
/// Compatibility format: the destination that means all CPUs.
pub const DESTINATION_ALL: u32 = 0xff;
/// Extended destination ids, as hypervisors offer them to their guests: bits 11:5, the
/// destination's bits 14:8.
pub const EXTENDED_DESTINATION_SHIFT: u32 = 5;
/// How far bit 8 of an extended destination id is from bit 0.
pub const EXTENDED_DESTINATION_FROM: u32 = 8;

/// Remappable format: bits 19:5, the handle's bits 14:0.
pub const HANDLE_SHIFT: u32 = 5;
/// Remappable format: bit 4, set.
pub const REMAPPABLE: u64 = 1 << 4;
/// Remappable format: bit 3, whether the data's bits 15:0 are added to the handle (SHV).
pub const SUBHANDLE_VALID: u64 = 1 << 3;
/// Remappable format: bit 2, the handle's bit 15.
pub const HANDLE_15: u64 = 1 << 2;

/// Index format: how many indices the data's bits 10:0 can tell apart.
pub const AMD_INDICES: u16 = 1 << 11;

/// The first vector that a message may carry (SDM vol. 3, section 12.5.2: 0 to 15 are illegal).
pub const FIRST_VECTOR: u8 = 16;

/// MSI: bit 0 of message control.
pub const MSI_ENABLE: u16 = 1 << 0;
/// MSI: bits 3:1 of message control, how many messages the function asks for, as a power of two.
pub const MSI_CAPABLE_SHIFT: u32 = 1;
/// MSI: bits 6:4 of message control, how many messages are enabled, as a power of two.
pub const MSI_MULTIPLE_SHIFT: u32 = 4;
/// MSI: bit 7 of message control, whether the address has 64 bits.
pub const MSI_WIDE: u16 = 1 << 7;
/// MSI: bit 8 of message control, whether there are mask and pending bits.
pub const MSI_MASKABLE: u16 = 1 << 8;
/// MSI: bits 15:0 of the data. The others are zeros on the bus.
pub const MSI_DATA_BITS: u32 = 0xffff;

/// MSI-X: how many entries a table may have.
pub const MSIX_ENTRIES: u16 = 2048;
/// MSI-X: the bytes of an entry.
pub const MSIX_ENTRY_SIZE: u64 = 16;
/// MSI-X: the dwords of an entry: address, upper address, data, vector control.
pub const MSIX_ADDRESS: usize = 0;
/// MSI-X: see [`MSIX_ADDRESS`].
pub const MSIX_UPPER_ADDRESS: usize = 1;
/// MSI-X: see [`MSIX_ADDRESS`].
pub const MSIX_DATA: usize = 2;
/// MSI-X: see [`MSIX_ADDRESS`].
pub const MSIX_VECTOR_CONTROL: usize = 3;
/// MSI-X: bit 0 of vector control, set after a reset. The others are reserved.
pub const MSIX_MASK: u32 = 1;
/// MSI-X: bits 31:2 of the address. The others are to be written as zeros.
pub const MSIX_ADDRESS_BITS: u32 = !3;
/// MSI-X: bit 15 of message control.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// MSI-X: bit 14 of message control.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
