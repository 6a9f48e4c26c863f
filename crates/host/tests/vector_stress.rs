//! Real threads, and whatever order the machine gives their accesses: devices send while their
//! interrupts are moved, freed and requested again, and while a CPU goes offline and returns. Some
//! of the threads are CPUs, each with a local APIC of its own.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use doorbell_host::vector::{
    Affinity, Arrived, Cancelled, Cleaned, Cleanup, CpuVector, Irq, Move, Update, VectorError,
    Vectors,
};
use doorbell_host::{CpuSet, Handler, IrqDesc, IrqReturn, Sharing};
use doorbell_platform::{CpuId, IrqGuard, ReadDomain, Std, Vector};

const CPUS: u32 = 3;
/// How many vectors each CPU has.
const VECTORS: u8 = 4;
const LINES: u32 = 3;
const FIRST: u8 = 0x41;
/// Taken before what devices send, so that a CPU looks while something waits.
const CLEANUP: Vector = Vector(0xf0);
/// Goes and comes.
const GOES: CpuId = CpuId(2);

const MOVES: u32 = 60_000;
const FREES: u32 = 15_000;
const OFFLINES: u32 = 5_000;

/// Interrupts that are not taken, by vector.
#[derive(Default)]
struct Irr([AtomicU64; 4]);

impl Irr {
    fn set(&self, vector: Vector) {
        self.0[usize::from(vector.0 / 64)].fetch_or(1 << (vector.0 % 64), SeqCst);
    }

    fn is_set(&self, vector: Vector) -> bool {
        self.0[usize::from(vector.0 / 64)].load(SeqCst) >> (vector.0 % 64) & 1 != 0
    }

    /// The highest, which is in service from then on.
    fn take(&self) -> Option<Vector> {
        let (index, bits) = (0..4)
            .rev()
            .map(|index| (index, self.0[index].load(SeqCst)))
            .find(|(_, bits)| *bits != 0)?;
        let bit = bits.ilog2();
        self.0[index].fetch_and(!(1 << bit), SeqCst);
        Some(Vector((index as u32 * 64 + bit) as u8))
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| word.load(SeqCst) == 0)
    }
}

/// What a device has in its entry.
struct Entry {
    message: CpuVector,
    masked: bool,
    pending: bool,
}

/// A device, and its driver.
struct Device {
    /// Held while a message is on its way: who has written a new one knows that none of the former
    /// is.
    entry: Mutex<Entry>,
    raised: AtomicU64,
    /// Interrupts that were raised, and that the driver has not seen.
    waiting: AtomicU64,
    handled: AtomicU64,
    busy: AtomicBool,
    /// Held while the driver has not seen all that was raised.
    works: Mutex<()>,
}

/// Whoever comes here is now and then as slow as a CPU that is busy, or a device whose bus is.
fn slow() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    match CALLS.fetch_add(1, SeqCst) % 32 {
        0 => thread::sleep(Duration::from_micros(10)),
        call if call % 3 == 0 => thread::yield_now(),
        _ => {}
    }
}

impl Handler for Device {
    fn handle(&self) -> IrqReturn {
        assert!(!self.busy.swap(true, SeqCst), "two call the handler");
        slow();
        self.handled.fetch_add(self.waiting.swap(0, SeqCst), SeqCst);
        slow();
        self.busy.store(false, SeqCst);
        IrqReturn::Handled
    }
}

struct Line {
    irq: Irq,
    desc: IrqDesc<Std>,
    device: Arc<Device>,
    /// One at a time changes what the device sends.
    changes: Mutex<()>,
}

struct Host {
    vectors: Vectors<Std>,
    lines: Vec<Line>,
    irrs: [Irr; CPUS as usize],
    /// The devices that have sent what is in the IRR.
    senders: [[AtomicU32; VECTORS as usize]; CPUS as usize],
    /// Interrupts that were nobody's.
    unhandled: AtomicU32,
    /// Nobody moves anything while a CPU goes for good.
    hotplug: RwLock<()>,
    /// How many still change something.
    changing: AtomicU32,
    over: AtomicBool,
}

/// Waits, and has the test fail rather than hang.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}: never");
        thread::yield_now();
    }
}

/// Numbers below `n`, the same in each run.
fn random(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |n| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u32 % n
    }
}

fn only(cpu: CpuId) -> CpuSet {
    CpuSet::of([cpu])
}

impl Host {
    fn new() -> Self {
        let vectors = Vectors::new(CPUS, LINES, FIRST..=FIRST + (VECTORS - 1)).unwrap();
        for cpu in 0..CPUS {
            assert_eq!(vectors.online(CpuId(cpu)).unwrap().cpu(), CpuId(cpu));
        }
        let rcu = Arc::new(ReadDomain::new("irq"));
        let line = |number| {
            let cpu = CpuId(number % CPUS);
            let message = vectors.activate(Irq(number), Affinity::In(&only(cpu))).unwrap();
            let device = Arc::new(Device {
                entry: Mutex::new(Entry { message, masked: false, pending: false }),
                raised: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
                handled: AtomicU64::new(0),
                busy: AtomicBool::new(false),
                works: Mutex::new(()),
            });
            let desc = IrqDesc::new(&rcu, only(cpu), &only(cpu)).unwrap();
            desc.request(device.clone(), Sharing::Exclusive).unwrap().synchronize();
            Line { irq: Irq(number), desc, device, changes: Mutex::new(()) }
        };
        let lines = (0..LINES).map(line).collect();
        Host {
            vectors,
            lines,
            irrs: Default::default(),
            senders: Default::default(),
            unhandled: AtomicU32::new(0),
            hotplug: RwLock::new(()),
            changing: AtomicU32::new(3),
            over: AtomicBool::new(false),
        }
    }

