#![cfg_attr(feature = "std", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "std"),
    doc = "What a host gives to Doorbell, as one trait: locks, atomics, CPUs, interrupt state, wake-ups, IPIs, RCU and SRCU, deferred work."
)]
#![doc = ""]
#![doc = include_str!("../BARE.md")]
#![cfg_attr(not(feature = "std"), no_std)]
#![warn(missing_debug_implementations)]

extern crate alloc;

#[cfg(not(target_has_atomic = "64"))]
compile_error!(
    "doorbell-platform needs a target with 64-bit atomics: posted-interrupt descriptors, remapping \
     entries and the words of a GIC are changed in one step"
);

mod atomic;
mod class;
#[cfg(feature = "std")]
mod counting;
mod debug;
mod epoch;
#[cfg(all(feature = "std", target_os = "linux"))]
pub mod fd;
mod ids;
mod lock;
mod locks;
mod msi;
mod native;
mod once;
mod padded;
mod park;
mod percpu;
mod platform;
mod rcu;
mod room;
mod seq;
mod spin;
#[cfg(feature = "std")]
mod std;
mod wait;
mod work;

#[cfg(feature = "std")]
pub use self::std::{IpiHandler, Std, StdIrqState, StdSpin, StdWorkQueue};
pub use atomic::{Atomic, AtomicInt, AtomicPtr};
pub use class::{Acquire, LockClass, Subclass, WaitType};
#[cfg(feature = "std")]
pub use counting::{Counting, Counts};
pub use epoch::{Epoch, EpochRcu, EpochSrcu, EpochToken, MaySleep, NonPreemptible, Section};
pub use ids::{CpuId, Vector};
pub use lock::{IrqLockGuard, Lock, LockGuard, Mutex, RawLock};
pub use locks::{LOCKS, LockUse, Nests};
pub use msi::MsiMessage;
pub use once::OnceCell;
pub use padded::CachePadded;
pub use park::{ParkCompletion, ParkMutex, ParkWaitQueue, PoolQueue, PoolWork, Worker};
pub use percpu::PerCpu;
pub use platform::{IrqGuard, Platform, PreemptGuard};
pub use portable_atomic::AtomicU128;
pub use rcu::{RcuCell, RcuRef, ReadDomain, ReadGuard, Retired};
pub use room::{WithRoom, lock_reserving};
pub use seq::{Held, SeqWords};
pub use spin::{SpinLock, TicketLock};
pub use wait::{Completion, WaitQueue};
pub use work::{SystemQueue, Work, WorkQueue};
