//! The program itself, as a shell sees it: exit status, help, and what goes where.

use std::process::{Command, Stdio};

use assert_cmd::assert::OutputAssertExt;
use assert_cmd::cargo::cargo_bin;

fn doorbell() -> Command {
    Command::new(cargo_bin("doorbell"))
}

fn stdout(args: &[&str]) -> String {
    let output = doorbell().args(args).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn stderr(args: &[&str], status: i32) -> String {
    let output = doorbell().args(args).assert().code(status);
    let output = output.get_output();
    assert!(output.stdout.is_empty(), "{args:?}");
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// The name of some case, whatever the catalogue holds.
fn some_case() -> String {
    let list = stdout(&["list", "--format", "json"]);
    let first: serde_json::Value =
        serde_json::from_str(list.lines().next().expect("a case")).expect("JSON");
    first["case"].as_str().expect("a name").to_owned()
}

#[test]
fn help_teaches_every_subcommand_with_examples() {
    assert!(stdout(&["--help"]).contains("Exit status:"));
    for command in
        ["check", "explain", "list", "replay", "report", "bench", "selftest", "completions", "man"]
    {
        assert!(stdout(&["--help"]).contains(&format!("  {command} ")), "{command}");
        let help = stdout(&[command, "--help"]);
        assert!(help.contains("Example"), "{command}: {help}");
        assert!(help.contains(&format!("doorbell {command}")), "{command}: {help}");
    }
}

#[test]
fn a_bad_command_line_is_status_2_and_explains_itself() {
    assert!(stderr(&["chek"], 2).contains("similar subcommand exists: 'check'"));
    assert!(stderr(&["check", "--job", "2"], 2).contains("--jobs"));
    assert!(stderr(&["check", "--format", "xml"], 2).contains("[possible values: table, json]"));
    assert!(stderr(&["check", "--budget", "0"], 2).contains("not more than 0 seconds"));
    assert!(stderr(&["explain"], 2).contains("CASE/VARIANT"));
}

#[test]
fn who_forgets_the_word_check_is_told() {
    assert!(stderr(&["--full"], 2).contains("Perhaps `doorbell check --full`?"));
    let case = some_case();
    assert!(stderr(&[&case], 2).contains(&format!("Perhaps `doorbell check {case}`?")));
    assert!(!stderr(&["chek"], 2).contains("Perhaps"));
}

#[test]
fn an_unknown_case_is_status_2_and_suggests_a_near_name() {
    let case = some_case();
    let typed = format!("{case}x");
    assert!(stderr(&["check", &typed], 2).contains(&format!("did you mean `{case}`")));
}

#[test]
fn output_that_is_no_terminal_has_no_colour_unless_it_is_asked_for() {
    assert!(!stdout(&["list"]).contains('\x1b'));
    assert!(stdout(&["--colour", "always", "list"]).contains('\x1b'));
    assert!(stdout(&["list", "--color=always"]).contains('\x1b'));
}

#[test]
fn the_width_is_what_is_said_or_columns_and_into_a_pipe_there_is_none() {
    let widest = |columns: Option<&str>, args: &[&str]| {
        let mut command = doorbell();
        command.env_remove("COLUMNS").args(args);
        columns.map(|columns| command.env("COLUMNS", columns));
        let output = command.output().expect("it runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = text.lines().filter(|line| !line.starts_with("again: "));
        lines.map(|line| line.chars().count()).max().expect("a page")
    };
    let page = ["explain", "avic-irte/as-reported"];
    assert!(widest(Some("100"), &page) <= 100);
    assert!(widest(Some("100"), &["explain", page[1], "--width", "70"]) <= 70);
    assert!(widest(None, &page) > 120);
}

#[test]
fn a_closed_stdout_ends_it_without_a_panic() {
    for (args, status) in
        [(&["list"][..], 141), (&["list", "--format", "json"], 141), (&["--help"], 0)]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = doorbell()
            .args(args)
            .stdout(Stdio::from(writer))
            .stderr(Stdio::piped())
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
