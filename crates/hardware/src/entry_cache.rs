//! What an I/O MMU keeps of an entry that it has read, of any format, until it is told to forget
//! it.

use doorbell_explore::sim::{Model, note};

/// The cache for one entry, and the interrupts that may be using what was read.
pub struct EntryCache<E: Copy + 'static>(Model<State<E>>);

doorbell_platform::opaque_debug!([E: Copy + 'static] EntryCache<E>);

struct State<E> {
    cached: Option<E>,
    in_flight: u32,
}

impl<E: Copy + 'static> EntryCache<E> {
    /// Creates a cache with nothing in it.
    #[track_caller]
    pub fn new(unit: &'static str) -> Self {
        EntryCache(Model::new(unit, State { cached: None, in_flight: 0 }))
    }

    /// Takes an interrupt, which stays under way until [`done`](EntryCache::done). Returns the
    /// entry that it uses, if that was read before.
    #[track_caller]
    pub fn comes(&self) -> Option<E> {
        let cached = self.0.change(|unit| {
            unit.in_flight += 1;
            unit.cached
        });
        note(|| {
            let entry =
                if cached.is_some() { "its entry is cached" } else { "its entry is not cached" };
            format!("an interrupt comes: {entry}")
        });
        cached
    }

    /// Keeps what was read.
    #[track_caller]
    pub fn keep(&self, entry: E) {
        self.0.change(|unit| unit.cached = Some(entry));
        note(|| "caches the entry".to_owned());
    }

    /// Says that an interrupt has done all that it does by the entry.
    #[track_caller]
    pub fn done(&self) {
        self.0.change(|unit| unit.in_flight -= 1);
        note(|| "is done with the interrupt".to_owned());
    }

    /// Forgets the entry when no interrupt is under way, and returns then: the invalidation has
    /// completed.
    #[track_caller]
    pub fn invalidate(&self) {
        self.0.take(|unit| unit.in_flight == 0, |unit| unit.cached = None);
        note(|| "the invalidation has completed".to_owned());
    }
}
