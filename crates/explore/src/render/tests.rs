use std::path::PathBuf;

use super::lanes::Lanes;
use super::sites::Sites;
use super::words::{find_word, wrap};
use super::*;
use crate::trace::{FailureKind, Line, Trace};

fn plain(trace: &Trace) -> String {
    text(trace, &Options::default())
}

/// Compares with `golden/name`; with `DOORBELL_REPRINT` in the environment it writes the file
/// instead.
#[track_caller]
fn same_as_golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/render/golden").join(name);
    if std::env::var_os("DOORBELL_REPRINT").is_some() {
        std::fs::write(&path, actual).expect("the golden file can be written");
        return;
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut lines = expected.lines().zip(actual.lines()).enumerate();
    let differing = lines.find(|(_, (old, new))| old != new);
    assert!(
        expected == actual,
        "{name} has changed (DOORBELL_REPRINT=1 accepts it), at first in line {differing:#?}"
    );
}

/// A trace of one CPU with many steps, of which every `every`th matters; the last one is stuck.
fn long(count: usize, every: usize) -> Trace {
    let mut trace = samples::three_party();
    let pattern = trace.lines[0].clone();
    let step = |n| Line {
        step: n,
        column: n % 3,
        text: format!("load word#{n} = 0"),
        matters: n % every == 0,
        ..pattern.clone()
    };
    let end = std::mem::take(&mut trace.lines);
    trace.lines = (0..count).map(step).collect();
    trace.lines.extend(end.into_iter().map(|line| Line { step: line.step + count, ..line }));
    trace
}

#[test]
fn the_three_party_deadlock_reads_as_checked_in() {
    same_as_golden("three_party.txt", &plain(&samples::three_party()));
    same_as_golden("three_party.svg", &svg(&samples::three_party()));
}

#[test]
fn the_handler_that_interrupts_the_owner_reads_as_checked_in() {
    same_as_golden("handler.txt", &plain(&samples::handler()));
    same_as_golden("handler.svg", &svg(&samples::handler()));
}

#[test]
fn the_workqueue_deadlock_reads_as_checked_in() {
    same_as_golden("workqueue.txt", &plain(&samples::workqueue()));
    same_as_golden("workqueue.svg", &svg(&samples::workqueue()));
}

#[test]
fn no_trace_takes_more_lines_than_there_may_be() {
    for trace in [
        samples::three_party(),
        samples::handler(),
        samples::workqueue(),
        long(40, 1),
        long(900, 3),
        long(3000, 1),
    ] {
        for max_lines in [16, 20, 24, 30, 50] {
            let options = Options { max_lines, ..Options::default() };
            let lines = text(&trace, &options).lines().count();
            assert!(lines <= max_lines, "{lines} lines, at most {max_lines} wanted");
        }
    }
}

#[test]
fn of_what_is_left_over_at_the_end_the_beginning_and_the_end_of_the_run_are_shown() {
    let mut trace = Trace { kind: FailureKind::Quiescence, ..long(900, 1) };
    trace.lines.truncate(900);
    let page = plain(&trace);
    let steps: Vec<usize> =
        page.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert!(
        steps.starts_with(&[0, 1, 2, 3, 4]) && steps.ends_with(&[895, 896, 897, 898, 899]),
        "{page}"
    );
    assert_eq!(steps.windows(2).filter(|two| two[1] > two[0] + 1).count(), 1, "{page}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for trace in [samples::three_party(), samples::handler(), samples::workqueue(), long(200, 2)] {
        for width in [60, 80, 100, 120, 200] {
            for line in text(&trace, &Options { width, ..Options::default() }).lines() {
                assert!(line.chars().count() <= width, "wider than {width}: {line}");
            }
        }
    }
}

#[test]
fn steps_that_do_not_matter_go_first_and_the_gap_is_marked() {
    let out = plain(&long(60, 1000));
    assert!(out.contains("… 20 steps"), "{out}");
    assert!(!out.contains("word#7 "), "{out}");
    assert!(out.contains("lock irq_desc#7"), "{out}");
}

#[test]
fn where_everything_matters_the_stuck_steps_are_what_is_kept() {
    let out = plain(&long(3000, 1));
    for stuck in ["✖ waits for rq#1", "✖ waits for ir_list_lock#0", "✖ waits for irq_desc#7"]
    {
        assert!(out.contains(stuck), "{out}");
    }
    assert!(
        out.contains("lock ir_list_lock#0"),
        "what is held at the end was taken somewhere:\n{out}"
    );
}

