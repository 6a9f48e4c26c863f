//! A watchdog over explored code that hangs: that waits for something which the machine does not
//! see, or goes round without a visible step. The thread that explores cannot say so any more.
//!
//! It costs a step two plain stores. Time is counted in the watchdog's own ticks, and of those only
//! the ones in which the other thread slept or had a CPU: a process that is suspended, or a thread
//! that gets no CPU, does not hang.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::ptr::{from_ref, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::Duration;

use crate::ids::{CtxId, site};

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(100);

/// Explored code that takes no visible step any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stall {
    /// The exploration's name.
    pub exploration: String,
    /// The code that hangs: a context, by kind and name, or the set-up, or a condition of
    /// quiescence.
    pub who: String,
    /// `file:line` of its last visible step; of a context that has taken none, where it was
    /// created.
    pub site: Option<String>,
    /// For how long it has run, or slept, since then.
    pub time: Duration,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stall { exploration, who, site, time } = self;
        write!(
            f,
            "the exploration {exploration:?} hangs: {who} has taken no visible step for {time:?}"
        )?;
        if let Some(site) = site {
            write!(f, ", since the one at {site}")?;
        }
        f.write_str(
            ". Does it wait for something that the machine does not see (a mutex or a channel of `std`, a native lock), or go \
             round without a step? (`Explore::watchdog` says how long it may, and `Explore::on_stall` what happens then.)",
        )
    }
}

/// What an exploration says about it.
#[derive(Clone)]
pub(crate) struct Watchdog {
    /// How long explored code may take without a visible step.
    pub patience: Option<Duration>,
    pub then: Arc<dyn Fn(&Stall) + Send + Sync>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Watchdog { patience: Some(Duration::from_secs(10)), then: Arc::new(end_process) }
    }
}

fn end_process(stall: &Stall) {
    use std::io::Write;
    // Not by `eprintln`, which a test captures that nobody will ever show.
    let _ = writeln!(std::io::stderr(), "{stall}");
    std::process::exit(101);
}

/// Numbers of contexts are below these.
const SET_UP: u8 = 64;
const CONDITION: u8 = 65;
const OUTCOME: u8 = 66;
/// No explored code runs.
const NOBODY: u8 = 255;

/// What the thread that explores tells the watchdog.
pub(crate) struct Watched {
    exploration: String,
    watchdog: Watchdog,
    thread: ThreadId,
    clock: Option<Arc<str>>,
    /// Changes with each execution, and now and then in a long one.
    beat: AtomicU64,
    /// Whose turn it is, and above that the number of its step in the execution.
    turn: AtomicU64,
    /// The place of the last visible step.
    site: AtomicPtr<Location<'static>>,
    /// What is called how: what it is, and its name.
    names: Mutex<Vec<(u8, &'static str, Cow<'static, str>)>>,
}

impl Watched {
    /// A context takes a step, or starts.
    #[inline(always)]
    pub(crate) fn at(&self, ctx: CtxId, step: usize, site: &'static Location<'static>) {
        self.turn.store((step as u64) << 8 | u64::from(ctx.0), Relaxed);
        self.site.store(from_ref(site).cast_mut(), Relaxed);
    }

    /// Whoever acts while no context runs takes a step.
    pub(crate) fn alone_at(&self, site: &'static Location<'static>) {
        self.site.store(from_ref(site).cast_mut(), Relaxed);
        self.beat();
    }

    /// Something goes on that a place and a context do not tell.
    pub(crate) fn beat(&self) {
        // Only this thread writes it.
        self.beat.store(self.beat.load(Relaxed).wrapping_add(1), Relaxed);
    }

    fn turns_to(&self, who: u8) {
        self.beat();
        self.site.store(null_mut(), Relaxed);
        self.turn.store(u64::from(who), Relaxed);
    }

    /// The program is set up.
    pub(crate) fn set_up(&self) {
        self.turns_to(SET_UP);
    }

    /// A condition of quiescence is checked.
    pub(crate) fn condition(&self, what: Cow<'static, str>) {
        self.call(CONDITION, "the condition that", what);
        self.turns_to(CONDITION);
    }

    /// The outcome is asked for.
    pub(crate) fn outcome(&self) {
        self.turns_to(OUTCOME);
    }

    /// No explored code runs from here on.
    pub(crate) fn rest(&self) {
        self.turns_to(NOBODY);
    }

    /// Names a context.
    pub(crate) fn named(&self, ctx: CtxId, noun: &'static str, name: Cow<'static, str>) {
        self.call(ctx.0, noun, name);
    }

    fn call(&self, who: u8, noun: &'static str, name: Cow<'static, str>) {
        let mut names = self.names.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match names.iter_mut().find(|(called, ..)| *called == who) {
            Some(called) => *called = (who, noun, name),
            None => names.push((who, noun, name)),
        }
    }

