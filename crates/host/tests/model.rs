//! Ten thousand random lives of a table and its vCPUs against a plain model, on one thread: what
//! each entry says, on which lists it is, which indices are in use, and that nothing leaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use doorbell_host::irte::amd::{AmdIrte, GuestMode, HostMode};
use doorbell_host::{
    AmdBinding, AmdInterrupt, AvicTarget, Bound, Invalidate, IrteIndex, IrteMemory, NotBound,
    Posting, RemapTable, RescanRequired, RetiredIrte,
};
use doorbell_platform::{Platform, Std};
use doorbell_post::{Mirror, Residency, ResidencyCopies};
use proptest::prelude::*;

const ENTRIES: usize = 3;
const DEVICES: usize = 4;
const VCPUS: usize = 3;

type Word = <Std as Platform>::AtomicU128;

struct Shared(Arc<[Word]>);

impl IrteMemory<Std> for Shared {
    fn entries(&self) -> &[Word] {
        &self.0
    }
}

struct Own;

impl Mirror for Own {
    fn reflect(&self, _: Residency) {}
}

struct Vcpu {
    number: usize,
    copies: ResidencyCopies<Std, Own, AmdInterrupt<Std, Shared>>,
}

impl AvicTarget<Std, Shared> for Vcpu {
    type Own = Own;
    fn copies(&self) -> &ResidencyCopies<Std, Own, AmdInterrupt<Std, Shared>> {
        &self.copies
    }
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(usize, u32),
    Retire(usize),
    Bind(usize, usize),
    Unbind(usize),
    Retarget(usize, usize),
    SetHost(usize, u32),
    /// Loaded, put, asleep, or inhibited.
    Move(usize, Residency),
    /// One of the invalidations that were asked for has completed.
    Complete(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (device, vcpu) = (0..DEVICES, 0..VCPUS);
    let residency = prop_oneof![
        any::<u32>().prop_map(|apic_id| Residency::Running { apic_id }),
        any::<bool>().prop_map(|log| Residency::Away { log }),
    ];
    prop_oneof![
        4 => (device.clone(), any::<u32>()).prop_map(|(n, to)| Op::Allocate(n, to)),
        2 => device.clone().prop_map(Op::Retire),
        6 => (device.clone(), vcpu.clone()).prop_map(|(n, to)| Op::Bind(n, to)),
        2 => device.clone().prop_map(Op::Unbind),
        3 => (device.clone(), vcpu.clone()).prop_map(|(n, to)| Op::Retarget(n, to)),
        2 => (device, any::<u32>()).prop_map(|(n, to)| Op::SetHost(n, to)),
        6 => (vcpu, residency).prop_map(|(n, to)| Op::Move(n, to)),
        5 => any::<usize>().prop_map(Op::Complete),
    ]
}

fn host(destination: u32) -> HostMode {
    HostMode { destination, logical: false, vector: 0x31, kind: 0 }
}

fn posting(device: usize, vcpu: usize) -> Posting {
    Posting { backing_page: 0x100 + vcpu as u64, vector: 0x40 + device as u8, tag: vcpu as u32 }
}

enum Token {
    Changed(Invalidate<()>),
    Left(Invalidate<RescanRequired<Vcpu>>, usize),
    Retired(Invalidate<RetiredIrte<Std, Shared>>),
}

/// A device as the model has it.
struct Device {
    binding: AmdBinding<Std, Shared, Vcpu>,
    index: IrteIndex,
    host: u32,
    to: Option<usize>,
}

struct World {
    memory: Arc<[Word]>,
    table: Arc<RemapTable<Std, Shared>>,
    vcpus: Vec<Arc<Vcpu>>,
    residencies: Vec<Residency>,
    devices: BTreeMap<usize, Device>,
    tokens: Vec<Token>,
}

impl World {
    fn new() -> Self {
        let memory: Arc<[Word]> = (0..ENTRIES).map(|_| Word::new(0)).collect();
        let vcpus = (0..VCPUS)
            .map(|number| Arc::new(Vcpu { number, copies: ResidencyCopies::new(Own) }))
            .collect();
        World {
            table: RemapTable::new(Shared(Arc::clone(&memory))).unwrap(),
            memory,
            vcpus,
            residencies: vec![Residency::Away { log: false }; VCPUS],
            devices: BTreeMap::new(),
            tokens: Vec::new(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Allocate(n, to) => self.allocate(n, to),
            Op::Retire(n) => self.retire(n),
            Op::Bind(n, to) => self.bind(n, to),
            Op::Unbind(n) => self.unbind(n),
            Op::Retarget(n, to) => {
                self.unbind(n);
                self.check();
                self.bind(n, to);
            }
            Op::SetHost(n, to) => {
                if let Some(device) = self.devices.get_mut(&n) {
                    device.host = to;
                    self.tokens.push(Token::Changed(device.binding.interrupt().set_host(host(to))));
                }
            }
            Op::Move(n, to) => {
                self.residencies[n] = to;
                self.vcpus[n].copies.set(to);
            }
            Op::Complete(n) if !self.tokens.is_empty() => {
                let token = self.tokens.swap_remove(n % self.tokens.len());
                self.complete(token);
            }
            Op::Complete(_) => {}
        }
    }

    /// Indices that nobody can be given: used, or not forgotten by hardware yet.
    fn taken(&self) -> BTreeSet<IrteIndex> {
        let waiting = self.tokens.iter().filter_map(|token| match token {
            Token::Retired(token) => Some(token.index()),
            _ => None,
        });
        self.devices.values().map(|device| device.index).chain(waiting).collect()
    }

    fn allocate(&mut self, n: usize, to: u32) {
        if self.devices.contains_key(&n) {
            return;
        }
        let taken = self.taken();
        let Ok(entry) = self.table.allocate() else {
            return assert_eq!(taken.len(), ENTRIES, "none is free");
        };
        let index = entry.index();
        assert!(!taken.contains(&index), "{index:?} is in use, or was and is not forgotten yet");
        assert_eq!(entry.load(), 0);
        let binding = AmdBinding::new(AmdInterrupt::new(entry, host(to)));
        self.devices.insert(n, Device { binding, index, host: to, to: None });
    }

    fn retire(&mut self, n: usize) {
        let Some(Device { binding, index, host, to }) = self.devices.remove(&n) else { return };
        match binding.retire() {
            Ok(token) => {
                assert_eq!(to, None);
                self.tokens.push(Token::Retired(token));
            }
            Err(binding) => {
                assert!(to.is_some());
                self.devices.insert(n, Device { binding, index, host, to });
            }
        }
    }

    fn bind(&mut self, n: usize, to: usize) {
        let Some(device) = self.devices.get_mut(&n) else { return };
        match device.binding.bind(Arc::clone(&self.vcpus[to]), posting(n, to)) {
            Ok(token) => {
                assert_eq!(device.to.replace(to), None);
                self.tokens.push(Token::Changed(token));
            }
            // Refused, and posted to none from here on.
            Err(bound) => {
                assert_eq!(
                    bound.to_string(),
                    "the interrupt was posted to a vCPU already, and is posted to none now"
                );
                let Bound(token) = bound;
                let former = device.to.take().expect("it is posted to none");
                self.tokens.push(Token::Left(token, former));
            }
        }
    }

    fn unbind(&mut self, n: usize) {
        let Some(device) = self.devices.get_mut(&n) else { return };
        match device.binding.unbind() {
            Ok(token) => {
                let former = device.to.take().expect("it was bound");
                self.tokens.push(Token::Left(token, former));
            }
            Err(unbound @ NotBound) => {
                assert_eq!(
                    (unbound.to_string().as_str(), device.to),
                    ("the interrupt is posted to no vCPU", None)
                );
            }
        }
    }

    fn complete(&self, token: Token) {
        match token {
            Token::Changed(token) => token.by(|_| ()),
            Token::Left(token, former) => assert_eq!(token.by(|_| ()).0.number, former),
            Token::Retired(token) => drop(token.by(|_| ())),
        }
    }

    fn check(&self) {
        let mut expected = vec![0; ENTRIES];
        let mut lists = [0; VCPUS];
        for (&n, Device { index, host: to_host, to, .. }) in &self.devices {
            let entry = match *to {
                None => AmdIrte::host(host(*to_host)),
                Some(vcpu) => {
                    lists[vcpu] += 1;
                    let Posting { backing_page, vector, tag } = posting(n, vcpu);
                    AmdIrte::guest(GuestMode {
                        backing_page,
                        vector,
                        tag,
                        residency: self.residencies[vcpu],
                    })
                }
            };
            expected[index.number()] = entry.bits();
        }
        let entries: Vec<u128> = self.memory.iter().map(|word| word.load(SeqCst)).collect();
        assert_eq!(entries, expected);
        assert_eq!(self.vcpus.iter().map(|vcpu| vcpu.copies.len()).collect::<Vec<_>>(), lists);
        assert_eq!(self.table.free(), ENTRIES - self.taken().len());
    }

    /// Everything ends in order: nothing is left.
    fn end(mut self) {
        for n in 0..DEVICES {
            self.unbind(n);
            self.retire(n);
        }
        assert!(self.devices.is_empty());
        for token in std::mem::take(&mut self.tokens) {
            self.complete(token);
        }
        self.check();
        assert!(self.vcpus.iter().all(|vcpu| Arc::strong_count(vcpu) == 1));
        assert_eq!((self.table.free(), Arc::strong_count(&self.table)), (ENTRIES, 1));
    }
}

/// `DOORBELL_CASES` has more of them.
fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_does_what_a_plain_model_does(ops in prop::collection::vec(op(), 1..40)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
            world.check();
        }
        world.end();
    }
}
