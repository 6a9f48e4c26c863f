//! IRQ bypass: producers and consumers of interrupts that find each other by a token.

use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_platform::{Lock, LockClass, Platform, WaitQueue, WaitType, lock_with_room};

/// A leaf, taken in task context only: who is to be connected is decided under it, and done when it is gone.
static PAIRS: LockClass = LockClass::new("host.bypass", WaitType::Spin);

/// What a producer and a consumer have in common: the identity of the eventfd between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// A source of interrupts: an interrupt of the host, of an assigned device.
///
/// What it is asked to do is done in task context, with no lock held, and may wait.
pub trait Producer: Send + Sync + 'static {
    /// It is about to be connected or disconnected. Before the consumer is stopped.
    fn stop(&self) {}

    /// It is connected or disconnected. After the consumer was started.
    fn start(&self) {}
}

/// Where interrupts of a producer `D` are to be delivered, if that is possible without the host's handler: an irqfd.
///
/// What it is asked to do is done in task context, with no lock held, and may wait: for an invalidation, say. It is asked to
/// do one thing at a time for each pair. It must not register or unregister anything with the same token, nor panic.
pub trait Consumer<D>: Send + Sync + 'static {
    /// What it keeps of a connection, such as a [`Binding`](crate::Binding).
    type Link: Send + 'static;

    /// Its producer is about to change.
    fn stop(&self) {}

    /// Its producer has changed.
    fn start(&self) {}

    /// Connects: from here on interrupts of the producer go by this consumer's route, without the host's handler if the
    /// route allows it.
    fn connect(&self, producer: &Arc<D>) -> Self::Link;

    /// Its route may have changed: the connection follows. When this returns, nothing goes by a former route.
    fn follow(&self, link: &mut Self::Link);

    /// Disconnects: when this returns, interrupts of the producer arrive in the host, and nothing that it has done uses what
    /// `link` refers to.
    fn disconnect(&self, producer: &Arc<D>, link: Self::Link);
}

/// Another producer, or another consumer, has that token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyRegistered;

impl core::fmt::Display for AlreadyRegistered {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("that token has a producer, or a consumer, already")
    }
}

impl core::error::Error for AlreadyRegistered {}

/// Producers and consumers, in any order and number, at any moment, but at most one of each for a token.
///
/// No lock is held while they are connected: whoever does something to a pair *takes its link out* of the slot before, and puts
/// it back after. Without the link there is nothing that others could do to that pair, so they wait; other pairs are
/// not concerned. (A lock that is held meanwhile would nest with every lock of every producer and consumer.)
pub struct Bypass<P: Platform, D: Producer, C: Consumer<D>> {
    /// By token.
    slots: Lock<P, Vec<Slot<D, C>>>,
    /// A link was put back, or somebody has left.
    changed: P::WaitQueue,
}

struct Slot<D, C: Consumer<D>> {
    token: Token,
    producer: Option<Arc<D>>,
    consumer: Option<Arc<C>>,
    /// Only if both are there. If both are there and this is not, somebody has taken it.
    link: Option<C::Link>,
}

/// Which of the two.
type Place<D, C, T> = fn(&mut Slot<D, C>) -> &mut Option<Arc<T>>;

/// A pair and its link: nobody else does anything to it.
struct Claimed<D, C: Consumer<D>> {
    producer: Arc<D>,
    consumer: Arc<C>,
    link: C::Link,
}

enum Claim<D, C: Consumer<D>> {
    Mine(Claimed<D, C>),
    Theirs,
    /// There is no pair.
    None,
}

impl<D: Producer, C: Consumer<D>> Slot<D, C> {
    fn claim(&mut self) -> Claim<D, C> {
        match (&self.producer, &self.consumer, self.link.take()) {
            (Some(producer), Some(consumer), Some(link)) => {
                Claim::Mine(Claimed { producer: Arc::clone(producer), consumer: Arc::clone(consumer), link })
            }
            (Some(_), Some(_), None) => Claim::Theirs,
            _ => Claim::None,
        }
    }
}

impl<P: Platform, D: Producer, C: Consumer<D>> Bypass<P, D, C> {
    /// Nobody is registered.
    pub fn new() -> Arc<Self> {
        Arc::new(Bypass { slots: Lock::new(&PAIRS, Vec::new()), changed: P::WaitQueue::new("bypass") })
    }

