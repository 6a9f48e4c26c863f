//! Simulated atomics: each access is one visible step.
//!
//! A word that is created in an execution has its number from then on, and becomes an object when
//! it is first used: a table has hundreds, and a run uses a few of them. A run that is written down
//! makes each an object where it is created, because traces count the words that one line makes.

use std::marker::PhantomData;
use std::ops::{BitAnd, BitOr, BitXor, Not};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed};

use doorbell_platform::{Atomic, AtomicInt, AtomicPtr};

use crate::ids::ObjId;
use crate::machine::cell::{exploring, with};
use crate::machine::flags::recording;
use crate::machine::lent::lent;
use crate::machine::object::ObjKind;
use crate::machine::record::machine_note;
use crate::machine::removal::taken;
use crate::machine::stamp::Stamp;
use crate::machine::step::{step, step_of};
use crate::op::{Access, NO_OBJ, Op, OpKind, Uses};
use crate::search::removal::Taken;
use crate::sim::choice::{Spurious, spuriously};
use crate::sim::model::{step_that, step_that_with, with_condition};

/// What a [`SimAtomic`] can hold.
pub trait Word:
    Copy
    + Ord
    + Send
    + std::fmt::Debug
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
    + Not<Output = Self>
    + 'static
{
    /// Whether it needs the upper half.
    const WIDE: bool = false;
    /// Returns the value as bits.
    fn to_bits(self) -> u128;
    /// Returns the value from bits that [`to_bits`](Word::to_bits) made.
    fn from_bits(bits: u128) -> Self;
}

impl Word for bool {
    #[inline]
    fn to_bits(self) -> u128 {
        self as u128
    }
    #[inline]
    fn from_bits(bits: u128) -> Self {
        bits != 0
    }
}

macro_rules! word {
    ($($int:ty: $wide:expr),*) => {$(
        impl Word for $int {
            const WIDE: bool = $wide;
            #[inline]
            fn to_bits(self) -> u128 {
                self as u128
            }
            #[inline]
            fn from_bits(bits: u128) -> Self {
                bits as $int
            }
        }
    )*};
}
word!(u8: false, u16: false, u32: false, u64: false, usize: false, u128: true);
word!(i8: false, i16: false, i32: false, i64: false, isize: false, i128: true);

/// An atomic word of the simulated machine.
pub struct SimAtomic<T: Word> {
    stamp: Stamp,
    first: u128,
    low: AtomicU64,
    high: AtomicU64,
    created: Option<&'static Location<'static>>,
    /// Empty: it is called after the line that made it.
    name: &'static str,
    holds: PhantomData<T>,
}

doorbell_platform::opaque_debug!([T: Word] SimAtomic<T>; name);

impl<T: Word> SimAtomic<T> {
    const fn holding(first: u128, created: Option<&'static Location<'static>>) -> Self {
        SimAtomic {
            stamp: Stamp::new(),
            first,
            low: AtomicU64::new(first as u64),
            high: AtomicU64::new((first >> 64) as u64),
            created,
            name: "",
            holds: PhantomData,
        }
    }

    #[inline]
    fn get(&self) -> T {
        let high = if T::WIDE { self.high.load(Relaxed) } else { 0 };
        T::from_bits(u128::from(high) << 64 | u128::from(self.low.load(Relaxed)))
    }

    #[inline]
    fn set(&self, value: T) {
        let bits = value.to_bits();
        self.low.store(bits as u64, Relaxed);
        if T::WIDE {
            self.high.store((bits >> 64) as u64, Relaxed);
        }
    }

    #[inline]
    #[track_caller]
    fn id(&self) -> ObjId {
        match with(|w| self.stamp.get(w)) {
            Some(id) => id,
            None => self.register(self.created.unwrap_or(Location::caller())),
        }
    }

    #[cold]
    fn register(&self, created: &'static Location<'static>) -> ObjId {
        let (kind, name) = called(self.name, "word");
        let id = self.stamp.register(kind, name, created);
        // A static that an earlier execution has left with some value.
        self.set(T::from_bits(self.first));
        id
    }

    /// Does `op` to the word.
    #[inline(always)]
    #[track_caller]
    fn step(&self, op: Op) {
        while !step_of(&self.stamp, op) {
            self.register(self.created.unwrap_or(Location::caller()));
        }
    }

    #[inline]
    #[track_caller]
    fn rmw(&self, f: impl Fn(T) -> T) -> T {
        if taken(Location::caller(), Taken::Indivisibility) {
            return self.rmw_in_two_steps(|old| Some(f(old)));
        }
        let changes = || f(self.get()) != self.get();
        self.step(with_condition(Op::new(OpKind::Rmw, NO_OBJ), &changes));
        let old = self.get();
        let new = f(old);
        if new == old {
            self.unchanged();
        } else {
            self.set(new);
        }
        self.tell("", || format!("{old:?} → {new:?}"));
        old
    }

