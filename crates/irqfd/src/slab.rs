//! A table with stable indices.

use alloc::vec::Vec;
use core::mem;

pub(crate) enum Place<T> {
    Free { next: Option<u32> },
    Used(T),
}

/// Values at stable indices. Under a lock, room for the next one is [made
/// before](doorbell_platform::lock_reserving).
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Option<u32>,
    len: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab { places: Vec::new(), free: None, len: 0 }
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// What the next insertion makes longer, if no place is free.
    pub(crate) fn grows(&mut self) -> Option<&mut Vec<Place<T>>> {
        self.free.is_none().then_some(&mut self.places)
    }

    /// Puts `value` in and returns its index. Allocates if what [`grows`](Slab::grows) has no room.
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

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.places.get_mut(index as usize)? {
            Place::Used(value) => Some(value),
            Place::Free { .. } => None,
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
        assert_eq!(slab.get_mut(99), None);
        assert_eq!(slab.get_mut(4), Some(&mut 4));
    }

    #[test]
    fn what_was_removed_makes_room_and_values_come_out_in_order() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..9).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.grows().map(|places| places.len()), Some(9));
        slab.remove(indices[4]);
        assert!(slab.grows().is_none());
        slab.insert(44);
        assert!(slab.grows().is_some());
        assert_eq!(slab.into_values().collect::<Vec<_>>(), [0, 1, 2, 3, 44, 5, 6, 7, 8]);
    }
}
