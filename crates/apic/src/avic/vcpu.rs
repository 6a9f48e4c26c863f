//! A vCPU whose interrupts hardware delivers.
//!
//! ```text
//!   a sender, or an IOMMU             the owner and its hooks
//!   sets the bit of the IRR           change where the vCPU is, in its one mode
//!   full barrier                      write all copies that hardware reads, under one lock
//!   reads where the vCPU is:          full barrier
//!     doorbell, kick, wake or log     look at the IRR, before entering and before sleeping
//! ```
//!
//! Hardware reads the copies (the entry of the physical ID table and each IRTE) while they change.
//! Each says where the vCPU is, or that it is nowhere and somebody has to be told; never where it
//! was.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_platform::{Atomic, CpuId, IrqGuard};
use doorbell_post::{
    Awake, Blocked, Guest, InGuest, Layout, Mode, ModeGate, Notice, Post, Requests, Residency,
    ResidencyCopies, RunState,
};

use super::spec::{HostApicId, PageAddress};
use super::table::{PhysicalId, PhysicalTable, TableError};
use super::{AtomicU64, Avic, BackingPage, Irr};
use crate::GuestVector;

type Posts<A> =
    Post<<A as Avic>::Platform, Irr<<A as Avic>::Page>, ModeGate<<A as Avic>::Platform>>;

/// A vCPU with AVIC: its backing page, its mode, and the copies of its mode that hardware reads.
///
/// Anybody may [`post`](AvicVcpu::post) and [add](ResidencyCopies::add) IRTEs. What is said to be
/// by the owner is for the task that runs the vCPU, and for its scheduler's hooks.
pub struct AvicVcpu<A: Avic> {
    post: Posts<A>,
    copies: ResidencyCopies<A::Platform, PhysicalId<A>, A::Irte>,
    /// What the owner and its hooks remember. Nobody else uses it; it is written under the lock of
    /// the copies, with interrupts off, so that no hook comes between it and them. Hence no
    /// ordering of its own.
    place: AtomicU64<A>,
}

doorbell_platform::opaque_debug!([A: Avic] AvicVcpu<A>);

/// What the owner remembers of where the vCPU is.
#[derive(Clone, Copy)]
struct Place(u64);

impl Place {
    /// On a CPU, whose APIC ID the lower half is.
    const LOADED: u64 = 1 << 32;
    /// Between [`AvicVcpu::block`] and the end of the sleep.
    const SLEEPS: u64 = 1 << 33;
    const INHIBITED: u64 = 1 << 34;

    fn loaded(self, host: Option<HostApicId>) -> Self {
        let place = host.map_or(0, |host| Self::LOADED | u64::from(host.number()));
        Place(self.0 & (Self::SLEEPS | Self::INHIBITED) | place)
    }

    fn with(self, flag: u64, set: bool) -> Self {
        Place(if set { self.0 | flag } else { self.0 & !flag })
    }

    fn inhibited(self) -> bool {
        self.0 & Self::INHIBITED != 0
    }

    fn residency(self) -> Residency {
        if self.0 & Self::SLEEPS != 0 {
            Residency::Away { log: true }
        } else if self.0 & Self::LOADED == 0 {
            // It looks before it enters, and does not sleep: nobody needs to be told.
            Residency::Away { log: false }
        } else if self.inhibited() {
            // It may be in the guest, where no doorbell is heard: the handler of the log kicks it
            // out.
            Residency::Away { log: true }
        } else {
            Residency::Running { apic_id: self.0 as u32 }
        }
    }
}

impl<A: Avic> AvicVcpu<A> {
    /// Creates a vCPU that is on no CPU, with a page whose address is `address`. All registers of
    /// its page are as the host has made them.
    ///
    /// The vCPU begins with a request pending: `inhibition` is what the host asks a vCPU when AVIC
    /// is inhibited in its VM, or not any more. So it asks itself before it first enters the guest,
    /// which is after the host has put it where those are found who are asked: no change is missed,
    /// whichever came first.
    ///
    /// # Errors
    /// If the table has no place for that ID, or another vCPU has it.
    pub fn new(
        table: &Arc<PhysicalTable<A>>,
        id: u32,
        page: A::Page,
        address: PageAddress,
        inhibition: Requests,
    ) -> Result<Self, TableError> {
        let own = table.claim(id, address)?;
        let post = Posts::<A>::new(Irr::new(page), ModeGate::new());
        // It is in the host, so nobody is to be told.
        let _: Notice<CpuId> = post.run_state().request(inhibition);
        Ok(AvicVcpu { post, copies: ResidencyCopies::new(own), place: AtomicU64::<A>::new(0) })
    }

