//! Draws programs.

use super::program::{Act, Handler, Program};
use crate::search::Random;

/// What may be done where an act is drawn.
#[derive(Clone, Copy)]
struct Place {
    handler: bool,
    /// The first handler that may be raised here: a handler raises later ones only, or the program
    /// would not end.
    raises: u64,
    hardware: bool,
    /// Nothing may sleep.
    atomic: bool,
    /// A bit per lock that is held.
    held: u8,
    /// Interrupts may be off.
    masked: bool,
    /// May start a task.
    spawns: bool,
    depth: u8,
}

struct Generator<'a> {
    random: &'a mut Random,
    handlers: u64,
    mutex: bool,
    /// How much this program is inclined to what, of 8: few kinds of acts collide more often than
    /// many.
    taste: Taste,
}

#[derive(Clone, Copy)]
struct Taste {
    locks: u64,
    interrupts: u64,
    waits: u64,
    /// Polls, panics that are caught, and a static, where there are few.
    rare: u64,
}

/// Draws the program of a seed.
pub(super) fn program(seed: u64) -> Program {
    let random = &mut Random::new(seed);
    let tasks = match random.below(8) {
        0 => 1,
        7 => 3,
        _ => 2,
    };
    let handlers =
        if tasks == 3 { random.below(2) } else { [0, 1, 1, 1, 2, 2][random.below(6) as usize] };
    let hardware = handlers > 0 && random.below(4) == 0;
    let mutex = handlers < 2 && random.below(4) == 0;
    let taste = Taste {
        locks: [0, 1, 2, 4, 5][random.below(5) as usize],
        interrupts: if handlers > 0 { random.below(3) } else { 0 },
        waits: [0, 1, 2, 4][random.below(4) as usize],
        rare: [0, 0, 1, 2][random.below(4) as usize],
    };
    let mut generator = Generator { random, handlers, mutex, taste };
    let contexts = tasks + handlers + hardware as u64;
    // So many steps in all that brute force has an end.
    let racing = tasks == 2 && contexts <= 3 && generator.random.below(5) == 0;
    let steps =
        if racing { 3 } else { [9, 7][(contexts >= 4) as usize] } + generator.random.below(3);
    let mut spawns = !racing && contexts <= 3 && generator.random.below(6) == 0;
    let tasks = (0..tasks)
        .map(|_| {
            let place = Place { spawns: std::mem::take(&mut spawns), ..Place::TASK };
            let share = steps / contexts + generator.random.below(2);
            generator.acts(place, share)
        })
        .collect();
    let same = generator.random.below(4) > 0;
    let handlers = (0..handlers)
        .map(|index| {
            let cpu = if index == 1 && same { 0 } else { (generator.random.below(4) == 0) as u32 };
            let share = 1 + generator.random.below((steps / contexts).max(2));
            Handler {
                cpu,
                acts: generator.acts(Place { raises: index + 1, ..Place::HANDLER }, share),
            }
        })
        .collect();
    let hardware = if hardware {
        let share = 1 + generator.random.below(2);
        generator.acts(Place::HARDWARE, share)
    } else {
        Vec::new()
    };
    let mut program = Program { mutex, tasks, handlers, hardware };
    if racing {
        generator.spawn_in_all(&mut program);
    }
    generator.raise_all(&mut program);
    generator.nest(&mut program);
    add_choice(&mut program, &mut Random::new(seed ^ CHOICES));
    program
}

/// Makes what is drawn for choices another thing than what is drawn for the rest.
const CHOICES: u64 = 0x6368_6f69_6365;

/// Lets some programs choose: first thing, in the middle, or at the end of some context.
fn add_choice(program: &mut Program, random: &mut Random) {
    if random.below(6) > 0 {
        return;
    }
    let tasks = program.tasks.len() as u64;
    let drawn = random.below(tasks + program.handlers.len() as u64);
    let acts = match drawn.checked_sub(tasks) {
        Some(handler) => &mut program.handlers[handler as usize].acts,
        None => &mut program.tasks[drawn as usize],
    };
    let place = random.below(acts.len() as u64 + 1) as usize;
    acts.insert(place, Act::Choose(random.below(2) as u8, 2 + random.below(2) as u8));
}

