//! The kernel's KVM, where there is one: what the fake one says of it, and what is said of epoll.

use std::io;
use std::sync::Arc;

use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};

use super::fake::{EBUSY, EINVAL};
use super::*;
use doorbell_irqfd::eventfd::KvmVm;

/// A VM of the kernel's, or why there is none.
fn kernel(irqchip: Irqchip) -> Option<VmFd> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm());
    let made = vm.and_then(|vm| {
        match irqchip {
            Irqchip::User => {}
            Irqchip::Split { pins } => {
                let mut cap = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
                cap.args[0] = pins.into();
                vm.enable_cap(&cap)?;
            }
            Irqchip::Kernel => vm.create_irq_chip()?,
        }
        Ok(vm)
    });
    made.inspect_err(|why| println!("skipped: no VM of KVM's here: {why}")).ok()
}

fn error<T>(result: io::Result<T>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap())
}

/// What a KVM answers, and whether a count is left in an eventfd that it is given.
fn answers(kvm: &dyn KvmVm) -> (Vec<i32>, u64) {
    let ioapic = Pin::new(2, 5);
    let [event, other, resample, full] = [(); 4].map(|()| fd::eventfd().unwrap());
    fd::with_eventfd(full.as_fd(), |full| full.write(1)).unwrap();
    let (message, pin) = ((Gsi(24), Route::Msi(MESSAGE)), (Gsi(5), Route::Pin(ioapic)));
    let register = |event: &OwnedFd, gsi, resample: Option<&OwnedFd>| {
        error(kvm.register_irqfd(event.as_fd(), Gsi(gsi), resample.map(|fd| fd.as_fd())))
    };
    let unregister = |event: &OwnedFd, gsi| error(kvm.unregister_irqfd(event.as_fd(), Gsi(gsi)));
    let answers = vec![
        error(kvm.set_gsi_routing(&[])),
        register(&event, 24, None), // before there is a route
        error(kvm.set_gsi_routing(&[message])),
        register(&event, 24, None),
        register(&event, 30, None),
        error(kvm.set_gsi_routing(&[message, pin])),
        register(&other, 5, Some(&resample)),
        register(&full, 24, None),
        unregister(&event, 30), // another GSI's
        register(&event, 24, None),
        unregister(&event, 24),
        unregister(&event, 24), // once more
        register(&event, 24, None),
    ];
    let left = count(&full);
    for (event, gsi) in [(&event, 24), (&other, 5), (&full, 24)] {
        unregister(event, gsi);
    }
    (answers, left)
}

#[test]
fn the_kernel_answers_as_the_fake_one_does() {
    if Board::new(SPLIT).is_none() {
        return;
    }
    for (irqchip, expected) in [
        (
            Irqchip::User,
            [
                EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, EINVAL, 0, EINVAL, 0, 0,
                EINVAL,
            ],
        ),
        (SPLIT, [0, 0, 0, EBUSY, EBUSY, EINVAL, EINVAL, 0, 0, EBUSY, 0, 0, 0]),
        (Irqchip::Kernel, [0, 0, 0, EBUSY, EBUSY, 0, 0, 0, 0, EBUSY, 0, 0, 0]),
    ] {
        let expected = (expected.to_vec(), 1);
        assert_eq!(answers(&FakeKvm::new(irqchip)), expected, "the fake one, {irqchip:?}");
        if let Some(kernel) = kernel(irqchip) {
            assert_eq!(answers(&kernel), expected, "the kernel's, {irqchip:?}");
        }
    }
}

#[test]
fn an_epoll_sees_nothing_of_an_eventfd_that_the_kernel_has_and_everything_when_it_is_back() {
    let Some(kernel) = kernel(SPLIT) else { return };
    let (vm, events) = (vm::<Std>(), Arc::new(EventLoop::unthreaded().unwrap()));
    let event = fd::eventfd().unwrap();
    let signal = || fd::with_eventfd(event.as_fd(), |event| event.write(1)).unwrap();
    let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
    KvmVm::register_irqfd(&kernel, event.as_fd(), MSI, None).unwrap();
    signal();
    assert_eq!((events.dispatch().unwrap(), count(&event)), (0, 0), "KVM has taken it in silence");
    KvmVm::unregister_irqfd(&kernel, event.as_fd(), MSI).unwrap();
    signal();
    assert_eq!((events.dispatch().unwrap(), vm.controller().take().len()), (1, 1));
    events.deassign(served).unwrap();

    // So one that is served is not offloaded, nor the other way round; and one that is offloaded
    // is taken by the kernel, until it is deassigned.
    let offload = Offload::new(&vm, &events, kernel, SPLIT).unwrap();
    let served = events.assign(&vm, descriptor(&event), MSI).unwrap();
    assert!(is_busy(offload.assign(descriptor(&event), MSI)));
    events.deassign(served).unwrap();
    let assigned = offload.assign(descriptor(&event), MSI).unwrap();
    assert!(offload.is_offloaded(assigned).unwrap());
    assert!(is_busy(events.assign(&vm, descriptor(&event), MSI)));
    signal();
    assert_eq!((events.dispatch().unwrap(), count(&event)), (0, 0));
    vm.reroute(table(&[(MSI, Route::Edge(EDGE_PIN))])).unwrap().follow(&offload);
    let _lowered = vm.controller().take();
    assert!(!offload.is_offloaded(assigned).unwrap());
    signal();
    assert_eq!(
        (events.dispatch().unwrap(), vm.controller().take()),
        (1, vec![Seen::Edge(EDGE_PIN)])
    );
    offload.deassign(assigned).unwrap();
    signal();
    assert_eq!(count(&event), 1);
}
