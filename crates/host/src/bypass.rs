//! IRQ bypass: producers and consumers of interrupts that find each other by a token.
//!
//! What a pair is asked to do may wait, for an invalidation, so it is done under no lock:
//!
//! ```text
//!   under the lock          without it                      under the lock
//!   takes the pair out  ->  stops, connects or follows,  ->  puts it back, and wakes those who
//!                           starts                            have found it out
//! ```
//!
//! One thing is done at a time for each pair, and who comes meanwhile waits. A connection that is
//! refused leaves both registered.

use alloc::boxed::Box;
use alloc::sync::Arc;
use doorbell_platform::{Lock, LockClass, Platform, WaitQueue, WaitType};

pub use crate::tokens::Token;
use crate::tokens::{Room, Tokens};

/// A leaf, taken in task context only: who is to be connected is decided under it, and done when it
/// is gone.
pub(crate) static PAIRS: LockClass = LockClass::new("host.bypass", WaitType::Spin).leaf();

/// A source of interrupts: an interrupt of the host, of an assigned device.
///
/// What it is asked to do is done in task context, with no lock held, and may wait.
pub trait Producer: Send + Sync + 'static {
    /// Tells the producer that it is about to be connected or disconnected, before the consumer is
    /// stopped.
    fn stop(&self) {}

    /// Tells the producer that it is connected or disconnected, after the consumer was started.
    fn start(&self) {}
}

/// Where interrupts of a producer `D` are to be delivered, if that is possible without the host's
/// handler: an irqfd.
///
/// What it is asked to do is done in task context, with no lock held, and may wait: for an
/// invalidation, say. It is asked to do one thing at a time for each pair. It must not register or
/// unregister anything with the same token.
///
/// If it or its producer panics, the panic goes to whoever has registered, unregistered, or changed
/// the route, and nobody waits for the pair any more: who was to be registered is not, who was to
/// leave has left, and a connection that was to follow is there still, as it was left. Both are
/// started.
pub trait Consumer<D>: Send + Sync + 'static {
    /// What it keeps of a connection, such as a [`AmdBinding`](crate::AmdBinding).
    type Link: Send + 'static;

    /// Why it cannot be connected.
    type Refusal: Send + Sync + 'static;

    /// Tells the consumer that its producer is about to change.
    fn stop(&self) {}

    /// Tells the consumer that its producer has changed.
    fn start(&self) {}

    /// Connects: from here on interrupts of the producer go by this consumer's route, without the
    /// host's handler if the route allows it.
    ///
    /// # Errors
    /// If there can be no connection, for want of an entry, say. Interrupts go by the host, both
    /// stay registered, and [`connection`](Bypass::connection) says so. It is asked again when the
    /// route changes.
    fn connect(&self, producer: &Arc<D>) -> Result<Self::Link, Self::Refusal>;

    /// Lets the connection follow a route that may have changed. When this returns, nothing goes by
    /// a former route, of which what it returns is the proof.
    fn follow(&self, link: &mut Self::Link) -> Followed;

    /// Disconnects: when this returns, interrupts of the producer arrive in the host, and nothing
    /// that it has done uses what `link` refers to.
    ///
    /// Nothing here, in `connect` or in `follow` may wait until a vCPU has done something. That
    /// vCPU may be in [`Bypass::follow`], because its guest has changed the route, and wait for
    /// this pair, which is taken until this returns: a deadlock that no lock shows. A vCPU that has
    /// to look at its pending bits is kicked, and looks when it comes to it.
    fn disconnect(&self, producer: &Arc<D>, link: Self::Link);
}

/// A proof that a connection goes by the route that it was to follow: it posts by that, or it
/// arrives in the host and is bound to nothing.
///
/// [`AmdBinding::follow`](crate::AmdBinding::follow) and
/// [`IntelBinding::follow`](crate::IntelBinding::follow) return it when they have done the one or
/// the other, so nobody says "it cannot be posted" and goes on to post by the former route.
#[derive(Debug)]
#[must_use = "it is what `Consumer::follow` returns"]
pub struct Followed(pub(crate) ());

impl Followed {
    /// Creates the proof for connections that are no bindings: `to` has the connection follow its
    /// route, or arrive in the host.
    pub fn by(to: impl FnOnce()) -> Self {
        to();
        Followed(())
    }
}

