//! System registers whose accesses trap, as ESR_EL2.ISS names them.

use crate::timer::Timer;

/// A register that is accessed in the guest's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// One of CNTP_CTL_EL0, CNTP_CVAL_EL0 and CNTP_TVAL_EL0.
    PhysicalTimer(TimerRegister),
    /// MDSCR_EL1, which is switched.
    Mdscr,
    /// OSLSR_EL1: the OS lock is there, and open.
    OsLockStatus,
    /// A register of the debug architecture, or ACTLR_EL1: reads as zero, writes are ignored.
    Ignored,
}

/// A register of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerRegister {
    /// TVAL.
    Value,
    /// CTL.
    Control,
    /// CVAL.
    Compare,
}

/// What OSLSR_EL1 reads as.
pub const OS_LOCK_STATUS: u64 = 1 << 3;

impl Register {
    /// Returns the register of a trapped access; none if there is no such register.
    pub const fn from_iss(iss: u32) -> Option<Register> {
        let (op0, op2, op1) = (iss >> 20 & 3, iss >> 17 & 7, iss >> 14 & 7);
        let (crn, crm) = (iss >> 10 & 15, iss >> 1 & 15);
        Some(match (op0, op1, crn, crm, op2) {
            (3, 3, 14, 2, 0) => Register::PhysicalTimer(TimerRegister::Value),
            (3, 3, 14, 2, 1) => Register::PhysicalTimer(TimerRegister::Control),
            (3, 3, 14, 2, 2) => Register::PhysicalTimer(TimerRegister::Compare),
            (3, 0, 1, 0, 1) => Register::Ignored,
            (2, 0, 0, 2, 2) => Register::Mdscr,
            (2, 0, 1, 1, 4) => Register::OsLockStatus,
            (2, 0 | 3, ..) => Register::Ignored,
            _ => return None,
        })
    }
}

impl TimerRegister {
    /// Reads the register.
    pub const fn read(self, timer: &Timer, now: u64) -> u64 {
        match self {
            TimerRegister::Value => timer.value(now),
            TimerRegister::Control => timer.control(now),
            TimerRegister::Compare => timer.compare(),
        }
    }

    /// Writes the register.
    pub fn write(self, timer: &mut Timer, now: u64, value: u64) {
        match self {
            TimerRegister::Value => timer.set_value(now, value),
            TimerRegister::Control => timer.set_control(value),
            TimerRegister::Compare => timer.set_compare(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn iss(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
        op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | 7 << 5 | crm << 1 | 1
    }

    #[test]
    fn registers_are_told_apart() {
        let of = |op0, op1, crn, crm, op2| Register::from_iss(iss(op0, op1, crn, crm, op2));
        assert_eq!(of(3, 3, 14, 2, 1), Some(Register::PhysicalTimer(TimerRegister::Control)));
        assert_eq!(of(2, 0, 0, 2, 2), Some(Register::Mdscr));
        assert_eq!(of(2, 0, 1, 1, 4), Some(Register::OsLockStatus));
        assert_eq!(of(2, 0, 0, 0, 5), Some(Register::Ignored), "DBGBCR0_EL1");
        for none in [of(3, 3, 9, 12, 0), of(3, 0, 10, 4, 0), of(2, 1, 0, 0, 0), of(3, 3, 14, 2, 3)]
        {
            assert_eq!(none, None);
        }
    }

    #[test]
    fn what_is_written_to_a_timer_is_read() {
        let mut timer = Timer::default();
        TimerRegister::Value.write(&mut timer, 100, 20);
        TimerRegister::Control.write(&mut timer, 100, 1);
        let read = |register: TimerRegister, now| register.read(&timer, now);
        assert_eq!((read(TimerRegister::Compare, 0), read(TimerRegister::Value, 110)), (120, 10));
        assert_eq!((read(TimerRegister::Control, 119), read(TimerRegister::Control, 120)), (1, 5));
    }
}
