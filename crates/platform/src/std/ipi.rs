//! IPIs in a process: registered handlers on a helper thread.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::Std;
use crate::{CpuId, Lock, LockClass, PoolQueue, PoolWork, Vector, WaitType, Work, WorkQueue};

/// The numbers of the CPU and of the vector.
type Key = (u32, u8);

pub(crate) static IPIS: LockClass = LockClass::new("platform.std.ipi", WaitType::Spin).leaf();

/// Behind a spin lock, because IPIs are sent with interrupts off too.
static HANDLERS: Lock<Std, BTreeMap<Key, PoolWork<Std>>> = Lock::constant(&IPIS, BTreeMap::new());

impl Std {
    /// Calls `handler` on a helper thread whenever `vector` is sent to `cpu`, until the returned
    /// value is dropped.
    ///
    /// All handlers run on one thread, one after the other, with interrupts "on"; they must not
    /// wait for each other.
    ///
    /// # Panics
    /// If there is a handler for that CPU and vector.
    pub fn on_ipi(
        cpu: CpuId,
        vector: Vector,
        handler: impl Fn() + Send + Sync + 'static,
    ) -> IpiHandler {
        static QUEUE: OnceLock<PoolQueue<Std>> = OnceLock::new();
        let work = QUEUE.get_or_init(|| PoolQueue::new("doorbell-ipi", 1)).work("ipi", handler);
        let mut handlers = HANDLERS.lock_irqsave();
        let taken = handlers.contains_key(&(cpu.0, vector.0));
        if !taken {
            handlers.insert((cpu.0, vector.0), work.clone());
        }
        drop(handlers);
        assert!(!taken, "{vector} of {cpu} has a handler");
        IpiHandler { key: (cpu.0, vector.0), work }
    }
}

pub(super) fn send(cpu: CpuId, vector: Vector) {
    let work = HANDLERS.lock_irqsave().get(&(cpu.0, vector.0)).cloned();
    if let Some(work) = work {
        work.queue();
    }
}

/// A handler of an IPI; drop it to unregister. That waits for a run that has begun, so it must not
/// happen in the handler.
#[must_use = "the handler is unregistered as soon as this is dropped"]
pub struct IpiHandler {
    key: Key,
    work: PoolWork<Std>,
}

crate::opaque_debug!([] IpiHandler);

impl Drop for IpiHandler {
    fn drop(&mut self) {
        let registered = HANDLERS.lock_irqsave().remove(&self.key);
        drop(registered);
        self.work.cancel();
    }
}