#[test]
fn colour_adds_nothing_but_colour() {
    for trace in [samples::three_party(), samples::handler(), samples::workqueue()] {
        let coloured = text(&trace, &Options { colour: true, ..Options::default() });
        assert!(coloured.contains("\x1b["));
        let mut stripped = String::new();
        let mut pieces = coloured.split("\x1b[");
        stripped.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            stripped.push_str(piece.split_once('m').map_or("", |(_, rest)| rest));
        }
        let trimmed: String = stripped.lines().map(|l| format!("{}\n", l.trim_end())).collect();
        assert_eq!(trimmed, plain(&trace));
    }
}

#[test]
fn it_says_whether_minimality_was_established() {
    assert!(plain(&samples::handler()).contains("minimal in preemptions (1)"));
    assert!(plain(&samples::workqueue()).contains("1 preemption; minimality was not established"));
    assert!(svg(&samples::workqueue()).contains("1 preemption; minimality was not established"));
}

#[test]
fn a_panic_message_of_many_lines_stays_on_its_line() {
    let mut trace = samples::handler();
    trace.lines[4].text = "panicked:\n  left: 1\x1b[31m\n right: <2> & \"3\"".to_owned();
    let out = plain(&trace);
    assert!(out.contains("panicked: left: 1 [31m right: <2> & \"3\""), "{out}");
    assert!(!out.contains('\x1b'));
}

#[test]
fn an_svg_escapes_what_the_code_under_test_says() {
    let mut trace = samples::handler();
    trace.lines[4].text = "store x < \"1\" & 2\u{1}".to_owned();
    trace.why = "</text><script>alert(1)</script>".to_owned();
    let out = svg(&trace);
    assert!(!out.contains("<script"));
    assert!(out.contains("store x &lt; &quot;1&quot; &amp; 2"));
    assert!(!out.contains('\u{1}'));
}

#[test]
fn an_empty_trace_and_a_column_out_of_range_are_no_trouble() {
    let mut trace = samples::handler();
    trace.lines[0].column = 9;
    assert!(plain(&trace).contains("column 9"));
    assert!(svg(&trace).contains("column 9"));
    trace.lines.clear();
    trace.waits.clear();
    trace.columns.clear();
    assert!(plain(&trace).contains("self-deadlock, 0 steps"));
    assert!(svg(&trace).ends_with("</svg>\n"));
}

#[test]
fn a_task_that_migrates_takes_its_locks_along() {
    let mut trace = samples::handler();
    trace.lines.truncate(2);
    let mut moved = trace.lines[1].clone();
    moved.column = 1;
    trace.lines.push(moved);
    let lanes = Lanes::of(&trace);
    assert_eq!(lanes.after[1][0].holds, [0]);
    assert!(lanes.after[2][0].holds.is_empty());
    assert_eq!(lanes.after[2][1].holds, [0]);
}

#[test]
fn a_step_after_the_handler_has_returned_is_not_set_in() {
    let mut trace = samples::handler();
    let mut back = trace.lines[2].clone();
    back.step = 7;
    trace.lines.push(back);
    assert_eq!(Lanes::of(&trace).depth, [0, 0, 0, 1, 1, 0, 1, 0]);
}

#[test]
fn whoever_holds_something_while_it_waits_is_the_subject_of_both_verbs() {
    let page = plain(&samples::three_party());
    let said = "CPU1  vcpu-0        holds rq#1, and waits for ir_list_lock#0, held by irqfd-assign";
    assert!(page.contains(said), "{page}");
    let said =
        "set-affinity  holds irq_desc#7 and task irq/7-vfio, and waits for rq#1, held by vcpu-0";
    assert!(page.contains(said), "{page}");
    let said = "worker-1        waits for mutex resampler_lock, held by worker-0";
    assert!(plain(&samples::workqueue()).contains(said));
    let picture = svg(&samples::three_party());
    assert!(picture.contains(">holds rq#1, and waits for ir_list_lock#0, held by irqfd-assign<"));
}

#[test]
fn who_waits_for_no_lock_has_an_arrow_to_the_lane_of_whom_it_waits_for() {
    let arrows = |trace: &Trace| svg(trace).matches("stroke-dasharray").count();
    let mut trace = samples::workqueue();
    // The stuck steps are those of the waits, in their order.
    trace.waits.truncate(2);
    trace.waits.swap(0, 1);
    trace.waits[0].on = vec![1];
    trace.waits[1].on = vec![];
    assert_eq!(arrows(&trace), 1, "to the bar of the mutex");
    trace.waits[1].on = vec![0];
    assert_eq!(arrows(&trace), 2, "and to worker-1");
}

#[test]
fn a_name_is_not_found_inside_a_longer_one() {
    assert_eq!(find_word("held by worker-10", "worker-1"), None);
    assert_eq!(find_word("held by worker-1-a", "worker-1"), None);
    assert_eq!(find_word("lock rq#12", "rq#1"), None);
    assert_eq!(find_word("my-rq#1 or rq#1, both", "rq#1"), Some(11));
}

