//! Interrupt remapping: the table that an IOMMU reads, its entries, and the vCPUs that interrupts
//! are posted to. What does not depend on whose IOMMU it is (`table`, `index`, `postable_irte`,
//! `binding`, `invalidate`), and what does: a module for each, with the same three files. What the
//! bits of an entry say is in `irte`, which entry an interrupt has and where it arrives in the host
//! in `interrupt`, and whom it is posted to in `binding`.

pub mod amd;
mod binding;
mod index;
pub mod intel;
mod invalidate;
mod postable_irte;
mod table;

pub use binding::NotBound;
pub use index::IrteIndex;
pub use invalidate::Invalidate;
pub(crate) use table::INDICES;
pub use table::{IrteMemory, IrteSlot, NoBlock, NotLockFree, RemapTable, RetiredIrte, TableFull};
