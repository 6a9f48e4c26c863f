//! The shared objects of an execution.

use std::borrow::Cow;
use std::panic::Location;
use std::rc::Rc;

use doorbell_platform::LockClass;

use crate::ids::{CtxId, CtxSet};

/// The holder of a lock that nobody holds.
pub(crate) const NOBODY: u8 = u8::MAX;

/// What kind of thing an object is; decides how traces speak of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ObjKind {
    /// A word that was given no name: it is called after the line that made it.
    Atomic,
    Spin,
    Mutex,
    Token,
    Interrupt,
    /// Anything else; the name says what.
    Model,
}

/// A shared object of the current execution.
pub(crate) struct Obj {
    pub kind: ObjKind,
    pub name: Cow<'static, str>,
    pub class: Option<&'static LockClass>,
    /// For locks that were created while the program runs: by whom, and how many it had created
    /// before.
    pub creator: Option<(CtxId, u32)>,
    /// The context that holds the object, for locks.
    pub holder: u8,
    /// The contexts that have used the object since what the run does is not recorded any more.
    pub users: CtxSet,
    /// The contexts that can end a wait for the object; empty: any can.
    pub releasers: CtxSet,
    /// Says what those need in order to do so, and why they do not have it.
    pub needs: Option<Rc<dyn Fn() -> String>>,
    pub created: &'static Location<'static>,
}

impl Obj {
    pub(crate) fn is_lock(&self) -> bool {
        matches!(self.kind, ObjKind::Spin | ObjKind::Mutex)
    }
}
