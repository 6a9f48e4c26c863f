//! AMD's AVIC (APM vol. 2, section 15.29): the backing page that everybody posts to, and a CPU that
//! runs a guest on it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use doorbell_explore::Ended;
use doorbell_explore::sim::{Model, note};

/// What whoever has published an interrupt reads to learn what else to do: the physical-ID entry of
/// a vCPU (with the bit that KVM keeps beside it), or its copy in an IRTE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate {
    /// `IsRunning`: ring this CPU.
    Running(u32),
    /// Not running; with `log`, the IOMMU is to write a log entry, so that somebody wakes the vCPU.
    Stopped {
        /// Whether a log entry is asked for.
        log: bool,
    },
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gate::Running(cpu) => write!(f, "running on pCPU {cpu}"),
            Gate::Stopped { log: true } => f.write_str("stopped, log"),
            Gate::Stopped { log: false } => f.write_str("stopped"),
        }
    }
}

/// The memory that software, CPUs and the IOMMU share, as one object: the IOMMU may read an IRTE
/// and set a bit of an IRR in one step.
pub struct Memory(pub(crate) Model<Words>);

doorbell_platform::opaque_debug!([] Memory);

pub(crate) struct Words {
    /// One word of the IRR of each backing page. The vectors of cases are bits of it.
    pub irr: Vec<u64>,
    /// The one interrupt remapping table entry.
    pub irte: u128,
}

impl Memory {
    /// Creates memory with `pages` backing pages.
    pub fn new(pages: usize) -> Rc<Self> {
        Rc::new(Memory(Model::new("memory", Words { irr: vec![0; pages], irte: 0 })))
    }
}

/// The backing page of a vCPU.
#[derive(Clone)]
pub struct BackingPage {
    memory: Rc<Memory>,
    number: usize,
}

doorbell_platform::opaque_debug!([] BackingPage; number);

impl BackingPage {
    /// Returns page `number` of that memory.
    pub fn new(memory: &Rc<Memory>, number: usize) -> Self {
        BackingPage { memory: Rc::clone(memory), number }
    }

    /// Sets the bit of a vector below 64, and tells nobody.
    #[track_caller]
    pub fn post(&self, vector: u8) {
        self.memory.0.change(|words| words.irr[self.number] |= 1 << vector);
        note(|| format!("sets IRR bit {vector} of page {}", self.number));
    }

    /// Returns the IRR.
    #[track_caller]
    pub fn pending(&self) -> u64 {
        let irr = self.memory.0.observe(|words| words.irr[self.number]);
        note(|| format!("IRR of page {} is {irr:#x}", self.number));
        irr
    }

    /// Delivers what is pending, all of it in one step: only whether anything is left behind
    /// matters.
    #[track_caller]
    pub fn deliver(&self) {
        let irr = self.memory.0.change(|words| std::mem::take(&mut words.irr[self.number]));
        note(|| match irr {
            0 => format!("nothing is pending in page {}", self.number),
            _ => format!("the guest gets IRR {irr:#x} of page {}", self.number),
        });
    }
}

/// A CPU as far as guest mode goes.
pub struct AvicCpu {
    name: &'static str,
    state: Model<State>,
    /// The page of the guest that it runs with AVIC, for what traces say.
    page: Cell<Option<usize>>,
}

doorbell_platform::opaque_debug!([] AvicCpu; name);

#[derive(Default)]
struct State {
    /// In guest mode; and whether with AVIC.
    guest: Option<bool>,
    doorbell: bool,
    interrupt: bool,
}

impl AvicCpu {
    /// Creates a CPU that is not in guest mode.
    #[track_caller]
    pub fn new(name: &'static str) -> Self {
        AvicCpu { name, state: Model::new(name, State::default()), page: Cell::new(None) }
    }

    /// Returns what traces call it, if it runs a guest with that page.
    pub(crate) fn running(&self, page: usize) -> Option<&'static str> {
        (self.page.get() == Some(page)).then_some(self.name)
    }

    /// Rings the doorbell, as another CPU or the IOMMU does. A CPU that is not in guest mode with
    /// AVIC ignores it.
    #[track_caller]
    pub fn doorbell(&self) {
        let heard = self.state.change(|state| {
            let heard = state.guest == Some(true);
            state.doorbell |= heard;
            heard
        });
        note(|| format!("rings {}{}", self.name, if heard { "" } else { ": not heard" }));
    }

    /// Sends an interrupt of the host, which ends guest mode, also if it comes just before.
    #[track_caller]
    pub fn interrupt(&self) {
        self.state.change(|state| state.interrupt = true);
        note(|| format!("interrupts {}", self.name));
    }

    /// Runs a guest until an interrupt ends it: with AVIC if there is a backing page. The page's
    /// IRR is looked at on entry and whenever the doorbell rings, and at no other time.
    ///
    /// # Errors
    /// When the run is over; the guest runs on.
    #[track_caller]
    pub fn run(&self, avic: Option<&BackingPage>) -> Result<(), Ended> {
        self.state.change(|state| {
            state.guest = Some(avic.is_some());
            state.doorbell = false;
        });
        self.page.set(avic.map(|page| page.number));
        note(|| {
            format!(
                "enters the guest on {}{}",
                self.name,
                if avic.is_some() { "" } else { " without AVIC" }
            )
        });
        loop {
            if let Some(page) = avic {
                page.deliver();
            }
            let leaves = self.state.serve(
                |state| state.doorbell || state.interrupt,
                |state| {
                    state.doorbell = false;
                    let leaves = std::mem::take(&mut state.interrupt);
                    state.guest = state.guest.filter(|_| !leaves);
                    leaves
                },
            )?;
            if leaves {
                self.page.set(None);
                return Ok(());
            }
        }
    }
}
