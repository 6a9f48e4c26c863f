//! An IOMMU's log of guest interrupts: which vCPUs somebody must look at.
//!
//! ```text
//!   IOMMU                              the log's interrupt handler
//!   sets the bit in the page           reads an entry: VM, vCPU, generation
//!   the vCPU does not run: appends     in a read section: is it this VM's generation?
//!     an entry, interrupts               hands the vCPU to the host, which looks and wakes
//! ```
//!
//! The log and the tables are not written together: an entry may outlive its vCPU, its VM, and the
//! use of the VM's number by another. Readers therefore find vCPUs through one RCU cell for each
//! number, and the tag's generation tells the former user of the number from the present one. Who
//! replaces members gets the former ones as a value to be dropped after a grace period. A log that
//! overflows has lost entries: [`Reset`] hands all vCPUs to the host, after the log runs again.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use doorbell_platform::{LockClass, Mutex, Platform, RcuCell, ReadDomain, Retired, WaitType};

use super::spec::LogEntry;

/// Writers of the table; a leaf.
pub(crate) static TAGS: LockClass = LockClass::new("avic.ga-tags", WaitType::Sleep).leaf();

/// What an IRTE says in a log entry of whose interrupt it is: a VM (12 bits), a vCPU of it (12
/// bits), and the generation of the VM's number (8 bits).
///
/// An entry may be read when its VM is gone and the number is another's. Its generation tells;
/// should it have gone round, the wrong vCPU is looked at once, and found to have nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GaTag(u32);

impl GaTag {
    /// Creates a tag from the bits that an IRTE holds.
    pub const fn from_bits(bits: u32) -> Self {
        GaTag(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    const fn vcpu(self) -> usize {
        (self.0 & 0xfff) as usize
    }

    const fn vm(self) -> usize {
        (self.0 >> 12 & 0xfff) as usize
    }

    const fn generation(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// A VM's number in a log, until it is [closed](VmTag::close).
#[must_use = "the number stays taken until it is closed"]
pub struct VmTag<P: Platform, V: Send + Sync + 'static> {
    log: Arc<GaLog<P, V>>,
    vm: u16,
    generation: u8,
}

doorbell_platform::opaque_debug!([P: Platform, V: Send + Sync + 'static] VmTag<P, V>; vm, generation);

/// All numbers of VMs are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl core::fmt::Display for Full {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("all numbers of VMs are taken")
    }
}

impl core::error::Error for Full {}

/// vCPUs of a VM have numbers below 4096.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchVcpu;

impl core::fmt::Display for NoSuchVcpu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the numbers of a VM's vCPUs are below 4096")
    }
}

impl core::error::Error for NoSuchVcpu {}

/// The vCPUs of a VM, as those who read the log see them.
pub struct Members<V> {
    generation: u8,
    vcpus: Vec<Option<Arc<V>>>,
}

doorbell_platform::opaque_debug!([V] Members<V>; generation);

type Cell<P, V> = RcuCell<P, <P as Platform>::Rcu, Arc<Members<V>>>;

/// What writers know of a VM's number: the same members, so that no read section is begun, nor
/// ended, under their lock.
struct Vm<V> {
    taken: bool,
    members: Arc<Members<V>>,
}

/// What was replaced. It is to be dropped after a grace period.
pub type Former<P, V> = Retired<<P as Platform>::Rcu, Arc<Members<V>>>;

/// The vCPUs that are meant by the entries of the logs of guest interrupts, for all VMs of a host
/// and all of its IOMMUs.
///
/// `V` is what the host has for a vCPU. Whoever reads a log pins it by an RCU read section, takes
/// no lock, and allocates nothing: the reader may be an interrupt handler.
pub struct GaLog<P: Platform, V: Send + Sync + 'static> {
    vms: Box<[Cell<P, V>]>,
    writers: Mutex<P, Box<[Vm<V>]>>,
}