/// What has become of a token.
#[derive(Debug)]
pub enum Connection<R> {
    /// The token has no producer, or no consumer.
    None,
    /// Both are connected.
    Connected,
    /// The consumer could not be connected: interrupts go by the host.
    Refused(Arc<R>),
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

/// Producers and consumers, in any order and number, at any moment, but at most one of each for a
/// token.
///
/// No lock is held while they are connected: whoever does something to a pair *takes its link out*
/// of the slot before, and puts it back after. Without the link there is nothing that others could
/// do to that pair, so they wait; other pairs are not concerned. (A lock that is held meanwhile
/// would nest with every lock of every producer and consumer.)
pub struct Bypass<P: Platform, D: Producer, C: Consumer<D>> {
    slots: Lock<P, Tokens<Slot<D, C>>>,
    /// A link was put back, or somebody has left.
    changed: P::WaitQueue,
}

doorbell_platform::opaque_debug!([P: Platform, D: Producer, C: Consumer<D>] Bypass<P, D, C>);

struct Slot<D, C: Consumer<D>> {
    producer: Option<Arc<D>>,
    consumer: Option<Arc<C>>,
    pair: Pair<C::Link, C::Refusal>,
}

enum Pair<L, R> {
    /// At most one of the two is there.
    None,
    /// Somebody does something to it.
    Taken,
    /// Most tokens have none, so it is not a part of the table.
    Connected(Box<L>),
    Refused(Arc<R>),
}

/// A choice of the slot's producer or consumer.
type Place<D, C, T> = fn(&mut Slot<D, C>) -> &mut Option<Arc<T>>;

/// A pair, and its link if it is connected: nobody else does anything to it.
struct Claimed<D, C: Consumer<D>> {
    producer: Arc<D>,
    consumer: Arc<C>,
    link: Option<Box<C::Link>>,
}

enum Claim<D, C: Consumer<D>> {
    Mine(Claimed<D, C>),
    Theirs,
    /// There is no pair.
    None,
}

impl<D: Producer, C: Consumer<D>> Slot<D, C> {
    fn empty() -> Self {
        Slot { producer: None, consumer: None, pair: Pair::None }
    }

    fn claim(&mut self) -> Claim<D, C> {
        let (Some(producer), Some(consumer)) = (&self.producer, &self.consumer) else {
            return Claim::None;
        };
        let link = match core::mem::replace(&mut self.pair, Pair::Taken) {
            Pair::Taken => return Claim::Theirs,
            Pair::Connected(link) => Some(link),
            Pair::None | Pair::Refused(_) => None,
        };
        Claim::Mine(Claimed {
            producer: Arc::clone(producer),
            consumer: Arc::clone(consumer),
            link,
        })
    }
}

impl<P: Platform, D: Producer, C: Consumer<D>> Bypass<P, D, C> {
    /// Creates a bypass with which nobody is registered.
    pub fn new() -> Arc<Self> {
        Arc::new(Bypass {
            slots: Lock::new(&PAIRS, Tokens::new()),
            changed: P::WaitQueue::new("bypass"),
        })
    }

    /// Registers a producer. If there is a consumer of that token, both are connected when this
    /// returns, or [`connection`](Bypass::connection) says why not.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    ///
    /// # Errors
    /// If there is another producer of that token, or one that is about to leave.
    pub fn produce(
        self: &Arc<Self>,
        token: Token,
        producer: Arc<D>,
    ) -> Result<Produces<P, D, C>, AlreadyRegistered> {
        self.register(token, |slot| &mut slot.producer, producer)?;
        Ok(Produces { bypass: Arc::clone(self), token })
    }

    /// Registers a consumer. If there is a producer of that token, both are connected when this
    /// returns, or [`connection`](Bypass::connection) says why not.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    ///
    /// # Errors
    /// If there is another consumer of that token, or one that is about to leave.
    pub fn consume(
        self: &Arc<Self>,
        token: Token,
        consumer: Arc<C>,
    ) -> Result<Consumes<P, D, C>, AlreadyRegistered> {
        self.register(token, |slot| &mut slot.consumer, consumer)?;
        Ok(Consumes { bypass: Arc::clone(self), token })
    }

    fn register<T>(
        &self,
        token: Token,
        place: Place<D, C, T>,
        it: Arc<T>,
    ) -> Result<(), AlreadyRegistered> {
        if let Claim::Mine(claimed) = self.enter(token, place, it)? {
            // Whoever completes a pair connects it: both were not there until now, so nobody else
            // can have begun to.
            let leaves = Ends(|| self.end(token, place));
            let pair = connect(&claimed);
            core::mem::forget(leaves);
            self.put_back(token, pair);
        }
        Ok(())
    }

