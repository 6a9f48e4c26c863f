//! The registers that have some bits for each interrupt: of the distributor for SPIs, of a
//! redistributor's SGI_base for the private ones, at the same offsets.

use doorbell_platform::Platform;

use crate::access::Access;
use crate::registers::{At, Width};
use crate::{Ended, Gic, Group, Host, IntId, Interrupt, Line, Priority, State, Trigger, VcpuId};

/// How many interrupts are looked at together.
const EIGHT: usize = 8;

/// Whose interrupts they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bank {
    /// The distributor's. The registers of the first 32 INTIDs are not here: affinity routing is
    /// on.
    Spis,
    /// Those of a vCPU.
    Private(VcpuId),
}

/// A register with some bits for each interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Register {
    /// IGROUPR. This and the pairs that set and clear are of 32 interrupts.
    Groups,
    /// ISENABLER.
    Enable,
    /// ICENABLER.
    Disable,
    /// ISPENDR.
    Pend,
    /// ICPENDR.
    Unpend,
    /// ISACTIVER.
    Activate,
    /// ICACTIVER.
    Deactivate,
    /// IPRIORITYR: one interrupt to each byte.
    Priorities,
    /// ICFGR: 16 interrupts.
    Triggers,
    /// No such register.
    None,
}

impl Register {
    /// Returns the register that is there, if the access may be that wide.
    #[inline(always)]
    fn at(at: At) -> Register {
        let register = match at.offset / 0x80 {
            1 => Register::Groups,
            2 => Register::Enable,
            3 => Register::Disable,
            4 => Register::Pend,
            5 => Register::Unpend,
            6 => Register::Activate,
            7 => Register::Deactivate,
            8..16 => Register::Priorities,
            24..26 => Register::Triggers,
            _ => Register::None,
        };
        let byte = at.width == Width::Byte && register == Register::Priorities;
        if at.width == Width::Word || byte { register } else { Register::None }
    }

    /// Returns the first interrupt that the access is to.
    #[inline(always)]
    fn first(self, at: At) -> u32 {
        match self {
            Register::Priorities => at.offset - 0x400,
            Register::Triggers => (at.offset - 0xc00) * 4,
            _ => at.offset % 0x80 * 8,
        }
    }
}

impl<P: Platform> Gic<P> {
    /// Returns the interrupts from one on.
    #[inline]
    fn interrupts_from(&self, bank: Bank, first: u32) -> &[Interrupt<P>] {
        let from = match bank {
            Bank::Spis => first
                .checked_sub(IntId::FIRST_SPI.number())
                .and_then(|index| self.spis.get(index as usize..)),
            Bank::Private(vcpu) => {
                self.redistributor(vcpu).ok().and_then(|of| of.private.get(first as usize..))
            }
        };
        from.unwrap_or_default()
    }

    /// Returns the 32 interrupts from one on, or as many as there are.
    #[inline]
    fn thirty_two(&self, bank: Bank, first: u32) -> &[Interrupt<P>] {
        let interrupts = self.interrupts_from(bank, first);
        &interrupts[..interrupts.len().min(32)]
    }

    /// Returns a bit for each of 32 interrupts.
    pub(super) fn bits_of(&self, bank: Bank, first: u32, mut is: impl FnMut(State) -> bool) -> u32 {
        self.thirty_two(bank, first)
            .iter()
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
    #[inline]
    pub(super) fn each_line(
        &self,
        bank: Bank,
        first: u32,
        bits: u32,
        mut each: impl FnMut(Line<'_, P>, u32),
    ) {
        let interrupts = self.interrupts_from(bank, first);
        let mut left = bits;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            if let Some((interrupt, id)) = interrupts.get(bit as usize).zip(IntId::new(first + bit))
            {
                each(Line::new(self, interrupt, id), bit);
            }
        }
    }

    /// Reads which of 32 interrupts are pending: most often, none is.
    #[inline(never)]
    fn read_pending(&self, bank: Bank, first: u32, host: &mut impl Host) -> Access<'_, P> {
        let (eights, rest) = self.thirty_two(bank, first).as_chunks::<EIGHT>();
        let none = |eight: &[_; EIGHT]| {
            State::none_may_be_pending(eight.each_ref().map(Interrupt::glance))
        };
        if rest.is_empty() && eights.iter().all(none) {
            return Access::done(0);
        }
        self.read_some_pending(bank, first, host)
    }

