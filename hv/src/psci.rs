//! What a guest asks of its firmware: PSCI 1.1 (Arm DEN 0022), by HVC.

/// The answer to what is not known or not there (SMCCC, Arm DEN 0028, section 5.2).
pub const NOT_SUPPORTED: u64 = -1i64 as u64;

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
    /// CPU_SUSPEND, which waits as WFI does.
    CpuSuspend,
    /// Anything else.
    Unknown,
}

impl Call {
    /// Returns the call that X0 and X1 say.
    pub const fn from_registers(x0: u64, x1: u64) -> Call {
        match x0 as u32 {
            0x8400_0000 => Call::Version,
            0x8400_0001 | 0xc400_0001 => Call::CpuSuspend,
            0x8400_0002 => Call::CpuOff,
            0x8400_0008 => Call::SystemOff,
            0x8400_0009 => Call::SystemReset,
            0x8400_000a => Call::Features(x1 as u32),
            _ => Call::Unknown,
        }
    }
}

/// The version: 1.1.
pub const VERSION: u64 = 1 << 16 | 1;

/// Returns the answer to PSCI_FEATURES. SMCCC_VERSION is not there.
pub const fn features(function: u32) -> u64 {
    match Call::from_registers(function as u64, 0) {
        Call::Unknown => NOT_SUPPORTED,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_a_feature_and_nothing_else_is() {
        for function in [0x8400_0000, 0xc400_0001, 0x8400_0002, 0x8400_0008, 0x8400_0009, 0x8400_000a] {
            assert_eq!(features(function), 0, "{function:#x}");
        }
        for function in [0, 0x8000_0000, 0xc400_0003, 0x8400_000b, 0xc400_0008, u32::MAX] {
            assert_eq!(features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn the_upper_half_of_the_function_is_ignored() {
        assert_eq!(Call::from_registers(0xffff_ffff_8400_000a, 0x8400_0008), Call::Features(0x8400_0008));
    }
}
