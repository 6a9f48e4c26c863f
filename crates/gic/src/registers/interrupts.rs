//! The registers that have some bits for each interrupt: of the distributor for SPIs, of a
//! redistributor's SGI_base for the private ones, at the same offsets.

use doorbell_platform::Platform;

use crate::access::Access;
use crate::registers::{At, Width};
use crate::{Ended, Gic, Group, Host, IntId, Line, Priority, State, Trigger, VcpuId};

/// Whose interrupts they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bank {
    /// The distributor's. The registers of the first 32 INTIDs are not here: affinity routing is
    /// on.
    Spis,
    /// Those of a vCPU.
    Private(VcpuId),
}

/// What a register has of each interrupt: one bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bits {
    Group,
    Enabled,
    Pending,
    Active,
}

/// A register with some bits for each interrupt, from an INTID on.
#[derive(Clone, Copy, Debug)]
enum Register {
    /// IGROUPR, and the pairs that set and clear. 32 interrupts.
    Bits { bits: Bits, set: bool, first: u32 },
    /// IPRIORITYR: one interrupt to each byte.
    Priorities { first: u32 },
    /// ICFGR: 16 interrupts.
    Triggers { first: u32 },
}

impl Register {
    fn at(at: At) -> Option<Register> {
        let word = at.width == Width::Word;
        let bits = |bits, set| Some(Register::Bits { bits, set, first: at.offset % 0x80 * 8 });
        match at.offset {
            0x080..0x100 if word => bits(Bits::Group, true),
            0x100..0x180 if word => bits(Bits::Enabled, true),
            0x180..0x200 if word => bits(Bits::Enabled, false),
            0x200..0x280 if word => bits(Bits::Pending, true),
            0x280..0x300 if word => bits(Bits::Pending, false),
            0x300..0x380 if word => bits(Bits::Active, true),
            0x380..0x400 if word => bits(Bits::Active, false),
            0x400..0x800 if word || at.width == Width::Byte => {
                Some(Register::Priorities { first: at.offset - 0x400 })
            }
            0xc00..0xd00 if word => Some(Register::Triggers { first: (at.offset - 0xc00) * 4 }),
            _ => None,
        }
    }
}

