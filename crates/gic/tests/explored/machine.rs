//! A VM: its GIC, its CPUs, and the devices behind a level.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use doorbell_explore::sim::{Model, fail};
use doorbell_explore::{Machine, Sim};
use doorbell_gic::{
    Affinity, Ended, Frame, Gic, GuestMemory, Host, IntId, Kick, Line, Lpi, LpiConfig, LpiMapping,
    LpiSpace, NoMemory, Priority, Sent, State, VcpuId, Width,
};
use doorbell_hardware::cpu::Cpu;
use doorbell_hardware::gic::spec as hw;
use doorbell_platform::{CpuId, Platform};
use doorbell_post::Notice;

/// An SPI that a device makes pending by an edge.
pub const EDGE: IntId = IntId::new(32).unwrap();
/// The SPI of two devices, by their levels.
pub const LEVEL: IntId = IntId::new(33).unwrap();
/// Another SPI, of an edge.
pub const OTHER: IntId = IntId::new(34).unwrap();
/// The SPIs that there are devices for.
pub const SPIS: [IntId; 3] = [EDGE, LEVEL, OTHER];
/// Two LPIs, in a VM that [has](Vm::with_lpis) them.
pub const LPIS: [IntId; 2] = [IntId::lpi(8192).unwrap(), IntId::lpi(8193).unwrap()];
/// How many interrupts these are.
const ALL: usize = SPIS.len() + LPIS.len();

/// Offsets in the distributor.
pub const GICD_CTLR: u32 = 0x0000;
pub const ISENABLER: u32 = 0x0104;
pub const ICENABLER: u32 = 0x0184;
pub const ISPENDR: u32 = 0x0204;
pub const ICPENDR: u32 = 0x0284;
pub const ISACTIVER: u32 = 0x0304;
pub const ICACTIVER: u32 = 0x0384;
pub const IPRIORITYR: u32 = 0x0400;
const ICFGR: u32 = 0x0c08;
const IROUTER: u32 = 0x6000;
/// GICD_CTLR: EnableGrp1, and RWP.
pub const GROUP_ONE: u64 = 1 << 1;
const RWP: u64 = 1 << 31;
/// GICD_IROUTER: Interrupt_Routing_Mode.
const IRM: u64 = 1 << 31;
/// Offsets in a redistributor, and a field of each.
pub const GICR_CTLR: u32 = 0x0000;
pub const DPG_GROUP_ONE: u64 = 1 << 25;
pub const ENABLE_LPIS: u64 = 1 << 0;
const REDISTRIBUTOR_RWP: u64 = 1 << 3;
pub const PROPBASER: u32 = 0x0070;
pub const PENDBASER: u32 = 0x0078;
pub const WAKER: u32 = 0x0014;
pub const CHILDREN_ASLEEP: u64 = 1 << 2;
pub const ISENABLER0: u32 = 0x1_0100;
pub const ICENABLER0: u32 = 0x1_0180;
pub const PROCESSOR_SLEEP: u64 = 1 << 1;

/// Returns the bit of an SPI in a register that has one for each.
pub fn bit(id: IntId) -> u64 {
    1 << (id.number() - 32)
}

/// Returns the vCPU of a number, which is also that of its CPU and its affinity.
pub fn vcpu(number: usize) -> VcpuId {
    VcpuId::new(number as u32).expect("it is small")
}

/// Whether each of two devices wants something, which it says and raises its level under a lock.
#[derive(Default)]
struct Devices {
    locked: bool,
    want: [bool; 2],
}

/// Where an SPI is in a list register.
#[derive(Default)]
struct Listed {
    /// The CPU that has it in a list register.
    by: Option<usize>,
    /// The interrupt was pending there when the guest was entered.
    pending: bool,
    /// The interrupt must not be pending in any, from here on.
    over: bool,
}

/// A VM.
pub struct Vm {
    pub gic: Gic<Sim>,
    /// How many list registers each CPU has.
    pub list_registers: u8,
    pub cpus: Vec<Cpu>,
    /// Whether the task of each vCPU was woken.
    pub woken: Vec<Model<bool>>,
    /// The CPU that has each SPI in a list register.
    listed: [Model<Listed>; ALL],
    devices: Model<Devices>,
    /// How often the guest of each vCPU has acknowledged each SPI,
    acknowledged: Vec<[AtomicU32; ALL]>,
    /// and all guests any SGI.
    acknowledged_sgis: AtomicU32,
    /// The physical interrupts that were deactivated.
    deactivated: Mutex<Vec<u32>>,
    /// The guest's tables of LPIs, if it has any.
    tables: Mutex<Option<Tables>>,
    /// A moment that one task waits for and another one brings about.
    pub moments: [Model<bool>; 2],
}

