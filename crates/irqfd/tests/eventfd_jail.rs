//! A process that sees no `/proc`. In a process of its own, as it puts itself into an empty
//! directory.
#![cfg(all(target_os = "linux", feature = "std"))]

mod common;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs as unix;
use std::{env, process};

use common::*;
use doorbell_irqfd::Error;
use doorbell_irqfd::eventfd::{Descriptor, EventError, EventLoop, EventSink};
use doorbell_platform::{Std, fd};

/// Leaves the process in an empty directory, which is its root; says why if that cannot be.
fn jail() -> io::Result<()> {
    let empty = env::temp_dir().join(format!("doorbell-jail-{}", process::id()));
    fs::create_dir_all(&empty)?;
    let within = unix::chroot(&empty).and_then(|()| env::set_current_dir("/"));
    // From within, it has no name any more; a directory that is somebody's root can be removed.
    if within.is_err() {
        fs::remove_dir(&empty)?;
    }
    within
}

#[test]
fn a_process_without_proc_serves_eventfds_and_says_what_it_cannot_tell() {
    let file = OwnedFd::from(File::open("/").unwrap());
    if let Err(why) = jail() {
        println!("skipped: no empty root to be had: {why}");
        return;
    }
    assert!(fs::read_dir("/proc").is_err());
    let (vm, events) = (vm::<Std>(), EventLoop::unthreaded().unwrap());
    let (event, served) = events.open(&vm, MSI).unwrap();
    File::from(event.try_clone().unwrap()).write_all(&1_u64.to_ne_bytes()).unwrap();
    assert_eq!(events.dispatch().unwrap(), 1);
    assert_eq!(vm.controller().take().len(), 1);

    let again = Descriptor::eventfd(&event).unwrap();
    match again.is_identified() {
        true => {
            let twice = events.assign(&vm, again, MSI).unwrap_err();
            assert!(matches!(twice, EventError::Irqfd(Error::Busy)), "{twice}");
        }
        false => println!("the kernel does not compare files here"),
    }
    events.deassign(served).unwrap();

    if fd::Signals::of_process().is_ok() {
        // Not by any look at the file, which may be whatever a device has sent.
        assert!(matches!(Descriptor::eventfd(&file), Err(EventError::BadDescriptor)));
        assert!(matches!(Descriptor::stream(event), Err(EventError::BadDescriptor)));
        assert!(EventSink::new(fd::eventfd().unwrap()).is_ok());
    } else {
        println!("the kernel does not tell an eventfd from others here");
    }
}
