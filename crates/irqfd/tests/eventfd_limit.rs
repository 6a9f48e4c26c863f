//! What a process says that has no descriptor left. In a process of its own, as the limit is the
//! whole process's.
#![cfg(all(target_os = "linux", feature = "std"))]

mod common;

use std::{fs, iter};

use common::*;
use doorbell_irqfd::eventfd::{Descriptor, EventError, EventLoop};
use doorbell_platform::{Std, fd};

/// How many descriptors are open, that of the look at them among them.
fn open_descriptors() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

fn limit_to(limit: u64) {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: fd::open_limit().unwrap() };
    // SAFETY: the kernel reads `limit`, which is borrowed for the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

#[test]
fn who_has_no_descriptor_left_is_told_the_limit_and_what_takes_fewer() {
    let Some(before) = open_descriptors() else {
        println!("skipped: no /proc here");
        return;
    };
    let (vm, events) = (vm::<Std>(), EventLoop::unthreaded().unwrap());
    let given_away = fd::eventfd().unwrap();
    let first = events.assign(&vm, Descriptor::owned_eventfd(given_away).unwrap(), MSI).unwrap();
    assert_eq!(open_descriptors(), Some(before + 2), "the loop's epoll, and the eventfd");
    let kept = fd::eventfd().unwrap();
    let second = events.assign(&vm, Descriptor::eventfd(&kept).unwrap(), MSI).unwrap();
    assert_eq!(open_descriptors(), Some(before + 4));

    // The limit is one above the highest number that is to be given out.
    limit_to(before + 4);
    let others: Vec<_> = iter::from_fn(|| fd::eventfd().ok()).collect();
    let refused = [Descriptor::eventfd(&kept).unwrap_err(), events.open(&vm, MSI).unwrap_err()];
    for why in refused {
        assert!(matches!(why, EventError::DescriptorLimit { limit: Some(_) }), "{why:?}");
        let said = why.to_string();
        assert!(said.contains(&format!("RLIMIT_NOFILE is {}", before + 4)), "{said}");
    }
    assert_eq!((events.len(), vm.assigned()), (2, 2), "the others are as they were");
    drop(others);
    events.deassign_all([first, second]);
}
