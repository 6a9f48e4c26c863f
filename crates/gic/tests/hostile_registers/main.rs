//! Guests that do anything, with every register that they reach, on 1 to 4 vCPUs; beside them
//! devices, and hosts that are slow. Nothing panics, waits for ever or grows; every entry is one
//! that hardware allows; and nothing is left behind: a guest that behaves finds the controller as
//! new.

mod driver;
mod ops;
#[allow(dead_code, reason = "other test files use the rest")]
#[path = "../random/mod.rs"]
mod random;
#[path = "../registers/mod.rs"]
mod registers;
mod vm;

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use doorbell_gic::{Frame, Width};
use doorbell_hardware::gic::spec::Group;
use doorbell_platform::IrqGuard;

use driver::New;
use ops::{Access, Guest, Numbers, Op, Setup};
use random::Random;
use vm::{Done, Vm};

/// The system's allocator, counting for each thread.
struct Counted;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is `System`'s to do; the counter is a plain cell of this thread, and does not
// allocate.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: what is asked of this allocator is asked of that one.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `alloc` had it from there.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

impl Numbers for Random {
    fn bits(&mut self) -> u64 {
        Random::bits(self)
    }

    fn below(&mut self, end: u32) -> u32 {
        Random::below(self, end)
    }
}

/// Lives a life, and then a better one.
fn lives(setup: &Setup, ops: &[Op]) -> Done {
    let gic = vm::gic(setup);
    let irqs_off = IrqGuard::new();
    let mut vm = Vm::new(&gic, &irqs_off, setup);
    let new = New::of(&mut vm);
    for &op in ops {
        let before = ALLOCATIONS.get();
        vm.does(op);
        assert!(ALLOCATIONS.get() == before || matches!(op, Op::Saves(_)), "{op:?} has allocated");
    }
    let done = vm.done;
    driver::behaves(&mut vm, setup, &new);
    done
}

fn drawn(seed: u64, operations: u32) -> (Setup, Vec<Op>) {
    let mut random = Random::new(seed);
    let setup = Setup::draw(&mut random);
    let mut ops = ops::begins(&setup);
    ops.extend((0..operations).map(|_| Op::draw(&mut random, &setup)));
    (setup, ops)
}

/// Returns how the message of a panic begins.
fn says(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or_default().chars().take(60).filter(|c| !c.is_ascii_digit()).collect()
}

/// Returns a shorter life that fails in the same way.
fn shortest(setup: &Setup, mut ops: Vec<Op>, how: &str) -> Vec<Op> {
    let fails = |ops: &[Op]| {
        let result = catch_unwind(AssertUnwindSafe(|| lives(setup, ops)));
        result.is_err_and(|panic| says(&*panic) == how)
    };
    let mut size = ops.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + size).min(ops.len()));
            if fails(&fewer) { ops = fewer } else { at += size }
        }
        size /= 2;
    }
    ops
}

/// Returns a number of the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// `DOORBELL_LIVES` says how many lives there are, `DOORBELL_OPERATIONS` of how many operations
/// each; `DOORBELL_LIFE` is one alone, by its number. Of one that fails, a shorter one is printed.
#[test]
fn nothing_that_a_guest_does_to_the_controller_breaks_it_or_stays_behind() {
    let operations = number("DOORBELL_OPERATIONS").unwrap_or(400) as u32;
    let lives_of = match number("DOORBELL_LIFE") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DOORBELL_LIVES").unwrap_or(4_000),
    };
    let mut all = Done::default();
    for seed in lives_of {
        let (setup, ops) = drawn(seed, operations);
        match catch_unwind(AssertUnwindSafe(|| lives(&setup, &ops))) {
            Ok(done) => all += done,
            Err(panic) => {
                eprintln!("in life {seed}: {setup:?}");
                std::panic::set_hook(Box::new(|_| ()));
                let ops = shortest(&setup, ops, &says(&*panic));
                let _ = std::panic::take_hook();
                ops.iter().for_each(|op| eprintln!("    {op:x?}"));
                let _ = catch_unwind(AssertUnwindSafe(|| lives(&setup, &ops)));
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{all:?}");
}

/// The predecessor holds the bit of group 1 when an interrupt is acknowledged as one of group 0.
#[test]
fn an_interrupt_that_changes_its_group_while_it_is_active_is_not_in_two_list_registers() {
    let (setup, _) = drawn(0, 0);
    let setup = Setup { vcpus: 1, one_priority: true, ..setup };
    let write = |offset, value| {
        let frame = Frame::Redistributor(vm::vcpu(0));
        Op::Access(0, Access { frame, offset, width: Width::Word, written: Some(value) })
    };
    let mut ops = ops::begins(&setup);
    ops.extend([Op::Guest(0, Guest::Ctlr(2)), Op::Level(0, 17, 0, true), Op::Leave(0)]);
    ops.push(Op::Guest(0, Guest::Iar(Group::One)));
    ops.extend([
        write(0x1_0380, 1 << 17),
        write(0x1_0080, !(1 << 17)),
        Op::Guest(0, Guest::EndLast),
    ]);
    ops.extend([Op::Guest(0, Guest::Iar(Group::Zero)), Op::Leave(0), Op::Enter(0)]);
    let done = lives(&setup, &ops);
    assert_eq!(done.acknowledged, 2);
}

/// The end of the first was not folded yet, and the second has come: the write withdraws it.
#[test]
fn a_physical_interrupt_that_is_withdrawn_after_the_end_of_another_one_is_deactivated() {
    let (setup, _) = drawn(0, 0);
    let setup = Setup {
        vcpus: 2,
        spis: 32,
        physical: true,
        one_priority: true,
        drops_only: false,
        ..setup
    };
    let write = |by, offset| {
        let frame = Frame::Distributor;
        Op::Access(by, Access { frame, offset, width: Width::Word, written: Some(1 << 4) })
    };
    let mut ops = ops::begins(&setup);
    ops.extend([write(0, 0x204), Op::Guest(0, Guest::Iar(Group::One)), Op::Leave(0)]);
    ops.extend([Op::Guest(0, Guest::EndLast), Op::Edge(0, 36), write(1, 0x284)]);
    assert_eq!(lives(&setup, &ops).acknowledged, 1);
}