    /// The registers.
    pub fn page(&self) -> &BackingPage<A::Platform> {
        self.post.layout().page()
    }

    /// The vCPU's entry in the physical ID table.
    pub fn physical_id(&self) -> &PhysicalId<A> {
        self.copies.own()
    }

    /// The run state, for requests and kicks.
    pub fn run_state(&self) -> &RunState<A::Platform> {
        self.post.run_state()
    }

    /// The copies of where the vCPU is: its entry in the physical ID table, and the IRTEs that post
    /// to it.
    ///
    /// Whoever binds an IRTE [adds](ResidencyCopies::add) it, whoever unbinds it
    /// [removes](ResidencyCopies::remove) it: the `AmdBinding` of `doorbell-host` does both. With
    /// what the IOMMU had read of it, a removed IRTE may post until its invalidation has completed;
    /// then somebody looks at what was posted ([`logged`](AvicVcpu::logged)).
    pub fn copies(&self) -> &ResidencyCopies<A::Platform, PhysicalId<A>, A::Irte> {
        &self.copies
    }

    /// Posts an interrupt, and waits for nobody. [`Notify`](Notice::Notify) is the doorbell of that
    /// CPU.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn post(&self, vector: GuestVector) -> Notice<CpuId> {
        self.post.post(vector)
    }

    /// Returns how to tell the vCPU of a bit that hardware has set in the page, having found
    /// IsRunning clear: this vCPU is a target of an IPI that was not completed
    /// ([`IncompleteIpi::Tell`](super::IncompleteIpi::Tell)).
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn tell(&self) -> Notice<CpuId> {
        self.post.published()
    }

    /// Returns how to tell the vCPU of a log entry that hardware has written for it, or would have
    /// written if the log had not been full; or that an IRTE was unbound from it, and the
    /// invalidation has completed.
    ///
    /// The vCPU may be in the guest again by now, with AVIC: it is told all the same, by its
    /// doorbell. That costs the vCPU no exit, and nothing is assumed about what the IOMMU did
    /// first, writing the entry or posting by the IRTE. Without AVIC the vCPU is kicked, whatever
    /// the vector's priority: the guest lowers its own at any moment.
    ///
    /// # Context
    /// Any task or hard interrupt; does not sleep.
    #[inline]
    pub fn logged(&self) -> Notice<CpuId> {
        let looks = match self.post.run_state().mode() {
            // Its guest stands still, and so does its priority. If it is awake by now, it looks
            // before it enters.
            Mode::Blocked => self.post.layout().any(),
            Mode::Host | Mode::Guest(_) | Mode::Kicked | Mode::Preempted => self.page().pending(),
        };
        if looks { self.post.published() } else { Notice::Nothing }
    }

    /// Says that the vCPU's task runs on the CPU of that APIC ID.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off and any locks held; does not sleep.
    pub fn load(&self, host: HostApicId) {
        self.post.run_state().resumed();
        self.place(|place| place.loaded(Some(host)));
    }

    /// Says that the vCPU's task is switched away from.
    ///
    /// # Context
    /// The scheduler's hooks of the owner, with preemption off and any locks held; does not sleep.
    pub fn put(&self) {
        self.place(|place| place.loaded(None));
        self.post.run_state().preempted();
    }

    /// Inhibits AVIC, or does so no more.
    ///
    /// What was posted before finds the owner outside of the guest; what is posted from here on
    /// finds IsRunning clear, and makes an exit or a log entry. IRTEs stay in guest mode.
    ///
    /// # Context
    /// The owner, which was asked to ([`RunState::request`]) and is not in the guest; does not
    /// sleep.
    pub fn inhibit(&self, inhibited: bool) {
        self.place(|place| place.with(Place::INHIBITED, inhibited));
    }

    fn place(&self, change: impl FnOnce(Place) -> Place) {
        self.copies.decide(|| {
            let place = change(self.placed());
            self.place.store(place.0, Relaxed);
            place.residency()
        });
    }

    fn placed(&self) -> Place {
        Place(self.place.load(Relaxed))
    }

    /// Enters the guest on `cpu`, where it is loaded.
    ///
    /// With AVIC, the CPU looks at the page itself when it enters (VMRUN). If AVIC is inhibited,
    /// `inject` does: it may [take](BackingPage::accept) what is
    /// [deliverable](BackingPage::deliverable), and make VMRUN interrupt the guest. Then the page's
    /// task priority is what the guest's CR8 begins with, and what the guest has made of that is to
    /// be written back before the vCPU has [exited](InGuest::exited).
    ///
    /// # Context
    /// The owner; does not sleep.
    ///
    /// # Errors
    /// If something was requested of the vCPU: it stays in the host, and has taken the requests.
    #[inline]
    pub fn enter<'a>(
        &'a self,
        irqs_off: &'a IrqGuard<A::Platform>,
        cpu: CpuId,
        inject: impl FnOnce(&BackingPage<A::Platform>),
    ) -> Result<(InGuest<'a, A::Platform>, Vmrun), Requests> {
        // The copies are changed by the owner, which is here, so they say the same.
        let posted = !self.placed().inhibited();
        let entering = self.post.enter(irqs_off, Guest { cpu, posted })?;
        let (in_guest, _injected) = entering.rescan(|irr| {
            if !posted {
                inject(irr.page());
            }
        });
        // Who posts after this look kicks, so it is made again.
        let without =
            || Vmrun::WithoutAvic { intercept_cr8: self.page().waits_for_task_priority() };
        Ok((in_guest, if posted { Vmrun::WithAvic } else { without() }))
    }

    /// Begins to sleep until something is deliverable or requested.
    ///
    /// # Context
    /// The owner; does not sleep.
    ///
    /// # Errors
    /// If something is.
    pub fn block(&self) -> Result<Sleeping<'_, A>, Awake> {
        // First the copies, then the mode with its full barrier, then the look: hardware that has
        // posted by the former copy has set its bit before.
        self.place(|place| place.with(Place::SLEEPS, true));
        let wakes = Wakes { vcpu: self };
        let blocked = self.post.block()?;
        Ok(Sleeping { blocked, wakes })
    }

    /// Retires the vCPU: its ID is free at once, its page is not.
    ///
    /// # Errors
    /// If IRTEs still post to the vCPU: those are to be [removed](ResidencyCopies::remove).
    pub fn retire(self) -> Result<Retiring<A::Page>, Self> {
        if self.copies.is_empty() {
            Ok(Retiring { page: self.post.into_layout().into_inner() })
        } else {
            Err(self)
        }
    }
}

