#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod avic;
mod vector;

pub use vector::GuestVector;
