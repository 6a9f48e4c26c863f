//! `Std`, and `Counting` over it, keep what a platform promises.
#![cfg(feature = "std")]

mod common;

mod std_ {
    use crate::common;
    use doorbell_platform::{Platform, Std};
    crate::platform_tests!(Std);
}

mod counting {
    use crate::common;
    use doorbell_platform::{Counting, Platform, Std};
    crate::platform_tests!(Counting<Std>);
}
