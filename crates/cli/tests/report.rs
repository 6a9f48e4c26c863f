//! The page that `doorbell report` writes: what is in it, that it needs nothing else, and, where
//! there is a browser, that it can be searched and gone through.

mod fake;
mod said;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use doorbell_cli::{INTERRUPTED, OK, USAGE};
use fake::Fake;
use said::{Said, doorbell};
use serde_json::Value;

/// Writes a report into an empty directory of a test's own.
fn report(name: &str, engine: &Fake, more: &str) -> (Said, PathBuf) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report").join(name);
    let _ = fs::remove_dir_all(&dir);
    let said = doorbell(engine, &format!("report {} {more}", dir.display()));
    (said, dir.join("index.html"))
}

fn results(page: &str) -> Value {
    let (_, rest) = page.split_once("id=\"results\">").expect("the results");
    let (json, _) = rest.split_once("</script>").expect("their end");
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn the_page_holds_what_a_check_finds_and_says_where_it_is() {
    let (said, path) = report("all", &Fake::new(), "");
    assert_eq!(said.status, OK);
    assert!(said.out.starts_with(&format!("{}, ", path.display())), "{}", said.out);
    assert!(said.out.contains("3 variants in "), "{}", said.out);
    let results = results(&fs::read_to_string(path).expect("the page"));
    assert_eq!(results["cases"][0]["name"], "irqfd-resampler");
    let found = &results["cases"][0]["variants"][0];
    assert_eq!(found["got"], "found deadlock");
    assert_eq!(found["standing"], "as stated");
    assert_eq!(found["run"]["steps"][2]["text"], "waits for mutex resampler_lock");
    assert!(found["run"]["svg"].as_str().is_some_and(|svg| svg.contains("data-step=\"1\"")));
    let exhausted = &results["cases"][0]["variants"][1];
    assert_eq!((&exhausted["got"], &exhausted["run"]), (&Value::from("exhausted"), &Value::Null));
    assert_eq!((&results["left_out"], &results["interrupted"]), (&Value::from(1), &false.into()));
}

#[test]
fn sources_that_are_not_there_are_said_to_be_missing() {
    let (said, _) = report("sources", &Fake::new(), "--sources /nonexistent");
    assert!(said.err.contains("there are no sources below /nonexistent"), "{}", said.err);
}

#[test]
fn a_name_that_looks_like_markup_stays_text() {
    let (said, path) = report("markup", &Fake::hostile(), "");
    assert_eq!(said.status, OK);
    let page = fs::read_to_string(path).expect("the page");
    assert_eq!(page.matches("</script").count(), 2, "the results end where they ended");
    assert_eq!(results(&page)["cases"][0]["summary"], fake::HOSTILE);
}

#[test]
fn a_report_that_is_interrupted_holds_what_was_known() {
    let engine = Fake::interrupted_at("irqfd-resampler/shipped");
    let (said, path) = report("interrupted", &engine, "");
    assert_eq!(said.status, INTERRUPTED);
    assert!(said.out.contains("interrupted during irqfd-resampler/shipped"), "{}", said.out);
    let results = results(&fs::read_to_string(path).expect("the page"));
    assert_eq!(results["interrupted"], true);
    assert_eq!(results["cases"].as_array().map(Vec::len), Some(1));
    assert_eq!(results["cases"][0]["variants"][1]["standing"], "interrupted");
}

#[test]
fn a_directory_that_cannot_be_made_is_refused_before_anything_runs() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("a-file");
    fs::write(&file, "in the way").expect("a file");
    let said = doorbell(&Fake::unwilling(), &format!("report {}", file.join("x").display()));
    assert_eq!((said.status, said.out.as_str()), (USAGE, ""));
    assert!(said.err.contains("a-file/x: "), "{}", said.err);
}

/// Filters, chooses, steps with the keyboard, and writes what was seen where `--dump-dom` shows it.
const SCRIPT: &str = r#"
<script>
const seen = [];
const key = k => document.dispatchEvent(new KeyboardEvent('keydown', { key: k, bubbles: true, cancelable: true }));
const links = () => document.querySelectorAll('#list a').length;
seen.push('all ' + links());
const search = document.getElementById('search');
search.value = 'grace shipped'; search.dispatchEvent(new Event('input'));
seen.push('searched ' + links() + ' ' + document.querySelector('#list a').getAttribute('href'));
search.value = ''; search.dispatchEvent(new Event('input'));
const kind = document.getElementById('kind');
kind.value = 'found'; kind.dispatchEvent(new Event('change'));
seen.push('found ' + links());
kind.value = ''; kind.dispatchEvent(new Event('change'));
window.addEventListener('hashchange', () => setTimeout(() => {
  const at = () => document.getElementById('at').textContent;
  const mark = () => document.querySelector('.picture').shadowRoot.querySelector('.at').getAttribute('y');
  seen.push('chosen ' + document.querySelector('h2').textContent + ', ' + at());
  const before = mark();
  key('ArrowRight');
  seen.push('on ' + at() + ', ' + (Number(mark()) > Number(before) ? 'below' : 'not below'));
  key('End'); key('ArrowRight');
  seen.push('end ' + at());
  key('ArrowLeft'); key('Home');
  seen.push('home ' + at());
  seen.push('markup ' + document.querySelectorAll('nav b, main script').length);
  const out = document.createElement('output');
  out.textContent = seen.join(' | ');
  document.body.append(out);
}, 0), { once: true });
key('ArrowDown');
</script>
"#;

#[test]
fn in_a_browser_it_filters_and_steps() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let works = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(browser) = browsers.iter().find(works) else {
        eprintln!("skipped: there is no chromium (124 MB: apt-get install chromium)");
        return;
    };
    let (_, path) = report("browser", &Fake::hostile(), "");
    let page = fs::read_to_string(&path).expect("the page");
    let copy = path.with_file_name("copy.html");
    fs::write(&copy, page.replace("</body>", &format!("{SCRIPT}</body>"))).expect("a copy");
    let profile = path.with_file_name("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-quic"])
        .args(["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", copy.display()))
        .output()
        .expect("it runs");
    let dom = String::from_utf8_lossy(&output.stdout);
    let seen = dom.split_once("<output>").and_then(|(_, rest)| rest.split_once("</output>"));
    let (seen, _) = seen.unwrap_or_else(|| panic!("the script came to no end:\n{dom}"));
    let path = "irqfd-resampler/as-reported";
    assert_eq!(
        seen.split(" | ").collect::<Vec<_>>(),
        [
            "all 3".to_owned(),
            "searched 1 #irqfd-resampler/shipped".to_owned(),
            "found 1".to_owned(),
            format!("chosen {path}, step 0 of 2"),
            "on step 1 of 2, below".to_owned(),
            "end step 2 of 2".to_owned(),
            "home step 0 of 2".to_owned(),
            "markup 0".to_owned(),
        ]
    );
}
