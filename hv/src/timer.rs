//! A guest's timer: its registers, and when it asserts its interrupt (Arm DDI 0487, section
//! D11.2.4).

const ENABLE: u64 = 1 << 0;
const IMASK: u64 = 1 << 1;
const ISTATUS: u64 = 1 << 2;

/// The registers of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Timer {
    /// CTL, without ISTATUS.
    control: u64,
    /// CVAL.
    compare: u64,
}

impl Timer {
    /// Returns one with these registers, CTL and CVAL.
    pub const fn new(control: u64, compare: u64) -> Self {
        Timer { control: control & (ENABLE | IMASK), compare }
    }

    /// Returns when it asserts its interrupt, by its counter; never if it is off or masked.
    pub const fn due(&self) -> Option<u64> {
        if self.control == ENABLE { Some(self.compare) } else { None }
    }

    /// Returns whether it asserts its interrupt.
    pub const fn is_asserted(&self, now: u64) -> bool {
        self.control == ENABLE && now >= self.compare
    }

    /// Reads CTL.
    pub const fn control(&self, now: u64) -> u64 {
        let met = self.control & ENABLE != 0 && now >= self.compare;
        self.control | if met { ISTATUS } else { 0 }
    }

    /// Reads CVAL.
    pub const fn compare(&self) -> u64 {
        self.compare
    }

    /// Reads TVAL: how far it is to CVAL, in 32 bits.
    pub const fn value(&self, now: u64) -> u64 {
        self.compare.wrapping_sub(now) & 0xffff_ffff
    }

    /// Writes CTL.
    pub fn set_control(&mut self, control: u64) {
        *self = Timer::new(control, self.compare);
    }

    /// Writes CVAL.
    pub fn set_compare(&mut self, compare: u64) {
        self.compare = compare;
    }

    /// Writes TVAL, which is signed.
    pub fn set_value(&mut self, now: u64, value: u64) {
        self.compare = now.wrapping_add_signed(value as i32 as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interrupt_is_asserted_from_its_time_on_unless_it_is_off_or_masked() {
        let timer = |control| Timer::new(control, 1000);
        for (control, asserted, status) in
            [(0, false, 0), (1, true, 5), (2, false, 2), (3, false, 7)]
        {
            assert_eq!(timer(control).is_asserted(1000), asserted, "{control}");
            assert_eq!(timer(control).control(1000), status, "{control}");
            assert!(!timer(control).is_asserted(999));
            assert_eq!(timer(control).due(), (control == 1).then_some(1000));
        }
        assert_eq!(timer(7), timer(3), "ISTATUS is not written");
    }

    #[test]
    fn a_value_is_a_signed_distance() {
        let mut timer = Timer::default();
        timer.set_value(1 << 40, 5);
        assert_eq!((timer.compare(), timer.value(1 << 40)), ((1 << 40) + 5, 5));
        timer.set_value(1 << 40, 0xffff_ffff);
        assert_eq!((timer.compare(), timer.value(1 << 40)), ((1 << 40) - 1, 0xffff_ffff));
        timer.set_value(3, 0x8000_0000);
        assert_eq!(timer.compare(), 3u64.wrapping_sub(0x8000_0000));
    }
}
