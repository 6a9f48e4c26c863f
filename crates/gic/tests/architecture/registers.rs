//! Reads and writes of the registers that are mapped into memory (section 12.9 describes those of
//! the Distributor, 12.11 those of the Redistributors).

use super::map::Flag;
use super::{Access, Frame, Gic, PRIVATE, Register, SGIS};

/// The fields of GICD_IROUTER<n> that are not RES0: Aff3, Interrupt_Routing_Mode, Aff2 to Aff0.
const IROUTER: u64 = 0xff_80ff_ffff;
/// GICD_IROUTER<n>.Interrupt_Routing_Mode.
pub const ANY: u64 = 1 << 31;

fn low_bytes(size: u32) -> u64 {
    u64::MAX >> (64 - 8 * size)
}

impl Gic {
    /// Does what an access does; returns what it reads, or zero.
    pub fn access(&mut self, access: &Access) -> u64 {
        match access.written {
            None => self.read(access.frame, access.offset, access.size),
            Some(value) => {
                self.write(access.frame, access.offset, access.size, value);
                0
            }
        }
    }

    /// Returns what a read returns.
    pub fn read(&self, frame: Frame, offset: u32, size: u32) -> u64 {
        if !Access::read(frame, offset, size).is_supported() {
            return 0;
        }
        let register = Register::at(frame, offset);
        self.value(frame, register) >> (offset % register.width() * 8) & low_bytes(size)
    }

    /// Returns the bits of a read whose values the manual says.
    pub fn known_bits(&self, frame: Frame, offset: u32, size: u32) -> u64 {
        if !Access::read(frame, offset, size).is_supported() {
            return 0;
        }
        let register = Register::at(frame, offset);
        let known = match register {
            Register::Iidr | Register::Identification => 0,
            Register::Pidr2 => 0xf0,
            Register::Waker => !(1 << 31 | 1),
            // The affinity is UNKNOWN while the routing mode is 1.
            Register::Irouter(_) if self.value(frame, register) & ANY != 0 => !0xff_00ff_ffff,
            _ => u64::MAX,
        };
        known >> (offset % register.width() * 8) & low_bytes(size)
    }

    /// Returns the PE whose interrupt that is, if the frame has a part in it. With affinity routing
    /// the Distributor has none in SGIs and PPIs (section 12.9, each register).
    fn owner(&self, frame: Frame, id: u32) -> Option<usize> {
        match frame {
            Frame::Distributor => (id >= PRIVATE && self.is_implemented(id)).then_some(0),
            Frame::SgiBase(pe) => (id < PRIVATE).then_some(pe),
            Frame::RdBase(_) => None,
        }
    }

    /// Returns the value of a whole register.
    fn value(&self, frame: Frame, register: Register) -> u64 {
        let fields = |first: u32, count: u32, field: &dyn Fn(usize, u32) -> u64| {
            let known = (0..count).filter_map(|n| Some((n, self.owner(frame, first + n)?)));
            known.fold(0, |value, (n, pe)| value | field(pe, first + n) << (n * 32 / count))
        };
        match register {
            Register::GicdCtlr => {
                // DS and ARE; RWP is clear, as nothing is ever in progress.
                1 << 6 | 1 << 4 | u64::from(self.groups[1]) << 1 | u64::from(self.groups[0])
            }
            Register::GicdTyper => self.gicd_typer(),
            Register::Flags(flag, first) => {
                fields(first, 32, &|pe, id| self.flag(flag, pe, id).into())
            }
            Register::Ipriorityr(first) => {
                fields(first, 4, &|pe, id| self.interrupt(pe, id).priority.into())
            }
            Register::Icfgr(first) => {
                fields(first, 16, &|pe, id| u64::from(self.interrupt(pe, id).edge) << 1)
            }
            Register::Irouter(id) => {
                self.owner(frame, id).map_or(0, |pe| self.interrupt(pe, id).route)
            }
            Register::GicrCtlr => {
                let [group_zero, group_one] = self.pe_of(frame).not_selected.map(u64::from);
                group_one << 25 | group_zero << 24
            }
            Register::GicrTyper => self.gicr_typer(frame),
            // ChildrenAsleep follows ProcessorSleep at once.
            Register::Waker => u64::from(self.pe_of(frame).asleep) * 0b110,
            // ArchRev of a GICv3.
            Register::Pidr2 => 3 << 4,
            Register::Iidr
            | Register::Setspi
            | Register::Itargetsr
            | Register::Pendsgir
            | Register::Unused
            | Register::Lpi
            | Register::Identification
            | Register::Reserved => 0,
        }
    }