#[test]
fn sites_are_as_short_as_tells_them_apart() {
    let mut trace = samples::handler();
    trace.lines[0].site = "crates/irqfd/src/lib.rs:7".to_owned();
    trace.lines[1].site = "crates/post/src/lib.rs:7:12".to_owned();
    let sites = Sites::of(&trace);
    assert_eq!(sites.shorten("crates/irqfd/src/lib.rs:7"), "irqfd/src/lib.rs:7");
    assert_eq!(sites.shorten("crates/post/src/lib.rs:7:12"), "post/src/lib.rs:7:12");
    assert_eq!(sites.shorten(&trace.lines[2].site), "usage.rs:32");
}

#[test]
fn text_breaks_at_spaces_and_long_words_anywhere() {
    assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    assert_eq!(wrap("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
    assert_eq!(wrap("", 4), [""]);
}

#[test]
fn a_column_of_which_no_step_is_shown_is_only_mentioned() {
    let mut trace = samples::three_party();
    let pattern = trace.lines[0].clone();
    let end = std::mem::take(&mut trace.lines);
    trace.columns.push(crate::trace::Column { title: "CPU9".to_owned() });
    let idle = |n| Line {
        step: n,
        column: trace.columns.len() - 1,
        context: "idler".to_owned(),
        matters: false,
        ..pattern.clone()
    };
    trace.lines = (0..40).map(idle).collect();
    trace.lines.extend(end.into_iter().map(|line| Line { step: line.step + 40, ..line }));
    let text = plain(&trace);
    assert!(text.contains("not shown: CPU9  idler"), "{text}");
    assert!(!text.lines().nth(1).expect("the heads").contains("CPU9"), "{text}");
}

#[test]
fn a_long_file_name_of_most_rows_is_said_once() {
    let mut trace = samples::three_party();
    for line in &mut trace.lines {
        line.site = format!("src/a_file_with_a_long_name.rs:{}", 100 + line.step);
    }
    trace.lines[1].site = "src/b.rs:7".to_owned();
    let text = plain(&trace);
    assert_eq!(text.matches("a_file_with_a_long_name.rs").count(), 1, "{text}");
    assert!(text.contains(":n a line of a_file_with_a_long_name.rs"), "{text}");
    assert!(text.contains(" :102\n") && text.contains(" b.rs:7\n"), "{text}");
}

#[test]
fn the_sites_of_a_run_without_an_end_are_looked_at_a_few_times_each_however_long_it_is() {
    let looks = |steps| {
        let mut trace = long(steps, 1);
        trace.kind = FailureKind::TooLong;
        super::sites::LOOKS.set(0);
        let text = plain(&trace);
        assert!(text.lines().count() <= 30);
        super::sites::LOOKS.get()
    };
    let (short, twice) = (looks(10_000), looks(20_000));
    assert!(short <= 10 * 10_000, "{short} looks at 10,000 sites");
    assert!(twice <= 2 * short + 1_000, "{short} looks, {twice} for twice the steps");
}

#[test]
fn a_run_without_an_end_is_told_by_its_loop_before_anything_else() {
    let mut trace = long(100, 1);
    trace.kind = FailureKind::TooLong;
    trace.why = "a loop at src/lib.rs:7 takes steps for ever: does it call `cpu_relax`?".to_owned();
    let text = plain(&trace);
    assert!(text.starts_with(&format!("{}\nno end in sight, ", trace.why)), "{text}");
    assert_eq!(text.matches(&trace.why).count(), 1, "{text}");
}

#[test]
fn a_handler_that_comes_again_is_not_inside_of_itself() {
    let mut trace = samples::handler();
    let (enter, step) = (trace.lines[3].clone(), trace.lines[4].clone());
    let returns = Line { text: "the handler returns".to_owned(), ..step.clone() };
    trace.lines.truncate(3);
    for _ in 0..200 {
        trace.lines.extend([enter.clone(), step.clone(), returns.clone()]);
    }
    // Another one comes before the task goes on; and one comes again that never returned.
    let other = Line { context: "irq 0x42".to_owned(), ..enter.clone() };
    trace.lines.extend([other.clone(), other]);
    let depth = Lanes::of(&trace).depth;
    assert!(depth[3..].iter().all(|&depth| depth == 1), "{depth:?}");
    let unlimited = Options { width: Options::UNLIMITED, all_steps: true, ..Options::default() };
    assert!(text(&trace, &unlimited).lines().all(|line| line.chars().count() < 200));
}

/// A trace of three columns whose steps say more than fits into a third of a terminal.
fn wordy() -> Trace {
    let mut trace = samples::three_party();
    for line in trace.lines.iter_mut().filter(|line| !line.stuck) {
        line.text = format!("writes IRTE: page 1, running on CPU {}, and the end", line.step);
    }
    trace
}

#[test]
fn nothing_is_cut_whatever_the_width() {
    let trace = wordy();
    for width in [60, 80, 120, Options::UNLIMITED] {
        let page = text(&trace, &Options { width, all_steps: true, ..Options::default() });
        assert!(!page.contains('…'), "{width}:\n{page}");
        // A word may be broken, and other columns stand between its parts.
        let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).count();
        let said: usize = trace.lines.iter().map(|line| letters(&line.text)).sum();
        assert!(letters(&page) > said, "{width}:\n{page}");
    }
    let wide = text(&trace, &Options { width: Options::UNLIMITED, ..Options::default() });
    for line in &trace.lines {
        assert!(wide.contains(&line.text), "{}:\n{wide}", line.text);
    }
}

#[test]
fn what_the_program_tells_itself_is_not_folded() {
    let mut trace = long(40, 1);
    for at in [3, 17, 30] {
        trace.lines[at].told = true;
        trace.lines[at].matters = false;
        trace.lines[at].text = format!("the story, part {at}");
    }
    let page = plain(&trace);
    assert!(page.contains("… "), "{page}");
    for at in [3, 17, 30] {
        assert!(page.contains(&format!("the story, part {at}")), "{page}");
    }
    let all = text(&trace, &Options { all_steps: true, ..Options::default() });
    assert!(!all.contains("… ") && all.contains("word#39 "), "{all}");
}

#[test]
fn a_step_that_only_says_what_the_lane_shows_goes_before_others() {
    let mut trace = long(40, 1);
    trace.lines[20].text = "releases rq#7".to_owned();
    trace.lines[21].text = "turns interrupts on".to_owned();
    let scores = super::pick::scores(&trace, &Lanes::of(&trace));
    assert!(scores[20] < scores[19] && scores[21] < scores[19], "{scores:?}");
}

#[test]
fn a_picture_says_of_what_it_is_and_gives_room_to_what_it_says() {
    let picture = svg_titled(&wordy(), "avic-irte/as-reported <document 000>");
    assert!(picture.contains(">avic-irte/as-reported &lt;document 000&gt;<"), "{picture}");
    let mut trace = samples::workqueue();
    trace.waits[0].what += ", of which it says a lot more than fits into a line of the box";
    let picture = svg(&trace);
    assert!(!picture.contains("…</text>"), "{picture}");
    assert!(picture.contains("fits into a line of the box<"), "{picture}");
}

#[test]
fn after_a_gap_of_another_context_it_is_said_whose_step_it_is() {
    let mut trace = long(40, 1000);
    trace.lines.truncate(40);
    for line in &mut trace.lines {
        line.column = 0;
        line.context = "idle".to_owned();
    }
    let at = |line: &Line, n| Line { step: n, context: "vcpu".to_owned(), ..line.clone() };
    let (first, last) = (trace.lines[0].clone(), trace.lines.len() - 1);
    trace.lines[0] = Line { matters: true, ..at(&first, 0) };
    trace.lines[last] = Line { text: "sleeps".to_owned(), matters: true, ..at(&first, last) };
    trace.waits.clear();
    let page = plain(&trace);
    assert!(page.contains("of idle\n") && page.contains("vcpu: sleeps"), "{page}");
}

#[test]
fn what_let_the_handler_in_is_not_folded() {
    let mut trace = samples::handler();
    let step = trace.lines[2].clone();
    let on = |on, text: &str| Line { irqs_on: Some(on), text: text.to_owned(), ..step.clone() };
    let filler = (0..60).map(|n| on(false, &format!("load word#{n} = 0")));
    let mut lines = vec![on(false, "turns interrupts off")];
    lines.extend(filler.clone());
    lines.push(on(true, "turns interrupts on"));
    lines.extend((0..60).map(|n| on(true, &format!("load ring#{n} = 0"))));
    trace.lines.splice(2..3, lines);
    for (at, line) in trace.lines.iter_mut().enumerate() {
        (line.step, line.matters) = (at, true);
    }
    let page = plain(&trace);
    assert!(page.contains("turns interrupts on ") && page.contains("… "), "{page}");
    assert!(!page.contains("turns interrupts off "), "{page}");
}

#[test]
fn a_remark_at_the_entry_of_a_handler_does_not_take_the_handler_away() {
    let mut trace = samples::handler();
    trace.lines[3].text.push_str(": nobody's: EOI of 0x41");
    let mut returns = trace.lines[4].clone();
    returns.text = "the handler returns: and is over".to_owned();
    let mut back = trace.lines[2].clone();
    back.context = "irq 0x41".to_owned();
    trace.lines.splice(5.., [returns, back]);
    assert_eq!(Lanes::of(&trace).depth, [0, 0, 0, 1, 1, 1, 0]);
}
