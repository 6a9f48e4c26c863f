//! Data of which each CPU has its own.

use alloc::boxed::Box;
use core::marker::PhantomData;

use crate::{CachePadded, CpuId, Platform, PreemptGuard};

/// One `T` for each CPU, on cache lines of its own.
///
/// What a CPU has is shared all the same: the CPU's interrupt handlers reach it, other CPUs reach
/// it through [`of`](PerCpu::of), and where a "CPU" is a shard of a process's threads, several
/// threads are on it. Hence `&T` only: `T` is an atomic, or behind a lock. Per-CPU data keeps such
/// words from moving between caches, it does not replace them.
pub struct PerCpu<P: Platform, T> {
    each: Box<[CachePadded<T>]>,
    platform: PhantomData<fn() -> P>,
}

crate::opaque_debug!([P: Platform, T] PerCpu<P, T>);

impl<P: Platform, T> PerCpu<P, T> {
    /// Creates a value for each CPU, by one `init` of each.
    pub fn new(mut init: impl FnMut(CpuId) -> T) -> Self {
        let each = (0..P::cpu_count()).map(|cpu| CachePadded(init(CpuId(cpu)))).collect();
        PerCpu { each, platform: PhantomData }
    }

    /// Returns this CPU's value, which stays this CPU's while preemption is off.
    #[inline]
    pub fn this(&self, pinned: &PreemptGuard<P>) -> &T {
        let _ = pinned;
        self.of(P::current_cpu())
    }

    /// Returns the value of `cpu`.
    ///
    /// # Panics
    /// If there is no such CPU.
    #[inline]
    pub fn of(&self, cpu: CpuId) -> &T {
        &self.each[cpu.0 as usize]
    }

    /// Returns the values of all CPUs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (CpuId, &T)> {
        (0..).map(CpuId).zip(self.each.iter().map(|padded| &padded.0))
    }
}
