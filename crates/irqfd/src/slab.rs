//! A table with stable indices that never allocates while somebody holds the lock around it.

use alloc::vec::Vec;
use core::mem;

enum Place<T> {
    Free { next: Option<u32> },
    Used(T),
}

/// Values at stable indices. [`insert`](Slab::insert) needs room that was made before with [`Room`].
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Option<u32>,
    len: u32,
}

/// Room for a [`Slab`], allocated while no lock is held, and what is left of it, to be freed likewise.
pub(crate) struct Room<T>(Vec<Place<T>>);

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab { places: Vec::new(), free: None, len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// How large a [`Room`] the next insertion needs, if it needs one.
    pub(crate) fn wants(&self) -> Option<usize> {
        let full = self.free.is_none() && self.places.len() == self.places.capacity();
        full.then(|| (self.places.len() * 2).max(4))
    }

    /// Moves into a larger room, if it is larger; leaves the old one in it.
    pub(crate) fn move_into(&mut self, room: &mut Room<T>) {
        if room.0.capacity() > self.places.capacity() {
            room.0.append(&mut self.places);
            mem::swap(&mut room.0, &mut self.places);
        }
    }

    /// Puts `value` in and returns its index. Allocates only if [`wants`](Slab::wants) was ignored.
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        match self.free {
            Some(index) => {
                let place = &mut self.places[index as usize];
                if let Place::Free { next } = *place {
                    self.free = next;
                }
                *place = Place::Used(value);
                index
            }
            None => {
                self.places.push(Place::Used(value));
                (self.places.len() - 1) as u32
            }
        }
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let place = self.places.get_mut(index as usize)?;
        match mem::replace(place, Place::Free { next: self.free }) {
            Place::Used(value) => {
                self.free = Some(index);
                self.len -= 1;
                Some(value)
            }
            free => {
                *place = free;
                None
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter_from(0)
    }

    /// The values at and after index `from`, with their indices.
    pub(crate) fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        self.places.iter().enumerate().skip(from as usize).filter_map(|(i, place)| match place {
            Place::Used(value) => Some((i as u32, value)),
            Place::Free { .. } => None,
        })
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().filter_map(|place| match place {
            Place::Used(value) => Some(value),
            Place::Free { .. } => None,
        })
    }
}

impl<T> Room<T> {
    pub(crate) const fn none() -> Self {
        Room(Vec::new())
    }

    pub(crate) fn for_len(len: usize) -> Self {
        Room(Vec::with_capacity(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_stay_and_are_used_again() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..10).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.remove(indices[3]), Some(3));
        assert_eq!(slab.remove(indices[3]), None, "not twice");
        assert_eq!(slab.iter_from(3).next().map(|(i, v)| (i, *v)), Some((4, 4)));
        assert_eq!(slab.insert(33), indices[3]);
        assert_eq!(slab.len(), 10);
        assert_eq!(slab.remove(99), None);
    }

    #[test]
    fn room_that_was_made_beforehand_is_enough() {
        let mut slab = Slab::new();
        for n in 0..1000 {
            if let Some(len) = slab.wants() {
                slab.move_into(&mut Room::for_len(len));
            }
            let capacity = slab.places.capacity();
            slab.insert(n);
            assert_eq!(slab.places.capacity(), capacity, "insertion {n} allocated");
        }
        assert_eq!(slab.into_values().collect::<Vec<_>>(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_room_that_came_too_late_changes_nothing() {
        let mut slab = Slab::new();
        for n in 0..9 {
            slab.insert(n);
        }
        slab.move_into(&mut Room::for_len(1));
        assert_eq!(slab.into_values().count(), 9);
    }
}
