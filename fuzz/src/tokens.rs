//! Replay tokens, as any text, and as those of one program with any schedule: refused, or the same
//! failing run each time.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, ReplayError, Sim};
use doorbell_platform::{CpuId, Lock, LockClass, Vector, WaitType};

const PREFIX: &str = "db1-";
/// Of the program, and of what the run does.
const HEAD: usize = 6;

static ONE: LockClass = LockClass::new("fuzz.one", WaitType::Spin);
static TWO: LockClass = LockClass::new("fuzz.two", WaitType::Spin);

/// A deadlock of two tasks, and another of one with an interrupt.
fn program(m: &Machine) {
    let one = Arc::new(Lock::<Sim, ()>::new(&ONE, ()));
    let two = Arc::new(Lock::<Sim, ()>::new(&TWO, ()));
    let (drains, fills) = ((one.clone(), two.clone()), (one.clone(), two));
    let handler = m.handler(CpuId(0), Vector(0x41), "receive", move || drop(one.lock()));
    m.task_on(CpuId(0), "drain", move || {
        let _held = drains.0.lock();
        drop(drains.1.lock());
    });
    m.task_on(CpuId(1), "fill", move || {
        let _held = fills.1.lock();
        drop(fills.0.lock());
    });
    m.hardware("device", move || handler.raise());
}

fn explore() -> Explore {
    Explore::new("fuzz.tokens")
}

/// The bytes of the token of a run that fails.
static KNOWN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let report = explore().run(program);
    let token = &report.assert_found(FailureKind::SelfDeadlock).token;
    URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).expect("a token")).expect("a token")
});

/// Replays what the bytes say.
pub fn run(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    let text = match what % 4 {
        0 => String::from_utf8_lossy(rest).into_owned(),
        1 => format!("{PREFIX}{}", String::from_utf8_lossy(rest)),
        2 => format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([&KNOWN[..HEAD], rest].concat())),
        _ => {
            let mut token = KNOWN.clone();
            let len = token.len();
            rest.chunks_exact(2).for_each(|pair| token[usize::from(pair[0]) % len] ^= pair[1]);
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(token))
        }
    };
    let replay = || explore().replay(&text, program).map(|failure| (failure.kind, failure.token, failure.trace.why));
    match replay() {
        Ok(failed) => {
            assert!([FailureKind::Deadlock, FailureKind::SelfDeadlock].contains(&failed.0) && failed.1 == text, "{failed:?}");
            assert_eq!(replay(), Ok(failed), "it is the same each time");
        }
        Err(ReplayError::Malformed | ReplayError::OtherProgram | ReplayError::Stale) => {}
    }
}