    #[inline(never)]
    fn read_some_pending(&self, bank: Bank, first: u32, host: &mut impl Host) -> Access<'_, P> {
        let mut taken = false;
        let bits = self.bits_of(bank, first, |state| {
            taken |= state.is_taken();
            state.reads_as_pending()
        });
        if taken {
            self.recall_takers(bank, first, host);
        }
        Access::done(bits.into())
    }

    #[inline(never)]
    fn read_bits(&self, bank: Bank, first: u32, is: impl FnMut(State) -> bool) -> Access<'_, P> {
        Access::done(self.bits_of(bank, first, is).into())
    }

    #[inline(never)]
    fn read_priorities(&self, bank: Bank, first: u32, width: Width) -> Access<'_, P> {
        let mut value = 0;
        self.each_line(bank, first, bytes_of(width), |line, byte| {
            value |= u64::from(line.state().priority().0) << (8 * byte);
        });
        Access::done(value)
    }

    #[inline(never)]
    fn read_triggers(&self, bank: Bank, first: u32) -> Access<'_, P> {
        let mut value = 0;
        self.each_line(bank, first, 0xffff, |line, bit| {
            let edge = line.state().trigger() == Trigger::Edge;
            value |= u64::from(edge) << (2 * bit + 1);
        });
        Access::done(value)
    }

    pub(super) fn read_interrupts(
        &self,
        bank: Bank,
        at: At,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let register = Register::at(at);
        let first = register.first(at);
        match register {
            Register::None => Access::done(0),
            Register::Groups => self.read_bits(bank, first, |state| state.group() == Group::One),
            Register::Enable | Register::Disable => self.read_bits(bank, first, State::is_enabled),
            Register::Pend | Register::Unpend => self.read_pending(bank, first, host),
            Register::Activate | Register::Deactivate => self.read_active(bank, first, host),
            Register::Priorities => self.read_priorities(bank, first, at.width),
            Register::Triggers => self.read_triggers(bank, first),
        }
    }

    pub(super) fn write_interrupts(
        &self,
        bank: Bank,
        at: At,
        value: u64,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let (written, register) = (value as u32, Register::at(at));
        let first = register.first(at);
        match register {
            Register::None => Access::done(0),
            Register::Groups => self.write_groups(bank, first, written, host),
            Register::Enable => self.enable(bank, first, written, host),
            Register::Disable => self.disable(bank, first, written, host),
            Register::Pend => self.pend(bank, first, written, host),
            Register::Unpend => self.unpend(bank, first, written, host),
            Register::Activate => self.write_active(bank, first, written, true, host),
            Register::Deactivate => self.write_active(bank, first, written, false, host),
            Register::Priorities => self.write_priorities(bank, first, at.width, written, host),
            Register::Triggers => self.write_triggers(bank, first, written, host),
        }
    }

    #[inline(never)]
    fn write_groups(
        &self,
        bank: Bank,
        first: u32,
        written: u32,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        self.each_line(bank, first, u32::MAX, |line, bit| {
            let group = Group::BOTH[(written >> bit & 1) as usize];
            let was = line.interrupt().set_group(group);
            self.tells_of_order(&line, was, was.group() != group, host);
            // Others may take part in this group.
            if was.is_one_of_n() && was.group() != group {
                self.settle(line.id(), host);
            }
        });
        Access::done(0)
    }

    #[inline(never)]
    fn enable(&self, bank: Bank, first: u32, written: u32, host: &mut impl Host) -> Access<'_, P> {
        self.each_line(bank, first, written, |line, _| {
            let was = line.interrupt().set_enabled(true);
            if !was.is_enabled() && (was.is_pending() || was.is_active()) {
                self.post(was, line.id(), host);
            }
        });
        Access::done(0)
    }

    #[inline(never)]
    fn disable(&self, bank: Bank, first: u32, written: u32, host: &mut impl Host) -> Access<'_, P> {
        self.each_line(bank, first, written, |line, _| {
            let was = line.interrupt().set_enabled(false);
            // One that is active stays so, and is not signalled again.
            if was.is_enabled() {
                self.recall_holder_for_write(was, line.id(), host);
            }
        });
        Access::done(0)
    }

    #[inline(never)]
    fn pend(&self, bank: Bank, first: u32, written: u32, host: &mut impl Host) -> Access<'_, P> {
        self.each_line(bank, first, written, |line, _| {
            line.tells_of_latch(line.interrupt().latch(), host);
        });
        Access::done(0)
    }

    #[inline(never)]
    fn unpend(&self, bank: Bank, first: u32, written: u32, host: &mut impl Host) -> Access<'_, P> {
        self.each_line(bank, first, written, |line, _| line.take_back(host));
        Access::done(0)
    }

    #[inline(never)]
    fn write_priorities(
        &self,
        bank: Bank,
        first: u32,
        width: Width,
        written: u32,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        let implemented = 0xff << (8 - self.vtr.priority_bits());
        self.each_line(bank, first, bytes_of(width), |line, byte| {
            let priority = Priority((written >> (8 * byte)) as u8 & implemented as u8);
            let was = line.interrupt().set_priority(priority);
            self.tells_of_order(&line, was, was.priority() != priority, host);
        });
        Access::done(0)
    }

    #[inline(never)]
    fn write_triggers(
        &self,
        bank: Bank,
        first: u32,
        written: u32,
        host: &mut impl Host,
    ) -> Access<'_, P> {
        self.each_line(bank, first, 0xffff, |line, bit| {
            // ICFGR0 is read-only: SGIs are edges.
            if line.id().number() >= 16 {
                let edge = written >> (2 * bit + 1) & 1 != 0;
                let trigger = if edge { Trigger::Edge } else { Trigger::Level };
                let was = line.interrupt().set_trigger(trigger);
                self.tells_of_order(&line, was, was.trigger() != trigger, host);
            }
        });
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
    pub(crate) fn ends_physically(&self, line: &Line<'_, P>, host: &mut impl Host) {
        if let Some(physical) = line.interrupt().physical() {
            host.ended(Ended::Physical(physical));
        }
    }
}

/// Returns a bit for each byte of an access.
const fn bytes_of(width: Width) -> u32 {
    (1 << width.bytes()) - 1
}