    #[cold]
    #[track_caller]
    fn rmw_in_two_steps(&self, f: impl FnOnce(T) -> Option<T>) -> T {
        self.step(Op::new(OpKind::Load, NO_OBJ));
        let old = self.get();
        self.tell("reads ", || format!("{old:?}"));
        if let Some(new) = f(old) {
            self.step(Op::new(OpKind::Store, NO_OBJ));
            self.set(new);
            self.tell("writes ", || format!("{new:?}"));
        }
        old
    }

    /// The step that was done to the word left it as it was.
    fn unchanged(&self) {
        with(|w| {
            if let Some(obj) = self.stamp.get(w) {
                w.unchanged(obj);
            }
        });
    }

    #[inline]
    fn tell(&self, verb: &str, what: impl FnOnce() -> String) {
        if recording() {
            self.say(verb, &what());
        }
    }

    /// Says in the trace what was done to the word.
    #[cold]
    fn say(&self, verb: &str, what: &str) {
        let value = format!("{:?}", self.get());
        let name = with(|w| {
            let obj = self.stamp.get(w)?;
            w.recorder.holds(obj, value);
            Some(w.name(obj))
        });
        let name = name.unwrap_or_default();
        machine_note(|| match self.name.is_empty() {
            false => format!("{verb}{name}: {what}"),
            // What happened first: a narrow column cuts off the rest, and the place that stands for
            // the name is long.
            true => format!("{verb}{what}, {name}"),
        });
    }
}

/// How an object is registered: by its name, if it has one, or else as a `thing` that is called
/// after its place.
fn called(name: &'static str, thing: &'static str) -> (ObjKind, &'static str) {
    if name.is_empty() { (ObjKind::Atomic, thing) } else { (ObjKind::Model, name) }
}

/// Renames what is registered under `stamp` in this execution.
fn rename(stamp: &Stamp, name: &'static str, thing: &'static str) {
    if !exploring() {
        return;
    }
    with(|w| {
        if let Some(id) = stamp.get(w) {
            let (kind, name) = called(name, thing);
            let obj = w.obj_mut(id);
            (obj.kind, obj.name) = (kind, name.into());
        }
    });
}

impl<T: Word> Atomic for SimAtomic<T>
where
    T: Sync,
{
    type Value = T;

    const ZERO: Self = SimAtomic::holding(0, None);

    #[track_caller]
    fn new(value: T) -> Self {
        let this = SimAtomic::holding(value.to_bits(), Some(Location::caller()));
        if exploring() {
            this.stamp.reserve();
            if recording() {
                this.id();
            }
        }
        this
    }

    /// Simulated hardware and handlers have their turns between accesses, never in one.
    fn is_lock_free() -> bool {
        true
    }

    fn set_name(&mut self, name: &'static str) {
        self.name = name;
        rename(&self.stamp, name, "word");
    }

    #[inline]
    #[track_caller]
    fn load(&self, _order: Ordering) -> T {
        self.step(Op::new(OpKind::Load, NO_OBJ));
        let value = self.get();
        self.tell("reads ", || format!("{value:?}"));
        if taken(Location::caller(), Taken::Knowledge) { T::from_bits(0) } else { value }
    }

    #[inline]
    #[track_caller]
    fn store(&self, value: T, _order: Ordering) {
        self.step(Op::new(OpKind::Store, NO_OBJ));
        if self.get() == value {
            self.unchanged();
        } else {
            self.set(value);
        }
        self.tell("writes ", || format!("{value:?}"));
    }

    #[inline]
    #[track_caller]
    fn swap(&self, value: T, _order: Ordering) -> T {
        self.rmw(|_| value)
    }

    #[inline]
    #[track_caller]
    fn compare_exchange(
        &self,
        current: T,
        new: T,
        _success: Ordering,
        _failure: Ordering,
    ) -> Result<T, T> {
        if taken(Location::caller(), Taken::Indivisibility) {
            let old = self.rmw_in_two_steps(|old| (old == current).then_some(new));
            return if old == current { Ok(old) } else { Err(old) };
        }
        let changes = || new != current && self.get() == current;
        self.step(with_condition(Op::new(OpKind::Rmw, NO_OBJ), &changes));
        let old = self.get();
        if old == current {
            if new == old {
                self.unchanged();
            }
            self.set(new);
            self.tell("", || format!("{old:?} → {new:?}"));
            Ok(old)
        } else {
            self.unchanged();
            self.tell("", || format!("{old:?}, not {current:?}, so no exchange"));
            Err(old)
        }
    }

    #[inline]
    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        if spuriously(Spurious::Exchange, Location::caller()) {
            return Err(self.load(failure));
        }
        self.compare_exchange(current, new, success, failure)
    }

    #[inline]
    #[track_caller]
    fn fetch_or(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| T::from_bits(old.to_bits() | value.to_bits()))
    }

    #[inline]
    #[track_caller]
    fn fetch_and(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| T::from_bits(old.to_bits() & value.to_bits()))
    }

    #[inline]
    #[track_caller]
    fn fetch_xor(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| old ^ value)
    }

    #[inline]
    #[track_caller]
    fn fetch_nand(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| !(old & value))
    }
}