/// What the VM's host does for its GIC.
pub struct Hears<'a>(pub &'a Vm);

impl Kick for Hears<'_> {
    fn notice(&mut self, vcpu: VcpuId, notice: Notice<CpuId>) {
        match notice {
            Notice::Kick(cpu) => self.0.cpus[cpu.0 as usize].kick(),
            Notice::Wake => self.0.woken[vcpu.number() as usize].change(|woken| *woken = true),
            Notice::Nothing | Notice::Notify(_) => fail(format!("{notice:?}")),
        }
    }
}

/// Where the guest has its tables: the configurations, and what is pending for vCPU 0.
const PROPERTIES: u64 = 0x1000;
const PENDING: u64 = 0x1_0000;

/// The tables of 128 LPIs.
struct Tables {
    configs: [u8; 128],
    pending: [u8; 16],
}

impl Tables {
    fn at(&mut self, address: u64) -> Result<&mut [u8], NoMemory> {
        match address {
            PROPERTIES => Ok(&mut self.configs),
            address if address == PENDING + 8192 / 8 => Ok(&mut self.pending),
            _ => Err(NoMemory),
        }
    }
}

impl GuestMemory for Hears<'_> {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), NoMemory> {
        let mut tables = self.0.tables.lock().expect("no panic while it is held");
        bytes.copy_from_slice(tables.as_mut().ok_or(NoMemory)?.at(address)?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), NoMemory> {
        let mut tables = self.0.tables.lock().expect("no panic while it is held");
        tables.as_mut().ok_or(NoMemory)?.at(address)?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Host for Hears<'_> {
    fn memory(&mut self) -> Option<&mut dyn GuestMemory> {
        Some(self)
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Level(id) => assert_eq!(id, LEVEL),
            Ended::Physical(id) => self.0.deactivates(id.number()),
        }
    }
}

impl Vm {
    /// Returns one of so many vCPUs, whose guest has enabled group 1, the three SPIs and all
    /// redistributors. The SPIs are routed to vCPU 0. Each CPU has one list register.
    pub fn new(vcpus: usize) -> Arc<Self> {
        Vm::with_list_registers(vcpus, 1)
    }

    /// Returns one on CPUs that have so many list registers.
    pub fn with_list_registers(vcpus: usize, list_registers: u8) -> Arc<Self> {
        let affinities: Vec<_> = (0..vcpus).map(|number| Affinity(number as u32)).collect();
        let vtr = doorbell_gic::spec::Vtr::from_bits(implementation(list_registers).vtr());
        let gic = Gic::new(vtr, 32, &affinities).expect("there can be such a GIC");
        Vm::on(gic, vcpus, list_registers)
    }

    /// Returns one with two LPIs, of which the first vCPU is the target, and which nobody has
    /// enabled yet in the redistributors. Each CPU has one list register.
    pub fn with_lpis(vcpus: usize) -> (Arc<Self>, [LpiMapping; 2]) {
        let affinities: Vec<_> = (0..vcpus).map(|number| Affinity(number as u32)).collect();
        let vtr = doorbell_gic::spec::Vtr::from_bits(implementation(1).vtr());
        let space = LpiSpace::new(14, 1 << 20).expect("there can be so many");
        let gic = Gic::new(vtr, 32, &affinities).expect("there can be such a GIC");
        let vm = Vm::on(gic.with_lpis(space).expect("there are few SPIs"), vcpus, 1);
        (0..vcpus).for_each(|number| vm.write_redistributor(number, GICR_CTLR, ENABLE_LPIS));
        let mappings = LPIS.map(|id| vm.map_lpi(id, 0));
        (vm, mappings)
    }

    fn on(gic: Gic<Sim>, vcpus: usize, list_registers: u8) -> Arc<Self> {
        let vm = Vm {
            gic,
            list_registers,
            cpus: (0..vcpus).map(|_| Cpu::new("CPU")).collect(),
            woken: (0..vcpus).map(|_| Model::new("woken", false)).collect(),
            listed: [(); ALL].map(|()| Model::new("list registers", Listed::default())),
            devices: Model::new("devices", Devices::default()),
            acknowledged: (0..vcpus).map(|_| Default::default()).collect(),
            acknowledged_sgis: AtomicU32::new(0),
            deactivated: Mutex::default(),
            tables: Mutex::new(None),
            moments: ["first moment", "second moment"].map(|name| Model::new(name, false)),
        };
        vm.write(GICD_CTLR, GROUP_ONE);
        for number in 0..vcpus {
            vm.write_redistributor(number, WAKER, 0);
        }
        vm.write(ICFGR, 0b10_00_10);
        vm.write(ISENABLER, SPIS.into_iter().map(bit).sum());
        Arc::new(vm)
    }

