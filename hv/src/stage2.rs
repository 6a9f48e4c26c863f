//! Stage 2: what a guest takes for physical addresses, and where they are (Arm DDI 0487, chapter
//! D8).
//!
//! 39 bits of address, in tables of 512 that begin at level 1. RAM is mapped in blocks of 2 MiB.
//! Devices are not mapped, and trap.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

/// VTCR_EL2: T0SZ 25, beginning at level 1, walks cacheable and inner shareable, 40 bits of output,
/// and the bit that is RES1.
pub const VTCR: u64 = 25 | 1 << 6 | 1 << 8 | 1 << 10 | 3 << 12 | 2 << 16 | 1 << 31;

/// What RAM is mapped in.
pub const BLOCK: u64 = 2 << 20;
/// How much the tables can map.
const SIZE: u64 = 1 << 39;

const VALID: u64 = 1 << 0;
const TABLE: u64 = 1 << 1;
/// A block of normal memory, inner shareable, to read, write and execute, with the access flag.
const NORMAL: u64 = VALID | 0xf << 2 | 3 << 6 | 3 << 8 | 1 << 10;

#[repr(C, align(4096))]
struct Table([u64; 512]);

impl Table {
    fn empty() -> Box<Table> {
        Box::new(Table([0; 512]))
    }

    fn address(&self) -> u64 {
        (self as *const Table).expose_provenance() as u64
    }
}

/// The stage-2 tables of a VM.
pub struct Stage2 {
    first: Box<Table>,
    /// The tables of level 2, and the entry of `first` for each.
    second: Vec<(usize, Box<Table>)>,
}

/// A mapping that there cannot be: it is not of whole blocks, or it is beyond what can be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotToBeMapped;

impl Default for Stage2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Stage2 {
    /// Returns tables that map nothing.
    pub fn new() -> Self {
        Stage2 { first: Table::empty(), second: Vec::new() }
    }

    /// Maps RAM of the machine to addresses of the guest. Before a vCPU runs.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn map(&mut self, guest: Range<u64>, machine: u64) -> Result<(), NotToBeMapped> {
        let whole =
            [guest.start, guest.end, machine].iter().all(|address| address.is_multiple_of(BLOCK));
        if !whole || guest.end > SIZE || guest.is_empty() {
            return Err(NotToBeMapped);
        }
        for (address, to) in guest.step_by(BLOCK as usize).zip((machine..).step_by(BLOCK as usize))
        {
            let (gib, block) = ((address >> 30) as usize, (address >> 21) as usize % 512);
            self.second_of(gib).0[block] = to | NORMAL;
        }
        Ok(())
    }

    /// Returns VTTBR_EL2, for that VMID.
    pub fn vttbr(&self, vmid: u8) -> u64 {
        u64::from(vmid) << 48 | self.first.address()
    }

    fn second_of(&mut self, gib: usize) -> &mut Table {
        let found = self.second.iter().position(|&(of, _)| of == gib);
        let index = found.unwrap_or_else(|| {
            let table = Table::empty();
            self.first.0[gib] = table.address() | VALID | TABLE;
            self.second.push((gib, table));
            self.second.len() - 1
        });
        &mut self.second[index].1
    }

    /// Returns where an address is, as the hardware walks the tables.
    #[cfg(test)]
    fn walk(&self, address: u64) -> Option<u64> {
        let entry = self.first.0[(address >> 30) as usize];
        let (_, table) =
            self.second.iter().find(|(_, table)| table.address() | VALID | TABLE == entry)?;
        let block = table.0[(address >> 21) as usize % 512];
        (block & (VALID | TABLE) == VALID).then_some((block & 0xffff_ffe0_0000) + address % BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_is_where_it_was_mapped_and_nothing_else_is() {
        let mut tables = Stage2::new();
        tables.map(0x4000_0000..0x4040_0000, 0x5020_0000).unwrap();
        tables.map(0x7fe0_0000..0x8020_0000, 0x6000_0000).unwrap();
        assert_eq!(tables.walk(0x4000_0000), Some(0x5020_0000));
        assert_eq!(tables.walk(0x403f_ffff), Some(0x505f_ffff));
        assert_eq!(tables.walk(0x8012_3456), Some(0x6032_3456));
        for nothing in [0, 0x0900_0000, 0x3fff_ffff, 0x4040_0000, 0x8020_0000] {
            assert_eq!(tables.walk(nothing), None, "{nothing:#x}");
        }
    }

    #[test]
    fn what_is_not_whole_or_too_far_is_not_mapped() {
        let mut tables = Stage2::new();
        for (guest, machine) in [
            (1..BLOCK, 0),
            (0..BLOCK + 1, 0),
            (0..BLOCK, 4096),
            (SIZE..SIZE + BLOCK, 0),
            (BLOCK..BLOCK, 0),
        ] {
            assert_eq!(tables.map(guest, machine), Err(NotToBeMapped));
        }
        assert_eq!(tables.vttbr(3) >> 48, 3);
    }
}
