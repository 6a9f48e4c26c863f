//! AMD's IOMMU as far as it remaps one device's interrupt (AMD IOMMU specification, IRTEs of 128
//! bits, guest virtual APIC mode).
//!
//! An IRTE is read whole, in one step, and written whole. Whether the IOMMU sets the IRR bit in the
//! same step, and as of when it takes `IsRun`, `Destination` and `GALogIntr`, is a parameter
//! ([`Post`]). Doorbells and log entries are under way for some time in any case.

use std::fmt;
use std::rc::Rc;

use doorbell_explore::Ended;
use doorbell_explore::sim::{Model, note, remark};

use crate::avic::{AvicCpu, BackingPage, Gate, Memory};
use crate::ga_log::GaLog;

const REMAP_EN: u128 = 1 << 0;
const GA_LOG_INTR: u128 = 1 << 2;
const IS_RUN: u128 = 1 << 6;
const GUEST_MODE: u128 = 1 << 7;
const DESTINATION: u32 = 8;
const GA_TAG: u32 = 32;
const VECTOR: u32 = 64;
const GA_ROOT: u32 = 76;

/// The value of an interrupt remapping table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Irte(u128);

impl Irte {
    /// Remapped to a vector of the host.
    pub const HOST: Irte = Irte(REMAP_EN);

    /// Creates an entry that posts to the backing page number `root`. Log entries say `tag`.
    pub fn guest(root: u32, tag: u32, vector: u8) -> Irte {
        let [root, tag, vector] = [root, tag, vector.into()].map(u128::from);
        Irte(REMAP_EN | GUEST_MODE | tag << GA_TAG | vector << VECTOR | root << GA_ROOT)
    }

    /// Returns the same with another gate.
    pub fn with(self, gate: Gate) -> Irte {
        let rest = self.0 & !(GA_LOG_INTR | IS_RUN | 0xff_ffff << DESTINATION);
        Irte(match gate {
            Gate::Running(cpu) => rest | IS_RUN | u128::from(cpu) << DESTINATION,
            Gate::Stopped { log: true } => rest | GA_LOG_INTR,
            Gate::Stopped { log: false } => rest,
        })
    }

    /// The entry's gate.
    pub fn gate(self) -> Gate {
        match self.0 & IS_RUN {
            0 => Gate::Stopped { log: self.0 & GA_LOG_INTR != 0 },
            _ => Gate::Running((self.0 >> DESTINATION) as u32 & 0xff_ffff),
        }
    }

    fn tag(self) -> u32 {
        (self.0 >> GA_TAG) as u32
    }

    /// Page and vector, if it is in guest mode.
    fn posts_to(self) -> Option<(usize, u8)> {
        let root = (self.0 >> GA_ROOT) as usize & 0xff_ffff_ffff;
        (self.0 & GUEST_MODE != 0).then_some((root, (self.0 >> VECTOR) as u8))
    }
}

impl fmt::Display for Irte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((page, _)) = self.posts_to() else { return f.write_str("host") };
        write!(f, "page {page}, {}", self.gate())
    }
}

/// Says in the trace if the vCPU of the page that an entry posts to is in the guest, and the entry
/// does not say on which CPU.
fn remark_stale(irte: Irte, cpus: &[AvicCpu]) {
    let Some((page, _)) = irte.posts_to() else { return };
    let running = cpus.iter().enumerate().find_map(|(at, cpu)| Some((at, cpu.running(page)?)));
    if let Some((at, name)) = running
        && irte.gate() != Gate::Running(at as u32)
    {
        remark(|| format!("stale, page {page} is in the guest on {name}"));
    }
}

/// The entry in memory.
pub struct Entry(Rc<Memory>);

doorbell_platform::opaque_debug!([] Entry);

impl Entry {
    /// Creates the entry of that memory, which says `irte` from now on.
    pub fn new(memory: &Rc<Memory>, irte: Irte) -> Rc<Self> {
        memory.0.change(|words| words.irte = irte.0);
        Rc::new(Entry(Rc::clone(memory)))
    }

    #[track_caller]
    fn read(&self) -> Irte {
        let irte = Irte(self.0.0.observe(|words| words.irte));
        note(|| format!("reads IRTE: {irte}"));
        irte
    }

