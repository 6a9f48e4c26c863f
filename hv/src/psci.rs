//! What a guest asks of its firmware: PSCI 1.1 (Arm DEN 0022), by HVC.

/// The answer to what is not known or not there (SMCCC, Arm DEN 0028, section 5.2).
pub const NOT_SUPPORTED: u64 = -1i64 as u64;
/// The answer to a vCPU or a level that there is not.
pub const INVALID_PARAMETERS: u64 = -2i64 as u64;
const ALREADY_ON: u64 = -4i64 as u64;
const ON_PENDING: u64 = -5i64 as u64;
/// The answer to an address that is not in RAM.
pub const INVALID_ADDRESS: u64 = -9i64 as u64;

/// The function of [`Call::Exits`], among those that are a hypervisor vendor's (SMCCC, section
/// 6.2).
const EXITS: u32 = 0xc600_0001;

/// The functions of PSCI: 32 from here on, and as many with arguments of 64 bits (SMCCC, section
/// 6.2).
const PSCI: u32 = 0x8400_0000;

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// PSCI_VERSION.
    Version,
    /// PSCI_FEATURES, of a function.
    Features(u32),
    /// SYSTEM_OFF.
    SystemOff,
    /// SYSTEM_RESET.
    SystemReset,
    /// CPU_OFF.
    CpuOff,
    /// CPU_ON, of the vCPU with that affinity, as MPIDR_EL1 has it.
    CpuOn {
        /// The affinity of the vCPU, as in MPIDR_EL1.
        mpidr: u64,
        /// Where it is to begin.
        start: Start,
    },
    /// AFFINITY_INFO, of an affinity and its lowest level.
    AffinityInfo {
        /// The affinity of the vCPU, as in MPIDR_EL1.
        mpidr: u64,
        /// 0 for a vCPU; other levels are of the past.
        level: u64,
    },
    /// CPU_SUSPEND, which waits as WFI does.
    CpuSuspend,
    /// How many exits its CPU has seen: a call of this hypervisor's own, for measurements.
    Exits,
    /// Anything else.
    Unknown,
}

/// Where a vCPU begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The address of its first instruction.
    pub entry: u64,
    /// What is in X0.
    pub context: u64,
}

impl Call {
    /// Returns the call that X0 to X3 say.
    #[inline(always)]
    pub const fn from_registers(x: [u64; 4]) -> Call {
        let function = x[0] as u32;
        if function & !(1 << 30 | 0x1f) != PSCI {
            return if function == EXITS { Call::Exits } else { Call::Unknown };
        }
        // SMC64: the arguments have 64 bits.
        let mask = if function & 1 << 30 != 0 { u64::MAX } else { 0xffff_ffff };
        let (first, second, third) = (x[1] & mask, x[2] & mask, x[3] & mask);
        match function {
            0x8400_0000 => Call::Version,
            0x8400_0001 | 0xc400_0001 => Call::CpuSuspend,
            0x8400_0002 => Call::CpuOff,
            0x8400_0003 | 0xc400_0003 => {
                Call::CpuOn { mpidr: first, start: Start { entry: second, context: third } }
            }
            0x8400_0004 | 0xc400_0004 => Call::AffinityInfo { mpidr: first, level: second },
            0x8400_0008 => Call::SystemOff,
            0x8400_0009 => Call::SystemReset,
            0x8400_000a => Call::Features(first as u32),
            _ => Call::Unknown,
        }
    }
}

/// The version: 1.1.
pub const VERSION: u64 = 1 << 16 | 1;

/// Returns the answer to PSCI_FEATURES. SMCCC_VERSION is not there.
pub const fn features(function: u32) -> u64 {
    match Call::from_registers([function as u64, 0, 0, 0]) {
        Call::Unknown | Call::Exits => NOT_SUPPORTED,
        _ => 0,
    }
}

/// Whether a vCPU is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Not.
    Off,
    /// Somebody has turned it on, and its task has not begun.
    Starting(Start),
    /// The task of the vCPU runs it.
    On,
}

impl Power {
    /// Turns the vCPU on. Returns the answer to CPU_ON, and whether it was off.
    pub fn turn_on(&mut self, start: Start) -> (u64, bool) {
        match self {
            Power::Off => {
                *self = Power::Starting(start);
                (0, true)
            }
            Power::Starting(_) => (ON_PENDING, false),
            Power::On => (ALREADY_ON, false),
        }
    }

    /// Begins, if somebody has turned it on. By the task that runs the vCPU.
    pub fn begin(&mut self) -> Option<Start> {
        let Power::Starting(start) = *self else { return None };
        *self = Power::On;
        Some(start)
    }

    /// Returns the answer to AFFINITY_INFO.
    pub const fn info(&self) -> u64 {
        match self {
            Power::On => 0,
            Power::Off => 1,
            Power::Starting(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_a_feature_and_nothing_else_is() {
        for function in [
            0x8400_0000,
            0xc400_0001,
            0x8400_0002,
            0xc400_0003,
            0xc400_0004,
            0x8400_0008,
            0x8400_0009,
            0x8400_000a,
        ] {
            assert_eq!(features(function), 0, "{function:#x}");
        }
        for function in [0, 0x8000_0000, 0xc400_0002, 0x8400_000b, 0xc400_0008, u32::MAX] {
            assert_eq!(features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn the_upper_halves_of_registers_are_ignored_where_they_do_not_count() {
        let features = [0xffff_ffff_8400_000a, 0x8400_0008, 0, 0];
        assert_eq!(Call::from_registers(features), Call::Features(0x8400_0008));
        let on = |function| {
            Call::from_registers([function, 1 << 32 | 3, 1 << 40 | 0x4000_0000, 1 << 63 | 7])
        };
        let start = Start { entry: 0x4000_0000, context: 7 };
        assert_eq!(on(0x8400_0003), Call::CpuOn { mpidr: 3, start });
        let start = Start { entry: 1 << 40 | 0x4000_0000, context: 1 << 63 | 7 };
        assert_eq!(on(0xc400_0003), Call::CpuOn { mpidr: 1 << 32 | 3, start });
    }

    #[test]
    fn a_vcpu_is_turned_on_once_and_begins_once() {
        let [first, second] = [1, 2].map(|context| Start { entry: 0x4000_0000, context });
        let mut power = Power::Off;
        assert_eq!((power.info(), power.begin()), (1, None));
        assert_eq!(power.turn_on(first), (0, true));
        assert_eq!((power.info(), power.turn_on(second)), (2, (ON_PENDING, false)));
        assert_eq!((power.begin(), power.begin()), (Some(first), None));
        assert_eq!((power.info(), power.turn_on(second)), (0, (ALREADY_ON, false)));
    }
}
