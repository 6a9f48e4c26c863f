//! What it costs, counted.

use std::sync::Arc;

use doorbell_apic::GuestVector;
use doorbell_platform::{Counting, Counts, CpuId, IrqGuard, Std};
use doorbell_post::Notice;

use crate::{Irte, bind, cpu, table, vcpu};

type P = Counting<Std>;

const VECTOR: GuestVector = GuestVector::new(0x41).unwrap();

fn of<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    P::measure(f)
}

#[test]
fn a_post_to_a_vcpu_in_the_guest_takes_one_read_modify_write_and_a_fence_and_the_same_vector_again_one()
 {
    let vcpu = vcpu(&table::<P>(), 0);
    vcpu.load(cpu(1));
    let irqs_off = IrqGuard::new();
    let (in_guest, _) = vcpu.enter(&irqs_off, CpuId(1), |_| ()).unwrap();
    let first = Counts { rmws: 1, fences: 1, loads: 1, ..Counts::default() };
    assert_eq!(of(|| vcpu.post(VECTOR)), (Notice::Notify(CpuId(1)), first));
    assert_eq!(
        of(|| vcpu.post(VECTOR)),
        (Notice::Nothing, Counts { rmws: 1, ..Counts::default() })
    );
    in_guest.exited();
}

#[test]
fn to_enter_and_leave_takes_two_stores_and_two_loads() {
    let vcpu = vcpu(&table::<P>(), 0);
    vcpu.load(cpu(1));
    let irqs_off = IrqGuard::new();
    let ((), counted) = of(|| vcpu.enter(&irqs_off, CpuId(1), |_| ()).unwrap().0.exited());
    assert_eq!(counted, Counts { stores: 2, loads: 2, ..Counts::default() });
}

#[test]
fn to_load_takes_one_lock_and_a_store_for_each_copy() {
    let vcpu = vcpu(&table::<P>(), 0);
    let irtes: Vec<_> = (0..3).map(|_| Arc::new(Irte::default())).collect();
    irtes.iter().for_each(|irte| bind(&vcpu, irte));
    let ((), counted) = of(|| vcpu.load(cpu(1)));
    // The owner's word, and the entry; IRTEs are not counted here.
    assert_eq!((counted.spins, counted.stores, counted.rmws), (1, 2, 0));
}

#[test]
fn a_vcpu_takes_less_than_a_kibibyte_beside_its_page() {
    let size = size_of::<doorbell_apic::avic::AvicVcpu<crate::Host<Std>>>();
    assert!(size <= 256, "{size}");
}