/// How the guest is to run: what its VMCB says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the VMCB has to say so, or interrupts are lost"]
pub enum Vmrun {
    /// AVIC is active.
    WithAvic,
    /// AVIC is inhibited.
    WithoutAvic {
        /// Writes to CR8 have to exit: a vector waits for a lower task priority, and nobody tells
        /// the guest but the owner.
        intercept_cr8: bool,
    },
}

/// A vCPU that sleeps, until this is dropped or somebody wakes it.
#[must_use = "dropped, it is awake"]
pub struct Sleeping<'a, A: Avic> {
    blocked: Blocked<'a, A::Platform>,
    wakes: Wakes<'a, A>,
}

doorbell_platform::opaque_debug!(['a, A: Avic] Sleeping<'a, A>);

impl<A: Avic> Sleeping<'_, A> {
    /// Returns whether nobody has woken the vCPU.
    ///
    /// # Context
    /// The owner; does not sleep.
    pub fn asleep(&self) -> bool {
        self.blocked.asleep()
    }

    /// Sleeps until somebody wakes it.
    ///
    /// # Context
    /// The owner; may sleep.
    pub fn wait(self) {
        let Sleeping { blocked, wakes } = self;
        blocked.wait();
        drop(wakes);
    }
}

struct Wakes<'a, A: Avic> {
    vcpu: &'a AvicVcpu<A>,
}

impl<A: Avic> Drop for Wakes<'_, A> {
    fn drop(&mut self) {
        self.vcpu.place(|place| place.with(Place::SLEEPS, false));
    }
}

/// The page of a vCPU that is no more, and that the CPUs of others may still post to.
#[must_use = "the page is not free yet"]
pub struct Retiring<D> {
    page: D,
}

doorbell_platform::opaque_debug!([D] Retiring<D>);

impl<D> Retiring<D> {
    /// Returns what was kept until every vCPU of the VM had been out of the guest, which the caller
    /// vouches for: no CPU uses the entry that named the page any more.
    pub fn after_all_have_exited(self) -> D {
        self.page
    }
}
