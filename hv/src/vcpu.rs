//! A vCPU: the task that runs it.
//!
//! That task makes way where it says so, and nowhere else: preemption is off for it. So what the
//! CPU has of the vCPU is there from an exit on until the exit was handled, and an exit takes no
//! longer than the scheduler may wait.

use alloc::sync::Arc;
use core::cell::Cell;
use core::ops::ControlFlow;
use core::sync::atomic::Ordering::Relaxed;

use doorbell_gic::{CpuInterface, VcpuId};
use doorbell_platform::{CpuId, IrqGuard, Platform};

use crate::bare::Bare;
use crate::cpu::Cpu;
use crate::entry::{self, Frame, guest_run};
use crate::ich::Ich;
use crate::irq::{self, Handled};
use crate::psci::Start;
use crate::random::Random;
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::task::{DEADLINE, TIMER, Task};
use crate::timer::Timer;
use crate::trap::Trap;
use crate::vm::{End, Vm};
use crate::{scheduler, switch, time};

/// PSTATE at the start: EL1h, everything masked.
const PSTATE: u64 = 0x3c5;

/// PSTATE.M[3:2]: the exception level.
const LEVEL: u64 = 3 << 2;

/// A vCPU, of the task that runs it.
pub(crate) struct Vcpu {
    pub(crate) vm: Arc<Vm>,
    pub(crate) id: VcpuId,
    task: &'static Task,
    /// Where its registers were loaded last: it has left that CPU, if it has, and not come to one.
    cpu: &'static Cpu,
    pub(crate) frame: Frame,
    pub(crate) interface: CpuInterface,
    /// Whether the virtual timer's interrupt was passed on, and was not seen to have ended.
    timer_passed: Cell<bool>,
    /// The timer that is emulated: CNTP.
    pub(crate) physical_timer: Timer,
    /// Where to go next, if vCPUs move at random.
    moves: Option<Random>,
    /// When it moves.
    moves_at: Option<u64>,
}

/// Sets up what all vCPUs need: the interrupts of guests. On the first CPU, before a vCPU runs.
pub(crate) fn init() {
    // What interrupts a guest has made it leave, and that is all.
    irq::handle(irq::KICK.0.into(), || Handled::Done);
    irq::handle(irq::MAINTENANCE, || {
        // It is a level, and nothing else lowers it before the next entry, which writes this
        // anyway.
        doorbell_gic::ListRegisters::set_hcr(&mut Ich, 0);
        Handled::Done
    });
    irq::handle(irq::VIRTUAL_TIMER, || match Task::loaded_here() {
        Some(task) => {
            task.is_due(TIMER);
            Handled::Passed
        }
        None => Handled::Done,
    });
}

/// Returns what ESR_EL2 says of the exit. Interrupts that have come since then change none of the
/// registers.
#[inline(always)]
fn trap(esr: u64) -> Trap {
    Trap::from_syndrome(esr, || [read_sysreg!("far_el2"), read_sysreg!("hpfar_el2")])
}

/// Starts a task that runs a vCPU until its VM stops, and calls `ended` then. By any task. With a
/// seed, the vCPU moves to other CPUs at random. Returns whether there is room for the task.
pub(crate) fn spawn(
    vm: Arc<Vm>,
    id: VcpuId,
    cpu: CpuId,
    seed: Option<u64>,
    ended: impl FnOnce() + Send + 'static,
) -> bool {
    let task = Task::spawn(cpu, move || {
        Bare::preempt_disable();
        if let Ok(vcpu) = Vcpu::new(vm, id, seed) {
            vcpu.runs();
        }
        Bare::preempt_enable();
        ended();
    });
    task.is_some()
}

