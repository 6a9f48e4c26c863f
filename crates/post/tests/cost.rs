//! What the protocol costs, counted.

use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Std, Vector};
use doorbell_post::{
    Bit, Destination, Guest, Layout, ModeGate, Notice, Notification, Pending, PiDescriptor, PiGate,
    Post, SoftwareGate, TwoLevel,
};

type P = Counting<Std>;

const NOTIFY: Vector = Vector(0xf2);
const GUEST: Guest = Guest { cpu: CpuId(1), posted: true };

fn descriptor() -> PiDescriptor<P> {
    Post::new(Pending::new(), PiGate::new(Destination::x2apic(1), NOTIFY))
}

fn of<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    P::measure(f)
}

fn counts(rmws: u64, loads: u64, fences: u64) -> Counts {
    Counts { rmws, loads, fences, ..Counts::default() }
}

#[test]
fn a_post_through_a_descriptor_takes_two_read_modify_writes_and_the_same_vector_again_one() {
    let post = descriptor();
    let irqs_off = IrqGuard::new();
    let (in_guest, _) = post.enter(&irqs_off, GUEST).unwrap().rescan(|_| ());
    let notification =
        Notice::Notify(Notification { destination: Destination::x2apic(1), vector: NOTIFY });
    assert_eq!(of(|| post.post(0x41.into())), (notification, counts(2, 3, 0)));
    assert_eq!(of(|| post.post(0x41.into())), (Notice::Nothing, counts(1, 0, 0)));
    assert_eq!(of(|| post.post(0x42.into())), (Notice::Nothing, counts(1, 1, 0)));
    in_guest.exited();
}

#[test]
fn a_post_without_a_place_to_coalesce_takes_one_read_modify_write_and_a_fence() {
    let post = Post::<P, _, _>::new(Pending::<P, 1>::new(), ModeGate::new());
    let irqs_off = IrqGuard::new();
    let (in_guest, _) = post.enter(&irqs_off, GUEST).unwrap().rescan(|_| ());
    let bit = Bit::new(5).unwrap();
    assert_eq!(of(|| post.post(bit)), (Notice::Notify(CpuId(1)), counts(1, 1, 1)));
    assert_eq!(of(|| post.post(bit)), (Notice::Nothing, counts(1, 0, 0)));
    in_guest.exited();
}

#[test]
fn a_post_that_only_software_sees_takes_one_read_modify_write_and_no_fence() {
    let post = Post::<P, _, _>::new(Pending::<P, 1>::new(), SoftwareGate::new());
    let irqs_off = IrqGuard::new();
    let (in_guest, _) = post.enter(&irqs_off, GUEST).unwrap().rescan(|_| ());
    let bit = Bit::new(5).unwrap();
    assert_eq!(of(|| post.post(bit)), (Notice::Notify(CpuId(1)), counts(1, 1, 0)));
    assert_eq!(of(|| post.post(bit)), (Notice::Nothing, counts(1, 0, 0)));
    in_guest.exited();
}

#[test]
fn the_summary_is_written_by_the_first_sender_to_a_word_and_by_an_owner_that_finds_it_empty() {
    let pending = TwoLevel::<P, 16>::new();
    let post = |number| assert!(pending.publish(Bit::new(number).unwrap()));
    let take = || {
        let mut all = 0;
        pending.take_words(|_, bits| all |= bits);
        all
    };
    assert_eq!(of(take), (0, counts(0, 1, 0)), "nothing, of 1,024");
    assert_eq!(of(|| post(640)), ((), counts(2, 1, 0)));
    assert_eq!(of(take), (1, counts(1, 2, 0)));
    assert_eq!(of(|| post(641)), ((), counts(1, 1, 0)), "the next one to a busy word");
    assert_eq!(of(take), (2, counts(1, 2, 0)));
    assert_eq!(of(take), (0, counts(1, 3, 0)), "found empty");
    assert_eq!(of(take), (0, counts(0, 1, 0)));
}

#[test]
fn a_recall_takes_one_read_modify_write_of_a_vcpu_in_the_guest_and_a_load_of_any_other() {
    let post = Post::<P, _, _>::new(Pending::<P, 1>::new(), SoftwareGate::new());
    let irqs_off = IrqGuard::new();
    let recall = || post.run_state().recall::<CpuId>();
    let (notice, mut complete) = recall();
    assert_eq!((notice, complete.is_complete()), (Notice::Nothing, true));
    let (in_guest, _) = post.enter(&irqs_off, GUEST).unwrap().rescan(|_| ());
    let ((notice, mut first), counted) = of(recall);
    assert_eq!(
        (notice, first.is_complete(), counted),
        (Notice::Kick(CpuId(1)), false, counts(1, 1, 0))
    );
    // Whoever was first may not have sent the interrupt yet.
    let ((notice, mut second), counted) = of(recall);
    assert_eq!(
        (notice, second.is_complete(), counted),
        (Notice::Kick(CpuId(1)), false, counts(0, 1, 0))
    );
    let folded = in_guest.fold(|| (first.is_complete(), second.is_complete()));
    assert_eq!((folded, first.is_complete(), second.is_complete()), ((false, false), true, true));
}

#[test]
fn to_enter_and_leave_with_nothing_pending_takes_two_stores_and_two_loads() {
    let post = descriptor();
    let irqs_off = IrqGuard::new();
    let ((), counted) = of(|| {
        let entering = post.enter(&irqs_off, GUEST).unwrap();
        let (in_guest, nothing) = entering.rescan(|_| panic!("nothing is pending"));
        assert!(nothing.is_none());
        in_guest.exited();
    });
    assert_eq!(counted, Counts { stores: 2, ..counts(0, 2, 0) });
}

#[test]
fn to_take_nothing_takes_one_load() {
    let post = descriptor();
    assert_eq!(
        of(|| post.synchronize(|_| panic!("nothing is pending"))),
        (None::<()>, counts(0, 1, 0))
    );
    assert_eq!(of(|| Pending::<P, 4>::new().any()), (false, counts(0, 4, 0)));
}

#[test]
fn to_take_what_was_announced_takes_a_read_modify_write_for_on_and_one_for_each_word_of_bits() {
    let post = descriptor();
    let _ = post.post(0x41.into());
    let (taken, counted) =
        of(|| post.synchronize(|pir| pir.take_words(|_, bits| assert_eq!(bits, 1 << 1))));
    assert_eq!((taken, counted), (Some(()), counts(2, 5, 0)));
}

#[test]
fn the_first_64_bytes_are_the_descriptor_of_the_manual() {
    use std::sync::atomic::Ordering::SeqCst;
    let post =
        PiDescriptor::<Std>::new(Pending::new(), PiGate::new(Destination::x2apic(9), NOTIFY));
    assert_eq!((size_of_val(&post), align_of_val(&post)), (128, 64));
    assert_eq!(post.post(255.into()), Notice::Nothing);
    let at = |part: *const u8| part as usize - &raw const post as usize;
    assert_eq!(at((&raw const post.layout().words()[3]).cast()), 24);
    assert_eq!(post.layout().words()[3].load(SeqCst), 1 << 63);
    // Bits 319:256.
    assert_eq!(at((&raw const *post.gate().word()).cast()), 32);
    assert_eq!(post.gate().word().load(SeqCst), 9 << 32 | 0xf2 << 16 | 1);
    assert_eq!(at((&raw const *post.run_state()).cast()), 64);
}
