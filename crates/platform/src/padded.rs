//! Data that shares no cache line.

use core::ops::Deref;

/// Keeps `T` on cache lines of its own: 128 bytes, because x86 prefetches lines in pairs and some
/// Arm cores have lines that long.
#[derive(Default, Debug)]
#[repr(align(128))]
pub struct CachePadded<T>(pub T);

impl<T> Deref for CachePadded<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