impl Vcpu {
    fn new(vm: Arc<Vm>, id: VcpuId, seed: Option<u64>) -> Result<Self, doorbell_gic::NotToBeHad> {
        let mut interface = vm.gic.cpu_interface(id)?;
        interface.power_off(&vm.gic, &mut &*vm);
        let task = Task::current();
        vm.runs(id, task);
        let frame = Frame { x: [0; 31], pc: 0, pstate: PSTATE };
        let moves = seed
            .map(|seed| Random::new(seed.wrapping_mul(64).wrapping_add(u64::from(id.number()))));
        Ok(Vcpu {
            vm,
            id,
            task,
            cpu: Cpu::this(),
            frame,
            interface,
            timer_passed: Cell::new(false),
            physical_timer: Timer::default(),
            moves,
            moves_at: None,
        })
    }

    /// Runs the vCPU whenever it is on, until its VM has stopped.
    fn runs(mut self) {
        loop {
            let start = self.vm.power(self.id).and_then(|mut power| power.begin());
            if let Some(start) = start {
                self.begins(start);
                while !self.has_stopped() {
                    self.turn();
                }
            } else if self.vm.end().is_some() {
                return;
            } else {
                scheduler::park();
            }
        }
    }

    /// Begins, as after a reset.
    fn begins(&mut self, start: Start) {
        self.frame = Frame { x: [0; 31], pc: start.entry, pstate: PSTATE };
        self.frame.x[0] = start.context;
        self.physical_timer = Timer::default();
        let _ = self.task.takes_due();
        self.moves_at = self.moves.is_some().then(time::now);
        switch::reset(self.vm.vttbr(), self.id.number().into(), self.vm.began);
        self.comes_to_cpu();
        self.interface.power_on(&self.vm.gic, &Ich, &mut &*self.vm);
    }

    /// Returns whether it does not run any more: it is off, or its VM has stopped. Then it has left
    /// its CPU.
    fn has_stopped(&mut self) -> bool {
        let on = self.vm.power(self.id).is_some_and(|power| *power == crate::psci::Power::On);
        if on && self.vm.end().is_none() {
            return false;
        }
        if on {
            self.turns_off();
        }
        true
    }

    /// Turns it off. By CPU_OFF, and where its VM has stopped.
    #[cold]
    pub(crate) fn turns_off(&mut self) {
        self.takes_timer_back();
        switch::put(&IrqGuard::new());
        self.vm.set_timer(self.id, irq::PHYSICAL_TIMER, false);
        self.interface.power_off(&self.vm.gic, &mut &*self.vm);
        self.vm.turned_off(self.id);
    }

    /// Runs the guest until the vCPU has been asked for something, or does not go on.
    #[inline(never)]
    fn turn(&mut self) {
        while self.enter().is_continue() {}
    }

    /// Runs the guest until it leaves, and does what it asks for; or what the scheduler wants.
    /// Breaks if the vCPU has been asked for something, or does not go on.
    #[inline(always)]
    fn enter(&mut self) -> ControlFlow<()> {
        let (vm, vcpu) = (&*self.vm, self.id);
        let mut host = vm;
        let irqs_off = IrqGuard::<Bare>::new();
        // With interrupts off, because what sets these once the guest runs is an interrupt, which
        // makes it leave; one that came before would be forgotten.
        let cpu = self.cpu;
        if self.task.due() || cpu.resched() {
            drop(irqs_off);
            self.does_what_is_wanted();
            return ControlFlow::Continue(());
        }
        let Ok(in_guest) = self.interface.enter(&vm.gic, &irqs_off, cpu.id(), &mut Ich, &mut host)
        else {
            self.shows();
            return ControlFlow::Break(());
        };
        // SAFETY: interrupts are off, and this vCPU is loaded here.
        let why = unsafe { guest_run(&mut self.frame) };
        if self.interface.exit(&vm.gic, in_guest, &mut Ich, &mut host) {
            // Before the next interrupt is handled, which may be the same level again. (Nobody who
            // hears of it here sleeps.)
            self.interface.tell_ended(&mut host);
        }
        self.samples_timer();
        let esr = read_sysreg!("esr_el2");
        cpu.trace.exit(esr, self.frame.pc);
        match why {
            entry::SYNCHRONOUS => {
                drop(irqs_off);
                if vm.measure { self.measured(esr) } else { self.handle(trap(esr)) }
            }
            entry::INTERRUPT => {
                if self.frame.pstate & LEVEL == 0 {
                    vm.makes_progress(vcpu);
                }
                irq::dispatch();
                drop(irqs_off);
                if self.task.due() {
                    self.does_what_is_wanted();
                }
                ControlFlow::Continue(())
            }
            _ => {
                drop(irqs_off);
                self.fails(format_args!("an error of the machine"));
                ControlFlow::Break(())
            }
        }
    }

