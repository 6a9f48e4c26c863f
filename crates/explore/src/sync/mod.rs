//! What `std::sync` has, for explored code: the same names, and the same calls.
//!
//! A program that is ported from `std`, loom or shuttle names these in place of its own, and is
//! explored. What is written against [`Platform`](doorbell_platform::Platform) does not need them.
//!
//! ```text
//!   atomic     words and pointers
//! ```

pub mod atomic;
