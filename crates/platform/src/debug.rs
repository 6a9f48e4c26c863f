//! `Debug` for what holds memory, locks or code: a name, and no more than tells two of them apart.

/// Implements `Debug` for a struct: its name, and the fields that are named. The others are left
/// out, because to print them would dump memory, take a lock, or be a step of an exploration.
#[doc(hidden)]
#[macro_export]
macro_rules! opaque_debug {
    ([$($generics:tt)*] $name:ident $(<$($argument:tt),+>)? $(; $($field:ident),+)?) => {
        impl<$($generics)*> ::core::fmt::Debug for $name $(<$($argument),+>)? {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut shown = f.debug_struct(::core::stringify!($name));
                $($(shown.field(::core::stringify!($field), &self.$field);)+)?
                shown.finish_non_exhaustive()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::format;

    #[derive(Default)]
    struct Page<const N: usize> {
        number: u32,
        _memory: std::vec::Vec<[u8; N]>,
    }

    opaque_debug!([const N: usize] Page<N>; number);

    struct Hidden(u32);

    opaque_debug!([] Hidden);

    #[test]
    fn a_name_and_the_fields_that_are_named_are_shown_and_nothing_else() {
        let page = Page::<64> { number: 7, _memory: [[0xee; 64]].into() };
        assert_eq!(format!("{page:?}"), "Page { number: 7, .. }");
        let hidden = Hidden(5);
        assert_eq!((format!("{hidden:?}").as_str(), hidden.0), ("Hidden { .. }", 5));
    }
}