    /// Handles a trap, and takes note of how long that has taken. (What all exits have in common,
    /// some 100 instructions, is not in it.)
    #[cold]
    #[inline(never)]
    fn measured(&mut self, esr: u64) -> ControlFlow<()> {
        let (trap, began) = (trap(esr), time::now());
        let flow = self.handle(trap);
        // How long a guest waits is its own affair.
        if trap != Trap::Wait {
            self.vm.longest.fetch_max(time::now() - began, Relaxed);
        }
        flow
    }

    /// Does what the task is due for, and lets others run.
    #[inline(never)]
    fn does_what_is_wanted(&mut self) {
        self.timers_fire();
        if self.cpu.resched() {
            self.makes_way();
        }
    }

    /// Takes the virtual timer's interrupt back if the timer does not give it any more, and the
    /// guest has not acknowledged it. After the fold, with interrupts off.
    #[inline]
    fn samples_timer(&self) {
        const ASSERTED: u64 = 0b101;
        if !self.timer_passed.get() {
            return;
        }
        let Some(line) = self.vm.timer(self.id, irq::VIRTUAL_TIMER) else { return };
        let state = line.state();
        if state.is_pending() {
            if read_sysreg!("cntv_ctl_el0") & 0b111 != ASSERTED {
                self.takes_timer_back();
            }
        } else if !state.is_active() {
            self.timer_passed.set(false);
            // Where the guest has ended it, it is inactive; where another vCPU has, it is not.
            irq::deactivate(irq::VIRTUAL_TIMER);
        }
    }

    /// Takes the virtual timer's interrupt back, unless the guest has acknowledged it. Outside of
    /// the guest, with the vCPU loaded.
    #[cold]
    fn takes_timer_back(&self) {
        self.timer_passed.set(false);
        if let Some(line) = self.vm.timer(self.id, irq::VIRTUAL_TIMER) {
            line.take_back(&mut &*self.vm);
        }
    }

    /// Gives the guest the interrupts of its timers that have fired.
    fn timers_fire(&mut self) {
        let due = self.task.takes_due();
        if due & TIMER != 0 {
            self.timer_passed.set(true);
            if let Some(line) = self.vm.timer(self.id, irq::VIRTUAL_TIMER) {
                line.edge(&mut &*self.vm);
            }
        }
        if due & DEADLINE != 0 {
            self.meets_deadline();
        }
    }

    #[inline(never)]
    fn meets_deadline(&mut self) {
        // Where the virtual timer was not on a CPU, it is from here on, and interrupts.
        self.comes_to_cpu();
        self.physical_timer_changes();
        self.moves();
    }

    /// Sets the level of the emulated timer, and when it changes.
    pub(crate) fn physical_timer_changes(&self) {
        let _irqs_off = IrqGuard::<Bare>::new();
        let asserted = self.physical_timer.is_asserted(time::now());
        let due = self.physical_timer.due().filter(|_| !asserted);
        time::set_deadline(self.task, due.into_iter().chain(self.moves_at).min());
        self.vm.set_timer(self.id, irq::PHYSICAL_TIMER, asserted);
    }

