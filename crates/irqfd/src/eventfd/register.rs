//! What the process serves: an eventfd is one source, whatever its numbers are and whichever loop
//! is asked.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use doorbell_platform::fd::compare_files;

use super::descriptor::Source;

/// A leaf: the kernel is asked under it, and nobody else.
static REGISTER: Mutex<Register> =
    Mutex::new(Register { numbered: BTreeMap::new(), compared: Vec::new() });

/// The open files of all descriptors that are alive. Each of them holds its file open, so neither a
/// number nor a place in the order becomes that of another file while it stands here.
struct Register {
    /// Those with a number, by the kernel's number.
    numbered: BTreeMap<u64, Weak<Source>>,
    /// Those without a number, in the kernel's order.
    compared: Vec<Weak<Source>>,
}

/// What the kernel says of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    /// The number of an eventfd, from `fdinfo`.
    Numbered(u64),
    /// The file has no number, but can be compared with others.
    Compared,
    /// Nothing: duplicates pass for others.
    Unknown,
}

fn register() -> MutexGuard<'static, Register> {
    // Nothing panics while it is held.
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Identity {
    pub(super) fn of(fd: BorrowedFd<'_>, number: Option<u64>) -> Self {
        let comparable = || compare_files(fd, fd).is_some();
        number.map_or_else(
            || if comparable() { Identity::Compared } else { Identity::Unknown },
            Identity::Numbered,
        )
    }
}

/// Returns what is known of the open file already, or makes it known.
pub(super) fn find_or_insert(source: Source) -> Arc<Source> {
    let identity = source.identity();
    let source = Arc::new(source);
    // Whoever is the last to let go of one of the others does so when the register's lock is gone:
    // it looks for itself there.
    let mut passed = Vec::new();
    let mut found = None;
    let mut register = register();
    let Register { numbered, compared } = &mut *register;
    match identity {
        Identity::Unknown => {}
        Identity::Numbered(number) => {
            let known = numbered.entry(number).or_default();
            found = known.upgrade();
            if found.is_none() {
                *known = Arc::downgrade(&source);
            }
        }
        Identity::Compared => {
            // Each is held while it is compared, and so stays where it is in the order.
            passed.extend(
                compared.iter().filter_map(Weak::upgrade).filter(|known| known.fd().is_some()),
            );
            *compared = passed.iter().map(Arc::downgrade).collect();
            let at = passed.binary_search_by(|known| {
                let order =
                    known.fd().zip(source.fd()).and_then(|(known, new)| compare_files(known, new));
                order.unwrap_or(Ordering::Less)
            });
            match at {
                Ok(at) => found = Some(Arc::clone(&passed[at])),
                Err(at) => compared.insert(at, Arc::downgrade(&source)),
            }
        }
    }
    drop(register);
    drop(passed);
    found.unwrap_or(source)
}

/// Forgets an open file, before its descriptor is closed.
pub(super) fn forget(identity: Identity) {
    let mut register = register();
    match identity {
        Identity::Unknown => {}
        Identity::Numbered(number) => {
            // Another may have come in its place.
            if register.numbered.get(&number).is_some_and(|known| known.strong_count() == 0) {
                register.numbered.remove(&number);
            }
        }
        Identity::Compared => register.compared.retain(|known| known.strong_count() > 0),
    }
}
