//! From `CASE[/VARIANT]` to variants, and what to say when there is none of that name.

use crate::engine::Case;
use crate::record::expected_in_short;
use crate::selected::Selected;

/// The variants that `what` names, each once, in the order of the catalogue; all of them if `what`
/// is empty.
pub(crate) fn select<'a>(cases: &'a [Case], what: &[String]) -> Result<Vec<Selected<'a>>, String> {
    for name in what {
        check(cases, name)?;
    }
    let mut selected = Vec::new();
    for case in cases {
        for variant in &case.variants {
            let by_name =
                what.iter().any(|w| w.split_once('/') == Some((&case.name, &variant.name)));
            if by_name || what.is_empty() || what.contains(&case.name) {
                selected.push(Selected { case, variant, by_name });
            }
        }
    }
    Ok(selected)
}

/// The one variant that `what` names.
pub(crate) fn one<'a>(cases: &'a [Case], what: &str) -> Result<Selected<'a>, String> {
    let selected = select(cases, &[what.to_owned()])?;
    match selected[..] {
        [only] => Ok(only),
        _ => {
            let names = selected.iter().map(|s| s.variant.name.chars().count()).max().unwrap_or(0);
            let line = |s: &Selected<'_>| {
                let fill = " ".repeat(names - s.variant.name.chars().count());
                format!("\n  {}{fill}  {}", s.path(), expected_in_short(s))
            };
            let lines: String = selected.iter().map(line).collect();
            Err(format!("`{what}` has several variants; one of:{lines}"))
        }
    }
}

fn check(cases: &[Case], what: &str) -> Result<(), String> {
    let (name, variant) =
        what.split_once('/').map_or((what, None), |(case, variant)| (case, Some(variant)));
    let Some(case) = cases.iter().find(|c| c.name == name) else {
        return Err(unknown_case(cases, name, variant));
    };
    let Some(variant) = variant else { return Ok(()) };
    if case.variants.iter().any(|v| v.name == variant) {
        return Ok(());
    }
    let names: Vec<&str> = case.variants.iter().map(|v| v.name.as_str()).collect();
    let near = near(variant, &names);
    let hint = if near.is_empty() {
        format!("it has {}", list(names))
    } else {
        format!("did you mean {}?", either(near.iter().map(|v| format!("{name}/{v}"))))
    };
    Err(format!("case `{name}` has no variant `{variant}`; {hint}"))
}

fn unknown_case(cases: &[Case], name: &str, variant: Option<&str>) -> String {
    let owners =
        cases.iter().filter(|c| variant.is_none() && c.variants.iter().any(|v| v.name == name));
    let owners: Vec<String> = owners.map(|c| format!("{}/{name}", c.name)).collect();
    if !owners.is_empty() {
        return format!("`{name}` is a variant, not a case; did you mean {}?", either(owners));
    }
    let names: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    let near = near(name, &names);
    let tail = variant.map(|v| format!("/{v}")).unwrap_or_default();
    if near.is_empty() {
        format!("there is no case `{name}`; `doorbell list` shows those that there are")
    } else {
        format!(
            "there is no case `{name}`; did you mean {}?",
            either(near.iter().map(|n| format!("{n}{tail}")))
        )
    }
}

/// The names that somebody may have meant, the likeliest first, at most three.
fn near<'a>(typed: &str, names: &[&'a str]) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let likeness = |name: &str| {
        let part = typed.len() >= 3 && name.contains(&typed);
        strsim::jaro_winkler(&typed, name).max(if part { 0.95 } else { 0.0 })
    };
    let mut near: Vec<(f64, &str)> =
        names.iter().map(|n| (likeness(n), *n)).filter(|(l, _)| *l >= 0.8).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.into_iter().map(|(_, name)| name).take(3).collect()
}

fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    join(names, ", ")
}

fn either(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    join(names, " or ")
}

fn join(names: impl IntoIterator<Item = impl AsRef<str>>, between: &str) -> String {
    let names: Vec<String> = names.into_iter().map(|n| format!("`{}`", n.as_ref())).collect();
    names.join(between)
}
