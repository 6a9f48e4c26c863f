//! Replay tokens, as any text, and as those of one program with any schedule: refused, or the same
//! failing run each time.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine, ReplayError, Sim};
use doorbell_platform::{Atomic, CpuId, Platform, Vector};

const PREFIX: &str = "db1-";
/// How many bytes say what the program is, and what the run does.
const HEAD: usize = 6;

type Word = <Sim as Platform>::AtomicU32;

fn increment(word: &Word) {
    let seen = word.load(SeqCst);
    word.store(seen + 1, SeqCst);
}

/// Two tasks and an interrupt of one of them, which lose increments. All get to their ends, so a
/// run that fails leaves no stack behind: a fuzzer has many.
fn program(m: &Machine) {
    let word = Arc::new(Word::new(0));
    let handled = word.clone();
    let handler = m.handler(CpuId(0), Vector(0x41), "receive", move || increment(&handled));
    for cpu in [CpuId(0), CpuId(1)] {
        let word = word.clone();
        m.task_on(cpu, format!("task {}", cpu.0), move || increment(&word));
    }
    m.hardware("device", move || handler.raise());
    m.at_quiescence("each counts", move || match word.load(SeqCst) {
        3 => Ok(()),
        fewer => Err(format!("{fewer}")),
    });
}

fn explore() -> Explore {
    Explore::new("fuzz.tokens")
}

/// The bytes of the token of a run that fails.
static KNOWN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let report = explore().run(program);
    let token = &report.assert_found(FailureKind::Quiescence).token;
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
    let replay = || {
        explore()
            .replay(&text, program)
            .map(|failure| (failure.kind, failure.token, failure.trace.why))
    };
    match replay() {
        Ok(failed) => {
            assert_eq!((failed.0, &failed.1), (FailureKind::Quiescence, &text));
            assert_eq!(replay(), Ok(failed), "it is the same each time");
        }
        Err(ReplayError::Malformed | ReplayError::OtherProgram | ReplayError::Stale) => {}
        // A schedule that the program cannot follow ends in the middle of its contexts, whose
        // stacks stay: after some 200,000 of them this process learns nothing more.
        Err(ReplayError::NoRoom(_)) => {}
    }
}
