//! Makes a program that shows a mismatch smaller, as long as it shows one.

use super::program::{Act, Program};

/// The smallest program that is found for which `differs` still says something, with what it says.
pub(super) fn shrink(
    mut program: Program,
    mut what: String,
    mut differs: impl FnMut(&Program) -> Option<String>,
) -> (Program, String) {
    'smaller: loop {
        for candidate in candidates(&program) {
            if let Some(still) = differs(&candidate) {
                program = candidate;
                what = still;
                continue 'smaller;
            }
        }
        return (program, what);
    }
}

/// All programs with one thing less.
fn candidates(program: &Program) -> Vec<Program> {
    let mut list = Vec::new();
    if program.tasks.len() > 1 {
        for index in 0..program.tasks.len() {
            let mut less = program.clone();
            less.tasks.remove(index);
            list.push(less);
        }
    }
    if let Some(last) = program.handlers.len().checked_sub(1)
        && !program.uses(last as u8)
    {
        let mut less = program.clone();
        less.handlers.pop();
        list.push(less);
    }
    let contexts = program.tasks.len() + program.handlers.len() + 1;
    for context in 0..contexts {
        for acts in smaller(context_of(&mut program.clone(), context)) {
            let mut less = program.clone();
            *context_of(&mut less, context) = acts;
            list.push(less);
        }
    }
    list
}

fn context_of(program: &mut Program, index: usize) -> &mut Vec<Act> {
    let tasks = program.tasks.len();
    let handlers = program.handlers.len();
    if index < tasks {
        &mut program.tasks[index]
    } else if index < tasks + handlers {
        &mut program.handlers[index - tasks].acts
    } else {
        &mut program.hardware
    }
}

/// All lists with one act less, or with an act replaced by its body.
fn smaller(acts: &[Act]) -> Vec<Vec<Act>> {
    let mut list = Vec::new();
    for index in 0..acts.len() {
        let mut without = acts.to_vec();
        without.remove(index);
        list.push(without);
        if let Some(body) = acts[index].body().filter(|body| !body.is_empty()) {
            let mut unwrapped = acts.to_vec();
            unwrapped.splice(index..=index, body.iter().cloned());
            list.push(unwrapped);
        }
        let bodies = acts[index].clone().bodies().len();
        for place in 0..bodies {
            for body in smaller(acts[index].clone().bodies()[place]) {
                let mut less = acts.to_vec();
                *less[index].bodies()[place] = body;
                list.push(less);
            }
        }
    }
    list
}