    fn sender(&self, place: CpuVector) -> &AtomicU32 {
        &self.senders[place.cpu.0 as usize][usize::from(place.vector.0 - FIRST)]
    }

    fn send(&self, line: &Line, to: CpuVector) {
        self.sender(to).store(line.irq.0, SeqCst);
        self.irrs[to.cpu.0 as usize].set(to.vector);
    }

    /// A device has something for its driver.
    fn raise(&self, line: &Line) {
        line.device.raised.fetch_add(1, SeqCst);
        line.device.waiting.fetch_add(1, SeqCst);
        let mut entry = line.device.entry.lock().unwrap();
        if entry.masked {
            entry.pending = true;
        } else {
            self.send(line, entry.message);
        }
    }

    fn write(&self, line: &Line, change: impl FnOnce(&mut Entry)) {
        let mut entry = line.device.entry.lock().unwrap();
        change(&mut entry);
        if !entry.masked && std::mem::take(&mut entry.pending) {
            self.send(line, entry.message);
        }
    }

    fn asks(&self, cleanup: Cleanup) {
        self.irrs[cleanup.cpu().0 as usize].set(CLEANUP);
    }

    fn handles(&self, irq: Irq) {
        loop {
            let handling = self.lines[irq.0 as usize].desc.handle();
            assert!(!handling.mask && !handling.spurious_disabled);
            if !handling.resend {
                break;
            }
        }
    }

    /// Takes what is in the CPU's IRR. The CPU itself calls this.
    fn takes(&self, cpu: CpuId) {
        let irr = &self.irrs[cpu.0 as usize];
        loop {
            let mut again = None;
            while let Some(vector) = irr.take() {
                slow();
                if vector != CLEANUP {
                    self.takes_one(CpuVector { cpu, vector });
                } else if let Cleaned::Again(cleanup) =
                    self.vectors.cleanup(cpu, |vector| irr.is_set(vector))
                {
                    again = Some(cleanup);
                }
            }
            match again {
                Some(cleanup) => self.asks(cleanup),
                None => return,
            }
        }
    }

    fn takes_one(&self, place: CpuVector) {
        let sender = self.sender(place).load(SeqCst);
        match self.vectors.cpu(place.cpu).unwrap().arrived(place.vector) {
            Arrived::Irq(irq) => {
                assert_eq!(irq, Irq(sender), "what another device has sent");
                self.handles(irq);
            }
            Arrived::Unhandled => _ = self.unhandled.fetch_add(1, SeqCst),
        }
    }

    /// Moves an interrupt whose changes the caller orders; `false` if that is not possible now.
    fn moves(&self, line: &Line, to: Affinity<'_>, update: Update, cancels: bool) -> bool {
        let _stays = self.hotplug.read().unwrap();
        let moved = match self.vectors.begin_move(line.irq, to, update) {
            Ok(None) => return true,
            Ok(Some(moved)) => moved,
            Err(VectorError::Moving(_) | VectorError::Full { .. } | VectorError::Inactive(_)) => {
                return false;
            }
            Err(error) => panic!("{error}"),
        };
        if cancels {
            let Cancelled { to, between, .. } = self.vectors.cancel(moved).unwrap();
            [Some(to), between].into_iter().flatten().for_each(|cleanup| self.asks(cleanup));
            return false;
        }
        slow();
        self.writes(line, &moved, update);
        slow();
        let cpu = only(moved.to().cpu);
        if let Some(change) = line.desc.set_affinity(cpu.clone(), &cpu, drop).unwrap() {
            change.act();
        }
        self.asks(self.vectors.moved(moved).unwrap());
        true
    }

    fn writes(&self, line: &Line, moved: &Move, update: Update) {
        match update {
            Update::Whole => {
                self.write(line, |entry| entry.masked = true);
                slow();
                self.write(line, |entry| entry.message = moved.to());
                self.write(line, |entry| entry.masked = false);
            }
            Update::WordByWord => {
                self.write(line, |entry| entry.message.vector = moved.to().vector);
                slow();
                self.write(line, |entry| entry.message.cpu = moved.to().cpu);
            }
        }
    }