    /// Writes all of it.
    #[track_caller]
    pub fn write(&self, irte: Irte) {
        self.0.0.change(|words| words.irte = irte.0);
        note(|| format!("writes IRTE: {irte}"));
    }

    /// Writes where the vCPU runs, and leaves the rest as it is. Whoever may do so is alone in it,
    /// so it is one step.
    #[track_caller]
    pub fn set_gate(&self, gate: Gate) {
        let irte = self.0.0.change(|words| {
            words.irte = Irte(words.irte).with(gate).0;
            Irte(words.irte)
        });
        note(|| format!("writes IRTE: {irte}"));
    }
}

/// How the IOMMU posts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Post {
    /// The IOMMU reads the entry and sets the bit in one step.
    AtOnce,
    /// The IOMMU reads the entry, sets the bit, and reads anew whom to notify.
    GateAfterBit,
    /// The IOMMU reads the entry, sets the bit, and notifies whom the entry named before.
    GateBeforeBit,
}

/// The IOMMU, with one entry.
pub struct Iommu {
    /// The entry of its device.
    pub entry: Rc<Entry>,
    /// How it posts.
    pub post: Post,
    /// The CPUs, by number.
    pub cpus: Rc<[AvicCpu]>,
    ga_log: GaLog,
    under_way: Model<u32>,
}

doorbell_platform::opaque_debug!([] Iommu);

impl Iommu {
    /// Creates an IOMMU with nothing in its log.
    pub fn new(entry: Rc<Entry>, post: Post, cpus: Rc<[AvicCpu]>) -> Rc<Self> {
        // Overflow is another case's affair.
        let ga_log = GaLog::new(usize::MAX);
        Rc::new(Iommu { entry, post, cpus, ga_log, under_way: Model::new("posts under way", 0) })
    }

    /// Takes an MSI of the device, which arrives. `host` is what a vector of the host does.
    #[track_caller]
    pub fn msi(&self, host: impl FnOnce()) {
        if self.post != Post::AtOnce {
            self.under_way.change(|count| *count += 1);
            note(|| "an MSI comes".to_owned());
        }
        let irte =
            if self.post == Post::AtOnce { self.post_at_once() } else { self.post_in_steps() };
        remark_stale(irte, &self.cpus);
        match irte.posts_to().map(|_| irte.gate()) {
            None => host(),
            Some(Gate::Running(cpu)) => self.cpus[cpu as usize].doorbell(),
            Some(Gate::Stopped { log: true }) => {
                self.ga_log.write(irte.tag());
            }
            Some(Gate::Stopped { log: false }) => {}
        }
        if self.post != Post::AtOnce {
            self.under_way.change(|count| *count -= 1);
            note(|| "the post is over".to_owned());
        }
    }

    /// The entry that says whom to notify.
    fn post_at_once(&self) -> Irte {
        let memory = &self.entry.0;
        let irte = memory.0.change(|words| {
            let irte = Irte(words.irte);
            if let Some((page, vector)) = irte.posts_to() {
                words.irr[page] |= 1 << vector;
            }
            irte
        });
        note(|| format!("posts by IRTE: {irte}"));
        irte
    }

    /// The entry that says whom to notify.
    fn post_in_steps(&self) -> Irte {
        let irte = self.entry.read();
        let Some((page, vector)) = irte.posts_to() else { return irte };
        BackingPage::new(&self.entry.0, page).post(vector);
        if self.post == Post::GateAfterBit { self.entry.read() } else { irte }
    }

    /// Invalidates the entry, and waits until nothing that was read of it before is used any more.
    #[track_caller]
    pub fn invalidate(&self) {
        self.under_way.wait(|count| *count == 0, |_| ());
        note(|| "the posts under way are over".to_owned());
    }

    /// Returns whether the log has entries that nobody has read.
    #[track_caller]
    pub fn has_logged(&self) -> bool {
        !self.ga_log.is_empty()
    }

    /// Reads the tag of the next log entry.
    ///
    /// # Errors
    /// When the run is over.
    #[track_caller]
    pub fn next_log_entry(&self) -> Result<u32, Ended> {
        Ok(self.ga_log.read()?.expect("none is dropped"))
    }
}