    /// Brings what the CPU has to have of the vCPU.
    fn comes_to_cpu(&mut self) {
        let irqs_off = IrqGuard::<Bare>::new();
        self.cpu = Cpu::this();
        if switch::load(&irqs_off) {
            self.interface
                .load(&self.vm.gic, |physical, active| irq::set_active(physical.number(), active));
            self.physical_timer_changes();
        }
    }

    /// Lets others run. Goes to another CPU if that has less to do.
    #[cold]
    fn makes_way(&mut self) {
        match scheduler::better_cpu() {
            Some(cpu) => self.goes_to(cpu),
            None => scheduler::schedule(),
        }
        self.comes_to_cpu();
    }

    fn goes_to(&mut self, cpu: CpuId) {
        if cpu != Bare::current_cpu() {
            switch::put(&IrqGuard::new());
            self.vm.moves.fetch_add(1, Relaxed);
        }
        scheduler::move_to(cpu);
    }

    /// Goes to another CPU if it is time, where vCPUs do so at random.
    fn moves(&mut self) {
        let Some(random) = &mut self.moves else { return };
        let now = time::now();
        if self.moves_at.is_some_and(|at| at <= now) {
            self.moves_at = Some(now + random.below(time::slice()));
            let cpu = CpuId(random.below(Bare::cpu_count().into()) as u32);
            self.goes_to(cpu);
            self.comes_to_cpu();
        }
    }

    /// Waits for an interrupt.
    #[inline(never)]
    pub(crate) fn wait(&mut self) {
        self.vm.makes_progress(self.id);
        if self.interface.signals(&self.vm.gic, &Ich, &mut &*self.vm) {
            return;
        }
        self.shows();
        let vm = Arc::clone(&self.vm);
        let Ok(redistributor) = vm.gic.redistributor(self.id) else { return };
        if let Ok(blocked) = redistributor.news().block() {
            while blocked.asleep() {
                scheduler::park();
                self.timers_fire();
            }
        }
        self.comes_to_cpu();
    }

    /// Shows where the guest is, for the watchdog.
    fn shows(&self) {
        self.vm.shows(self.id, self.frame.pc, self.frame.pstate);
    }

    /// Stops the VM because of what the guest has done.
    pub(crate) fn fails(&self, why: core::fmt::Arguments<'_>) {
        self.vm.stop(
            End::Off,
            format_args!("vCPU {} has left by {why}, PC {:#x}", self.id.number(), self.frame.pc),
        );
    }

    /// Makes the instruction UNDEFINED: the guest takes an exception to EL1 (Arm DDI 0487,
    /// AArch64.TakeException).
    #[cold]
    pub(crate) fn undefined(&mut self) {
        /// Offsets from VBAR_EL1 of the vectors from EL1 with SP_EL0, with SP_EL1, from AArch64 and
        /// from AArch32.
        const VECTORS: [u64; 4] = [0, 0x200, 0x400, 0x600];
        let (aarch32, mode, stack) =
            (self.frame.pstate >> 4 & 1, self.frame.pstate >> 2 & 3, self.frame.pstate & 1);
        let from = match (aarch32, mode, stack) {
            (1, ..) => 3,
            (_, 1, 0) => 0,
            (_, 1, _) => 1,
            _ => 2,
        };
        // SAFETY: the registers are the guest's, which is loaded here.
        unsafe {
            write_sysreg!("elr_el1", self.frame.pc);
            write_sysreg!("spsr_el1", self.frame.pstate);
            write_sysreg!("esr_el1", 1 << 25);
        }
        self.frame.pc = read_sysreg!("vbar_el1") + VECTORS[from];
        self.frame.pstate = PSTATE;
    }

    pub(crate) fn register(&self, number: u8) -> u64 {
        self.frame.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    pub(crate) fn set_register(&mut self, number: u8, value: u64) {
        if let Some(register) = self.frame.x.get_mut(usize::from(number)) {
            *register = value;
        }
    }
}
