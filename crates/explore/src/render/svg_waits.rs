//! The wait-for list under the picture, with an arc from everyone to whom it waits for.

use super::sites::Sites;
use super::svg_style::{CHAR, LINE, MARGIN, RED, escape};
use super::words::{clean, width, wrap};
use crate::trace::Trace;

const ROW: f64 = 30.0;
const GAP: f64 = 8.0;
/// Room for the arcs, left of the list.
const ARCS: f64 = 62.0;

/// Draws the list from `y` on, and returns where it ends.
pub(super) fn draw(trace: &Trace, sites: &Sites, body: &mut String, y: f64, page: f64) -> f64 {
    if trace.waits.is_empty() {
        return y;
    }
    let mut row = y + 12.0;
    let x = MARGIN + ARCS;
    let wide = page - MARGIN - x;
    let widest = |of: &dyn Fn(usize) -> usize| (0..trace.waits.len()).map(of).max().unwrap_or(0);
    let place_wide = widest(&|at| width(&clean(&trace.waits[at].place)));
    let who_wide = widest(&|at| width(&clean(&trace.waits[at].who)));
    let mut middles = Vec::new();
    for wait in &trace.waits {
        let who_x = x + 14.0 + CHAR * (place_wide + 2) as f64;
        let says_x = who_x + CHAR * (who_wide + 2) as f64;
        let end = x + wide - 12.0;
        let site = clean(&sites.shorten(&wait.site));
        let room = ((end - says_x) / CHAR) as usize;
        let says = wrap(&clean(&wait.says()), room.saturating_sub(width(&site) + 2).max(20));
        let high = ROW + LINE * (says.len() - 1) as f64;
        let text = row + 19.0;
        let who = if wait.who == wait.place { String::new() } else { clean(&wait.who) };
        body.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"{row:.1}\" width=\"{wide:.1}\" height=\"{high}\" rx=\"6\" fill=\"#f7f8fa\" stroke=\"#dfe3e8\"/>\n\
             <text class=\"b\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>\n\
             <text class=\"b\" x=\"{who_x:.1}\" y=\"{text:.1}\">{}</text>\n\
             <text class=\"s\" x=\"{end:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\n",
            x + 14.0,
            escape(&clean(&wait.place)),
            escape(&who),
            escape(&site),
        ));
        for (at, line) in says.iter().enumerate() {
            let y = text + LINE * at as f64;
            body.push_str(&format!(
                "<text x=\"{says_x:.1}\" y=\"{y:.1}\">{}</text>\n",
                escape(line)
            ));
        }
        middles.push(row + high / 2.0);
        row += high + GAP;
    }
    for (from, wait) in trace.waits.iter().enumerate() {
        for &to in wait.on.iter().filter(|&&to| to < middles.len()) {
            // Arcs up swing further out, so that a pair that waits for each other shows two.
            let span = from.abs_diff(to) as f64;
            let out = (14.0 + 10.0 * span + if to < from { 8.0 } else { 0.0 }).min(ARCS - 4.0);
            let (from, to) = (middles[from] + 5.0, middles[to] - 5.0);
            let (start, end, far) = (x - 1.0, x - 2.0, x - out * 1.3);
            body.push_str(&format!(
                "<path d=\"M{start:.1} {from:.1}C{far:.1} {from:.1} {far:.1} {to:.1} {end:.1} {to:.1}\" stroke=\"{RED}\" \
                 stroke-width=\"1.6\" fill=\"none\" marker-end=\"url(#head)\"/>\n"
            ));
        }
    }
    row
}