    /// What changes when explored code goes on; `None` if none runs.
    fn progress(&self) -> Option<(u64, u64)> {
        let (beat, turn) = (self.beat.load(Relaxed), self.turn.load(Relaxed));
        (turn as u8 != NOBODY).then_some((beat, turn))
    }

    fn stall(&self, time: Duration) -> Stall {
        let who = self.turn.load(Relaxed) as u8;
        let names = self.names.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let name = match who {
            SET_UP => "its set-up".to_owned(),
            OUTCOME => "its outcome".to_owned(),
            _ => match names.iter().find(|(called, ..)| *called == who) {
                Some((_, noun, name)) => format!("{noun} {name}"),
                None => format!("context {who}"),
            },
        };
        // SAFETY: it is null or was made from a `&'static`.
        let place = unsafe { self.site.load(Relaxed).as_ref() };
        Stall { exploration: self.exploration.clone(), who: name, site: place.map(site), time }
    }
}

/// Everything that is watched, in the order in which it began; of one thread, the last one runs.
static ALL: Mutex<Registry> = Mutex::new(Registry { watched: Vec::new(), watchdog: State::None });
static WAKE: Condvar = Condvar::new();

struct Registry {
    watched: Vec<Arc<Watched>>,
    watchdog: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    None,
    Awake,
    Asleep,
}

fn all() -> MutexGuard<'static, Registry> {
    ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Keeps an executor watched while it lives.
pub(crate) struct Watch(pub Arc<Watched>);

impl Watch {
    /// Watches what the calling thread explores.
    pub(crate) fn new(exploration: &str, watchdog: &Watchdog) -> Watch {
        let watched = Arc::new(Watched {
            exploration: exploration.to_owned(),
            watchdog: watchdog.clone(),
            thread: std::thread::current().id(),
            clock: clock::of_this_thread(),
            beat: AtomicU64::new(0),
            turn: AtomicU64::new(u64::from(NOBODY)),
            site: AtomicPtr::new(null_mut()),
            names: Mutex::default(),
        });
        // Also one without patience: while it runs, an exploration around it goes on.
        let mut registry = all();
        registry.watched.push(Arc::clone(&watched));
        match registry.watchdog {
            State::Awake => {}
            State::Asleep => WAKE.notify_one(),
            State::None => {
                let thread = std::thread::Builder::new().name("doorbell watchdog".to_owned());
                if thread.spawn(watch).is_ok() {
                    registry.watchdog = State::Awake;
                }
            }
        }
        Watch(watched)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        all().watched.retain(|watched| !Arc::ptr_eq(watched, &self.0));
    }
}

/// What the watchdog knows of one thing that it watches.
struct Judged {
    watched: Arc<Watched>,
    patience: Patience,
}

/// The watchdog itself.
fn watch() {
    let mut judged: Vec<Judged> = Vec::new();
    loop {
        let now = {
            let mut registry = all();
            while registry.watched.is_empty() {
                registry.watchdog = State::Asleep;
                registry = WAKE.wait(registry).unwrap_or_else(|poisoned| poisoned.into_inner());
                registry.watchdog = State::Awake;
            }
            registry.watched.clone()
        };
        judged.retain(|judged| now.iter().any(|watched| Arc::ptr_eq(watched, &judged.watched)));
        for watched in &now {
            if !judged.iter().any(|judged| Arc::ptr_eq(watched, &judged.watched)) {
                judged.push(Judged { watched: Arc::clone(watched), patience: Patience::default() });
            }
        }
        std::thread::sleep(TICK);
        for Judged { watched, patience } in &mut judged {
            let later = now.iter().rev().find(|other| other.thread == watched.thread);
            let runs = later.is_some_and(|last| Arc::ptr_eq(last, watched));
            let progress = if runs { watched.progress() } else { None };
            let time = patience.tick(progress, || watched.clock.as_deref().and_then(clock::sample));
            if let (Some(time), Some(most)) = (time, watched.watchdog.patience)
                && time >= most
                && !std::mem::replace(&mut patience.told, true)
            {
                (watched.watchdog.then)(&watched.stall(time));
            }
        }
    }
}

/// How a thread was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sample {
    state: Scheduled,
    /// The CPU time that it has had.
    cpu: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scheduled {
    /// The thread waits for something.
    Sleeps,
    /// The thread runs, or would if it had a CPU.
    Runs,
    /// The thread is stopped, or waits for a device.
    Neither,
}

/// For how long one thing has made no progress.
#[derive(Default)]
struct Patience {
    last: Option<(u64, u64)>,
    sample: Option<Sample>,
    time: Duration,
    told: bool,
}

