//! Traces made by hand, shaped like those that the machine makes of the documents (`docs/races`).

use crate::trace::{Column, FailureKind, Line, Trace, Wait};

/// Collects lines and counts the steps.
struct Recorder {
    lines: Vec<Line>,
}

impl Recorder {
    fn at(&mut self, column: usize, context: &str, text: &str, site: &str) -> &mut Line {
        let before = self.lines.iter().rev().find(|l| l.column == column);
        let irqs_on = before.map_or(Some(true), |l| l.irqs_on);
        let holds = self
            .lines
            .iter()
            .rev()
            .find(|l| l.context == context)
            .map_or(Vec::new(), |l| l.holds.clone());
        self.lines.push(Line {
            step: self.lines.len(),
            column,
            context: context.to_owned(),
            text: text.to_owned(),
            site: site.to_owned(),
            irqs_on,
            holds,
            preempts: false,
            stuck: false,
            matters: true,
            told: false,
        });
        self.lines.last_mut().expect("just pushed")
    }
}

impl Line {
    fn irqs(&mut self, on: bool) -> &mut Line {
        self.irqs_on = Some(on);
        self
    }
    fn takes(&mut self, lock: &str) -> &mut Line {
        self.holds.push(lock.to_owned());
        self
    }
    fn drops(&mut self, lock: &str) -> &mut Line {
        self.holds.retain(|l| l != lock);
        self
    }
    fn stuck(&mut self) -> &mut Line {
        self.stuck = true;
        self
    }
    fn preempts(&mut self) -> &mut Line {
        self.preempts = true;
        self
    }
    fn aside(&mut self) -> &mut Line {
        self.matters = false;
        self
    }
}

fn columns(titles: &[&str]) -> Vec<Column> {
    titles.iter().map(|t| Column { title: (*t).to_owned() }).collect()
}

fn wait(who: &str, place: &str, what: &str, site: &str) -> Wait {
    Wait {
        who: who.to_owned(),
        place: place.to_owned(),
        holds: Vec::new(),
        what: what.to_owned(),
        on: Vec::new(),
        site: site.to_owned(),
    }
}

impl Wait {
    fn holding(mut self, locks: &[&str]) -> Wait {
        self.holds = locks.iter().map(|lock| (*lock).to_owned()).collect();
        self
    }
    fn on(mut self, others: &[usize]) -> Wait {
        self.on = others.to_vec();
        self
    }
}

/// Document 000: irq_desc → rq → ir_list_lock → irq_desc over three CPUs.
pub(super) fn three_party() -> Trace {
    let mut r = Recorder { lines: Vec::new() };
    let (aff, sched, vcpu) = ("set-affinity", "vcpu-0", "irqfd-assign");
    r.at(2, vcpu, "load routing generation = 4", "crates/catalogue/src/avic.rs:41").aside();
    r.at(2, vcpu, "load irqfd#1.producer = some", "crates/catalogue/src/avic.rs:44").aside();
    r.at(2, vcpu, "irqs off", "crates/catalogue/src/avic.rs:61").irqs(false);
    r.at(2, vcpu, "lock ir_list_lock#0", "crates/catalogue/src/avic.rs:61").takes("ir_list_lock#0");
    r.at(2, vcpu, "load avic_entry.is_running = 1", "crates/catalogue/src/avic.rs:64").aside();
    r.at(1, sched, "irqs off", "crates/catalogue/src/sched.rs:118").irqs(false);
    r.at(1, sched, "lock rq#1", "crates/catalogue/src/sched.rs:118").takes("rq#1");
    r.at(1, sched, "sched-out hook: avic_vcpu_put", "crates/catalogue/src/sched.rs:127");
    r.at(1, sched, "load avic_entry.is_running = 1", "crates/catalogue/src/avic.rs:88").aside();
    r.at(0, aff, "irqs off", "crates/catalogue/src/irq_desc.rs:33").irqs(false);
    r.at(0, aff, "lock irq_desc#7", "crates/catalogue/src/irq_desc.rs:33").takes("irq_desc#7");
    r.at(0, aff, "store irq_desc#7.affinity := {1}", "crates/catalogue/src/irq_desc.rs:36").aside();
    r.at(0, aff, "lock task irq/7-vfio", "crates/catalogue/src/sched.rs:71")
        .takes("task irq/7-vfio");
    r.at(0, aff, "waits for rq#1", "crates/catalogue/src/sched.rs:74").stuck();
    r.at(1, sched, "waits for ir_list_lock#0", "crates/catalogue/src/avic.rs:92").stuck();
    r.at(2, vcpu, "waits for irq_desc#7", "crates/catalogue/src/irq_desc.rs:52").stuck();
    Trace {
        kind: FailureKind::Deadlock,
        columns: columns(&["CPU0", "CPU1", "CPU2"]),
        lines: r.lines,
        waits: vec![
            wait(aff, "CPU0", "rq#1, held by vcpu-0", "crates/catalogue/src/sched.rs:74").holding(&["irq_desc#7", "task irq/7-vfio"]).on(&[1]),
            wait(sched, "CPU1", "ir_list_lock#0, held by irqfd-assign", "crates/catalogue/src/avic.rs:92").holding(&["rq#1"]).on(&[2]),
            wait(vcpu, "CPU2", "irq_desc#7, held by set-affinity", "crates/catalogue/src/irq_desc.rs:52").holding(&["ir_list_lock#0"]).on(&[0]),
        ],
        why: "CPU0 (set-affinity) waits for rq#1, held by CPU1 (vcpu-0), which waits for ir_list_lock#0, held by CPU2 (irqfd-assign), \
              which waits for irq_desc#7, held by CPU0 (set-affinity)."
            .to_owned(),
        preemptions: 0,
        minimal: true,
    }
}

