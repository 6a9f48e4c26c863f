//! Replay tokens: a failing schedule in at most 80 characters.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::ids::{CtxId, hash};
use crate::limit::Limit;
use crate::machine::Machine;
use crate::machine::failed::FailedRun;
use crate::machine::recorder::Recorder;
use crate::run::executor::{self, Replayed};
use crate::run::explore::Explore;
use crate::search::Replay;

/// Characters at most, and so bytes at most behind the prefix: four characters for three bytes.
const MOST_CHARACTERS: usize = 80;
const PREFIX: &str = "db1-";
/// How many steps are replayed to leave deviations out,
const MOST_STEPS: usize = 10_000_000;
/// but so many runs in any case.
const LEAST_TRIES: usize = 256;
const MOST_BYTES: usize = (MOST_CHARACTERS - PREFIX.len()) / 4 * 3;

/// A schedule by its deviations from the default one, tied to a program and to what the schedule
/// does there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    /// A hash of the program's name and source.
    program: u32,
    /// A hash of the steps of the run.
    run: u16,
    deviations: Vec<(usize, CtxId)>,
}

impl Token {
    /// The token of a failing run; `None` if it does not fail again. Deviations without which it
    /// fails in the same way are left out until it fits, many at once as long as that goes well: a
    /// run may be long.
    pub(crate) fn of(
        explore: &Explore,
        program: &(impl Fn(&Machine) + Send + Sync),
        failed: &FailedRun,
    ) -> Option<Token> {
        let exact = Replay { schedule: failed.schedule.clone(), ..Replay::default() };
        let run = |replay: Replay| {
            let Replayed { failed: again, deviations, recorder } =
                executor::replay(explore, program, replay).ok()?;
            again.filter(|again| again.kind == failed.kind).map(|again| Token {
                program: identity(explore),
                run: fingerprint(&again, &recorder),
                deviations,
            })
        };
        let mut token = run(exact)?;
        let mut tries = (MOST_STEPS / failed.schedule.len().max(1)).max(LEAST_TRIES);
        let mut at_once = token.deviations.len().div_ceil(2);
        let mut place = 0;
        while token.bytes().len() > MOST_BYTES && tries > 0 && executor::room_for_tries() {
            if place >= token.deviations.len() {
                if at_once == 1 {
                    break;
                }
                (at_once, place) = (at_once.div_ceil(2), 0);
            }
            let mut fewer = token.deviations.clone();
            fewer.drain(place..(place + at_once).min(fewer.len()));
            tries -= 1;
            match run(Replay { deviations: fewer, ..Replay::default() }) {
                Some(shorter) if shorter.deviations.len() < token.deviations.len() => {
                    token = shorter
                }
                _ => place += at_once,
            }
        }
        Some(token)
    }

    pub(crate) fn replay(&self) -> Replay {
        Replay { deviations: self.deviations.clone(), ..Replay::default() }
    }

    /// Whether the token is one of that program.
    pub(crate) fn check(&self, explore: &Explore) -> Result<(), ReplayError> {
        if self.program == identity(explore) { Ok(()) } else { Err(ReplayError::OtherProgram) }
    }

    /// Whether a replay did what the token stands for.
    pub(crate) fn fits(&self, failed: &FailedRun, recorder: &Recorder) -> bool {
        self.run == fingerprint(failed, recorder)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.program.to_le_bytes().to_vec();
        bytes.extend(self.run.to_le_bytes());
        let mut last = 0;
        for &(step, ctx) in &self.deviations {
            put(&mut bytes, (step - last) as u64);
            bytes.push(ctx.0);
            last = step;
        }
        bytes
    }

    /// Reads a token.
    pub(crate) fn parse(text: &str) -> Result<Token, ReplayError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(ReplayError::Malformed)?;
        if body.len() > MOST_CHARACTERS * 4 {
            return Err(ReplayError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| ReplayError::Malformed)?;
        let (program, rest) = bytes.split_first_chunk::<4>().ok_or(ReplayError::Malformed)?;
        let (run, mut rest) = rest.split_first_chunk::<2>().ok_or(ReplayError::Malformed)?;
        let mut deviations = Vec::new();
        let mut step = 0;
        while !rest.is_empty() {
            let delta = get(&mut rest).ok_or(ReplayError::Malformed)?;
            let (&ctx, after) = rest.split_first().ok_or(ReplayError::Malformed)?;
            rest = after;
            step += usize::try_from(delta).map_err(|_| ReplayError::Malformed)?;
            if ctx >= 64 {
                return Err(ReplayError::Malformed);
            }
            deviations.push((step, CtxId(ctx)));
        }
        Ok(Token {
            program: u32::from_le_bytes(*program),
            run: u16::from_le_bytes(*run),
            deviations,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.bytes()))
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn get(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..28).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn identity(explore: &Explore) -> u32 {
    let hash = hash(explore.name.bytes().chain(explore.source.to_le_bytes()));
    (hash ^ hash >> 32) as u32
}

fn fingerprint(failed: &FailedRun, recorder: &Recorder) -> u16 {
    let hash =
        hash(format!("{:?}", failed.kind).bytes().chain(recorder.fingerprint().to_le_bytes()));
    (hash ^ hash >> 16 ^ hash >> 32 ^ hash >> 48) as u16
}

/// Why a token cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The text is not a token.
    Malformed,
    /// The token belongs to another program.
    OtherProgram,
    /// The program or the explorer has changed since.
    Stale,
    /// Failing runs leave the stacks of contexts behind that wait for ever: the process has as many
    /// of them as it can have.
    NoRoom(Limit),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplayError::NoRoom(limit) => {
                return write!(f, "no run can be replayed in this process any more: {limit}");
            }
            ReplayError::Malformed => "this is not a replay token",
            ReplayError::OtherProgram => "the token belongs to another program",
            ReplayError::Stale => {
                "the token is stale: the code has changed since it was made; run the check again"
            }
        })
    }
}

impl std::error::Error for ReplayError {}
