//! Somebody closes a descriptor that belongs to the event loop. In a process of its own, as numbers
//! are guessed here.
#![cfg(all(target_os = "linux", feature = "std"))]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::thread;

use common::*;
use doorbell_irqfd::eventfd::{Descriptor, EventLoop, of_eventfd};
use doorbell_platform::Std;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn open_eventfds() -> BTreeSet<i32> {
    let numbers = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|fd| {
            fs::read_link(format!("/proc/self/fd/{fd}"))
                .is_ok_and(|to| to.to_string_lossy().contains("eventfd"))
        })
        .collect()
}

#[test]
fn an_eventfd_that_is_closed_under_the_loop_is_detached_and_the_others_are_served() {
    let (Ok(event), Ok(_)) = (EventFd::new(EFD_NONBLOCK), fs::read_dir("/proc/self/fd")) else {
        println!("skipped: no eventfds or no /proc here");
        return;
    };
    let vm = vm::<Std>();
    let events = EventLoop::spawn().unwrap();
    let before = open_eventfds();
    events.assign(&vm, Descriptor::eventfd(of_eventfd(&event)).unwrap(), MSI).unwrap();
    let ours: Vec<_> = open_eventfds().difference(&before).copied().collect();
    assert_eq!(ours.len(), 1);
    // SAFETY: that is the very mistake that is looked at: the loop's descriptor is closed by
    // somebody else.
    assert_eq!(unsafe { libc::close(ours[0]) }, 0);

    event.write(1).unwrap();
    while !events.is_empty() || vm.assigned() > 0 {
        thread::yield_now();
    }
    assert_eq!(vm.controller().take(), []);
    assert_eq!(event.read().unwrap(), 1, "the event is still the device's");

    let (other, _) = events.open(&vm, EDGE).unwrap();
    let mut other = fs::File::from(other);
    for n in 1..=3 {
        event.write(1).unwrap();
        other.write_all(&1_u64.to_ne_bytes()).unwrap();
        while vm.controller().seen.lock().unwrap().len() < n {
            thread::yield_now();
        }
    }
}
