//! The access of a guest that was trapped, as ESR_EL2 says.

/// A register that ICH_HCR_EL2.TC traps. The names are those of the guest's view, `ICV_*_EL1`, or
/// `ICC_*_EL1` for those that send SGIs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Register {
    /// PMR: the priority mask.
    Pmr,
    /// DIR, write only: deactivates an interrupt.
    Dir,
    /// RPR, read only: the running priority.
    Rpr,
    /// SGI1R, write only: sends an SGI of group 1.
    Sgi1r,
    /// ASGI1R, write only: sends an SGI of group 1 of the other Security state.
    Asgi1r,
    /// SGI0R, write only: sends an SGI of group 0.
    Sgi0r,
    /// CTLR: modes of the CPU interface, and what is implemented.
    Ctlr,
}

/// What the guest did with a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// MSR: the value is in Rt.
    Write,
    /// MRS: the value goes to Rt.
    Read,
}

/// An access that was trapped, of a guest in AArch64.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Access {
    /// What was accessed,
    pub register: Register,
    /// and how.
    pub direction: Direction,
    /// Rt, the number of the general-purpose register, 0 to 31. 31 is XZR: zero is written, and
    /// what is read is dropped.
    pub rt: u8,
}

impl Access {
    /// Returns the access that ESR_EL2.ISS describes, where ESR_EL2.EC is 0x18 (Arm DDI 0487), or
    /// none if the register is another one. Returns none for a read of what can only be written,
    /// and for a write of RPR, too: these are UNDEFINED.
    pub const fn from_iss(iss: u32) -> Option<Access> {
        let register = match iss & ENCODING {
            PMR => Register::Pmr,
            DIR => Register::Dir,
            RPR => Register::Rpr,
            SGI1R => Register::Sgi1r,
            ASGI1R => Register::Asgi1r,
            SGI0R => Register::Sgi0r,
            CTLR => Register::Ctlr,
            _ => return None,
        };
        let direction = if iss & 1 == 0 { Direction::Write } else { Direction::Read };
        match (register, direction) {
            (Register::Rpr, Direction::Write) => None,
            (
                Register::Dir | Register::Sgi1r | Register::Asgi1r | Register::Sgi0r,
                Direction::Read,
            ) => None,
            _ => Some(Access { register, direction, rt: (iss >> 5 & 31) as u8 }),
        }
    }
}

/// The fields Op0, Op2, Op1, CRn and CRm.
const ENCODING: u32 = 0x3f_fc1e;

const PMR: u32 = encoding(4, 6, 0);
const DIR: u32 = encoding(12, 11, 1);
const RPR: u32 = encoding(12, 11, 3);
const SGI1R: u32 = encoding(12, 11, 5);
const ASGI1R: u32 = encoding(12, 11, 6);
const SGI0R: u32 = encoding(12, 11, 7);
const CTLR: u32 = encoding(12, 12, 4);

/// Returns these fields for a register with an Op0 of 3 and an Op1 of 0, as all of these have.
const fn encoding(crn: u32, crm: u32, op2: u32) -> u32 {
    3 << 20 | op2 << 17 | crn << 10 | crm << 1
}
