//! `OnceCell`: one of several sets it, and whoever sees that it is set sees the whole value.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use doorbell_explore::removal::Program;
use doorbell_explore::sim::{self, Ghost};
use doorbell_explore::{Explore, Machine, Sim};
use doorbell_platform::OnceCell;

use crate::host::Host;

/// The programs of this file.
pub fn programs() -> Vec<Program> {
    vec![
        Program::new("two set a cell, and one looks", |m| set(m, 2, 1)),
        Program::new("one sets a cell, and two look", |m| set(m, 1, 2)),
    ]
}

/// Says when it is dropped, and which of those that were to be set it is.
struct Value(Arc<Ghost>, u32);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.free();
    }
}

fn set(m: &Machine, setters: u32, readers: u32) {
    let cell = Arc::new(OnceCell::<Host, Value>::new());
    let won = Arc::new(AtomicU32::new(0));
    let ghosts: Vec<_> = (0..setters).map(|_| Arc::new(Ghost::new("value"))).collect();
    for (number, ghost) in (1..).zip(&ghosts) {
        let (cell, won, ghost) = (Arc::clone(&cell), Arc::clone(&won), Arc::clone(ghost));
        m.task("sets", move || match cell.set(Box::new(Value(ghost, number))) {
            Ok(value) if value.1 == number && won.swap(number, Relaxed) == 0 => value.0.access(),
            Ok(_) => sim::fail("two have set it"),
            Err(value) => value.0.access(),
        });
    }
    for _ in 0..readers {
        let (cell, won) = (Arc::clone(&cell), Arc::clone(&won));
        m.task("looks", move || {
            if let Some(value) = cell.get() {
                value.0.access();
                assert!(won.load(Relaxed) == value.1, "it is there before it was set");
            }
        });
    }
    m.at_quiescence("it is set, to what was not dropped, which goes with the cell", move || {
        let kept = cell.get().map(|value| value.1).ok_or("it is not set")?;
        let live = || ghosts.iter().filter(|ghost| !ghost.is_freed()).count();
        let before = live();
        drop(cell);
        match (kept == won.load(Relaxed), before, live()) {
            (true, 1, 0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn a_cell_in_a_static_is_empty_again_in_each_execution() {
    static CELL: OnceCell<Sim, u32> = OnceCell::new();
    let report = Explore::new("static cell").run(|m: &Machine| {
        for number in [1, 2] {
            m.task("sets", move || _ = CELL.set(Box::new(number)));
        }
        m.at_quiescence("one of them has set it", || match CELL.get() {
            Some(1 | 2) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    });
    report.assert_exhausted();
    assert!(report.executions > 1);
}