    /// Returns an SPI, as its device has it.
    pub fn line(&self, id: IntId) -> Line<'_, Sim> {
        self.gic.spi(id).expect("there is such an SPI")
    }

    /// Returns what an interrupt is.
    pub fn state(&self, id: IntId) -> State {
        if id.is_lpi() { self.lpi(id).state() } else { self.line(id).state() }
    }

    /// The guest of vCPU 0 gets tables of its LPIs, which are all enabled there.
    pub fn has_tables(&self) {
        let tables = Tables { configs: [1; 128], pending: [0; 16] };
        *self.tables.lock().expect("no panic while it is held") = Some(tables);
        self.write_redistributor(0, GICR_CTLR, 0);
        self.write_table_register(PROPBASER, Width::Double, PROPERTIES | 13);
        self.write_table_register(PENDBASER, Width::Double, PENDING);
        self.write_redistributor(0, GICR_CTLR, ENABLE_LPIS);
    }

    /// Returns whether the table says that an LPI is pending.
    pub fn is_in_table(&self, id: IntId) -> bool {
        let tables = self.tables.lock().expect("no panic while it is held");
        let bit = id.number() as usize - 8192;
        tables.as_ref().is_some_and(|tables| tables.pending[bit / 8] >> (bit % 8) & 1 != 0)
    }

    /// Writes a register of vCPU 0 that says where a table is, or half of it.
    pub fn write_table_register(&self, offset: u32, width: Width, value: u64) {
        let frame = Frame::Redistributor(vcpu(0));
        let _ =
            self.gic.write(frame, offset, width, value, &mut Hears(self)).wait(&mut Hears(self));
    }

    /// Reads a register of vCPU 0 that says where a table is.
    pub fn table_register(&self, offset: u32) -> u64 {
        let frame = Frame::Redistributor(vcpu(0));
        self.gic.read(frame, offset, Width::Double, &mut Hears(self)).wait(&mut Hears(self))
    }

    /// Returns an LPI, as its ITS has it.
    pub fn lpi(&self, id: IntId) -> Lpi<'_, Sim> {
        self.gic.lpi(id).expect("it was mapped")
    }

    /// Maps an LPI to a vCPU, enabled and at the priority of the SPIs.
    pub fn map_lpi(&self, id: IntId, number: usize) -> LpiMapping {
        let config = LpiConfig { enabled: true, priority: Priority(0) };
        self.gic
            .map_lpi(id, Some(vcpu(number)), config, &mut Hears(self))
            .expect("nothing is mapped to it")
    }

    /// A device sends an LPI.
    pub fn sends(&self, mapping: LpiMapping) -> Sent {
        self.gic.send(mapping, &mut Hears(self))
    }

    /// Moves an LPI to another vCPU.
    pub fn moves(&self, id: IntId, to: usize) {
        self.lpi(id).move_to(Some(vcpu(to)), &mut Hears(self));
    }

    /// Waits until what was written for a vCPU has taken effect in its list registers.
    pub fn redistributor_is_done(&self, number: usize) {
        while self.read_redistributor(number, GICR_CTLR) & REDISTRIBUTOR_RWP != 0 {
            Sim::cpu_relax();
        }
    }

    /// Writes a register of the distributor.
    pub fn write(&self, offset: u32, value: u64) {
        let _ = self
            .gic
            .write(Frame::Distributor, offset, Width::Word, value, &mut Hears(self))
            .wait(&mut Hears(self));
    }

    /// Reads a register of the distributor.
    pub fn read(&self, offset: u32) -> u64 {
        self.gic
            .read(Frame::Distributor, offset, Width::Word, &mut Hears(self))
            .wait(&mut Hears(self))
    }

    /// Waits until the write of an enable has taken effect. Returns GICD_CTLR.
    pub fn write_takes_effect(&self) -> u64 {
        loop {
            let ctlr = self.read(GICD_CTLR);
            if ctlr & RWP == 0 {
                return ctlr;
            }
            Sim::cpu_relax();
        }
    }

    /// Reads a register of a redistributor.
    pub fn read_redistributor(&self, number: usize, offset: u32) -> u64 {
        let frame = Frame::Redistributor(vcpu(number));
        self.gic.read(frame, offset, Width::Word, &mut Hears(self)).wait(&mut Hears(self))
    }

    /// Writes a register of a redistributor.
    pub fn write_redistributor(&self, number: usize, offset: u32, value: u64) {
        let frame = Frame::Redistributor(vcpu(number));
        let _ = self
            .gic
            .write(frame, offset, Width::Word, value, &mut Hears(self))
            .wait(&mut Hears(self));
    }

    /// Writes the priority of an SPI.
    pub fn set_priority(&self, id: IntId, priority: u64) {
        let offset = IPRIORITYR + id.number();
        let _ = self
            .gic
            .write(Frame::Distributor, offset, Width::Byte, priority, &mut Hears(self))
            .complete(&mut Hears(self));
    }

    /// Routes an SPI to a vCPU.
    pub fn route(&self, id: IntId, to: usize) {
        self.write_router(id, to as u64);
    }

    /// Routes an SPI to any vCPU.
    pub fn route_to_any(&self, id: IntId) {
        self.write_router(id, IRM);
    }

    /// Writes one half of GICD_IROUTER.
    pub fn write_half_of_router(&self, id: IntId, half: u32, value: u64) {
        self.write(IROUTER + 8 * id.number() + 4 * half, value);
    }

    /// Reads GICD_IROUTER.
    pub fn router(&self, id: IntId) -> u64 {
        let offset = IROUTER + 8 * id.number();
        self.gic
            .read(Frame::Distributor, offset, Width::Double, &mut Hears(self))
            .wait(&mut Hears(self))
    }

    fn write_router(&self, id: IntId, value: u64) {
        let offset = IROUTER + 8 * id.number();
        let access =
            self.gic.write(Frame::Distributor, offset, Width::Double, value, &mut Hears(self));
        let _ = access.complete(&mut Hears(self));
    }

    /// A device sets the level that one of the sources of an SPI gives.
    pub fn sets_source(&self, id: IntId, source: u32, high: bool) {
        self.line(id).set_level(source, high, &mut Hears(self));
    }

    /// A device injects an edge.
    pub fn inject(&self, id: IntId) {
        self.line(id).edge(&mut Hears(self));
    }

    /// A device waits until it has what it wanted, wants something more, and raises its level.
    pub fn raise(&self, device: usize) {
        self.devices.take(
            |devices| !devices.locked && !devices.want[device],
            |devices| (devices.locked, devices.want[device]) = (true, true),
        );
        self.line(LEVEL).set_level(device as u32, true, &mut Hears(self));
        self.devices.change(|devices| devices.locked = false);
    }

    /// The first device that wants something gets it, and lowers its level.
    pub fn serve(&self) {
        self.lower(|want| want.iter().position(|wants| *wants));
    }

    /// A device wants nothing any more, and lowers its level.
    pub fn withdraw(&self, device: usize) {
        self.lower(|want| want[device].then_some(device));
    }

    fn lower(&self, which: impl FnOnce(&[bool; 2]) -> Option<usize>) {
        let first = self.devices.take(
            |devices| !devices.locked,
            |devices| {
                devices.locked = true;
                which(&devices.want)
            },
        );
        if let Some(device) = first {
            self.line(LEVEL).set_level(device as u32, false, &mut Hears(self));
        }
        self.devices.change(|devices| {
            devices.locked = false;
            first.into_iter().for_each(|device| devices.want[device] = false);
        });
    }

    /// Notes that an SPI is in a list register of a CPU, and in those of no other one.
    pub fn lists(&self, number: usize, intid: u32, pending: bool) {
        let Some(listed) = self.listed(intid) else { return };
        let (before, over) = listed.change(|listed| {
            listed.pending = pending;
            (listed.by.replace(number), listed.over)
        });
        if over && pending || before.is_some_and(|before| before != number) {
            fail(format!(
                "INTID {intid}, in a list register of CPU {before:?}, comes into one of CPU {number}"
            ));
        }
    }

    /// Notes that an SPI is in no list register any more.
    pub fn unlists(&self, intid: u32) {
        if let Some(listed) = self.listed(intid) {
            listed.change(|listed| listed.by = None);
        }
    }

    /// Says that an SPI must be pending in no list register, from here on.
    pub fn is_signalled_no_more(&self, id: IntId) {
        let Some(listed) = self.listed(id.number()) else { return };
        let by = listed.change(|listed| {
            listed.over = true;
            listed.by.filter(|_| listed.pending)
        });
        if let Some(number) = by {
            fail(format!("INTID {} is still in a list register of CPU {number}", id.number()));
        }
    }

    /// Says that an interrupt may be pending in a list register again.
    pub fn is_signalled_again(&self, id: IntId) {
        if let Some(listed) = self.listed(id.number()) {
            listed.change(|listed| listed.over = false);
        }
    }

    fn listed(&self, intid: u32) -> Option<&Model<Listed>> {
        self.listed.get(place(intid)?)
    }

    /// Notes that the guest of a vCPU has acknowledged an interrupt.
    pub fn acknowledges(&self, number: usize, intid: u32) {
        let times = match place(intid) {
            Some(place) => &self.acknowledged[number][place],
            None => &self.acknowledged_sgis,
        };
        times.fetch_add(1, Relaxed);
    }

    /// Returns how often SGIs were acknowledged.
    pub fn acknowledged_sgis(&self) -> u32 {
        self.acknowledged_sgis.load(Relaxed)
    }

    /// Returns how often the guest of a vCPU has acknowledged an SPI.
    pub fn acknowledged_by(&self, number: usize, id: IntId) -> u32 {
        place(id.number()).map_or(0, |place| self.acknowledged[number][place].load(Relaxed))
    }

    /// Returns how often an SPI was acknowledged.
    pub fn acknowledged(&self, id: IntId) -> u32 {
        (0..self.acknowledged.len()).map(|number| self.acknowledged_by(number, id)).sum()
    }

    /// Notes that a physical interrupt was deactivated.
    pub fn deactivates(&self, id: u32) {
        self.deactivated.lock().expect("no panic while it is held").push(id);
    }

    /// Returns which physical interrupts were deactivated.
    pub fn deactivated(&self) -> Vec<u32> {
        self.deactivated.lock().expect("no panic while it is held").clone()
    }

    /// Returns whether group 1 is enabled in the distributor.
    pub fn is_group_enabled(&self) -> bool {
        self.read(GICD_CTLR) & GROUP_ONE != 0
    }

    /// Brings a moment about.
    pub fn comes(&self, moment: usize) {
        self.moments[moment].change(|moment| *moment = true);
    }

    /// Waits for a moment.
    pub fn waits(&self, moment: usize) {
        self.moments[moment].wait(|moment| *moment, |_| ());
    }
}

