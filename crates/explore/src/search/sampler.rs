//! Random schedules, for trees that are too large.

use super::random::Random;
use crate::ids::{CtxId, CtxSet};

/// How one random schedule is drawn.
pub(crate) enum Sampler {
    /// Each enabled context is as likely as the other.
    Uniform { seed: u64, index: u64, stride: u64, random: Random },
    /// Priorities with change points (Burckhardt et al., "A randomized scheduler with probabilistic
    /// guarantees of finding bugs", ASPLOS 2010). The number of change points is drawn, too, each
    /// order of magnitude as often as the others: with as many as there are steps, a bug that needs
    /// one preemption is hardly found, and with a few, one that needs more.
    Priorities {
        seed: u64,
        index: u64,
        stride: u64,
        random: Random,
        priority: Box<[u64; 64]>,
        length: usize,
        falls: Falls,
    },
    /// One given schedule.
    Replay(Replay),
}

/// The change points of a schedule, at each of which whoever would run falls below all others.
#[derive(Default)]
pub(crate) struct Falls {
    /// Steps from here on among which they are.
    steps: u64,
    /// How many are left.
    left: u64,
    /// Whether several may fall at one of them: of three, the one that is to run next need not be
    /// the highest of the others.
    several: bool,
    /// The priority below which the next one falls.
    lowest: u64,
}

impl Falls {
    /// Below the priorities that are drawn.
    const HIGHEST: u64 = 1 << 63;

    fn draw(random: &mut Random, steps: u64) -> Falls {
        let order = random.below(u64::from(steps.ilog2()) + 2);
        let fewest = (1 << order) >> 1;
        let left = (fewest + random.below(fewest.max(1))).min(steps);
        Falls { steps, left, several: random.below(2) == 0, lowest: Falls::HIGHEST }
    }

    /// Returns whether the next step is a change point: each of those to come is as likely to be
    /// one.
    fn here(&mut self, random: &mut Random) -> bool {
        let here = self.left > 0 && random.below(self.steps) < self.left;
        self.steps = self.steps.saturating_sub(1);
        self.left -= u64::from(here);
        here
    }
}

/// A schedule: what is given, and beyond that the default, in which whoever runs goes on, and
/// otherwise the first that can.
#[derive(Clone, Default)]
pub(crate) struct Replay {
    /// The contexts that take the first steps.
    pub schedule: Vec<CtxId>,
    /// The contexts that take a step that the default gives to another, by rising step.
    pub deviations: Vec<(usize, CtxId)>,
    /// The steps so far in which the run differed from the default.
    pub differed: Vec<(usize, CtxId)>,
}

impl Replay {
    pub(super) fn choose(&mut self, favourite: CtxId, depth: usize) -> CtxId {
        let place = || self.deviations.binary_search_by_key(&depth, |(step, _)| *step).ok();
        let deviation = || place().map(|place| self.deviations[place].1);
        let chosen = self.schedule.get(depth).copied().or_else(deviation).unwrap_or(favourite);
        if chosen != favourite {
            self.differed.push((depth, chosen));
        }
        chosen
    }
}

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
            length: 1,
            falls: Falls::default(),
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
            Sampler::Priorities { seed, index, stride, random, priority, length, falls } => {
                *random = Random::new(*seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
                *index += *stride;
                *length = (*length).max(last_length);
                priority.fill_with(|| random.next() | Falls::HIGHEST);
                *falls = Falls::draw(random, *length as u64);
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
            Sampler::Priorities { priority, random, falls, .. } => {
                let mut change = falls.here(random);
                while change {
                    falls.lowest -= 1;
                    priority[highest(priority, enabled).index()] = falls.lowest;
                    change = falls.several && random.below(2) == 0;
                }
                highest(priority, enabled)
            }
        }
    }
}

fn highest(priority: &[u64; 64], enabled: CtxSet) -> CtxId {
    enabled.iter().max_by_key(|ctx| priority[ctx.index()]).expect("someone is enabled")
}
