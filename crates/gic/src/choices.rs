//! What the architecture leaves to an implementation, and what this one does (Arm IHI 0069H).

/// GICD_IIDR and GICR_IIDR: whose implementation it is. No erratum of a guest's driver is selected
/// by it (section 12.9.15).
pub(crate) const IIDR: u64 = 0x4400_043b;

/// GICD_PIDR2 and GICR_PIDR2: ArchRev says GICv3 (section 12.9.24).
pub(crate) const PIDR2: u64 = 0x3b;

// What else is chosen, and where:
//
// - Groups after a reset: 1, which is UNKNOWN (section 12.9.9). A guest's driver may believe that
//   another Security state has configured them. `Interrupt::new`.
// - One Security state (GICD_CTLR.DS) and affinity routing (ARE) always (section 12.9.4).
//   `registers/distributor.rs`.
// - What is UNPREDICTABLE of an access (alignment, width; section 12.1.3): it reads zero and is
//   ignored. `registers/mod.rs`.
// - GICD_CTLR.E1NWF, GICD_STATUSR and GICR_STATUSR are RAZ/WI.
// - An SPI whose affinity no vCPU has goes to nobody, and stays pending (section 12.9.22).
//   `route.rs`.
// - Of those that any vCPU may have, the one that has it keeps it while it takes part; else it goes
//   to the next by number (section 2.3.2). `route.rs`.
// - A priority, group, trigger or route that is written while the interrupt is pending counts from
//   then on. `registers/interrupts.rs`.
// - A priority or group that is written while the interrupt is active counts when it has ended: the
//   running priority is that of the acknowledgement. `flush.rs`, `fold.rs`.
// - A vCPU that is asleep (GICR_WAKER) gets nothing; what is pending stays so.
// - ICC_SGI1R_EL1 reaches SGIs of both groups; ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 those of group 0
//   (section 12.1.10, with DS 1). `sgi.rs`.
// - Without ICH_VTR_EL2.TDS, a vCPU that sets EOImode 1 and deactivates another vCPU's SPI before
//   its next exit is not heard: there DIR can only be trapped together with PMR. `flush.rs`.
// - GICR_PROPBASER and GICR_PENDBASER that are written while LPIs are enabled, which is
//   UNPREDICTABLE (section 12.11, by their names): ignored. So is EnableLPIs while RWP says that it
//   was written before. `registers/redistributor.rs`, `lpi_tables.rs`.
// - GICR_PROPBASER.IDbits of less than 14 bits: no LPI is in the tables, and none is read from
//   them. `lpi_tables.rs`.
// - LPIs can be disabled again (GICR_CTLR.CES). What is pending then goes into the pending table,
//   and all of it comes from there when they are enabled. `lpi_tables.rs`.
// - An SPI and an LPI of one priority: the SPI is taken into a list register first. `lpi_work.rs`.
