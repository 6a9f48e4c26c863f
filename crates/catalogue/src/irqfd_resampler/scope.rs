//! The parameters of the case, and the machine that they stand for.

use std::fmt;
use std::sync::Arc;

use doorbell_explore::Machine;
use doorbell_explore::sim::{
    GracePeriods, Managed, ManagedPool, Pool, Preempted, PreemptionOff, Queue,
};
use doorbell_platform::WorkQueue;

use super::kvm::{AckOrder, Behaviour, Grace, Kvm, Wait};

/// Parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    pub behaviour: Behaviour,
    pub pool: Kind,
    /// Workers of the pool. The caller's CPU has one pool, which its workqueues share.
    pub workers: usize,
    /// Irqfds that are shut down, each by a piece of work.
    pub cleanups: u32,
    /// Irqfds of the same GSI that nobody shuts down.
    pub staying: u32,
    pub assign: Assign,
    /// Whether the guest acknowledges an interrupt meanwhile.
    pub acked: bool,
    pub grace_period: At,
    /// Whether the workqueue of grace periods has a rescuer.
    pub rescuer: bool,
}

/// What a task does meanwhile with one irqfd more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Assign {
    Nothing,
    Assigns,
    /// And then its device signals it.
    AssignsAndInjects,
}

/// What kind of pool the cleanups run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A fixed number of workers, and nothing else to it.
    Plain,
    /// The concurrency-managed pool of a CPU.
    Managed(Rules),
    /// A pool of its own, whose workers are not counted; a managed pool, on which grace periods
    /// run, stands beside it.
    Unbound(Rules),
}

/// Parameters of a managed pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rules {
    /// Workers that can be created.
    pub creatable: usize,
    /// How many works of the cleanups' workqueue run at once.
    pub max_active: usize,
    pub interrupts: u32,
    pub preempted: Preempted,
    pub preemption_off: PreemptionOff,
}

/// Where the two work items of a grace period run: the one that processes it and the one that calls
/// back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// On the caller's CPU, on a workqueue of their own.
    SamePool,
    /// On the caller's CPU, on the workqueue of the cleanups.
    SameQueue,
    /// On another CPU.
    OtherPool,
}

/// The scope of the report, on a plain pool.
pub(super) const REPORTED: Scope = Scope {
    behaviour: Behaviour { wait: Wait::Inside, skipped: None, ack: AckOrder::LowersFirst },
    pool: Kind::Plain,
    workers: 2,
    cleanups: 2,
    staying: 0,
    assign: Assign::Assigns,
    acked: false,
    grace_period: At::SamePool,
    rescuer: false,
};

/// A managed pool by Linux's rules, in which an interrupt preempts a worker once.
pub(super) const LINUX: Rules = Rules {
    creatable: 3,
    max_active: 256,
    interrupts: 1,
    preempted: Preempted::StaysRunnable,
    preemption_off: PreemptionOff::Nowhere,
};

impl Scope {
    /// Returns this scope with grace periods awaited there.
    pub(super) fn wait(self, wait: Wait) -> Scope {
        Scope { behaviour: Behaviour { wait, ..self.behaviour }, ..self }
    }

    /// Returns this scope without that grace period.
    pub(super) fn without(self, skipped: Grace) -> Scope {
        Scope { behaviour: Behaviour { skipped: Some(skipped), ..self.behaviour }, ..self }
    }

    /// Returns this scope with acknowledgements that lower the line last.
    pub(super) fn told_first(self) -> Scope {
        Scope { behaviour: Behaviour { ack: AckOrder::TellsFirst, ..self.behaviour }, ..self }
    }
}

impl Rules {
    fn pool(self, workers: usize, counted: bool) -> Managed {
        let Rules { creatable, interrupts, preempted, preemption_off, .. } = self;
        let interrupts = if counted { interrupts } else { 0 };
        Managed {
            creatable,
            counted,
            interrupts,
            preempted,
            preemption_off,
            ..Managed::new(workers)
        }
    }
}

/// Where cleanups are queued.
#[derive(Clone)]
pub(super) enum Cleanups {
    Plain(Pool),
    Managed(Queue),
}

impl Cleanups {
    /// Queues a cleanup.
    pub(super) fn queue(&self, job: impl FnOnce() + Send + 'static) {
        match self {
            Cleanups::Plain(pool) => pool.spawn("cleanup", Box::new(job)),
            Cleanups::Managed(queue) => queue.spawn("cleanup", Box::new(job)),
        }
    }
}

impl Scope {
    /// Builds the pools, and has grace periods run on them.
    pub(super) fn build(self, m: &Machine) -> Cleanups {
        if self.grace_period == At::OtherPool {
            m.grace_periods(GracePeriods::OnPool(Pool::new(m, "kworker-of-another-cpu", 1)));
        }
        match self.pool {
            Kind::Plain => {
                let pool = Pool::new(m, "kworker", self.workers);
                if self.grace_period != At::OtherPool {
                    let rescued = self.rescuer.then(|| pool.with_rescuer(m, "rescuer"));
                    m.grace_periods(GracePeriods::OnPool(rescued.unwrap_or_else(|| pool.clone())));
                }
                Cleanups::Plain(pool)
            }
            Kind::Managed(rules) => {
                let pool = ManagedPool::new(m, "kworker", rules.pool(self.workers, true));
                let cleanups = pool.queue(rules.max_active);
                self.grace_periods_on(m, &pool, &cleanups);
                Cleanups::Managed(cleanups)
            }
            Kind::Unbound(rules) => {
                let unbound = ManagedPool::new(m, "unbound", rules.pool(self.workers, false));
                let cleanups = unbound.queue(rules.max_active);
                let pool = ManagedPool::new(m, "kworker", rules.pool(self.workers, true));
                self.grace_periods_on(m, &pool, &cleanups);
                Cleanups::Managed(cleanups)
            }
        }
    }

