//! What others keep with the machine: with a context, or for the length of an execution.

use std::any::Any;

/// Values of types that the machine does not know, one of each.
#[derive(Default)]
pub(crate) struct Kept(Vec<Box<dyn Any>>);

impl Kept {
    /// Returns the value of that type.
    #[inline]
    pub(crate) fn get<T: 'static>(&self) -> Option<&T> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    /// Keeps a value, in place of the one of its type.
    pub(crate) fn put<T: 'static>(&mut self, value: T) {
        match self.0.iter_mut().find_map(|other| other.downcast_mut()) {
            Some(place) => *place = value,
            None => self.0.push(Box::new(value)),
        }
    }

    /// Drops them all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type_is_kept_until_all_are_dropped() {
        let mut kept = Kept::default();
        assert_eq!(kept.get::<u8>(), None);
        kept.put(1u8);
        kept.put("text");
        kept.put(2u8);
        assert_eq!((kept.get::<u8>(), kept.get::<&str>()), (Some(&2), Some(&"text")));
        kept.clear();
        assert_eq!((kept.get::<u8>(), kept.get::<&str>()), (None, None));
    }
}
