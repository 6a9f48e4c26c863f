//! The tables.

use doorbell_apic::avic::spec::{HostApicId, PhysicalEntry};
use doorbell_apic::avic::{
    AvicVcpu, Kind, LogicalError, LogicalTable, Model, PhysicalTable, TableError,
};
use doorbell_platform::Std;
use doorbell_post::Requests;

use crate::{Host, address, cpu, table, vcpu, words};

fn logical(entries: usize) -> LogicalTable<Host<Std>> {
    LogicalTable::new(words(entries))
}

#[test]
fn a_physical_table_is_made_of_as_many_pages_as_hardware_knows() {
    let last = |kind, entries| {
        PhysicalTable::<Host<Std>>::new(kind, words(entries)).map(|table| table.last())
    };
    assert_eq!(last(Kind::Avic, 512), Ok(254), "255 means everybody");
    assert_eq!((last(Kind::X2Avic, 512), last(Kind::X2Avic, 4096)), (Ok(511), Ok(4095)));
    for (kind, entries) in
        [(Kind::Avic, 0), (Kind::Avic, 511), (Kind::Avic, 1024), (Kind::X2Avic, 4608)]
    {
        assert_eq!(last(kind, entries), Err(TableError::Size { entries }));
    }
}

#[test]
fn an_id_beyond_the_table_or_taken_is_refused_and_nothing_is_written() {
    let table = table::<Std>();
    let refused = |id| AvicVcpu::new(&table, id, Box::default(), address(9), Requests(0)).err();
    for id in [512, 4095, u32::MAX] {
        assert_eq!(refused(id), Some(TableError::Beyond { id, last: 511 }));
        assert_eq!(table.entry(id), PhysicalEntry::NONE);
    }
    let vcpu = vcpu(&table, 511);
    assert_eq!(refused(511), Some(TableError::Taken { id: 511 }));
    assert_eq!(table.entry(511), PhysicalEntry::new(address(512), None));
    drop(vcpu);
    assert_eq!(refused(511), None);
}

#[test]
fn the_entry_says_where_the_vcpu_runs_and_always_where_its_page_is() {
    let table = table::<Std>();
    let vcpu = vcpu(&table, 3);
    let entry = |host: Option<HostApicId>| PhysicalEntry::new(address(4), host);
    vcpu.load(cpu(0xabc));
    assert_eq!(table.entry(3), entry(Some(cpu(0xabc))));
    vcpu.put();
    assert_eq!(table.entry(3), entry(None));
    assert_eq!((vcpu.physical_id().id(), vcpu.physical_id().page()), (3, address(4)));
}

#[test]
fn each_bit_of_a_flat_destination_means_a_vcpu() {
    let table = logical(1024);
    let slots: Vec<_> =
        (0..8).map(|bit| table.claim(Model::Flat, 1 << (24 + bit), 10 + bit).unwrap()).collect();
    assert!(table.targets(Model::Flat, 0b1000_0101).eq([10, 12, 17]));
    slots.into_iter().for_each(|slot| table.release(slot));
    assert_eq!(table.targets(Model::Flat, 0xff).count(), 0);
}

#[test]
fn each_bit_of_a_cluster_means_a_vcpu_and_there_are_fifteen_clusters() {
    let table = logical(1024);
    let slots = [(0x01, 1), (0x08, 2), (0xe1, 3), (0xe8, 4)]
        .map(|(destination, id)| table.claim(Model::Cluster, destination << 24, id).unwrap());
    assert!(table.targets(Model::Cluster, 0x0f).eq([1, 2]));
    assert!(table.targets(Model::Cluster, 0xef).eq([3, 4]));
    assert_eq!(table.targets(Model::Cluster, 0xff).count(), 0);
    assert_eq!(table.claim(Model::Cluster, 0xf1 << 24, 5), Err(LogicalError::Unrepresentable));
    drop(slots);
}

#[test]
fn what_hardware_cannot_look_up_is_refused() {
    let table = logical(1024);
    for ldr in [0, 0x03 << 24, 0x00ff_ffff] {
        assert_eq!(
            table.claim(Model::Flat, ldr, 1),
            Err(LogicalError::Unrepresentable),
            "{ldr:#x}"
        );
    }
    let slot = table.claim(Model::Flat, 2 << 24, 1).unwrap();
    assert_eq!(table.claim(Model::Flat, 2 << 24, 2), Err(LogicalError::Aliased { by: 1 }));
    table.release(slot);
    assert_eq!(
        logical(4).claim(Model::Flat, 0x80 << 24, 1),
        Err(LogicalError::Beyond { index: 7 })
    );
    assert_eq!(table.claim(Model::Flat, 4 << 24, 255), Err(LogicalError::Everybody));
    assert!(table.claim(Model::Flat, 4 << 24, 254).is_ok());
    assert_eq!(
        [0xffff_ffff, 0x0fff_ffff, 0x8000_0000].map(Model::of),
        [Some(Model::Flat), Some(Model::Cluster), None]
    );
}
