//! Ghost state: what the code itself does not keep, but must be true. A freed object that is
//! touched is an error, not luck.

use std::panic::Location;

use crate::machine::record::note;
use crate::sim::leak;
use crate::sim::model::{Model, fail_as};
use crate::trace::FailureKind;

/// The life of one object: its references, and whether it is freed.
pub struct Ghost {
    name: &'static str,
    life: Model<Life>,
    /// Whether it is there still when all is over.
    there: leak::Life,
}

doorbell_platform::opaque_debug!([] Ghost; name);

struct Life {
    references: u32,
    freed: bool,
}

impl Ghost {
    /// Creates a live object with one reference.
    #[track_caller]
    pub fn new(name: &'static str) -> Self {
        let there = leak::Life::begin(name, Location::caller());
        Ghost { name, life: Model::new(name, Life { references: 1, freed: false }), there }
    }

    /// Touches the object: an error if it is freed.
    #[track_caller]
    pub fn access(&self) {
        let freed = self.life.observe(|life| life.freed);
        self.tell("touches");
        self.check(freed);
    }

    /// Takes a reference.
    #[track_caller]
    pub fn get(&self) {
        let freed = self.life.change(|life| {
            life.references += 1;
            life.freed
        });
        self.tell("takes a reference to");
        self.check(freed);
    }

    /// Drops a reference; `true` if it was the last one, and the caller has to
    /// [`free`](Ghost::free) the object.
    #[track_caller]
    pub fn put(&self) -> bool {
        let left = self.life.change(|life| {
            let left = life.references.checked_sub(1);
            life.references = left.unwrap_or(0);
            left
        });
        self.tell("drops a reference to");
        match left {
            Some(left) => left == 0,
            None => {
                fail_as(
                    FailureKind::RefUnderflow,
                    format!("{} has lost more references than it had", self.name),
                );
                false
            }
        }
    }

    /// Frees the object: an error if it is freed already.
    #[track_caller]
    pub fn free(&self) {
        let before = self.life.change(|life| std::mem::replace(&mut life.freed, true));
        self.there.end();
        self.tell("frees");
        self.check(before);
    }

    /// Returns whether the object is freed, for conditions of quiescence.
    pub fn is_freed(&self) -> bool {
        self.life.observe(|life| life.freed)
    }

    /// Says in the trace what the last step was.
    fn tell(&self, verb: &str) {
        note(|| format!("{verb} {}", self.name));
    }

    fn check(&self, freed: bool) {
        if freed {
            fail_as(FailureKind::UseAfterFree, format!("{} is used after it was freed", self.name));
        }
    }
}