    /// Returns RSS, A3V, IDbits and ITLinesNumber (section 12.9, GICD_TYPER). IDbits is one less
    /// than the bits of an INTID. With ARE RAO/WI, CPUNumber is zero.
    fn gicd_typer(&self) -> u64 {
        let lines = self.limit().div_ceil(32) - 1;
        1 << 26 | 1 << 24 | (10 - 1) << 19 | u64::from(lines)
    }

    /// Returns Affinity_Value, Processor_Number, DPGS and Last (section 12.11, GICR_TYPER).
    fn gicr_typer(&self, frame: Frame) -> u64 {
        let Frame::RdBase(pe) = frame else { unreachable!("GICR_TYPER is in RD_base") };
        let last = pe + 1 == self.pes.len();
        u64::from(self.pes[pe].affinity) << 32 | (pe as u64) << 8 | 1 << 5 | u64::from(last) << 4
    }

    fn pe_of(&self, frame: Frame) -> &super::Pe {
        let (Frame::RdBase(pe) | Frame::SgiBase(pe)) = frame else {
            unreachable!("the Distributor has no PE")
        };
        &self.pes[pe]
    }

    fn flag(&self, flag: Flag, pe: usize, id: u32) -> bool {
        let interrupt = self.interrupt(pe, id);
        match flag {
            Flag::Group => interrupt.group == 1,
            Flag::SetEnable | Flag::ClearEnable => interrupt.enabled,
            Flag::SetPending | Flag::ClearPending => interrupt.is_pending(),
            Flag::SetActive | Flag::ClearActive => interrupt.active,
        }
    }

    /// Does what a write does.
    pub fn write(&mut self, frame: Frame, offset: u32, size: u32, value: u64) {
        if !Access::write(frame, offset, size, value).is_supported() {
            return;
        }
        let value = value & low_bytes(size);
        match (Register::at(frame, offset), frame) {
            (Register::GicdCtlr, _) => self.groups = [value & 1 != 0, value & 2 != 0],
            (Register::Flags(flag, first), _) => {
                for bit in 0..32 {
                    if let Some(pe) = self.owner(frame, first + bit) {
                        self.write_flag(flag, pe, first + bit, value >> bit & 1 != 0);
                    }
                }
            }
            (Register::Ipriorityr(first), _) => {
                for byte in 0..size {
                    let id = first + offset % 4 + byte;
                    if let Some(pe) = self.owner(frame, id) {
                        self.interrupt_mut(pe, id).priority =
                            (value >> (8 * byte)) as u8 & self.priority_mask();
                    }
                }
            }
            // GICR_ICFGR0 is read-only: an SGI is edge-triggered.
            (Register::Icfgr(first), _) if first >= SGIS => {
                for field in 0..16 {
                    if let Some(pe) = self.owner(frame, first + field) {
                        self.interrupt_mut(pe, first + field).edge =
                            value >> (2 * field) & 0b10 != 0;
                    }
                }
            }
            (Register::Irouter(id), _) if self.is_implemented(id) => {
                let (shift, route) = (offset % 8 * 8, &mut self.interrupt_mut(0, id).route);
                *route = (*route & !(low_bytes(size) << shift) | value << shift) & IROUTER;
            }
            (Register::GicrCtlr, Frame::RdBase(pe)) => {
                self.pes[pe].not_selected = [value >> 24 & 1 != 0, value >> 25 & 1 != 0];
            }
            (Register::Waker, Frame::RdBase(pe)) => self.pes[pe].asleep = value & 0b10 != 0,
            _ => (),
        }
    }

    fn write_flag(&mut self, flag: Flag, pe: usize, id: u32, set: bool) {
        // What is withdrawn will not end in the guest.
        let interrupt = self.interrupt(pe, id);
        let withdrawn = match flag {
            Flag::ClearPending => interrupt.latch,
            Flag::ClearActive => interrupt.active,
            _ => false,
        };
        if set && withdrawn && interrupt.physical {
            *self.deactivated.entry((pe, id)).or_default() += 1;
        }
        let interrupt = self.interrupt_mut(pe, id);
        match (flag, set) {
            (Flag::Group, _) => interrupt.group = set.into(),
            (_, false) => (),
            (Flag::SetEnable, _) => interrupt.enabled = true,
            (Flag::ClearEnable, _) => interrupt.enabled = false,
            // Also if the line is high: the interrupt stays pending when the line falls.
            (Flag::SetPending, _) => interrupt.latch = true,
            // What is pending by its line stays so.
            (Flag::ClearPending, _) => interrupt.latch = false,
            (Flag::SetActive, _) => interrupt.active = true,
            (Flag::ClearActive, _) => interrupt.active = false,
        }
    }
}