impl Patience {
    /// Another tick is over, with that progress; `None` if it has made some. If it has not, the
    /// thread is looked at.
    fn tick(
        &mut self,
        progress: Option<(u64, u64)>,
        sample: impl FnOnce() -> Option<Sample>,
    ) -> Option<Duration> {
        if progress.is_none() || progress != self.last {
            *self = Patience { last: progress, ..Patience::default() };
            return None;
        }
        let sample = sample();
        let before = std::mem::replace(&mut self.sample, sample);
        self.time += match (sample.map(|sample| sample.state), before.zip(sample)) {
            (None | Some(Scheduled::Sleeps), _) => TICK,
            (Some(Scheduled::Runs), Some((before, now))) => {
                now.cpu.saturating_sub(before.cpu).min(TICK)
            }
            (Some(Scheduled::Runs | Scheduled::Neither), _) => Duration::ZERO,
        };
        Some(self.time)
    }
}

/// What Linux tells of a thread. Elsewhere each tick counts.
mod clock {
    use super::{Arc, Duration, Sample, Scheduled};

    thread_local! {
        static PATH: Option<Arc<str>> = {
            let own = std::fs::read_link("/proc/thread-self").ok();
            own.and_then(|own| Some(format!("/proc/{}/stat", own.to_str()?).into()))
        };
    }

    /// Where the calling thread is told of.
    pub(super) fn of_this_thread() -> Option<Arc<str>> {
        PATH.with(Clone::clone)
    }

    pub(super) fn sample(path: &str) -> Option<Sample> {
        parse(&std::fs::read_to_string(path).ok()?)
    }

    /// Reads a `stat` file (proc_pid_stat(5)): the state is field 3, times in user and system mode
    /// are fields 14 and 15, in hundredths of a second. The name in field 2 may have anything in
    /// it.
    pub(super) fn parse(stat: &str) -> Option<Sample> {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = match fields.next()? {
            "S" => Scheduled::Sleeps,
            "R" => Scheduled::Runs,
            _ => Scheduled::Neither,
        };
        let (user, system) =
            (fields.nth(10)?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
        Some(Sample { state, cpu: Duration::from_millis(10 * (user + system)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<(u64, u64)> = Some((1, 2));

    fn sample(state: Scheduled, millis: u64) -> Option<Sample> {
        Some(Sample { state, cpu: Duration::from_millis(millis) })
    }

    /// The time after ticks without progress.
    fn after(samples: impl IntoIterator<Item = Option<Sample>>) -> Duration {
        let mut patience = Patience::default();
        assert_eq!(patience.tick(HERE, || panic!("it has made progress")), None);
        samples
            .into_iter()
            .filter_map(|sample| patience.tick(HERE, || sample))
            .last()
            .expect("one at least")
    }

    #[test]
    fn a_thread_that_sleeps_or_uses_its_cpu_hangs_and_one_without_a_cpu_does_not() {
        assert_eq!(after((0..10).map(|_| sample(Scheduled::Sleeps, 0))), 10 * TICK);
        assert_eq!(after((0..10).map(|_| None)), 10 * TICK);
        assert_eq!(after((0..11).map(|tick| sample(Scheduled::Runs, 100 * tick))), 10 * TICK);
        assert_eq!(after((0..11).map(|tick| sample(Scheduled::Runs, 10 * tick))), TICK);
        assert_eq!(after((0..10).map(|_| sample(Scheduled::Runs, 7))), Duration::ZERO);
        assert_eq!(after((0..10).map(|_| sample(Scheduled::Neither, 7))), Duration::ZERO);
    }

    #[test]
    fn after_a_long_gap_one_tick_is_counted_at_the_most() {
        assert_eq!(after([sample(Scheduled::Runs, 0), sample(Scheduled::Runs, 3_600_000)]), TICK);
    }

    #[test]
    fn any_progress_begins_the_time_anew_and_rest_does_not_count() {
        let mut patience = Patience::default();
        for progress in [HERE, Some((2, 2)), Some((2, 1)), None, None, HERE] {
            assert_eq!(patience.tick(progress, || panic!("it has made progress")), None);
        }
    }

    #[test]
    fn a_stat_file_is_read_whatever_the_thread_is_called() {
        let stat = "7 (a) S 1) R 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9 8 7";
        assert_eq!(clock::parse(stat), sample(Scheduled::Runs, 3_000));
        assert_eq!(clock::parse(&stat.replace(") R ", ") S ")), sample(Scheduled::Sleeps, 3_000));
        assert_eq!(clock::parse(&stat.replace(") R ", ") T ")), sample(Scheduled::Neither, 3_000));
        assert_eq!(clock::parse("7 (a) R 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_calling_thread_is_found_to_run() {
        let path = clock::of_this_thread().expect("Linux tells");
        assert_eq!(clock::sample(&path).expect("a stat file").state, Scheduled::Runs);
    }
}
