//! Treiber's stack: with bare pointers, whose ABA the search finds, and with counted ones. Run it
//! with `cargo run -p doorbell-explore --example treiber`.

use std::ptr::null_mut;
use std::sync::Arc;

use doorbell_explore::sim::Ghost;
use doorbell_explore::sync::atomic::{AtomicPtr, AtomicU64, Ordering::SeqCst};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, render};

struct Node {
    next: AtomicPtr<Node>,
    life: Ghost,
}

/// A stack of nodes that outlive it: what a node's `life` says is what an allocator would know.
struct Bare {
    top: AtomicPtr<Node>,
}

impl Bare {
    fn push(&self, node: *mut Node) {
        let mut top = self.top.load(SeqCst);
        loop {
            // SAFETY: nodes live as long as the execution; who pushes one has it.
            unsafe { (*node).next.store(top, SeqCst) };
            match self.top.compare_exchange(top, node, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    fn pop(&self) -> Option<*mut Node> {
        let mut top = self.top.load(SeqCst);
        while !top.is_null() {
            // SAFETY: as above.
            let next = unsafe { (*top).next.load(SeqCst) };
            // The node may have been popped and pushed meanwhile, and `next` be anything.
            match self.top.compare_exchange(top, next, SeqCst, SeqCst) {
                Ok(node) => return Some(node),
                Err(other) => top = other,
            }
        }
        None
    }
}

/// One task pops. Another pops two nodes, frees the second, and pushes the first again.
pub fn bare(m: &Machine) {
    let node = |name, next| {
        Arc::new(Node { next: AtomicPtr::new(next).named(name), life: Ghost::new(name) })
    };
    let pointer = |node: &Arc<Node>| Arc::as_ptr(node).cast_mut();
    let second = node("second", null_mut());
    let first = node("first", pointer(&second));
    let stack = Arc::new(Bare { top: AtomicPtr::new(pointer(&first)).named("top") });
    let other = Arc::clone(&stack);
    m.task("pops", move || {
        other.pop();
        if let Some(node) = other.pop() {
            // SAFETY: nodes live as long as the execution.
            unsafe { (*node).life.access() };
        }
    });
    m.task("recycles", move || {
        let (Some(one), Some(two)) = (stack.pop(), stack.pop()) else { return };
        // SAFETY: as above; the task keeps both nodes until the end.
        unsafe { (*two).life.free() };
        stack.push(one);
        drop((first, second));
    });
}

/// A stack whose top and links are places in a table, and whose top counts its changes.
struct Counted {
    top: AtomicU64,
    next: Vec<AtomicU64>,
}

const END: u64 = u32::MAX as u64;
const CHANGE: u64 = 1 << 32;

impl Counted {
    fn push(&self, node: u64) {
        let mut top = self.top.load(SeqCst);
        loop {
            self.next[node as usize].store(top & END, SeqCst);
            let new = (top & !END).wrapping_add(CHANGE) | node;
            match self.top.compare_exchange(top, new, SeqCst, SeqCst) {
                Ok(_) => return,
                Err(other) => top = other,
            }
        }
    }

    fn pop(&self) -> Option<u64> {
        let mut top = self.top.load(SeqCst);
        while top & END != END {
            let next = self.next[(top & END) as usize].load(SeqCst);
            let new = (top & !END).wrapping_add(CHANGE) | next;
            match self.top.compare_exchange(top, new, SeqCst, SeqCst) {
                Ok(top) => return Some(top & END),
                Err(other) => top = other,
            }
        }
        None
    }
}

/// The same, by a stack that notices.
pub fn counted(m: &Machine) {
    let life = Arc::new([Ghost::new("first"), Ghost::new("second")]);
    let next = vec![AtomicU64::new(1).named("first"), AtomicU64::new(END).named("second")];
    let stack = Arc::new(Counted { top: AtomicU64::new(0).named("top"), next });
    let (other, lives) = (Arc::clone(&stack), Arc::clone(&life));
    m.task("pops", move || {
        other.pop();
        if let Some(node) = other.pop() {
            lives[node as usize].access();
        }
    });
    m.task("recycles", move || {
        let (Some(one), Some(two)) = (stack.pop(), stack.pop()) else { return };
        life[two as usize].free();
        stack.push(one);
    });
}

/// Explores both.
pub fn main() {
    let report = Explore::new("a stack of bare pointers").run(bare);
    let failure = report.assert_found(FailureKind::UseAfterFree);
    println!("{}", render::text(&failure.trace, &render::Options::default()));
    let report = Explore::new("a stack of counted places").run(counted);
    report.assert_exhausted();
    println!("With a count: exhausted, {} executions.", report.executions);
}
