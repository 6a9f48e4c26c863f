//! The bodies of the fuzz targets, with their corpus and with random bytes, which are the same each
//! time. `DOORBELL_CASES` says of how many, instead of 2,000.

use std::path::Path;

use doorbell_fuzz::{Body, TARGETS};

/// Xorshift: random enough, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns up to 400 bytes, or up to 40.
    fn bytes(&mut self) -> Vec<u8> {
        let most = if self.next().is_multiple_of(4) { 400 } else { 40 };
        let len = self.next() % most;
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

fn cases() -> u32 {
    std::env::var("DOORBELL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

/// Prints what a body panics about.
struct Running<'a>(&'a str, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} fails with {:?}", self.0, self.1);
        }
    }
}

fn body(name: &str) -> Body {
    TARGETS.into_iter().find(|target| target.0 == name).expect("there is such a target").1
}

/// Runs the corpus of a target, and random bytes.
fn run(name: &str) {
    let body = body(name);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut paths: Vec<_> = corpus
        .read_dir()
        .expect("each target has a corpus")
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{name} has a corpus");
    for path in paths {
        let bytes = std::fs::read(&path).expect("a file");
        let _running = Running(&path.to_string_lossy(), &bytes);
        body(&bytes);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..cases() {
        let bytes = random.bytes();
        let _running = Running(name, &bytes);
        body(&bytes);
    }
}

#[test]
fn any_command_line_is_refused_with_a_reason_or_done() {
    run("arguments");
}

#[test]
fn any_exit_of_a_guest_with_avic_has_an_effect_within_its_tables() {
    run("avic_exits");
}

#[test]
fn any_entry_of_a_log_finds_the_vcpu_that_its_tag_was_given_out_for() {
    run("ga_log");
}

#[test]
fn any_guest_of_a_gic_leaves_it_as_new_to_one_that_behaves() {
    run("gic");
}

#[test]
fn any_calls_of_irqfds_do_what_a_plain_model_does() {
    run("irqfd");
}

#[test]
fn any_message_reaches_whom_a_plain_rule_says() {
    run("messages");
}

#[test]
fn any_accesses_to_msi_registers_do_what_a_plain_model_does() {
    run("msi");
}

#[test]
fn any_accesses_to_msix_do_what_a_plain_model_does() {
    run("msix");
}

#[test]
fn any_token_is_refused_or_replays_the_same_failing_run() {
    run("tokens");
}

#[test]
fn each_target_is_run_by_a_test_and_has_a_program() {
    let tested = include_str!("bodies.rs");
    for (name, _) in TARGETS {
        assert!(tested.contains(&format!("run(\"{name}\")")), "{name} is tested");
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("targets").join(format!("{name}.rs"));
        let source = std::fs::read_to_string(program).expect("it has a program");
        assert!(source.contains(&format!("doorbell_fuzz::{name}::run")), "{name} is run");
    }
}
