//! VMs that come and go and entries of an IOMMU's log, with any bits: an entry finds the vCPU that
//! its tag was given out for, or nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use doorbell_apic::avic::spec::LogEntry;
use doorbell_apic::avic::{GaLog, VmTag};
use doorbell_platform::Std;

use crate::bytes::Bytes;

const VMS: usize = 3;

/// A vCPU: no two are the same.
type Vcpu = u64;

struct Vm {
    tag: VmTag<Std, Vcpu>,
    /// The vCPUs by number, with the bits of their tags.
    vcpus: BTreeMap<u32, (u32, Vcpu)>,
}

/// Does what the bytes say to a log, and compares.
pub fn run(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let log = GaLog::<Std, Vcpu>::new(VMS);
    let mut vms: Vec<Vm> = Vec::new();
    // Of VMs that are gone, and of those that are not.
    let mut tags: Vec<u32> = Vec::new();
    let mut next = 0;
    while !bytes.is_empty() {
        let what = bytes.u8();
        let at = usize::from(what >> 4) % VMS;
        match what & 15 {
            0 | 1 => match log.open() {
                Ok(tag) => vms.push(Vm { tag, vcpus: BTreeMap::new() }),
                Err(_) => assert_eq!(vms.len(), VMS),
            },
            2 if at < vms.len() => drop(vms.remove(at).tag.close().synchronize()),
            3..=7 if at < vms.len() => {
                let number = if what & 1 == 0 { bytes.u16().into() } else { bytes.u8().into() };
                next += 1;
                let vm = &mut vms[at];
                let added = vm.tag.add(number, Arc::new(next));
                assert_eq!(added.is_ok(), number < 4096);
                if let Ok(former) = added {
                    drop(former.synchronize());
                    let tag = vm.tag.tag(number).expect("it was added").bits();
                    vm.vcpus.insert(number, (tag, next));
                    tags.push(tag);
                }
            }
            8 => {
                let mut seen = Vec::new();
                log.overflowed().restarted(|vcpu| seen.push(*vcpu));
                seen.sort_unstable();
                let mut all: Vec<Vcpu> =
                    vms.iter().flat_map(|vm| vm.vcpus.values().map(|vcpu| vcpu.1)).collect();
                all.sort_unstable();
                assert_eq!(seen, all);
            }
            9..=12 if !tags.is_empty() => {
                let tag = tags[usize::from(bytes.u8()) % tags.len()];
                entry(&log, &vms, LogEntry::new(tag ^ u32::from(bytes.u8()) << 24, bytes.u16()));
            }
            13 => entry(&log, &vms, LogEntry(1 << 60 | u64::from(bytes.u32()))),
            _ => entry(&log, &vms, LogEntry(bytes.u64())),
        }
    }
    vms.into_iter().for_each(|vm| drop(vm.tag.close().synchronize()));
}

fn entry(log: &GaLog<Std, Vcpu>, vms: &[Vm], entry: LogEntry) {
    let meant = |tag| {
        vms.iter().flat_map(|vm| vm.vcpus.values()).find(|vcpu| vcpu.0 == tag).map(|vcpu| vcpu.1)
    };
    let wanted = (entry.0 >> 60 == 1).then(|| meant(entry.0 as u32)).flatten();
    assert_eq!(log.entry(entry, |vcpu| *vcpu), wanted, "{entry:x?}");
}