/// Returns which of the SPIs and LPIs it is.
fn place(intid: u32) -> Option<usize> {
    match intid.checked_sub(8192) {
        Some(lpi) => Some(SPIS.len() + lpi as usize),
        None => Some(intid.checked_sub(32)? as usize),
    }
}

/// Returns the virtual CPU interface of the CPUs: five bits of priority, all for preemption.
pub fn implementation(list_registers: u8) -> hw::Implementation {
    hw::Implementation::new(list_registers, 5, 5).expect("it is legal")
}

/// In the end, nothing is pending or active, no list register has anything, the devices have what
/// they wanted, and the guest has acknowledged an SPI so often.
pub fn is_served(
    m: &Machine,
    vm: &Arc<Vm>,
    served: impl IntoIterator<Item = (IntId, std::ops::RangeInclusive<u32>)>,
) {
    let served: Vec<_> = served.into_iter().collect();
    let vm = Arc::clone(vm);
    m.at_quiescence("all that was injected is handled", move || {
        for id in SPIS {
            let state = vm.state(id);
            if state.is_pending() || state.is_active() {
                return Err(format!("INTID {}: {state:?}", id.number()));
            }
        }
        for (id, times) in &served {
            let acknowledged = vm.acknowledged(*id);
            if !times.contains(&acknowledged) {
                return Err(format!(
                    "INTID {} was acknowledged {acknowledged} times, of {times:?}",
                    id.number()
                ));
            }
        }
        let wants = vm.devices.observe(|devices| devices.want);
        (wants == [false; 2]).then_some(()).ok_or(format!("the devices want something: {wants:?}"))
    });
}

/// Sets a task up that uses the VM.
pub fn task(m: &Machine, name: &str, vm: &Arc<Vm>, run: impl FnOnce(&Vm) + 'static) {
    let vm = Arc::clone(vm);
    m.task(name.to_owned(), move || run(&vm));
}