    /// Registers a producer. If there is a consumer of that token, both are connected when this returns. In task context.
    ///
    /// # Errors
    /// If there is another producer of that token, or one that is about to leave.
    pub fn produce(self: &Arc<Self>, token: Token, producer: Arc<D>) -> Result<Produces<P, D, C>, AlreadyRegistered> {
        self.register(token, |slot| &mut slot.producer, producer)?;
        Ok(Produces { bypass: Arc::clone(self), token })
    }

    /// Registers a consumer. If there is a producer of that token, both are connected when this returns. In task context.
    ///
    /// # Errors
    /// If there is another consumer of that token, or one that is about to leave.
    pub fn consume(self: &Arc<Self>, token: Token, consumer: Arc<C>) -> Result<Consumes<P, D, C>, AlreadyRegistered> {
        self.register(token, |slot| &mut slot.consumer, consumer)?;
        Ok(Consumes { bypass: Arc::clone(self), token })
    }

    fn register<T>(&self, token: Token, place: Place<D, C, T>, it: Arc<T>) -> Result<(), AlreadyRegistered> {
        let pair = {
            let mut slots = lock_with_room(|| self.slots.lock(), |slots| Some(slots));
            let at = slots.binary_search_by_key(&token, |slot| slot.token).unwrap_or_else(|at| {
                slots.insert(at, Slot { token, producer: None, consumer: None, link: None });
                at
            });
            let slot = &mut slots[at];
            if place(slot).is_some() {
                return Err(AlreadyRegistered);
            }
            *place(slot) = Some(it);
            // Whoever completes a pair connects it: both were not there until now, so nobody else can have begun to.
            slot.producer.clone().zip(slot.consumer.clone())
        };
        if let Some((producer, consumer)) = pair {
            let link = changing(&*producer, &*consumer, || consumer.connect(&producer));
            self.put_back(token, link);
        }
        Ok(())
    }

    fn put_back(&self, token: Token, link: C::Link) {
        let mut link = Some(link);
        self.with(token, |slot| slot.link = link.take());
        self.changed.wake_all();
    }

    /// The route of the consumer of that token has changed, if there is one: when this returns, its connection follows the new
    /// one, or it is not connected any more. By anybody, in task context, where one may wait.
    pub fn follow(&self, token: Token) {
        let mut claimed = None;
        self.changed.wait_until(|| match self.with(token, Slot::claim) {
            Some(Claim::Theirs) => false,
            Some(Claim::Mine(mine)) => {
                claimed = Some(mine);
                true
            }
            Some(Claim::None) | None => true,
        });
        if let Some(Claimed { consumer, mut link, .. }) = claimed {
            consumer.follow(&mut link);
            self.put_back(token, link);
        }
    }

    fn leave<T>(&self, token: Token, place: Place<D, C, T>) {
        let (mut claimed, mut left) = (None, None);
        // If there is no pair, it has left before there can be one.
        self.changed.wait_until(|| {
            self.with(token, |slot| match slot.claim() {
                Claim::Theirs => false,
                Claim::Mine(mine) => {
                    claimed = Some(mine);
                    true
                }
                Claim::None => {
                    left = place(slot).take();
                    true
                }
            })
            .unwrap_or(true)
        });
        if let Some(Claimed { producer, consumer, link }) = claimed {
            changing(&*producer, &*consumer, || consumer.disconnect(&producer, link));
            left = self.with(token, |slot| place(slot).take()).flatten();
            self.changed.wake_all();
        }
        // What it was may be freed here: without the lock.
        drop(left);
    }

    /// The slot of a token, which goes with the last one who is there.
    fn with<R>(&self, token: Token, f: impl FnOnce(&mut Slot<D, C>) -> R) -> Option<R> {
        let mut slots = self.slots.lock();
        let at = slots.binary_search_by_key(&token, |slot| slot.token).ok()?;
        let slot = &mut slots[at];
        let result = f(slot);
        if slot.producer.is_none() && slot.consumer.is_none() {
            slots.remove(at);
        }
        Some(result)
    }
}

/// The consumer stands still while its producer changes, and the producer while its consumer does.
fn changing<D: Producer, C: Consumer<D>, R>(producer: &D, consumer: &C, change: impl FnOnce() -> R) -> R {
    producer.stop();
    consumer.stop();
    let result = change();
    consumer.start();
    producer.start();
    result
}

