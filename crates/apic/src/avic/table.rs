//! The tables by which a CPU finds the vCPUs that an IPI is for.
//!
//! ```text
//!   ICR write ─▶ physical ID table ─▶ entry: backing page, IsRunning, host APIC ID
//!        │               ▲
//!        └─▶ logical table (AVIC only): destination bit ─▶ physical ID
//! ```
//!
//! Hardware reads these words at any time and writes none. An entry is claimed by a
//! compare-exchange from "none", so no two vCPUs have one ID; from then on one vCPU owns it, and
//! writes it under its own lock, as the [`Mirror`] of its residency. A doorbell that hardware sends
//! by an entry that has changed meanwhile goes to a CPU where the vCPU was; the vCPU looks at its
//! page before it runs again, so nothing is lost. Where the guest's logical IDs cannot be said in a
//! table, [`LogicalError`] says so, and AVIC is to be inhibited.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;

use doorbell_platform::Atomic;
use doorbell_post::{Mirror, Residency};

use super::spec::{HostApicId, LogicalEntry, PageAddress, PhysicalEntry};
use super::{AtomicU32, AtomicU64, Avic};

/// AVIC or x2AVIC: they differ in the guest's APIC mode, the IDs that there are, and the logical
/// table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// xAPIC mode: 8-bit IDs, of which 255 means everybody, and a logical table.
    Avic,
    /// x2APIC mode: as many IDs as CPUID says (512, or 4096), and no logical table, because a
    /// logical destination follows from the ID.
    X2Avic,
}

impl Kind {
    /// The highest ID that any hardware knows.
    const fn limit(self) -> u32 {
        match self {
            Kind::Avic => 254,
            Kind::X2Avic => 4095,
        }
    }
}

/// The physical APIC ID table of a VM (AMD APM vol. 2, section 15.29.5.2): contiguous pages, handed
/// in by the host.
pub struct PhysicalTable<A: Avic> {
    kind: Kind,
    words: A::Physical,
}

doorbell_platform::opaque_debug!([A: Avic] PhysicalTable<A>; kind);

/// Why a table cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// The table is not made of whole pages, or of more than hardware knows.
    Size {
        /// How many entries it has.
        entries: usize,
    },
    /// The table ends before this ID.
    Beyond {
        /// The ID.
        id: u32,
        /// The highest that there is.
        last: u32,
    },
    /// Another vCPU has it.
    Taken {
        /// The ID.
        id: u32,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::Size { entries } => {
                write!(f, "a physical ID table cannot have {entries} entries")
            }
            TableError::Beyond { id, last } => {
                write!(f, "the physical ID table has no entry {id}: its last is {last}")
            }
            TableError::Taken { id } => write!(f, "another vCPU has the physical ID {id}"),
        }
    }
}

impl core::error::Error for TableError {}

impl<A: Avic> PhysicalTable<A> {
    /// Creates a table without vCPUs.
    ///
    /// # Errors
    /// [`Size`](TableError::Size): AVIC has one page (512 entries, of which the upper half is
    /// reserved), x2AVIC one or, if CPUID says so (Fn8000_000A_ECX\[6\]), up to 8.
    pub fn new(kind: Kind, words: A::Physical) -> Result<Arc<Self>, TableError> {
        let entries = words.len();
        let pages = match kind {
            Kind::Avic => 1,
            Kind::X2Avic => 8,
        };
        if entries == 0 || !entries.is_multiple_of(512) || entries > pages * 512 {
            return Err(TableError::Size { entries });
        }
        words.iter().for_each(|word| word.store(PhysicalEntry::NONE.bits(), SeqCst));
        Ok(Arc::new(PhysicalTable { kind, words }))
    }

    /// The kind of the table.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The highest ID: AVIC_PHYSICAL_MAX_INDEX of the VMCB.
    pub fn last(&self) -> u32 {
        self.kind.limit().min(self.words.len() as u32 - 1)
    }

    /// The entry of an ID; that of no vCPU beyond the table.
    pub fn entry(&self, id: u32) -> PhysicalEntry {
        let word = self.word(id).ok();
        word.map_or(PhysicalEntry::NONE, |word| PhysicalEntry::from_bits(word.load(SeqCst)))
    }

    fn word(&self, id: u32) -> Result<&AtomicU64<A>, TableError> {
        let last = self.last();
        let beyond = TableError::Beyond { id, last };
        if id <= last { self.words.get(id as usize).ok_or(beyond) } else { Err(beyond) }
    }

    /// The entry of a vCPU that is not running.
    pub(super) fn claim(
        self: &Arc<Self>,
        id: u32,
        page: PageAddress,
    ) -> Result<PhysicalId<A>, TableError> {
        let entry = PhysicalEntry::new(page, None).bits();
        match self.word(id)?.compare_exchange(PhysicalEntry::NONE.bits(), entry, SeqCst, SeqCst) {
            Ok(_) => Ok(PhysicalId { table: Arc::clone(self), id, page }),
            Err(_) => Err(TableError::Taken { id }),
        }
    }
}

/// A vCPU's own entry; when dropped, there is no such vCPU any more.
pub struct PhysicalId<A: Avic> {
    table: Arc<PhysicalTable<A>>,
    id: u32,
    page: PageAddress,
}

doorbell_platform::opaque_debug!([A: Avic] PhysicalId<A>; id, page);

impl<A: Avic> PhysicalId<A> {
    /// The guest's physical APIC ID.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The address of the vCPU's backing page.
    pub fn page(&self) -> PageAddress {
        self.page
    }