doorbell_platform::opaque_debug!([P: Platform, V: Send + Sync + 'static] GaLog<P, V>);

impl<P: Platform, V: Send + Sync + 'static> GaLog<P, V> {
    /// Creates the tags for `vms` VMs at once, at most 4096.
    pub fn new(vms: usize) -> Arc<Self> {
        let domain = Arc::new(P::Rcu::new("GA log"));
        let writers: Box<[_]> = (0..vms.min(4096))
            .map(|_| Vm {
                taken: false,
                members: Arc::new(Members { generation: 0, vcpus: Vec::new() }),
            })
            .collect();
        let cell = |vm: &Vm<V>| RcuCell::new(&domain, Box::new(Arc::clone(&vm.members)));
        Arc::new(GaLog {
            vms: writers.iter().map(cell).collect(),
            writers: Mutex::new(&TAGS, writers),
        })
    }

    /// Replaces the members of a VM, whose number stays taken or is free from here on.
    fn replace(
        &self,
        writers: &mut [Vm<V>],
        vm: u16,
        taken: bool,
        members: Members<V>,
    ) -> Former<P, V> {
        let members = Arc::new(members);
        let former = self.vms[usize::from(vm)].replace(Box::new(Arc::clone(&members)));
        // The former ones are not dropped here: `former` has them, too.
        writers[usize::from(vm)] = Vm { taken, members };
        former
    }

    /// Takes a number for a VM.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If there is no number left.
    pub fn open(self: &Arc<Self>) -> Result<VmTag<P, V>, Full> {
        let mut writers = self.writers.lock();
        let vm = writers.iter().position(|vm| !vm.taken).ok_or(Full)?;
        writers[vm].taken = true;
        let generation = writers[vm].members.generation;
        drop(writers);
        Ok(VmTag { log: Arc::clone(self), vm: vm as u16, generation })
    }

    /// Hands the vCPU of an entry to `look`, in a read section: it may wake, and must not sleep.
    /// `None` if there is none, or it is not the one that was meant.
    ///
    /// What is to be done is what [`AvicVcpu::logged`](super::AvicVcpu::logged) says.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn entry<R>(&self, entry: LogEntry, look: impl FnOnce(&V) -> R) -> Option<R> {
        let tag = GaTag(entry.tag()?);
        let members = self.vms.get(tag.vm())?.read();
        if members.generation != tag.generation() {
            return None;
        }
        members.vcpus.get(tag.vcpu())?.as_deref().map(look)
    }

    /// Begins to restart a log that was full: entries are missing.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn overflowed(&self) -> Reset<'_, P, V> {
        Reset { log: self }
    }
}

impl<P: Platform, V: Send + Sync + 'static> VmTag<P, V> {
    /// Returns the tag for IRTEs that post to a vCPU, once it was [added](VmTag::add).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    ///
    /// # Errors
    /// If there can be no vCPU of that number.
    pub fn tag(&self, vcpu: u32) -> Result<GaTag, NoSuchVcpu> {
        if vcpu > 0xfff {
            return Err(NoSuchVcpu);
        }
        Ok(GaTag(u32::from(self.generation) << 24 | u32::from(self.vm) << 12 | vcpu))
    }

    /// Adds a vCPU of the VM, in the place of the one of that number if there was one. When the VM
    /// is set up: memory is allocated, and what is returned is to be dropped after a grace period.
    ///
    /// # Context
    /// Any task; may sleep.
    ///
    /// # Errors
    /// If there can be no vCPU of that number.
    pub fn add(&self, number: u32, vcpu: Arc<V>) -> Result<Former<P, V>, NoSuchVcpu> {
        let number = self.tag(number)?.vcpu();
        let mut writers = self.log.writers.lock();
        let mut vcpus = writers[usize::from(self.vm)].members.vcpus.clone();
        if vcpus.len() <= number {
            vcpus.resize(number + 1, None);
        }
        vcpus[number] = Some(vcpu);
        let members = Members { generation: self.generation, vcpus };
        let former = self.log.replace(&mut writers, self.vm, true, members);
        drop(writers);
        Ok(former)
    }

    /// Gives the number back: the VM is no more, and what the log still says of it is ignored. What
    /// is returned is to be dropped after a grace period.
    ///
    /// # Context
    /// Any task; may sleep.
    pub fn close(self) -> Former<P, V> {
        let none = Members { generation: self.generation.wrapping_add(1), vcpus: Vec::new() };
        let mut writers = self.log.writers.lock();
        let former = self.log.replace(&mut writers, self.vm, false, none);
        drop(writers);
        former
    }
}

/// Entries are missing in a log.
#[must_use = "vCPUs that should be woken are not: restart the log, then say so"]
pub struct Reset<'a, P: Platform, V: Send + Sync + 'static> {
    log: &'a GaLog<P, V>,
}