    fn grace_periods_on(self, m: &Machine, pool: &ManagedPool, cleanups: &Queue) {
        let queue = match self.grace_period {
            At::SamePool => pool.queue(256),
            At::SameQueue => cleanups.clone(),
            At::OtherPool => return,
        };
        let queue = if self.rescuer { queue.with_rescuer(m, "rescuer") } else { queue };
        m.grace_periods(GracePeriods::OnQueue(queue));
    }

    /// The program: irqfds are shut down, perhaps while another one is assigned, and the guest
    /// acknowledges.
    pub(super) fn program(self, m: &Machine) {
        let cleanups = self.build(m);
        let new = self.cleanups + self.staying;
        let kvm = Arc::new(Kvm::new(self.behaviour, (0..new).collect()));
        let closing = Arc::clone(&kvm);
        m.task("teardown", move || {
            for irqfd in 0..self.cleanups {
                let kvm = Arc::clone(&closing);
                cleanups.queue(move || kvm.shutdown(irqfd));
            }
        });
        if self.assign != Assign::Nothing {
            let kvm = Arc::clone(&kvm);
            m.task("assign", move || {
                kvm.assign(new);
                if self.assign == Assign::AssignsAndInjects {
                    kvm.inject(new);
                }
            });
        }
        if self.acked {
            let kvm = Arc::clone(&kvm);
            m.task("guest", move || kvm.ack());
        }
        let irqfds = self.staying as usize + usize::from(self.assign != Assign::Nothing);
        let left = (irqfds, irqfds.min(1));
        let line = Arc::clone(&kvm);
        m.at_quiescence("the irqfds that were shut down are gone", move || match kvm.left() {
            those if those == left => Ok(()),
            (irqfds, notifiers) => {
                Err(format!("{irqfds} irqfds and {notifiers} ack notifiers are left"))
            }
        });
        let signalled = self.assign == Assign::AssignsAndInjects;
        m.at_quiescence("no line is high for nothing, and no device waits in vain", move || {
            // A device that is told too early only looks once more, and the line is lowered by the
            // next acknowledgement.
            match line.line.observe(|line| (line.high, line.owed)) {
                (true, None) if !signalled => Err("it is high".to_owned()),
                (false, Some(irqfd)) => Err(format!(
                    "it is low, and nobody will tell the device of irqfd {irqfd}, which raised it"
                )),
                _ => Ok(()),
            }
        });
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rules) = match self.pool {
            Kind::Plain => ("plain pool", None),
            Kind::Managed(rules) => ("managed pool", Some(rules)),
            Kind::Unbound(rules) => ("cleanups unbound, beside a managed pool", Some(rules)),
        };
        let Behaviour { wait, skipped, ack } = self.behaviour;
        let wait = if wait == Wait::Inside { "inside" } else { "outside" };
        write!(f, "W={} N={}, {kind}, wait {wait} the mutex", self.workers, self.cleanups)?;
        f.write_str(match skipped {
            None => "",
            Some(Grace::Joins) => " but not after joining",
            Some(Grace::Leaves) => " but not after leaving",
            Some(Grace::Unregisters) => " but not after unregistering",
        })?;
        if self.staying > 0 {
            write!(f, ", {} irqfd more that stays", self.staying)?;
        }
        match self.assign {
            Assign::Nothing => {}
            Assign::Assigns => write!(f, ", assign")?,
            Assign::AssignsAndInjects => write!(f, ", assign and inject")?,
        }
        if self.acked {
            write!(f, ", ack")?;
        }
        if ack == AckOrder::TellsFirst {
            write!(f, " that lowers the line last")?;
        }
        match self.grace_period {
            At::SamePool => write!(f, "; process and callbacks on the pool")?,
            At::SameQueue => write!(f, "; process and callbacks on the workqueue of the cleanups")?,
            At::OtherPool => write!(f, "; process and callbacks on another CPU's pool")?,
        }
        if self.rescuer {
            write!(f, ", with a rescuer")?;
        }
        rules.map_or(Ok(()), |rules| write!(f, "; {rules}"))
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "max_active {}, {} workers creatable, {} interrupt",
            self.max_active, self.creatable, self.interrupts
        )?;
        match self.preempted {
            Preempted::StaysRunnable => {}
            Preempted::RunsHooks => write!(f, ", hooks run on preemption")?,
            Preempted::IsDequeued => write!(f, ", preempted sleepers are dequeued")?,
        }
        match self.preemption_off {
            PreemptionOff::Nowhere => Ok(()),
            PreemptionOff::InHooks => write!(f, ", preemption off in the hooks"),
            PreemptionOff::UntilAsleep => write!(f, ", preemption off until asleep"),
            PreemptionOff::OutsideHooks => write!(f, ", preemption in the hooks only"),
        }
    }
}

impl crate::case::Scope for Scope {
    fn text(self) -> String {
        self.to_string()
    }

    fn program(self, m: &Machine) {
        Scope::program(self, m);
    }
}