impl Place {
    const TASK: Place = Place {
        handler: false,
        raises: 0,
        hardware: false,
        atomic: false,
        held: 0,
        masked: false,
        spawns: false,
        depth: 0,
    };
    const HANDLER: Place = Place { handler: true, atomic: true, masked: true, ..Place::TASK };
    const HARDWARE: Place = Place { hardware: true, ..Place::TASK };
}

impl Generator<'_> {
    fn acts(&mut self, place: Place, mut budget: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        while budget > 0 {
            let (act, cost) = self.act(place, budget);
            acts.push(act);
            budget = budget.saturating_sub(cost);
        }
        acts
    }

    /// Lets each task start another one.
    fn spawn_in_all(&mut self, program: &mut Program) {
        for task in &mut program.tasks {
            let child = vec![self.on_memory().0];
            task.insert(
                self.random.below(task.len() as u64 + 1) as usize,
                Act::Spawn(child, Vec::new()),
            );
        }
    }

    /// Sees to it that each interrupt can come.
    fn raise_all(&mut self, program: &mut Program) {
        for handler in 0..program.handlers.len() as u8 {
            if program.uses(handler) {
                continue;
            }
            let raise =
                if self.random.below(4) == 0 { Act::Ipi(handler) } else { Act::Raise(handler) };
            let acts = if !program.hardware.is_empty() {
                &mut program.hardware
            } else if handler > 0 && self.random.below(4) == 0 {
                &mut program.handlers[0].acts
            } else {
                let task = self.random.below(program.tasks.len() as u64) as usize;
                &mut program.tasks[task]
            };
            acts.insert(self.random.below(acts.len() as u64 + 1) as usize, raise);
        }
    }

    /// Lets handlers be interrupted, where there is another on their CPU.
    fn nest(&mut self, program: &mut Program) {
        let [first, second] = &mut program.handlers[..] else { return };
        if first.cpu == second.cpu {
            for handler in [first, second] {
                if self.random.below(2) == 0 {
                    handler
                        .acts
                        .insert(self.random.below(handler.acts.len() as u64) as usize, Act::Enable);
                }
            }
        }
    }

    fn word(&mut self) -> u8 {
        (self.random.below(3) == 0) as u8
    }

    fn flag(&mut self) -> u8 {
        (self.random.below(3) == 0) as u8
    }

    fn value(&mut self) -> u8 {
        self.random.below(3) as u8
    }

    /// A lock that may be taken here.
    fn lock(&mut self, place: Place) -> Option<u8> {
        let lock = self.random.below(2) as u8;
        let sleeps = lock == 1 && self.mutex;
        (place.held >> lock & 1 == 0 && !(sleeps && place.atomic)).then_some(lock)
    }

    fn act(&mut self, place: Place, budget: u64) -> (Act, u64) {
        loop {
            let Taste { locks, interrupts, waits, rare } = self.taste;
            let drawn = match self.random.below(4 + locks + interrupts + waits + rare) {
                0..=2 => Some(self.on_memory()),
                3 if place.spawns && place.depth == 0 && budget >= 3 => {
                    let inner = Place { spawns: false, depth: 1, ..place };
                    let (child, body) =
                        (self.acts(inner, 1), self.acts(inner, (budget - 2).min(2)));
                    Some((Act::Spawn(child, body), 4))
                }
                3 => None,
                kind if kind < 4 + locks => self.on_locks(place, budget),
                kind if kind < 4 + locks + interrupts => self.on_interrupts(place, budget),
                kind if kind >= 4 + locks + interrupts + waits => self.rare(place),
                _ => self.on_waits(place),
            };
            if let Some(drawn) = drawn {
                return drawn;
            }
        }
    }

    fn on_memory(&mut self) -> (Act, u64) {
        let word = self.word();
        let act = match self.random.below(6) {
            0 | 1 => Act::Load(word),
            2 | 3 => Act::Store(word, self.value()),
            4 => Act::Add(word, 1 + self.value() % 2),
            _ => Act::Cas(word, self.value(), self.value()),
        };
        (act, 1)
    }

    fn on_locks(&mut self, place: Place, budget: u64) -> Option<(Act, u64)> {
        if place.hardware || place.depth > 1 {
            return None;
        }
        let lock = self.lock(place)?;
        let sleeps = lock == 1 && self.mutex;
        let inner = Place {
            atomic: place.atomic || !sleeps,
            held: place.held | 1 << lock,
            spawns: false,
            depth: place.depth + 1,
            ..place
        };
        let size = self.random.below(budget.clamp(1, 3));
        let body = |generator: &mut Self, inner| generator.acts(inner, size);
        Some(match self.random.below(8) {
            0..=3 => (Act::Lock(lock, body(self, inner)), 2 + size),
            4 if !sleeps => {
                (Act::LockIrq(lock, body(self, Place { masked: true, ..inner })), 4 + size)
            }
            5 | 6 => (Act::Try(lock, body(self, inner)), 2 + size),
            7 if place.held == 0 && !self.mutex => {
                let inner = Place { held: 3, ..inner };
                (Act::Crossed(lock, body(self, inner)), 4 + size)
            }
            _ => return None,
        })
    }

    fn on_interrupts(&mut self, place: Place, budget: u64) -> Option<(Act, u64)> {
        let handler = (place.raises < self.handlers)
            .then(|| (place.raises + self.random.below(self.handlers - place.raises)) as u8);
        match self.random.below(8) {
            0..=2 => Some((Act::Raise(handler?), 2)),
            3 | 4 => Some((Act::Ipi(handler?), 3)),
            5 if place.masked => Some((Act::Enable, 1)),
            6 if place.handler => Some((Act::Enable, 1)),
            7 if !place.hardware && !place.masked => {
                let inner = Place {
                    atomic: true,
                    masked: true,
                    spawns: false,
                    depth: place.depth + 1,
                    ..place
                };
                let size = 1 + self.random.below(budget.clamp(1, 2));
                Some((Act::IrqOff(self.acts(inner, size)), 2 + size))
            }
            _ => None,
        }
    }

    fn rare(&mut self, place: Place) -> Option<(Act, u64)> {
        let word = self.word();
        Some(match self.random.below(4) {
            0 | 1 => (Act::Poll(word, 1 + self.value() % 2, 1 + self.random.below(3) as u8), 3),
            // A destructor must not wait: what it does is memory's.
            2 if place.depth < 2 => (Act::Caught(vec![self.on_memory().0]), 2),
            3 if place.depth == 0 && place.held == 0 && !place.hardware && !place.handler => {
                let inner = Place { atomic: true, held: 3, spawns: false, depth: 1, ..place };
                (Act::Static(self.acts(inner, 1)), 3)
            }
            _ => return None,
        })
    }

    fn on_waits(&mut self, place: Place) -> Option<(Act, u64)> {
        let (word, flag, value) = (self.word(), self.flag(), self.value());
        Some(match self.random.below(16) {
            0..=2 => (Act::Set(flag), 1),
            3 => (Act::WakeAll, 1),
            4 => (Act::Poll(word, 1 + value % 2, 1 + self.random.below(3) as u8), 3),
            5 => (Act::Spin(word, 1 + value % 2), 2),
            _ if place.atomic => return None,
            6 | 7 => (Act::Await(flag), 1),
            8 | 9 => (Act::Park(flag), 1),
            10 => (Act::Timeout(flag), 1),
            11 | 12 => (Act::AwaitWord(word, value), 1),
            13 | 14 => (Act::Down(word), 1),
            _ => (Act::Queue(word, 1 + value % 2), 3),
        })
    }
}
