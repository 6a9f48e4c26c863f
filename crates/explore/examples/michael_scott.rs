//! The queue of Michael and Scott: one that links a node by a store, which loses another, and one
//! that links it by an exchange. Run it with `cargo run -p doorbell-explore --example michael_scott`.

use std::ptr::null_mut;
use std::sync::Arc;

use doorbell_explore::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, render};

struct Node {
    value: usize,
    next: AtomicPtr<Node>,
}

/// How a node is linked behind the last one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A look whether there is none, and then a store.
    Store,
    /// In one step.
    Exchange,
}

struct Queue {
    head: AtomicPtr<Node>,
    tail: AtomicPtr<Node>,
    /// All nodes, which stay where they are, and are freed with the queue: reclamation is another matter.
    nodes: Vec<Node>,
    link: Link,
}

impl Queue {
    fn new(values: usize, link: Link) -> Queue {
        let node = |value| Node { value, next: AtomicPtr::new(null_mut()).named("next") };
        let mut nodes: Vec<_> = (0..=values).map(node).collect();
        let dummy: *mut Node = &mut nodes[0];
        let (head, tail) =
            (AtomicPtr::new(dummy).named("head"), AtomicPtr::new(dummy).named("tail"));
        Queue { head, tail, nodes, link }
    }

    fn next(&self, node: *mut Node) -> &AtomicPtr<Node> {
        // SAFETY: pointers in the queue are of nodes of the queue, which live as long as that.
        unsafe { &(*node).next }
    }

    fn enqueue(&self, value: usize) {
        let new: *mut Node = (&raw const self.nodes[value]).cast_mut();
        loop {
            let tail = self.tail.load(SeqCst);
            let next = self.next(tail).load(SeqCst);
            if !next.is_null() {
                // Somebody has linked a node, and not moved the tail yet.
                let _ = self.tail.compare_exchange(tail, next, SeqCst, SeqCst);
                continue;
            }
            let linked = match self.link {
                Link::Store => {
                    self.next(tail).store(new, SeqCst);
                    true
                }
                Link::Exchange => {
                    self.next(tail).compare_exchange(null_mut(), new, SeqCst, SeqCst).is_ok()
                }
            };
            if linked {
                let _ = self.tail.compare_exchange(tail, new, SeqCst, SeqCst);
                return;
            }
        }
    }

    fn dequeue(&self) -> Option<usize> {
        loop {
            let head = self.head.load(SeqCst);
            let tail = self.tail.load(SeqCst);
            let next = self.next(head).load(SeqCst);
            if next.is_null() {
                return None;
            }
            if head == tail {
                let _ = self.tail.compare_exchange(tail, next, SeqCst, SeqCst);
            } else if self.head.compare_exchange(head, next, SeqCst, SeqCst).is_ok() {
                // SAFETY: as in `next`; nobody writes a value.
                return Some(unsafe { (*next).value });
            }
        }
    }
}

/// Two tasks enqueue a value each, one of them dequeues; what is left comes out in the end.
pub fn queue(m: &Machine, link: Link) {
    let queue = Arc::new(Queue::new(2, link));
    let taken = Arc::new(AtomicUsize::new(0).named("sum"));
    let (one, two) = (Arc::clone(&queue), Arc::clone(&queue));
    let sum = Arc::clone(&taken);
    m.task("enqueues 1", move || one.enqueue(1));
    m.task("enqueues 2", move || {
        two.enqueue(2);
        sum.fetch_add(two.dequeue().unwrap_or(0), SeqCst);
    });
    m.at_quiescence("what went in has come out", move || {
        let left: usize = std::iter::from_fn(|| queue.dequeue()).sum();
        match left + taken.load(SeqCst) {
            3 => Ok(()),
            other => Err(format!("the values are 1 and 2, and their sum is {other}")),
        }
    });
}

/// Explores both.
pub fn main() {
    let report = Explore::new("linked by a store").run(|m| queue(m, Link::Store));
    let failure = report.assert_found(FailureKind::Quiescence);
    println!("{}", render::text(&failure.trace, &render::Options::default()));
    let report = Explore::new("linked by an exchange").run(|m| queue(m, Link::Exchange));
    report.assert_exhausted();
    println!("By an exchange: exhausted, {} executions.", report.executions);
}