    fn write(&self, entry: PhysicalEntry) {
        // It was claimed, so it is there. Hardware reads it only, and who writes it holds the
        // vCPU's lock.
        if let Ok(word) = self.table.word(self.id) {
            word.store(entry.bits(), SeqCst);
        }
    }
}

impl<A: Avic> Mirror for PhysicalId<A> {
    fn reflect(&self, residency: Residency) {
        let host = match residency {
            Residency::Running { apic_id } => HostApicId::x2apic(apic_id),
            Residency::Away { .. } => None,
        };
        self.write(PhysicalEntry::new(self.page, host));
    }
}

impl<A: Avic> Drop for PhysicalId<A> {
    fn drop(&mut self) {
        self.write(PhysicalEntry::NONE);
    }
}

/// How the bits of an 8-bit logical destination are meant: the destination format register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// Each of 8 bits is a vCPU.
    Flat,
    /// Bits 7:4 are a cluster below 15, each of bits 3:0 a vCPU of it.
    Cluster,
}

impl Model {
    /// Returns what a value of the register (bits 31:28) says; `None` if it says neither model.
    pub const fn of(dfr: u32) -> Option<Self> {
        match dfr >> 28 {
            0xf => Some(Model::Flat),
            0 => Some(Model::Cluster),
            _ => None,
        }
    }

    /// First entry, and bits, of a destination; `None` for a cluster that there is not.
    const fn split(self, destination: u8) -> Option<(usize, u8)> {
        match self {
            Model::Flat => Some((0, destination)),
            Model::Cluster if destination >> 4 == 15 => None,
            Model::Cluster => Some(((destination >> 4) as usize * 4, destination & 15)),
        }
    }
}

/// The logical APIC ID table of a VM (AMD APM vol. 2, section 15.29.5.3): a page, handed in by the
/// host. AVIC only.
///
/// The table says for all vCPUs of a VM what their logical destination registers say for each, as far as
/// that is possible. Where it is not, AVIC must be inhibited: see [`LogicalError`].
pub struct LogicalTable<A: Avic> {
    words: A::Logical,
}

doorbell_platform::opaque_debug!([A: Avic] LogicalTable<A>);

/// The guest has set up logical IDs that hardware cannot look up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "AVIC must be inhibited, or IPIs go astray"]
pub enum LogicalError {
    /// Not one bit, but none or several, or a cluster that there is not.
    Unrepresentable,
    /// The physical ID is 255, which means everybody: no vCPU of an xAPIC guest has it, and no
    /// entry can name one.
    Everybody,
    /// Another vCPU has the same.
    Aliased {
        /// The physical ID of that vCPU.
        by: u8,
    },
    /// The table that was handed in ends before this entry.
    Beyond {
        /// The entry.
        index: usize,
    },
}

impl fmt::Display for LogicalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogicalError::Unrepresentable => {
                f.write_str("the logical ID is not one bit of a cluster that there is")
            }
            LogicalError::Everybody => {
                f.write_str("the physical ID 255 means everybody, and is no vCPU's")
            }
            LogicalError::Aliased { by } => {
                write!(f, "the vCPU of physical ID {by} has the same logical ID")
            }
            LogicalError::Beyond { index } => {
                write!(f, "the logical ID table has no entry {index}")
            }
        }
    }
}

impl core::error::Error for LogicalError {}

/// A vCPU's entry in the logical table. To be released when its register changes, or the vCPU is no
/// more.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "it stays in the table until it is released"]
pub struct LogicalSlot {
    index: usize,
    id: u8,
}

impl<A: Avic> LogicalTable<A> {
    /// Creates a table without vCPUs.
    pub fn new(words: A::Logical) -> Self {
        words.iter().for_each(|word| word.store(LogicalEntry::NONE.bits(), SeqCst));
        LogicalTable { words }
    }

    /// Enters the vCPU of a physical ID, which has set its logical destination register (of which
    /// bits 31:24 count).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If hardware cannot have it so.
    pub fn claim(&self, model: Model, ldr: u32, id: u8) -> Result<LogicalSlot, LogicalError> {
        if u32::from(id) > Kind::Avic.limit() {
            return Err(LogicalError::Everybody);
        }
        let (first, bits) = model.split((ldr >> 24) as u8).ok_or(LogicalError::Unrepresentable)?;
        if bits.count_ones() != 1 {
            return Err(LogicalError::Unrepresentable);
        }
        let index = first + bits.trailing_zeros() as usize;
        let word: &AtomicU32<A> = self.words.get(index).ok_or(LogicalError::Beyond { index })?;
        let entry = LogicalEntry::new(id).bits();
        match word.compare_exchange(LogicalEntry::NONE.bits(), entry, SeqCst, SeqCst) {
            Ok(_) => Ok(LogicalSlot { index, id }),
            Err(other) => Err(LogicalError::Aliased {
                by: LogicalEntry::from_bits(other).id().unwrap_or(u8::MAX),
            }),
        }
    }

    /// Removes the vCPU, which is not meant any more.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn release(&self, slot: LogicalSlot) {
        if let Some(word) = self.words.get(slot.index) {
            word.store(LogicalEntry::NONE.bits(), SeqCst);
        }
    }

    /// Returns the physical IDs that a logical destination means.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn targets(&self, model: Model, destination: u8) -> impl Iterator<Item = u8> + '_ {
        let (first, bits) = model.split(destination).unwrap_or((0, 0));
        (0..8).filter(move |bit| bits >> bit & 1 != 0).filter_map(move |bit| {
            let word = self.words.get(first + bit)?;
            LogicalEntry::from_bits(word.load(SeqCst)).id()
        })
    }
}