doorbell_platform::opaque_debug!(['a, P: Platform, V: Send + Sync + 'static] Reset<'a, P, V>);

impl<P: Platform, V: Send + Sync + 'static> Reset<'_, P, V> {
    /// Says that the log is running again: what is posted from here on has its entry. Each vCPU is
    /// handed to `look`, as by [`entry`](GaLog::entry), because any of those that asked for log
    /// entries may be one whose entry is missing. (Those that did not have nothing to do, and
    /// [`AvicVcpu::logged`](super::AvicVcpu::logged) says so.)
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    pub fn restarted(self, mut look: impl FnMut(&V)) {
        for vm in &self.log.vms {
            vm.read().vcpus.iter().flatten().for_each(|vcpu| look(vcpu));
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;

    use doorbell_platform::Std;

    use super::*;

    type Log = GaLog<Std, u32>;

    fn entry(tag: GaTag) -> LogEntry {
        LogEntry::new(tag.bits(), 0x100)
    }

    fn add(vm: &VmTag<Std, u32>, number: u32, vcpu: u32) -> GaTag {
        drop(vm.add(number, Arc::new(vcpu)).unwrap().synchronize());
        vm.tag(number).unwrap()
    }

    #[test]
    fn an_entry_finds_the_vcpu_that_its_tag_means() {
        let log = Log::new(2);
        let (one, two) = (log.open().unwrap(), log.open().unwrap());
        let tags = [add(&one, 0, 10), add(&one, 4095, 11), add(&two, 0, 20)];
        assert_eq!(
            tags.map(|tag| log.entry(entry(tag), |vcpu| *vcpu)),
            [Some(10), Some(11), Some(20)]
        );
        assert_eq!(
            log.entry(entry(GaTag::from_bits(tags[0].bits() + 1)), |_| ()),
            None,
            "no such vCPU"
        );
        assert_eq!(
            log.entry(entry(GaTag::from_bits(tags[2].bits() + 1)), |_| ()),
            None,
            "nor one beyond the last"
        );
        assert_eq!(log.entry(entry(GaTag::from_bits(5 << 12)), |_| ()), None, "no such VM");
        assert_eq!(
            log.entry(LogEntry(2 << 60 | u64::from(tags[0].bits())), |_| ()),
            None,
            "not an interrupt"
        );
        let mut all = vec![];
        log.overflowed().restarted(|vcpu| all.push(*vcpu));
        assert_eq!(all, [10, 11, 20]);
        drop([one, two].map(|vm| vm.close().synchronize()));
    }

    #[test]
    fn a_number_that_is_used_again_is_not_mistaken_for_what_it_was() {
        let log = Log::new(1);
        let first = log.open().unwrap();
        assert_eq!(log.open().err(), Some(Full));
        let stale = add(&first, 3, 10);
        drop(first.close().synchronize());
        assert_eq!(log.entry(entry(stale), |_| ()), None);
        let second = log.open().unwrap();
        let tag = add(&second, 3, 20);
        assert_eq!(
            (log.entry(entry(stale), |_| ()), log.entry(entry(tag), |vcpu| *vcpu)),
            (None, Some(20))
        );
        drop(second.close().synchronize());
    }

    #[test]
    fn what_is_replaced_or_closed_is_dropped_after_the_grace_period() {
        let log = Log::new(1);
        let vm = log.open().unwrap();
        let vcpu = Arc::new(1);
        drop(vm.add(0, Arc::clone(&vcpu)).unwrap().synchronize());
        assert_eq!(vm.add(4096, Arc::clone(&vcpu)).err(), Some(NoSuchVcpu));
        assert_eq!(Arc::strong_count(&vcpu), 2);
        drop(vm.close().synchronize());
        assert_eq!(Arc::strong_count(&vcpu), 1);
    }

    #[test]
    fn a_vm_of_one_log_is_none_of_another() {
        let (one, two) = (Log::new(1), Log::new(2));
        let first = two.open().unwrap();
        let second = two.open().unwrap();
        let tag = add(&second, 0, 10);
        assert_eq!(
            (two.entry(entry(tag), |vcpu| *vcpu), one.entry(entry(tag), |_| ())),
            (Some(10), None)
        );
        assert!(one.open().is_ok(), "its number is free");
        drop([first, second].map(|vm| vm.close().synchronize()));
    }
}