    fn enter<T>(
        &self,
        token: Token,
        place: Place<D, C, T>,
        it: Arc<T>,
    ) -> Result<Claim<D, C>, AlreadyRegistered> {
        let mut room: Option<Room<_>> = None;
        loop {
            let mut slots = self.slots.lock();
            if let Some(room) = &mut room {
                slots.extend(room);
            }
            if let Some(slot) = slots.find(token) {
                return Self::fill(slot, place, it);
            }
            let Some(lack) = slots.lacks() else {
                let slot = slots.insert(token, Slot::empty()).ok_or(AlreadyRegistered)?;
                return Self::fill(slot, place, it);
            };
            drop(slots);
            // What others have brought meanwhile is freed here, too: without the lock.
            room = Some(Room::new(lack));
        }
    }

    fn fill<T>(
        slot: &mut Slot<D, C>,
        place: Place<D, C, T>,
        it: Arc<T>,
    ) -> Result<Claim<D, C>, AlreadyRegistered> {
        if place(slot).is_some() {
            return Err(AlreadyRegistered);
        }
        *place(slot) = Some(it);
        Ok(slot.claim())
    }

    fn put_back(&self, token: Token, pair: Pair<C::Link, C::Refusal>) {
        let mut pair = Some(pair);
        self.with(token, |slot| slot.pair = pair.take().unwrap_or(Pair::None));
        self.changed.wake_all();
    }

    /// One of a pair leaves, which the caller has claimed.
    fn end<T>(&self, token: Token, place: Place<D, C, T>) {
        let left = self.with(token, |slot| {
            slot.pair = Pair::None;
            place(slot).take()
        });
        self.changed.wake_all();
        // What it was may be freed here: without the lock.
        drop(left);
    }

    /// Claims a pair, when nobody else does anything to it. If there is none, `alone` is done to
    /// what there is of it.
    fn claim<R>(
        &self,
        token: Token,
        alone: impl Fn(&mut Slot<D, C>) -> R,
    ) -> Result<Claimed<D, C>, Option<R>> {
        let mut claimed = Err(None);
        self.changed.wait_until(|| {
            let claim = self.with(token, |slot| match slot.claim() {
                Claim::Theirs => None,
                Claim::Mine(mine) => Some(Ok(mine)),
                Claim::None => Some(Err(Some(alone(slot)))),
            });
            claimed = match claim {
                Some(None) => return false,
                Some(Some(claim)) => claim,
                None => Err(None),
            };
            true
        });
        claimed
    }

    /// Has the connection of that token, if there is one, follow a route of its consumer that has
    /// changed: when this returns, the connection follows the new route, or there is no connection
    /// any more. A consumer that could not be connected is asked again.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    pub fn follow(&self, token: Token) {
        let Ok(mut claimed) = self.claim(token, |_| ()) else { return };
        let pair = match claimed.link.take() {
            Some(link) => {
                let mut stays = Stays { bypass: self, token, link: Some(link) };
                if let Some(link) = &mut stays.link {
                    let Followed(()) = claimed.consumer.follow(link);
                }
                return;
            }
            None => {
                let unclaims = Ends(|| self.put_back(token, Pair::None));
                let pair = connect(&claimed);
                core::mem::forget(unclaims);
                pair
            }
        };
        self.put_back(token, pair);
    }

    fn unregister<T>(&self, token: Token, place: Place<D, C, T>) {
        // If there is no pair, it has left before there can be one.
        match self.claim(token, |slot| place(slot).take()) {
            Err(left) => drop(left),
            Ok(Claimed { producer, consumer, link }) => {
                let _ends = Ends(|| self.end(token, place));
                if let Some(link) = link {
                    changing(&*producer, &*consumer, || consumer.disconnect(&producer, *link));
                }
            }
        }
    }

    /// Returns what has become of a token, once nobody is about to change that.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    pub fn connection(&self, token: Token) -> Connection<C::Refusal> {
        let mut connection = Connection::None;
        self.changed.wait_until(|| {
            let now = self.with(token, |slot| match &slot.pair {
                Pair::Taken => None,
                Pair::None => Some(Connection::None),
                Pair::Connected(_) => Some(Connection::Connected),
                Pair::Refused(why) => Some(Connection::Refused(Arc::clone(why))),
            });
            match now {
                Some(None) => return false,
                Some(Some(now)) => connection = now,
                None => connection = Connection::None,
            }
            true
        });
        connection
    }

    /// The slot of a token, which goes with the last one who is there.
    fn with<R>(&self, token: Token, f: impl FnOnce(&mut Slot<D, C>) -> R) -> Option<R> {
        let (result, _freed) = {
            let mut slots = self.slots.lock();
            let slot = slots.find(token)?;
            let result = f(slot);
            let empty = slot.producer.is_none() && slot.consumer.is_none();
            (result, if empty { slots.remove(token) } else { None })
        };
        Some(result)
    }
}