/// A producer is registered, until this is dropped. When the drop has returned, its consumer does not use it. In task
/// context, where one may wait.
#[must_use = "dropped, it is not registered"]
pub struct Produces<P: Platform, D: Producer, C: Consumer<D>> {
    bypass: Arc<Bypass<P, D, C>>,
    token: Token,
}

impl<P: Platform, D: Producer, C: Consumer<D>> Drop for Produces<P, D, C> {
    fn drop(&mut self) {
        self.bypass.leave(self.token, |slot| &mut slot.producer);
    }
}

/// A consumer is registered, until this is dropped. When the drop has returned, no interrupt of the producer goes by its
/// route any more. In task context, where one may wait.
#[must_use = "dropped, it is not registered"]
pub struct Consumes<P: Platform, D: Producer, C: Consumer<D>> {
    bypass: Arc<Bypass<P, D, C>>,
    token: Token,
}

impl<P: Platform, D: Producer, C: Consumer<D>> Drop for Consumes<P, D, C> {
    fn drop(&mut self) {
        self.bypass.leave(self.token, |slot| &mut slot.consumer);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::sync::Mutex;

    use doorbell_platform::Std;

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    struct Device(Log);
    impl Producer for Device {
        fn stop(&self) {
            self.0.lock().unwrap().push("producer stops");
        }
        fn start(&self) {
            self.0.lock().unwrap().push("producer starts");
        }
    }

    struct Irqfd(Log);
    impl Consumer<Device> for Irqfd {
        type Link = Arc<Device>;
        fn stop(&self) {
            self.0.lock().unwrap().push("consumer stops");
        }
        fn start(&self) {
            self.0.lock().unwrap().push("consumer starts");
        }
        fn connect(&self, producer: &Arc<Device>) -> Arc<Device> {
            self.0.lock().unwrap().push("connected");
            Arc::clone(producer)
        }
        fn follow(&self, _: &mut Arc<Device>) {
            self.0.lock().unwrap().push("follows");
        }
        fn disconnect(&self, _: &Arc<Device>, _: Arc<Device>) {
            self.0.lock().unwrap().push("disconnected");
        }
    }

    fn take(log: &Log) -> Vec<&'static str> {
        std::mem::take(&mut *log.lock().unwrap())
    }

    const CONNECTED: [&str; 5] =
        ["producer stops", "consumer stops", "connected", "consumer starts", "producer starts"];
    const DISCONNECTED: [&str; 5] =
        ["producer stops", "consumer stops", "disconnected", "consumer starts", "producer starts"];

    #[test]
    fn a_pair_is_connected_once_whoever_comes_first_and_disconnected_whoever_leaves_first() {
        let log = Log::default();
        let bypass = Bypass::<Std, Device, Irqfd>::new();
        let device = Arc::new(Device(Arc::clone(&log)));
        let produces = bypass.produce(Token(1), Arc::clone(&device)).unwrap();
        let other = bypass.consume(Token(2), Arc::new(Irqfd(Arc::clone(&log)))).unwrap();
        bypass.follow(Token(1));
        bypass.follow(Token(2));
        bypass.follow(Token(3));
        assert!(take(&log).is_empty());
        let consumes = bypass.consume(Token(1), Arc::new(Irqfd(Arc::clone(&log)))).unwrap();
        assert_eq!(take(&log), CONNECTED);
        bypass.follow(Token(1));
        assert_eq!(take(&log), ["follows"]);
        drop(produces);
        assert_eq!(take(&log), DISCONNECTED);
        assert_eq!(Arc::strong_count(&device), 1);
        let produces = bypass.produce(Token(1), device).unwrap();
        assert_eq!(take(&log), CONNECTED);
        drop(consumes);
        assert_eq!(take(&log), DISCONNECTED);
        drop((produces, other));
        assert!(take(&log).is_empty() && bypass.slots.lock().is_empty());
    }

    #[test]
    fn a_token_has_one_producer_and_one_consumer() {
        let log = Log::default();
        let bypass = Bypass::<Std, Device, Irqfd>::new();
        let produces = bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).unwrap();
        let consumes = bypass.consume(Token(1), Arc::new(Irqfd(Arc::clone(&log)))).unwrap();
        take(&log);
        assert!(bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).is_err());
        assert!(bypass.consume(Token(1), Arc::new(Irqfd(Arc::clone(&log)))).is_err());
        assert!(take(&log).is_empty());
        drop((produces, consumes));
    }
}