impl<T: Word + Sync> AtomicInt for SimAtomic<T> {
    #[inline]
    #[track_caller]
    fn fetch_add(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| T::from_bits(old.to_bits().wrapping_add(value.to_bits())))
    }

    #[inline]
    #[track_caller]
    fn fetch_sub(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| T::from_bits(old.to_bits().wrapping_sub(value.to_bits())))
    }

    #[inline]
    #[track_caller]
    fn fetch_max(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| old.max(value))
    }

    #[inline]
    #[track_caller]
    fn fetch_min(&self, value: T, _order: Ordering) -> T {
        self.rmw(|old| old.min(value))
    }
}

/// Changes two words in one step, as hardware does that locks the cache line or fetches a whole
/// entry: an IOMMU that posts an interrupt, a walk of a table. Returns what they held before. `f`
/// takes no visible steps, and may be called more than once.
#[track_caller]
pub fn both<T: Word, U: Word>(
    one: &SimAtomic<T>,
    other: &SimAtomic<U>,
    f: impl Fn(T, U) -> (T, U),
) -> (T, U) {
    let (obj, obj2) = (one.id(), other.id());
    let after = || f(one.get(), other.get());
    // If `f` panics when the machine looks ahead, it does so again when the step is done.
    let changes = || lent(after).is_ok_and(|after| after.0 != one.get());
    let same = || lent(after).is_ok_and(|after| after.1 == other.get());
    let more = |uses: &mut Uses<'_>| uses(obj2, if same() { Access::Read } else { Access::Write });
    step_that_with(Op::new(OpKind::Change, obj), &changes, &more);
    let (first, second) = (one.get(), other.get());
    let (one_after, other_after) = after();
    if one_after == first {
        one.unchanged();
    }
    one.set(one_after);
    other.set(other_after);
    one.tell("", || format!("{first:?} → {one_after:?} and {second:?} → {other_after:?}"));
    (first, second)
}

/// An atomic pointer of the simulated machine. Traces do not show what it holds: addresses differ
/// from run to run.
pub struct SimAtomicPtr<T> {
    stamp: Stamp,
    value: std::sync::atomic::AtomicPtr<T>,
    created: &'static Location<'static>,
    name: &'static str,
}

doorbell_platform::opaque_debug!([T] SimAtomicPtr<T>; name);

impl<T> SimAtomicPtr<T> {
    #[inline]
    fn id(&self) -> ObjId {
        with(|w| self.stamp.get(w)).unwrap_or_else(|| {
            let (kind, name) = called(self.name, "pointer");
            self.stamp.register(kind, name, self.created)
        })
    }
}

impl<T: 'static> AtomicPtr<T> for SimAtomicPtr<T> {
    #[track_caller]
    fn new(ptr: *mut T) -> Self {
        let this = SimAtomicPtr {
            stamp: Stamp::new(),
            value: std::sync::atomic::AtomicPtr::new(ptr),
            created: Location::caller(),
            name: "",
        };
        if exploring() {
            this.stamp.reserve();
            if recording() {
                this.id();
            }
        }
        this
    }

    fn set_name(&mut self, name: &'static str) {
        self.name = name;
        rename(&self.stamp, name, "pointer");
    }

    #[track_caller]
    fn load(&self, _order: Ordering) -> *mut T {
        step(Op::new(OpKind::Load, self.id()));
        self.value.load(Relaxed)
    }

    #[track_caller]
    fn store(&self, ptr: *mut T, _order: Ordering) {
        step(Op::new(OpKind::Store, self.id()));
        self.stamp.change();
        self.value.store(ptr, Relaxed);
    }

    #[track_caller]
    fn swap(&self, ptr: *mut T, _order: Ordering) -> *mut T {
        let obj = self.id();
        step_that(Op::new(OpKind::Rmw, obj), &|| self.value.load(Relaxed) != ptr);
        let old = self.value.swap(ptr, Relaxed);
        if old == ptr {
            with(|w| w.unchanged(obj));
        } else {
            self.stamp.change();
        }
        old
    }

    /// Compares addresses, which must not decide what happens: an allocator may give a freed one
    /// out again in one execution and not in another. So what is reused, the program reuses itself.
    #[track_caller]
    fn compare_exchange(
        &self,
        current: *mut T,
        new: *mut T,
        _success: Ordering,
        _failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        let obj = self.id();
        let holds = || self.value.load(Relaxed) == current;
        step_that(Op::new(OpKind::Rmw, obj), &|| new != current && holds());
        let exchanged = holds();
        if exchanged && new != current {
            self.stamp.change();
        } else {
            with(|w| w.unchanged(obj));
        }
        if recording() {
            let name = with(|w| w.name(obj));
            machine_note(|| match exchanged {
                true => format!("exchanges {name}"),
                false => format!("finds {name} changed, so no exchange"),
            });
        }
        self.value.compare_exchange(current, new, Relaxed, Relaxed)
    }

    #[track_caller]
    fn compare_exchange_weak(
        &self,
        current: *mut T,
        new: *mut T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<*mut T, *mut T> {
        if spuriously(Spurious::Exchange, Location::caller()) {
            return Err(self.load(failure));
        }
        self.compare_exchange(current, new, success, failure)
    }
}