/// Does something when it is dropped, also if that is because of a panic.
struct Ends<F: FnMut()>(F);

impl<F: FnMut()> Drop for Ends<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Puts a link back, as it is.
struct Stays<'a, P: Platform, D: Producer, C: Consumer<D>> {
    bypass: &'a Bypass<P, D, C>,
    token: Token,
    link: Option<Box<C::Link>>,
}

impl<P: Platform, D: Producer, C: Consumer<D>> Drop for Stays<'_, P, D, C> {
    fn drop(&mut self) {
        let pair = self.link.take().map_or(Pair::None, Pair::Connected);
        self.bypass.put_back(self.token, pair);
    }
}

fn connect<D: Producer, C: Consumer<D>>(claimed: &Claimed<D, C>) -> Pair<C::Link, C::Refusal> {
    let Claimed { producer, consumer, .. } = claimed;
    match changing(&**producer, &**consumer, || consumer.connect(producer)) {
        Ok(link) => Pair::Connected(Box::new(link)),
        Err(why) => Pair::Refused(Arc::new(why)),
    }
}

/// The consumer stands still while its producer changes, and the producer while its consumer does.
fn changing<D: Producer, C: Consumer<D>, R>(
    producer: &D,
    consumer: &C,
    change: impl FnOnce() -> R,
) -> R {
    producer.stop();
    let _producer = Ends(|| producer.start());
    consumer.stop();
    let _consumer = Ends(|| consumer.start());
    change()
}

/// A producer is registered, until this is dropped. When the drop has returned, its consumer does
/// not use it. In task context, where one may wait.
#[must_use = "dropped, it is not registered"]
pub struct Produces<P: Platform, D: Producer, C: Consumer<D>> {
    bypass: Arc<Bypass<P, D, C>>,
    token: Token,
}

doorbell_platform::opaque_debug!([P: Platform, D: Producer, C: Consumer<D>] Produces<P, D, C>);

impl<P: Platform, D: Producer, C: Consumer<D>> Produces<P, D, C> {
    /// Returns what has become of the token, as [`Bypass::connection`] does.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    pub fn connection(&self) -> Connection<C::Refusal> {
        self.bypass.connection(self.token)
    }
}

impl<P: Platform, D: Producer, C: Consumer<D>> Drop for Produces<P, D, C> {
    fn drop(&mut self) {
        self.bypass.unregister(self.token, |slot| &mut slot.producer);
    }
}

/// A consumer is registered, until this is dropped. When the drop has returned, no interrupt of the
/// producer goes by its route any more. In task context, where one may wait.
///
/// Give it to what ends with the irqfd: an assignment of an eventfd ends by itself when the device
/// hangs up, and drops what was attached to it (`EventLoop::attach` of `doorbell-irqfd`). Kept
/// elsewhere, it leaves the device connected to an irqfd that is none any more.
#[must_use = "dropped, it is not registered"]
pub struct Consumes<P: Platform, D: Producer, C: Consumer<D>> {
    bypass: Arc<Bypass<P, D, C>>,
    token: Token,
}

doorbell_platform::opaque_debug!([P: Platform, D: Producer, C: Consumer<D>] Consumes<P, D, C>);

impl<P: Platform, D: Producer, C: Consumer<D>> Consumes<P, D, C> {
    /// Returns what has become of the token, as [`Bypass::connection`] does.
    ///
    /// # Context
    /// Any task, with no lock held; may sleep.
    pub fn connection(&self) -> Connection<C::Refusal> {
        self.bypass.connection(self.token)
    }
}

