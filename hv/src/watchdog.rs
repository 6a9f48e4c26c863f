//! The watchdog of a VM: tells a guest that stands still from one that is slow.
//!
//! A vCPU makes progress when its guest waits (WFI), runs a program at EL0, or writes to the
//! console. One that is stuck does none of these, even while its timer interrupts: a kernel that
//! spins for a lock, also in a softirq; one that has masked interrupts; and one that nobody runs,
//! because the hypervisor has lost its task. A guest that is slow does at least one of them. The
//! watchdog counts its own checks, not the time between two of them: when the host itself has stood
//! still, the guest has its time again.

use alloc::boxed::Box;
use core::fmt;

/// How many checks in a row have to see no progress.
pub const CHECKS: u32 = 4;

/// What a check sees of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Whether the vCPU is on, or about to be.
    pub on: bool,
    /// Whether the vCPU is blocked.
    pub blocked: bool,
    /// Whether the vCPU has news of interrupts that it has not looked at.
    pub news: bool,
    /// How often the vCPU has made progress.
    pub progress: u32,
}

/// Why a VM counts as one that is stalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stall {
    /// This vCPU makes no progress.
    Runs(usize),
    /// This vCPU is blocked, and nobody has woken it for the interrupts that it has news of.
    NotWoken(usize),
    /// Each vCPU that is on waits for an interrupt, and none comes.
    AllWait,
}

/// What is remembered of a vCPU.
#[derive(Clone, Copy, Default, Debug)]
struct Vcpu {
    progress: u32,
    /// How many checks in a row have seen it stuck.
    stuck: u32,
}

/// A watchdog.
#[derive(Debug)]
pub struct Watchdog {
    vcpus: Box<[Vcpu]>,
    /// How many checks in a row have seen nothing but vCPUs that wait.
    all_wait: u32,
}

impl Watchdog {
    /// Returns one for a VM with so many vCPUs.
    pub fn new(vcpus: usize) -> Self {
        Watchdog { vcpus: (0..vcpus).map(|_| Vcpu::default()).collect(), all_wait: 0 }
    }

    /// Checks the vCPUs, in their order. Returns a stall, if there is one; then the counts begin
    /// anew.
    pub fn check(&mut self, seen: impl Iterator<Item = Seen>) -> Option<Stall> {
        let (mut stall, mut all_wait) = (None, true);
        for (number, (vcpu, seen)) in self.vcpus.iter_mut().zip(seen).enumerate() {
            let progress = core::mem::replace(&mut vcpu.progress, seen.progress) != seen.progress;
            let waits = seen.blocked && !seen.news;
            all_wait &= !seen.on || waits && !progress;
            vcpu.stuck = if progress || waits || !seen.on { 0 } else { vcpu.stuck + 1 };
            if vcpu.stuck == CHECKS && stall.is_none() {
                let how = if seen.blocked { Stall::NotWoken } else { Stall::Runs };
                stall = Some(how(number));
            }
        }
        self.all_wait = if all_wait { self.all_wait + 1 } else { 0 };
        let stall = stall.or((self.all_wait == CHECKS).then_some(Stall::AllWait));
        if stall.is_some() {
            self.vcpus.iter_mut().for_each(|vcpu| vcpu.stuck = 0);
            self.all_wait = 0;
        }
        stall
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Runs(vcpu) => write!(f, "vCPU {vcpu} makes no progress"),
            Stall::NotWoken(vcpu) => write!(f, "vCPU {vcpu} is not woken for its interrupts"),
            Stall::AllWait => f.write_str("all its vCPUs wait, and no interrupt comes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNS: Seen = Seen { on: true, blocked: false, news: false, progress: 0 };
    const WAITS: Seen = Seen { blocked: true, ..RUNS };
    const OFF: Seen = Seen { on: false, ..RUNS };

    /// Returns the first stall, and at which check it was seen, if all checks see the same but for
    /// the progress.
    fn stalls(seen: [Seen; 2], progress: impl Fn(usize, u32) -> u32) -> Option<(u32, Stall)> {
        let mut watchdog = Watchdog::new(2);
        (1..=20).find_map(|check| {
            let seen = seen.iter().enumerate();
            let seen = seen.map(|(n, &seen)| Seen { progress: progress(n, check), ..seen });
            Some((check, watchdog.check(seen)?))
        })
    }

    #[test]
    fn a_vcpu_that_runs_without_progress_is_a_stall_whatever_the_others_do() {
        let first_alone = |n, check| if n == 0 { check } else { 0 };
        assert_eq!(stalls([RUNS, RUNS], first_alone), Some((4, Stall::Runs(1))));
        assert_eq!(stalls([WAITS, RUNS], |_, _| 0), Some((4, Stall::Runs(1))));
        assert_eq!(stalls([RUNS, OFF], |_, _| 0), Some((4, Stall::Runs(0))));
    }

    #[test]
    fn a_vcpu_that_is_slow_is_none() {
        assert_eq!(stalls([RUNS, RUNS], |_, check| check / 3), None);
        assert_eq!(stalls([RUNS, WAITS], |n, check| if n == 0 { check / 3 } else { 0 }), None);
        assert_eq!(stalls([OFF, RUNS], |_, check| check), None);
    }

    #[test]
    fn waiting_is_a_stall_if_all_do_and_none_is_interrupted_any_more() {
        assert_eq!(stalls([WAITS, WAITS], |_, _| 0), Some((4, Stall::AllWait)));
        assert_eq!(stalls([WAITS, OFF], |_, _| 0), Some((4, Stall::AllWait)));
        let first_alone = |n, check| if n == 0 { check / 3 } else { 0 };
        assert_eq!(stalls([WAITS, WAITS], first_alone), None);
    }

    #[test]
    fn a_vcpu_that_sleeps_on_with_an_interrupt_is_a_stall() {
        let forgotten = Seen { news: true, ..WAITS };
        assert_eq!(stalls([forgotten, WAITS], |_, _| 0), Some((4, Stall::NotWoken(0))));
        // One that is woken again and again, and has new ones whenever it is looked at, is none.
        assert_eq!(stalls([forgotten, WAITS], |_, check| check), None);
    }

    #[test]
    fn a_stall_that_lasts_is_told_again() {
        let mut watchdog = Watchdog::new(1);
        let told = (0..12).filter(|_| watchdog.check([RUNS].into_iter()).is_some()).count();
        assert_eq!(told, 3);
    }
}