impl<P: Platform> Gic<P> {
    fn line(&self, bank: Bank, number: u32) -> Option<Line<'_, P>> {
        let id = IntId::new(number)?;
        match bank {
            Bank::Spis => self.spi(id).ok(),
            Bank::Private(vcpu) => self.private(vcpu, id).ok(),
        }
    }

    /// Returns a bit for each of 32 interrupts.
    pub(super) fn bits_of(&self, bank: Bank, first: u32, mut is: impl FnMut(State) -> bool) -> u32 {
        let interrupts: &[_] = match bank {
            Bank::Spis => first
                .checked_sub(32)
                .and_then(|index| self.spis.get(index as usize..))
                .unwrap_or_default(),
            Bank::Private(vcpu) if first == 0 => {
                self.redistributor(vcpu).map_or(&[], |of| &of.private[..])
            }
            Bank::Private(_) => &[],
        };
        interrupts
            .iter()
            .take(32)
            .rev()
            .fold(0, |bits, interrupt| bits << 1 | u32::from(is(interrupt.state())))
    }

    /// Starts a recall of the vCPUs whose list registers have taken over that some of 32 interrupts
    /// are pending: what was acknowledged there in the guest is not seen yet, and the next read
    /// sees it.
    #[inline(never)]
    fn recall_takers(&self, bank: Bank, first: u32, host: &mut impl Host) {
        self.each_line(bank, first, u32::MAX, |line, _| {
            let state = line.state();
            if state.is_taken() {
                let _ = self.recall_holder(state, line.id(), host);
            }
        });
    }

    /// Calls `each` for the interrupts of 32 whose bits are set.
    pub(super) fn each_line(
        &self,
        bank: Bank,
        first: u32,
        bits: u32,
        mut each: impl FnMut(Line<'_, P>, u32),
    ) {
        let mut left = bits;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            if let Some(line) = self.line(bank, first + bit) {
                each(line, bit);
            }
        }
    }

    pub(super) fn read_interrupts(
        &self,
        bank: Bank,
        at: At,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let mut value = 0u64;
        match Register::at(at) {
            None => {}
            Some(Register::Bits { bits: Bits::Active, first, .. }) => {
                return self.read_active(bank, first, host);
            }
            Some(Register::Bits { bits: Bits::Group, first, .. }) => {
                value = self.bits_of(bank, first, |state| state.group() == Group::One).into();
            }
            Some(Register::Bits { bits: Bits::Enabled, first, .. }) => {
                value = self.bits_of(bank, first, State::is_enabled).into();
            }
            Some(Register::Bits { bits: Bits::Pending, first, .. }) => {
                let mut taken = false;
                value = u64::from(self.bits_of(bank, first, |state| {
                    taken |= state.is_taken();
                    state.reads_as_pending()
                }));
                if taken {
                    self.recall_takers(bank, first, host);
                }
            }
            Some(Register::Priorities { first }) => {
                for byte in 0..at.width.bytes() {
                    let priority =
                        self.line(bank, first + byte).map_or(0, |line| line.state().priority().0);
                    value |= u64::from(priority) << (8 * byte);
                }
            }
            Some(Register::Triggers { first }) => {
                self.each_line(bank, first, 0xffff, |line, bit| {
                    let edge = line.state().trigger() == Trigger::Edge;
                    value |= u64::from(edge) << (2 * bit + 1);
                })
            }
        }
        Access::done(value)
    }

    pub(super) fn write_interrupts(
        &self,
        bank: Bank,
        at: At,
        value: u64,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let written = value as u32;
        match Register::at(at) {
            None => {}
            Some(Register::Bits { bits: Bits::Active, set, first }) => {
                return self.write_active(bank, first, written, set, host);
            }
            Some(Register::Bits { bits: Bits::Group, first, .. }) => {
                self.each_line(bank, first, u32::MAX, |line, bit| {
                    let group = Group::BOTH[(written >> bit & 1) as usize];
                    let was = line.interrupt().set_group(group);
                    self.tells_of_order(&line, was, was.group() != group, host);
                    // Others may take part in this group.
                    if was.is_one_of_n() && was.group() != group {
                        self.settle(line.id(), host);
                    }
                });
            }
            Some(Register::Bits { bits: Bits::Enabled, set: true, first }) => {
                self.each_line(bank, first, written, |line, _| {
                    let was = line.interrupt().set_enabled(true);
                    if !was.is_enabled() && (was.is_pending() || was.is_active()) {
                        self.post(was, line.id(), host);
                    }
                });
            }
            Some(Register::Bits { bits: Bits::Enabled, set: false, first }) => {
                self.each_line(bank, first, written, |line, _| {
                    let was = line.interrupt().set_enabled(false);
                    // One that is active stays so, and is not signalled again.
                    if was.is_enabled() {
                        self.recall_holder_for_write(was, line.id(), host);
                    }
                });
            }
            Some(Register::Bits { bits: Bits::Pending, set: true, first }) => {
                self.each_line(bank, first, written, |line, _| {
                    line.tells_of_latch(line.interrupt().latch(), host);
                });
            }
            Some(Register::Bits { bits: Bits::Pending, set: false, first }) => {
                self.each_line(bank, first, written, |line, _| {
                    let was = line.interrupt().unlatch();
                    // The holder's list register may say it, too: then the holder sees that it will
                    // not end in the guest.
                    let _ = self.recall_holder(was, line.id(), host);
                    if was.is_latched() && was.is_physical() {
                        self.ends_physically(&line, host);
                    }
                });
            }
            Some(Register::Priorities { first }) => {
                for byte in 0..at.width.bytes() {
                    let Some(line) = self.line(bank, first + byte) else { continue };
                    let implemented = 0xff << (8 - self.vtr.priority_bits());
                    let priority = Priority((written >> (8 * byte)) as u8 & implemented as u8);
                    let was = line.interrupt().set_priority(priority);
                    self.tells_of_order(&line, was, was.priority() != priority, host);
                }
            }
            Some(Register::Triggers { first }) => {
                self.each_line(bank, first, 0xffff, |line, bit| {
                    // ICFGR0 is read-only: SGIs are edges.
                    if line.id().number() >= 16 {
                        let edge = written >> (2 * bit + 1) & 1 != 0;
                        let trigger = if edge { Trigger::Edge } else { Trigger::Level };
                        let was = line.interrupt().set_trigger(trigger);
                        self.tells_of_order(&line, was, was.trigger() != trigger, host);
                    }
                })
            }
        }
        Access::done(0)
    }

    /// Tells the holder of an interrupt that it is to be signalled in another order, or not at all,
    /// if there is anything to signal.
    fn tells_of_order(&self, line: &Line<'_, P>, was: State, changed: bool, host: &mut impl Host) {
        if changed && was.is_enabled() {
            // The holder looks before its next entry, and what it has in a list register comes out.
            self.post(was, line.id(), host);
        }
    }

    /// Makes the holder of an interrupt fold, and says that the write is not complete until then.
    fn recall_holder_for_write(&self, state: State, id: IntId, host: &mut impl Host) {
        let Some(holder) = self.recall_holder(state, id, host) else { return };
        if let Ok(redistributor) = self.redistributor(holder) {
            redistributor.begins_write();
        }
    }

    /// Has the physical interrupt deactivated that backs one that will not end in the guest.
    pub(super) fn ends_physically(&self, line: &Line<'_, P>, host: &mut impl Host) {
        if let Some(physical) = line.interrupt().physical() {
            host.ended(Ended::Physical(physical));
        }
    }
}
