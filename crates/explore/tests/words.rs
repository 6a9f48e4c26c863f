//! What a model says of its own steps.

use std::sync::Arc;

use doorbell_explore::sim::{Model, note};
use doorbell_explore::trace::FailureKind;
use doorbell_explore::{Explore, Machine};

#[test]
fn a_model_tells_its_last_step_in_its_own_words() {
    let report = Explore::new("words").run(|m: &Machine| {
        let door = Arc::new(Model::new("door", false));
        let opens = Arc::clone(&door);
        m.task("porter", move || {
            opens.change(|open| *open = true);
            note(|| "opens the door".to_owned());
            opens.observe(|_| ());
        });
        m.at_quiescence("the door is shut", move || {
            note(|| "not a step of the run".to_owned());
            if door.observe(|open| *open) { Err("it is open".to_owned()) } else { Ok(()) }
        });
    });
    let lines = &report.assert_found(FailureKind::Quiescence).trace.lines;
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["opens the door", "looks at door"]);
}
