//! Those that wait, and how many are woken: for queues in which one is woken at a time.

/// Those that wait in a queue. Whoever waits when one is woken may be the one; who comes later may
/// not.
#[derive(Default)]
pub(crate) struct Waiters {
    /// The number of the next one that comes.
    next: u64,
    waiting: Vec<u64>,
    /// The wake-ups that nobody has taken yet: each is for one with a number below it.
    wakes: Vec<u64>,
}

impl Waiters {
    /// Adds the caller, and returns its number.
    pub(crate) fn come(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.push(number);
        number
    }

    /// Returns whether that one may go.
    pub(crate) fn is_woken(&self, number: u64) -> bool {
        self.wakes.iter().any(|&below| number < below)
    }

    /// Takes that one out, with the wake-up that fits it most closely; or, if it goes of its own
    /// accord, with one that is for nobody else any more.
    pub(crate) fn go(&mut self, number: u64) {
        let woken = self.is_woken(number);
        self.waiting.retain(|&other| other != number);
        if woken {
            let fits = self.wakes.iter().position(|&below| number < below);
            // They are in rising order.
            self.wakes.remove(fits.expect("it is woken"));
        }
    }

    /// Wakes one, if there is one that has not been woken.
    pub(crate) fn wake_one(&mut self) {
        if self.wakes.len() < self.waiting.len() {
            self.wakes.push(self.next);
        }
    }

    /// Wakes all.
    pub(crate) fn wake_all(&mut self) {
        self.wakes.resize(self.waiting.len(), self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_a_wake_up_does_not_take_it() {
        let mut waiters = Waiters::default();
        waiters.wake_one();
        let first = waiters.come();
        assert!(!waiters.is_woken(first), "nobody waited");
        waiters.wake_one();
        let second = waiters.come();
        assert_eq!((waiters.is_woken(first), waiters.is_woken(second)), (true, false));
        waiters.wake_one();
        assert!(waiters.is_woken(second));
        // The first takes the wake-up that is for nobody else.
        waiters.go(first);
        assert!(waiters.is_woken(second));
        waiters.go(second);
        assert!(waiters.waiting.is_empty() && waiters.wakes.is_empty());
    }

    #[test]
    fn as_many_are_woken_as_wait_and_who_leaves_takes_no_wake_up_of_another() {
        let mut waiters = Waiters::default();
        let [first, second, third] = [0, 1, 2].map(|_| waiters.come());
        waiters.go(third);
        for _ in 0..4 {
            waiters.wake_one();
        }
        assert_eq!(waiters.wakes.len(), 2);
        waiters.go(first);
        assert!(waiters.is_woken(second));
        let late = waiters.come();
        waiters.wake_all();
        assert!(waiters.is_woken(second) && waiters.is_woken(late));
    }
}