/// A handler that preempts a task which holds the lock that it wants.
pub(super) fn handler() -> Trace {
    let mut r = Recorder { lines: Vec::new() };
    let (task, irq) = ("reader", "irq 0x41");
    r.at(1, "device", "raise vector 0x41 on CPU0", "crates/catalogue/src/usage.rs:70");
    r.at(0, task, "lock ring#0", "crates/catalogue/src/usage.rs:31").takes("ring#0");
    r.at(0, task, "load ring#0.head = 0", "crates/catalogue/src/usage.rs:32").aside();
    r.at(0, irq, "the handler of vector 0x41 begins", "crates/catalogue/src/usage.rs:48")
        .irqs(false)
        .preempts();
    r.at(0, irq, "load pending = 1", "crates/catalogue/src/usage.rs:50");
    r.at(0, task, "stands still", "crates/catalogue/src/usage.rs:33").stuck();
    r.at(0, irq, "waits for ring#0", "crates/catalogue/src/usage.rs:51").stuck();
    r.lines[0].irqs_on = None;
    Trace {
        kind: FailureKind::SelfDeadlock,
        columns: columns(&["CPU0", "NIC"]),
        lines: r.lines,
        waits: vec![
            wait(irq, "CPU0", "ring#0, held by reader", "crates/catalogue/src/usage.rs:51").on(&[1]),
            wait(task, "CPU0", "its CPU, where irq 0x41 interrupted it", "crates/catalogue/src/usage.rs:33").holding(&["ring#0"]).on(&[0]),
        ],
        why: "The handler of vector 0x41 waits for ring#0, held by reader, which it interrupted on CPU0: reader took it with interrupts on."
            .to_owned(),
        preemptions: 1,
        minimal: true,
    }
}

/// Document 002: two cleanups on a pool of two workers that also runs the grace period.
pub(super) fn workqueue() -> Trace {
    let mut r = Recorder { lines: Vec::new() };
    let file = |line: u32| format!("crates/catalogue/src/irqfd_resampler/as_reported.rs:{line}");
    let main = "vm-teardown";
    r.at(0, main, "queue cleanup-0 on pool kvm-irqfd-cleanup", &file(40));
    r.at(0, main, "queue cleanup-1 on pool kvm-irqfd-cleanup", &file(40));
    r.at(0, main, "waits for work cleanup-0 to be done", &file(44)).aside();
    r.at(1, "worker-0", "take work cleanup-0", "crates/explore/src/machine/work.rs:112");
    for n in 0..9 {
        r.at(1, "worker-0", &format!("load irqfd#{n}.active = 1"), &file(70)).aside();
    }
    r.at(1, "worker-0", "lock mutex resampler_lock", &file(81)).takes("mutex resampler_lock");
    r.at(1, "worker-0", "remove irqfd#0 from resampler#0.list", &file(83));
    r.at(2, "worker-1", "take work cleanup-1", "crates/explore/src/machine/work.rs:112").preempts();
    for n in 0..8 {
        r.at(2, "worker-1", &format!("load irqfd#{n}.active = 1"), &file(70)).aside();
        r.at(1, "worker-0", &format!("load resampler#{n}.users = 1"), &file(71)).aside();
    }
    r.at(2, "worker-1", "waits for mutex resampler_lock", &file(81)).stuck();
    r.at(1, "worker-0", "lock srcu irq_srcu", "crates/explore/src/machine/srcu.rs:58")
        .irqs(false)
        .takes("srcu irq_srcu");
    r.at(
        1,
        "worker-0",
        "queue grace period 1 of irq_srcu",
        "crates/explore/src/machine/srcu.rs:66",
    );
    r.at(1, "worker-0", "unlock srcu irq_srcu", "crates/explore/src/machine/srcu.rs:69")
        .irqs(true)
        .drops("srcu irq_srcu");
    r.at(1, "worker-0", "waits for grace period 1 of irq_srcu", &file(88)).stuck();
    Trace {
        kind: FailureKind::Deadlock,
        columns: columns(&["CPU0", "CPU1", "CPU2"]),
        lines: r.lines,
        waits: vec![
            wait("worker-0", "CPU1", "grace period 1 of irq_srcu, which needs a worker of pool kvm-irqfd-cleanup", &file(88)).holding(&["mutex resampler_lock"]).on(&[2]),
            wait("worker-1", "CPU2", "mutex resampler_lock, held by worker-0", &file(81)).on(&[0]),
            wait("grace period 1", "pool", "a worker: worker-0 and worker-1 are all there are", "crates/explore/src/machine/work.rs:90").on(&[0, 1]),
        ],
        why: "worker-0 waits for grace period 1 of irq_srcu, which waits for a free worker of the pool kvm-irqfd-cleanup, whose last one, \
              worker-1, waits for mutex resampler_lock, held by worker-0."
            .to_owned(),
        preemptions: 1,
        minimal: false,
    }
}