impl<P: Platform, D: Producer, C: Consumer<D>> Drop for Consumes<P, D, C> {
    fn drop(&mut self) {
        self.bypass.unregister(self.token, |slot| &mut slot.consumer);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use alloc::vec::Vec;
    use std::panic::{AssertUnwindSafe, catch_unwind};
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

    #[derive(Default)]
    enum Mood {
        #[default]
        Able,
        Refuses,
        Panics,
    }

    #[derive(Default)]
    struct Irqfd(Log, Mutex<Mood>);
    impl Consumer<Device> for Irqfd {
        type Link = Arc<Device>;
        type Refusal = &'static str;
        fn stop(&self) {
            self.0.lock().unwrap().push("consumer stops");
        }
        fn start(&self) {
            self.0.lock().unwrap().push("consumer starts");
        }
        fn connect(&self, producer: &Arc<Device>) -> Result<Arc<Device>, &'static str> {
            self.0.lock().unwrap().push("connected");
            match *self.1.lock().unwrap() {
                Mood::Able => Ok(Arc::clone(producer)),
                Mood::Refuses => Err("no entry"),
                Mood::Panics => panic!("a consumer that is wrong"),
            }
        }
        fn follow(&self, _: &mut Arc<Device>) -> Followed {
            Followed::by(|| self.0.lock().unwrap().push("follows"))
        }
        fn disconnect(&self, _: &Arc<Device>, _: Arc<Device>) {
            self.0.lock().unwrap().push("disconnected");
        }
    }

    fn irqfd(log: &Log) -> Arc<Irqfd> {
        Arc::new(Irqfd(Arc::clone(log), Mutex::default()))
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
        let other = bypass.consume(Token(2), irqfd(&log)).unwrap();
        bypass.follow(Token(1));
        bypass.follow(Token(2));
        bypass.follow(Token(3));
        assert!(take(&log).is_empty());
        let consumes = bypass.consume(Token(1), irqfd(&log)).unwrap();
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
        assert!(take(&log).is_empty() && bypass.slots.lock().len() == 0);
    }

    #[test]
    fn a_token_has_one_producer_and_one_consumer() {
        let log = Log::default();
        let bypass = Bypass::<Std, Device, Irqfd>::new();
        let produces = bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).unwrap();
        let consumes = bypass.consume(Token(1), irqfd(&log)).unwrap();
        take(&log);
        assert!(bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).is_err());
        assert!(bypass.consume(Token(1), irqfd(&log)).is_err());
        assert!(take(&log).is_empty());
        drop((produces, consumes));
    }

    #[test]
    fn a_pair_that_cannot_be_connected_says_so_and_is_tried_again_when_the_route_changes() {
        let log = Log::default();
        let bypass = Bypass::<Std, Device, Irqfd>::new();
        let irqfd = irqfd(&log);
        *irqfd.1.lock().unwrap() = Mood::Refuses;
        assert!(matches!(bypass.connection(Token(1)), Connection::None));
        let consumes = bypass.consume(Token(1), Arc::clone(&irqfd)).unwrap();
        assert!(matches!(consumes.connection(), Connection::None));
        let produces = bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).unwrap();
        assert!(matches!(produces.connection(), Connection::Refused(why) if *why == "no entry"));
        assert_eq!(take(&log), CONNECTED);
        *irqfd.1.lock().unwrap() = Mood::Able;
        bypass.follow(Token(1));
        assert_eq!(take(&log), CONNECTED);
        assert!(matches!(consumes.connection(), Connection::Connected));
        drop(consumes);
        assert!(matches!(produces.connection(), Connection::None));
        assert_eq!(take(&log), DISCONNECTED);
        *irqfd.1.lock().unwrap() = Mood::Refuses;
        let consumes = bypass.consume(Token(1), irqfd).unwrap();
        take(&log);
        drop((produces, consumes));
        assert!(
            take(&log).is_empty() && bypass.slots.lock().len() == 0,
            "what was not connected is not disconnected"
        );
    }

    #[test]
    fn a_consumer_that_panics_is_not_registered_and_nobody_waits_for_it() {
        let log = Log::default();
        let bypass = Bypass::<Std, Device, Irqfd>::new();
        let wrong = irqfd(&log);
        *wrong.1.lock().unwrap() = Mood::Panics;
        let produces = bypass.produce(Token(1), Arc::new(Device(Arc::clone(&log)))).unwrap();
        let registers = AssertUnwindSafe(|| bypass.consume(Token(1), Arc::clone(&wrong)).map(drop));
        assert!(catch_unwind(registers).is_err());
        assert_eq!(take(&log), CONNECTED, "both are started");
        assert!(matches!(produces.connection(), Connection::None));
        let consumes = bypass.consume(Token(1), irqfd(&log)).unwrap();
        assert!(matches!(consumes.connection(), Connection::Connected));
        drop((produces, consumes));
        assert!(bypass.slots.lock().len() == 0);
    }
}
