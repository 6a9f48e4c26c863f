//! The wait-for list under the picture, with an arc from everyone to whom it waits for.

use super::edges::between_waits;
use super::sites::Sites;
use super::svg_style::{CHAR, GREY, MARGIN, RED, escape};
use super::words::{clean, elide, width};
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
    let top = y + 12.0;
    let x = MARGIN + ARCS;
    let wide = page - MARGIN - x;
    let place_wide = trace.waits.iter().map(|w| width(&clean(&w.place))).max().unwrap_or(0).min(14);
    let who_wide = trace.waits.iter().map(|w| width(&clean(&w.who))).max().unwrap_or(0).min(28);
    for (at, wait) in trace.waits.iter().enumerate() {
        let row = top + (ROW + GAP) * at as f64;
        let text = row + 19.0;
        let who_x = x + 14.0 + CHAR * (place_wide + 2) as f64;
        let what_x = who_x + CHAR * (who_wide + 2) as f64;
        let end = x + wide - 12.0;
        let site = clean(&sites.shorten(&wait.site));
        let who = clean(&wait.who);
        let room = ((end - what_x) / CHAR) as usize;
        let what = elide(&clean(&wait.what), room.saturating_sub(width(&site) + 12));
        body.push_str(&format!(
            "<rect x=\"{x:.1}\" y=\"{row:.1}\" width=\"{wide:.1}\" height=\"{ROW}\" rx=\"6\" fill=\"#f7f8fa\" stroke=\"#dfe3e8\"/>\n\
             <text class=\"b\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>\n\
             <text x=\"{who_x:.1}\" y=\"{text:.1}\">{}</text>\n\
             <text x=\"{what_x:.1}\" y=\"{text:.1}\"><tspan style=\"fill:{GREY}\">waits for</tspan><tspan dx=\"{CHAR}\">{}</tspan></text>\n\
             <text class=\"s\" x=\"{end:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>\n",
            x + 14.0,
            escape(&elide(&clean(&wait.place), place_wide)),
            escape(&elide(if wait.who == wait.place { "" } else { &who }, who_wide)),
            escape(&what),
            escape(&site),
        ));
    }
    for edge in between_waits(trace) {
        let middle = |at: usize| top + (ROW + GAP) * at as f64 + ROW / 2.0;
        // Arcs up swing further out, so that a pair that waits for each other shows two.
        let span = edge.from.abs_diff(edge.to) as f64;
        let out =
            (14.0 + 10.0 * span + if edge.to < edge.from { 8.0 } else { 0.0 }).min(ARCS - 4.0);
        let (from, to) = (middle(edge.from) + 5.0, middle(edge.to) - 5.0);
        let (start, end, far) = (x - 1.0, x - 2.0, x - out * 1.3);
        body.push_str(&format!(
            "<path d=\"M{start:.1} {from:.1}C{far:.1} {from:.1} {far:.1} {to:.1} {end:.1} {to:.1}\" stroke=\"{RED}\" \
             stroke-width=\"1.6\" fill=\"none\" marker-end=\"url(#head)\"/>\n"
        ));
    }
    top + (ROW + GAP) * trace.waits.len() as f64
}
