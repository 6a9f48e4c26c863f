//! Random schedules, for trees that are too large.

use crate::ids::{CtxId, CtxSet};

/// A small, fast, well-spread generator (splitmix64): a sampler's schedules must be the same on every machine.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }
}

/// How one random schedule is drawn.
pub(crate) enum Sampler {
    /// Each enabled context is as likely as the other.
    Uniform { seed: u64, index: u64, stride: u64, random: Random },
    /// Priorities with a few change points (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of
    /// finding bugs", ASPLOS 2010). The number of change points is drawn, too: with as many as there are steps, a bug
    /// that needs one preemption is never found.
    Priorities {
        seed: u64,
        index: u64,
        stride: u64,
        random: Random,
        priority: Box<[u64; 64]>,
        changes: Vec<usize>,
        length: usize,
    },
    /// One given schedule.
    Replay(Replay),
}

/// A schedule: what is given, and beyond that the default, in which whoever runs goes on, and otherwise the first that
/// can.
#[derive(Clone, Default)]
pub(crate) struct Replay {
    /// Who takes the first steps.
    pub schedule: Vec<CtxId>,
    /// Who takes a step that the default gives to another, by rising step.
    pub deviations: Vec<(usize, CtxId)>,
    /// The steps so far in which the run differed from the default.
    pub differed: Vec<(usize, CtxId)>,
}

impl Replay {
    fn choose(&mut self, favourite: CtxId, depth: usize) -> CtxId {
        let place = || self.deviations.binary_search_by_key(&depth, |(step, _)| *step).ok();
        let deviation = || place().map(|place| self.deviations[place].1);
        let chosen = self.schedule.get(depth).copied().or_else(deviation).unwrap_or(favourite);
        if chosen != favourite {
            self.differed.push((depth, chosen));
        }
        chosen
    }
}

/// The largest number of change points that is drawn.
const MOST_CHANGES: u64 = 4;

impl Sampler {
    /// Draws every `stride`th schedule of the seed, beginning with `index`.
    pub(crate) fn uniform(seed: u64, index: u64, stride: u64) -> Self {
        Sampler::Uniform { seed, index, stride, random: Random::new(0) }
    }

    /// Draws every `stride`th schedule of the seed, beginning with `index`.
    pub(crate) fn priorities(seed: u64, index: u64, stride: u64) -> Self {
        Sampler::Priorities {
            seed,
            index,
            stride,
            random: Random::new(0),
            priority: Box::new([0; 64]),
            changes: Vec::new(),
            length: 1,
        }
    }

    /// Begins the next schedule; the last one had `length` steps.
    pub(crate) fn begin(&mut self, last_length: usize) {
        match self {
            Sampler::Replay(replay) => replay.differed.clear(),
            Sampler::Uniform { seed, index, stride, random } => {
                *random = Random::new(*seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
                *index += *stride;
            }
            Sampler::Priorities { seed, index, stride, random, priority, changes, length } => {
                *random = Random::new(*seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
                *index += *stride;
                *length = (*length).max(last_length);
                priority.fill_with(|| random.next() | 1 << 63);
                changes.clear();
                for _ in 0..random.below(MOST_CHANGES + 1) {
                    changes.push(random.below(*length as u64) as usize);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn choose(&mut self, enabled: CtxSet, favourite: CtxId, depth: usize) -> CtxId {
        match self {
            Sampler::Replay(replay) => replay.choose(favourite, depth),
            Sampler::Uniform { random, .. } => {
                let skip = random.below(enabled.len() as u64) as usize;
                enabled.iter().nth(skip).expect("counted")
            }
            Sampler::Priorities { priority, changes, .. } => {
                if let Some(place) = changes.iter().position(|&change| change == depth) {
                    // Whoever would run falls below all others; the later the change, the lower.
                    let first = highest(priority, enabled);
                    priority[first.index()] = (MOST_CHANGES + 1).saturating_sub(place as u64);
                }
                highest(priority, enabled)
            }
        }
    }
}

fn highest(priority: &[u64; 64], enabled: CtxSet) -> CtxId {
    enabled.iter().max_by_key(|ctx| priority[ctx.index()]).expect("someone is enabled")
}