    /// A driver quiets its device and leaves it, and another comes. The CPUs may still have
    /// interrupts that told nothing new.
    fn frees_and_requests(&self, line: &Line) {
        let _quiet = line.device.works.lock().unwrap();
        let _changes = line.changes.lock().unwrap();
        let handler: Arc<dyn Handler> = line.device.clone();
        let freed = line.desc.free(&handler).unwrap();
        self.write(line, |entry| entry.masked = true);
        freed.synchronize();
        self.asks(self.vectors.deactivate(line.irq).unwrap());
        line.desc.request(handler, Sharing::Exclusive).unwrap().synchronize();
        let mut place = line.device.entry.lock().unwrap().message;
        until("quarantine ends", || match self.vectors.activate(line.irq, Affinity::Anywhere) {
            Ok(free) => {
                place = free;
                true
            }
            Err(VectorError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        });
        self.write(line, |entry| (entry.message, entry.masked) = (place, false));
    }

    /// Takes the CPU offline and brings it back. The CPU itself calls this, and takes interrupts
    /// until it goes for good. Returns `false` if the others have no room.
    fn goes_and_comes(&self, cpu: CpuId) -> bool {
        match self.vectors.begin_offline(cpu) {
            Ok(()) => {}
            Err(VectorError::Full { .. }) => return false,
            Err(error) => panic!("{error}"),
        }
        let _gone = loop {
            while let Some(irq) = self.vectors.next_on(cpu) {
                if self.over.load(SeqCst) {
                    return false;
                }
                let line = &self.lines[irq.0 as usize];
                if let Ok(_changes) = line.changes.try_lock() {
                    self.moves(line, Affinity::Anywhere, Update::Whole, false);
                }
                self.takes(cpu);
                thread::yield_now();
            }
            let gone = self.hotplug.write().unwrap();
            if self.vectors.next_on(cpu).is_none() {
                break gone;
            }
        };
        let irr = &self.irrs[cpu.0 as usize];
        let off = IrqGuard::<Std>::new();
        while let Some(irq) = self.vectors.pending(cpu, |vector| irr.is_set(vector)).unwrap() {
            self.handles(irq);
        }
        drop(off);
        self.asks(self.vectors.online(cpu).unwrap());
        true
    }

    fn runs(&self, cpu: CpuId) {
        let mut left = if cpu == GOES { OFFLINES } else { 0 };
        while !self.over.load(SeqCst) {
            self.takes(cpu);
            if left > 0 && self.goes_and_comes(cpu) {
                left -= 1;
                if left == 0 {
                    self.changing.fetch_sub(1, SeqCst);
                }
            }
            thread::yield_now();
        }
    }

    fn device(&self, line: &Line) {
        let mut random = random(u64::from(line.irq.0) + 1);
        while self.changing.load(SeqCst) > 0 {
            let works = line.device.works.lock().unwrap();
            (0..=random(3)).for_each(|_| {
                self.raise(line);
                slow();
            });
            until("the driver sees what was raised", || line.device.waiting.load(SeqCst) == 0);
            drop(works);
            thread::yield_now();
        }
    }

    fn mover(&self) {
        let mut random = random(100);
        for _ in 0..MOVES {
            let line = &self.lines[random(LINES) as usize];
            let update = [Update::Whole, Update::WordByWord][random(2) as usize];
            let changes = line.changes.lock().unwrap();
            self.moves(line, Affinity::In(&only(CpuId(random(CPUS)))), update, random(8) == 0);
            drop(changes);
            thread::yield_now();
        }
        self.changing.fetch_sub(1, SeqCst);
    }

    fn driver(&self) {
        let mut random = random(200);
        for _ in 0..FREES {
            self.frees_and_requests(&self.lines[random(LINES) as usize]);
            thread::yield_now();
        }
        self.changing.fetch_sub(1, SeqCst);
    }
}

/// Has the CPUs end, also if something else has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn what_devices_raise_is_handled_wherever_their_interrupts_go_and_no_vector_is_lost() {
    let host = Host::new();
    let free = host.vectors.free() + LINES;
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let host = &host;
            scope.spawn(move || host.runs(CpuId(cpu)));
        }
        let over = Over(&host.over);
        thread::scope(|scope| {
            for line in &host.lines {
                scope.spawn(|| host.device(line));
            }
            scope.spawn(|| host.mover());
            scope.spawn(|| host.driver());
        });
        // All is sent: each CPU takes what it has, and looks at what is in quarantine.
        for line in &host.lines {
            host.asks(host.vectors.deactivate(line.irq).unwrap());
        }
        until("no vector is in use", || host.vectors.free() == free);
        until("all was taken", || host.irrs.iter().all(Irr::is_empty));
        drop(over);
    });
    for line in &host.lines {
        let device = &line.device;
        assert!(device.raised.load(SeqCst) > 0);
        assert_eq!(device.raised.load(SeqCst), device.handled.load(SeqCst), "{}", line.irq);
    }
    let counted = (0..CPUS).map(|cpu| host.vectors.cpu(CpuId(cpu)).unwrap().unhandled());
    let (counted, spurious) = counted.fold((0, 0), |(known, spurious), one| {
        (known + one.late + one.retriggered, spurious + one.spurious)
    });
    assert_eq!((counted, spurious), (host.unhandled.load(SeqCst), 0));
}
