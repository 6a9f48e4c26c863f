//! Every offset of every frame, by every width: what is read and what a write does.

use doorbell_gic::{Ended, Frame, Gic, Host, Kick, VcpuId, Width};
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, Std};
use doorbell_post::Notice;

use crate::architecture::map::SIZE;
use crate::architecture::{self, Access, Gic as Model};
use crate::machine;
use crate::random::Random;

/// No vCPU is in the guest, so that each access takes effect at once.
struct Nobody;

impl Kick for Nobody {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        panic!("{vcpu:?} is in the host: {notice:?}");
    }
}

impl Host for Nobody {
    fn ended(&mut self, ended: Ended) {
        panic!("nothing was acknowledged: {ended:?}");
    }
}

/// A controller that nobody uses beside its model.
struct Both {
    gic: Gic<Std>,
    model: Model,
}

impl Both {
    fn new(spis: u32, affinities: &[u32], bits: (u8, u8)) -> Self {
        let implementation = hw::Implementation::new(4, bits.0, bits.1).expect("it is legal");
        let gic = machine::gic(implementation, spis, affinities);
        let mut model = Model::new(affinities, spis, bits.0.into(), bits.1.into());
        machine::resets_groups(&mut model);
        Both { gic, model }
    }

    fn accesses(&mut self, access: &Access) {
        // What is not supported reads zero.
        let known = match access.is_supported() {
            true => self.model.known_bits(access.frame, access.offset, access.size),
            false => u64::MAX,
        };
        let expected = self.model.access(access);
        let (frame, offset) = machine::place(access);
        let width = Width::from_bytes(access.size as usize).expect("it is a power of two");
        let done = match access.written {
            None => self.gic.read(frame, offset, width, &mut Nobody),
            Some(value) => self.gic.write(frame, offset, width, value, &mut Nobody),
        };
        let value = done.complete(&mut Nobody).expect("nobody is in the guest");
        assert_eq!(value & known, expected & known, "{access:x?}");
        assert!(
            width == Width::Double || value >> (8 * access.size) == 0,
            "{access:x?}: {value:#x}"
        );
    }

    /// Reads all words of a frame between two offsets.
    fn compares(&mut self, frame: architecture::Frame, from: u32, to: u32) {
        (from..to).step_by(4).for_each(|offset| self.accesses(&Access::read(frame, offset, 4)));
    }
}

/// Returns whether there are registers near an offset that are not whole words alone, or that say
/// something of interrupts.
fn is_dense(offset: u32) -> bool {
    offset < 0x1000 || (0x6000..0x8000).contains(&offset) || offset >= 0xff00
}

fn each_offset(spis: u32, affinities: &[u32], bits: (u8, u8)) {
    let mut both = Both::new(spis, affinities, bits);
    let mut random = Random::new(spis.into());
    let last = affinities.len() - 1;
    let frames = [0, last]
        .into_iter()
        .flat_map(|pe| [architecture::Frame::RdBase(pe), architecture::Frame::SgiBase(pe)]);
    for frame in frames.chain([architecture::Frame::Distributor]) {
        for block in (0..SIZE).step_by(0x80) {
            let step = if is_dense(block) { 1 } else { 4 };
            for offset in (block..block + 0x80).step_by(step) {
                for size in [1, 2, 4, 8] {
                    both.accesses(&Access::write(
                        frame,
                        offset,
                        size,
                        random.bits() << 8 ^ random.bits(),
                    ));
                    both.accesses(&Access::read(frame, offset, size));
                    // Also where something else is there.
                    both.compares(frame, offset & !7, (offset & !7) + 8);
                }
            }
            // What one register sets others say as well.
            if is_dense(block) {
                both.compares(frame, 0, 0x1000);
            }
        }
    }
    for pe in 0..=last {
        both.compares(architecture::Frame::RdBase(pe), 0, SIZE);
        both.compares(architecture::Frame::SgiBase(pe), 0, SIZE);
    }
    both.compares(architecture::Frame::Distributor, 0, SIZE);
}

#[test]
fn each_offset_reads_and_is_written_as_the_architecture_says_by_each_width() {
    each_offset(64, &[0, 1, 0x0203_0417], (5, 5));
    each_offset(0, &[7], (8, 7));
    // All INTIDs that there can be, of which the last 4 of a register are none.
    each_offset(988, &[0x1_0000, 3], (6, 5));
}

#[test]
fn what_is_in_no_frame_reads_zero_and_ignores_writes() {
    let gic = machine::gic(hw::Implementation::new(4, 5, 5).expect("it is legal"), 32, &[0]);
    let vcpu = |number| VcpuId::new(number).expect("it is small");
    let before: Vec<_> =
        (0..0x1_0000).step_by(4).map(|offset| word(&gic, Frame::Distributor, offset)).collect();
    for (frame, from) in [
        (Frame::Distributor, 0x1_0000),
        (Frame::Redistributor(vcpu(0)), 0x2_0000),
        (Frame::Redistributor(vcpu(1)), 0),
    ] {
        for offset in (from..from + 0x2_0000).step_by(4).chain([u32::MAX - 3]) {
            let _ = gic.write(frame, offset, Width::Word, u64::MAX, &mut Nobody).wait(&mut Nobody);
            assert_eq!(word(&gic, frame, offset), 0, "{frame:?} {offset:#x}");
        }
    }
    let after = (0..0x1_0000).step_by(4).map(|offset| word(&gic, Frame::Distributor, offset));
    assert!(after.eq(before));
}

fn word(gic: &Gic<Std>, frame: Frame, offset: u32) -> u64 {
    gic.read(frame, offset, Width::Word, &mut Nobody).wait(&mut Nobody)
}

#[test]
fn who_implements_it_is_read_in_both_frames_and_the_architecture_is_a_gicv3() {
    let gic = machine::gic(hw::Implementation::new(4, 5, 5).expect("it is legal"), 32, &[0]);
    let redistributor = Frame::Redistributor(VcpuId::new(0).expect("it is small"));
    // Implementer: Arm's JEP106 code, in a variant that no driver has a quirk for.
    assert_eq!(
        (word(&gic, Frame::Distributor, 8), word(&gic, redistributor, 4)),
        (0x4400_043b, 0x4400_043b)
    );
    assert_eq!(
        (word(&gic, Frame::Distributor, 0xffe8), word(&gic, redistributor, 0xffe8)),
        (0x3b, 0x3b)
    );
}
