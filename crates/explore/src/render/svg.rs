//! The trace as a picture: lanes, bars for locks, frames for handlers, and arrows from who waits to
//! what is waited for.

use super::edges::{column_waited_for, lock_waited_for};
use super::lanes::{Lanes, enters_handler};
use super::pick::{self, Row};
use super::sites::Sites;
use super::svg_style::{CHAR, GREY, LINE, MARGIN, RED, escape};
use super::svg_waits;
use super::words::{clean, find_word, kind, minimality, steps, width, wrap};
use crate::trace::Trace;

const LOCKS: [&str; 6] = ["#1565c0", "#8e24aa", "#00897b", "#ef6c00", "#5d4037", "#c2185b"];
const ROW: f64 = 24.0;
const HEAD: f64 = 40.0;
const BETWEEN: f64 = 18.0;
const STEPS: f64 = 34.0;
const INDENT: f64 = 16.0;
const BAR: f64 = 6.0;
const SLOT: f64 = 10.0;
/// More rows than this make no picture.
const MOST_ROWS: usize = 32;

pub(super) fn render(trace: &Trace, title: Option<&str>) -> String {
    let lanes = Lanes::of(trace);
    let rows = rows(trace, &lanes);
    let sites = Sites::of(trace);
    let places = places(trace, &lanes, &rows, &sites);
    let right = places.last().map_or(0.0, |p| p.x + p.wide);
    let page = (right + MARGIN).max(820.0);
    let picture = Picture {
        trace,
        lanes: &lanes,
        rows: &rows,
        sites: &sites,
        places: &places,
        tops: Vec::new(),
        body: String::new(),
    };
    picture.draw(page, title)
}

fn rows(trace: &Trace, lanes: &Lanes) -> Vec<Row> {
    [pick::all(trace), pick::mattering(trace)]
        .into_iter()
        .find(|rows| rows.len() <= MOST_ROWS)
        .unwrap_or_else(|| {
            pick::most_telling(trace, lanes, MOST_ROWS, |rows, most| rows.len() <= most)
        })
}

/// Where a lane is.
struct Place {
    column: usize,
    x: f64,
    wide: f64,
    /// The most locks that are held in it at once; each has a slot for its bar.
    slots: usize,
}

impl Place {
    fn text_x(&self) -> f64 {
        self.x + 14.0 + SLOT * self.slots as f64
    }
}

/// Lays the lanes side by side, each as wide as its text needs, within limits.
fn places(trace: &Trace, lanes: &Lanes, rows: &[Row], sites: &Sites) -> Vec<Place> {
    let mut x = MARGIN + STEPS;
    let mut places = Vec::new();
    for &column in &lanes.used {
        let slots = lanes.after.iter().map(|after| after[column].holds.len()).max().unwrap_or(0);
        let need = |row: &Row| match row {
            Row::Step(at) if trace.lines[*at].column == column => {
                let line = &trace.lines[*at];
                let labelled = lanes.depth[*at] > 0 || lanes.tasks[column].len() > 1;
                let label = if labelled { width(&clean(&line.context)) + 2 } else { 0 };
                let chars =
                    label + width(&clean(&line.text)) + width(&sites.shorten(&line.site)) + 5;
                INDENT * lanes.depth[*at] as f64 + CHAR * chars as f64
            }
            _ => 0.0,
        };
        let texts = rows.iter().map(need).fold(0.0, f64::max);
        let title = &lanes.titles[column];
        let head = width(title) + sole_task(lanes, column).map_or(0, |task| width(task) + 2);
        let wide =
            (28.0 + SLOT * slots as f64 + texts).clamp(230.0, 520.0).max(28.0 + CHAR * head as f64);
        places.push(Place { column, x, wide, slots });
        x += wide + BETWEEN;
    }
    places
}

/// The task that alone runs in a column, unless the column is called after it.
fn sole_task(lanes: &Lanes, column: usize) -> Option<&str> {
    let tasks = &lanes.tasks[column];
    let only = tasks.first().filter(|task| tasks.len() == 1 && **task != lanes.titles[column])?;
    Some(only)
}

/// A step as it is written down.
struct Written {
    step: usize,
    x: f64,
    end: f64,
    lines: Vec<String>,
    site: String,
}

struct Picture<'a> {
    trace: &'a Trace,
    lanes: &'a Lanes,
    rows: &'a [Row],
    sites: &'a Sites,
    places: &'a [Place],
    /// Where each row begins below the heads, and where the last one ends.
    tops: Vec<f64>,
    body: String,
}

impl Picture<'_> {
    fn draw(mut self, page: f64, title: Option<&str>) -> String {
        let mut y = self.title(page, title);
        let top = y + HEAD;
        let written = self.written();
        let mut row_top = top;
        for row in &written {
            self.tops.push(row_top);
            let lines = row.as_ref().map_or(1, |row| row.lines.len());
            row_top += ROW + LINE * (lines - 1) as f64;
        }
        self.tops.push(row_top);
        let bottom = row_top + 12.0;
        self.lane_grounds(y, bottom);
        self.frames();
        self.bars(bottom);
        self.arrows();
        self.texts(&written);
        y = self.legend(bottom + 30.0, page);
        y = svg_waits::draw(self.trace, self.sites, &mut self.body, y + 12.0, page);
        let of = title.map(|title| format!("{}: ", clean(title))).unwrap_or_default();
        let label = escape(&format!("{of}{}: {}", kind(self.trace.kind), clean(&self.trace.why)));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{page:.0}\" height=\"{high:.0}\" viewBox=\"0 0 {page:.0} {high:.0}\" \
             role=\"img\" aria-label=\"{label}\">\n<style>\n\
             text {{ font: 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #1f2430; white-space: pre }}\n\
             .h {{ font: 600 19px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif }}\n\
             .p {{ font: 14px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif }}\n\
             .b {{ font-weight: 700 }}\n.s {{ font-size: 10.5px; fill: {GREY} }}\n.r {{ fill: {RED}; font-weight: 700 }}\n</style>\n\
             <defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"{RED}\"/></marker></defs>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n",
            high = y + 16.0,
            body = self.body,
        )
    }

    /// The heading and the sentence that says why. Returns where the lanes may begin.
    fn title(&mut self, page: f64, title: Option<&str>) -> f64 {
        let name = kind(self.trace.kind);
        let mut letters = name.chars();
        let name: String =
            letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default();
        let mut y = 42.0;
        let room = ((page - 2.0 * MARGIN) / 7.6) as usize;
        if let Some(title) = title {
            for line in wrap(&clean(title), room) {
                self.push(&format!(
                    "<text class=\"p b\" x=\"{MARGIN}\" y=\"{y}\">{}</text>",
                    escape(&line)
                ));
                y += 20.0;
            }
            y += 6.0;
        }
        self.push(&format!("<text class=\"h\" x=\"{MARGIN}\" y=\"{y}\">{}</text>", escape(&name)));
        let rest = format!("{}, {}", steps(self.trace.lines.len()), minimality(self.trace));
        let end = page - MARGIN;
        self.push(&format!(
            "<text class=\"s\" x=\"{end}\" y=\"{y}\" text-anchor=\"end\">{}</text>",
            escape(&rest)
        ));
        y += 26.0;
        for line in wrap(&clean(&self.trace.why), room) {
            self.push(&format!(
                "<text class=\"p\" x=\"{MARGIN}\" y=\"{y}\">{}</text>",
                escape(&line)
            ));
            y += 20.0;
        }
        y + 4.0
    }

    /// Heads, lanes, and the shade where interrupts are off.
    fn lane_grounds(&mut self, head: f64, bottom: f64) {
        for place in self.places {
            let (x, wide) = (place.x, place.wide);
            let high = bottom - head;
            self.push(&format!(
                "<rect x=\"{x:.1}\" y=\"{head:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" rx=\"4\" fill=\"#f7f8fa\" stroke=\"#dfe3e8\"/>"
            ));
            let title = &self.lanes.titles[place.column];
            let task = sole_task(self.lanes, place.column).unwrap_or_default();
            let y = head + 25.0;
            self.push(&format!(
                "<text x=\"{:.1}\" y=\"{y:.1}\"><tspan class=\"b\">{}</tspan><tspan dx=\"10\" fill=\"{GREY}\">{}</tspan></text>",
                x + 14.0,
                escape(title),
                escape(task),
            ));
            for (from, to) in self.stretches(|lanes| lanes[place.column].irqs_on == Some(false)) {
                let (y, last) = (self.tops[from], to == self.rows.len());
                let end = if last { bottom } else { self.tops[to] };
                let high = end - y;
                self.push(&format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" fill=\"#fdeceb\"/>\
                     <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"3\" height=\"{high:.1}\" fill=\"{RED}\"/>"
                ));
            }
        }
    }

    /// The runs of rows after which something holds, as `from..to`.
    fn stretches(&self, what: impl Fn(&[super::lanes::Lane]) -> bool) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            if what(&self.lanes.after[row.last()]) {
                match found.last_mut() {
                    Some(stretch) if stretch.1 == at => stretch.1 = at + 1,
                    _ => found.push((at, at + 1)),
                }
            }
        }
        found
    }

    /// A frame around the steps of each handler.
    fn frames(&mut self) {
        for place in self.places {
            let deepest = self.lanes.depth.iter().max().copied().unwrap_or(0);
            for depth in 1..=deepest {
                for (from, to) in self.framed(place.column, depth) {
                    let x = place.text_x() + INDENT * depth as f64 - 8.0;
                    let y = self.tops[from] + 1.0;
                    let (wide, high) = (place.x + place.wide - 5.0 - x, self.tops[to] - y - 1.0);
                    self.push(&format!(
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{high:.1}\" rx=\"4\" fill=\"#fffbeb\" \
                         stroke=\"#d39e00\"/>"
                    ));
                }
            }
        }
    }

    /// The rows over which a handler of at least this depth runs in a column.
    fn framed(&self, column: usize, depth: usize) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        let mut open = None;
        for (at, row) in self.rows.iter().enumerate() {
            let Row::Step(line) = row else { continue };
            let step = &self.trace.lines[*line];
            if step.column != column {
                continue;
            }
            let inside = self.lanes.depth[*line] >= depth;
            let entered = self.lanes.depth[*line] == depth && enters_handler(&step.text);
            if !inside || entered {
                found.extend(open.take());
            }
            if inside {
                open = Some((open.map_or(at, |(from, _)| from), at + 1));
            }
        }
        found.extend(open);
        found
    }

    /// The slot that a lock's bar has in a lane, for the rows `from..to`.
    fn bars_of(&self, place: &Place) -> Vec<(usize, usize, usize, usize)> {
        let mut bars: Vec<(usize, usize, usize, usize)> = Vec::new();
        let mut spans: Vec<(usize, usize, usize)> = Vec::new();
        for lock in 0..self.lanes.locks.len() {
            let held = self.stretches(|lanes| lanes[place.column].holds.contains(&lock));
            spans.extend(held.into_iter().map(|(from, to)| (from, to, lock)));
        }
        spans.sort_unstable();
        for (from, to, lock) in spans {
            let taken = |slot| bars.iter().any(|&(s, f, t, _)| s == slot && f < to && from < t);
            let slot = (0..).find(|&s| !taken(s)).unwrap_or(0);
            bars.push((slot, from, to, lock));
        }
        bars
    }

    fn bars(&mut self, bottom: f64) {
        for place in self.places {
            for (slot, from, to, lock) in self.bars_of(place) {
                let x = place.x + 10.0 + SLOT * slot as f64;
                let y = self.tops[from] + 5.0;
                let end = if to == self.rows.len() { bottom } else { self.tops[to] + 12.0 };
                let (high, colour) = (end - y, colour(lock));
                let name = escape(&self.lanes.locks[lock]);
                self.push(&format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{BAR}\" height=\"{high:.1}\" rx=\"3\" fill=\"{colour}\"><title>{name} held</title></rect>"
                ));
            }
        }
    }

    /// From every step that is stuck to the bar of the lock that it waits for, or else to the lane
    /// of whom it waits for: the row is empty between the two.
    fn arrows(&mut self) {
        for (at, row) in self.rows.iter().enumerate() {
            let Row::Step(line) = row else { continue };
            let step = &self.trace.lines[*line];
            if !step.stuck {
                continue;
            }
            let Some(own) = self.places.iter().find(|p| p.column == step.column) else { continue };
            let bar = lock_waited_for(self.trace, self.lanes, *line).and_then(|(lock, column)| {
                let holder = self.places.iter().find(|p| p.column == column)?;
                let bars = self.bars_of(holder);
                let bar = bars.iter().find(|b| b.3 == lock && b.1 <= at && at < b.2)?;
                let x = holder.x + 10.0 + SLOT * bar.0 as f64;
                Some((holder.x > own.x, x - 2.0, x + BAR + 2.0))
            });
            let lane = || {
                let column = column_waited_for(self.trace, *line)?;
                let other = self.places.iter().find(|p| p.column == column)?;
                Some((other.x > own.x, other.x, other.x + other.wide))
            };
            let Some((to_the_right, left, right)) = bar.or_else(lane) else { continue };
            let y = self.tops[at] + ROW / 2.0;
            let (from, to) = if to_the_right {
                (own.x + own.wide - 4.0, left)
            } else {
                (own.text_x() + INDENT * self.lanes.depth[*line] as f64 - 3.0, right)
            };
            self.push(&format!(
                "<path d=\"M{from:.1} {y:.1}H{to:.1}\" stroke=\"{RED}\" stroke-width=\"1.6\" stroke-dasharray=\"5 3\" fill=\"none\" \
                 marker-end=\"url(#head)\"/>"
            ));
        }
    }

    /// The steps as they are written down, by row; nothing for a gap.
    fn written(&self) -> Vec<Option<Written>> {
        let mut speaking: Vec<Option<String>> = vec![None; self.lanes.titles.len()];
        let step = |row: &Row| match row {
            Row::Step(line) => self.step(*line, &mut speaking),
            Row::Gap { parts, .. } => {
                for part in parts {
                    speaking[part.column].clone_from(&part.of);
                }
                None
            }
        };
        self.rows.iter().map(step).collect()
    }

    fn step(&self, at: usize, speaking: &mut [Option<String>]) -> Option<Written> {
        let line = &self.trace.lines[at];
        let place = self.places.iter().find(|p| p.column == line.column)?;
        let (context, text) = (clean(&line.context), clean(&line.text));
        let sole =
            self.lanes.tasks[line.column].len() == 1 && self.lanes.tasks[line.column][0] == context;
        let known = speaking[line.column].as_ref() == Some(&context)
            || sole
            || find_word(&text, &context).is_some();
        speaking[line.column] = Some(context.clone());
        let who = if known { String::new() } else { format!("{context}: ") };
        let mark = match (line.stuck, line.preempts) {
            (true, _) => "✖ ",
            (_, true) => "» ",
            _ => "",
        };
        let site = clean(&self.sites.shorten(&line.site));
        let x = place.text_x() + INDENT * self.lanes.depth[at] as f64;
        let end = place.x + place.wide - 10.0;
        let room = ((end - x) / CHAR) as usize;
        let lines = wrap(&format!("{mark}{who}{text}"), room.saturating_sub(width(&site) + 1));
        Some(Written { step: at, x, end, lines, site })
    }

    fn texts(&mut self, written: &[Option<Written>]) {
        for (at, row) in self.rows.iter().enumerate() {
            let y = self.tops[at] + 16.0;
            if let Some(written) = &written[at] {
                self.write(written, y);
            }
            let Row::Gap { parts, .. } = row else { continue };
            for part in parts {
                let Some(place) = self.places.iter().find(|p| p.column == part.column) else {
                    continue;
                };
                let of = part.of.as_ref().map(|of| format!(" of {of}")).unwrap_or_default();
                let text = escape(&format!("… {}{of}", steps(part.steps)));
                self.push(&format!(
                    "<text class=\"s\" x=\"{:.1}\" y=\"{y:.1}\">{text}</text>",
                    place.text_x()
                ));
            }
        }
    }

    fn write(&mut self, written: &Written, y: f64) {
        let Written { step, x, end, lines, site } = written;
        let line = &self.trace.lines[*step];
        let class = if line.stuck { " class=\"r\"" } else { "" };
        let fill = match (line.stuck, line.preempts || enters_handler(&line.text), line.matters) {
            (true, ..) | (_, false, true) => String::new(),
            (_, true, _) => " style=\"fill:#9a6700\"".to_owned(),
            (_, _, false) => format!(" style=\"fill:{GREY}\""),
        };
        let number = MARGIN + STEPS - 12.0;
        self.push(&format!(
            "<text class=\"s\" data-step=\"{0}\" x=\"{number:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{0}</text>",
            line.step
        ));
        let tip =
            format!("{}: {} ({})", clean(&line.context), clean(&line.text), clean(&line.site));
        let tip = escape(&tip);
        for (at, text) in lines.iter().enumerate() {
            let (shown, y) = (self.coloured(text), y + LINE * at as f64);
            self.push(&format!(
                "<text{class}{fill} x=\"{x:.1}\" y=\"{y:.1}\">{shown}<title>{tip}</title></text>"
            ));
        }
        self.push(&format!(
            "<text class=\"s\" x=\"{end:.1}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>",
            escape(site)
        ));
    }

    /// The text, escaped, with the name of a lock in its colour.
    fn coloured(&self, text: &str) -> String {
        let found = (0..self.lanes.locks.len())
            .filter_map(|l| Some((find_word(text, &self.lanes.locks[l])?, l)));
        let Some((at, lock)) =
            found.min_by_key(|&(at, l)| (at, usize::MAX - self.lanes.locks[l].len()))
        else {
            return escape(text);
        };
        let end = at + self.lanes.locks[lock].len();
        let (before, name, after) =
            (escape(&text[..at]), escape(&text[at..end]), escape(&text[end..]));
        format!(
            "{before}<tspan style=\"fill:{};font-weight:700\">{name}</tspan>{after}",
            colour(lock)
        )
    }

    /// What colours and marks mean. Returns where it ends.
    fn legend(&mut self, mut y: f64, page: f64) -> f64 {
        let mut entries: Vec<(String, String)> = Vec::new();
        if self.lanes.after.iter().flatten().any(|lane| lane.irqs_on == Some(false)) {
            let sign = format!(
                "<rect y=\"-11\" width=\"14\" height=\"14\" fill=\"#fdeceb\"/><rect y=\"-11\" width=\"3\" height=\"14\" fill=\"{RED}\"/>"
            );
            entries.push((sign, "interrupts off".to_owned()));
        }
        let any = |what: fn(&crate::trace::Line) -> bool| self.trace.lines.iter().any(what);
        if any(|l| enters_handler(&l.text)) {
            let sign = "<rect y=\"-10\" width=\"14\" height=\"12\" rx=\"3\" fill=\"#fffbeb\" stroke=\"#d39e00\"/>";
            entries.push((sign.to_owned(), "interrupt handler".to_owned()));
        }
        if any(|l| l.preempts) {
            entries.push((
                "<text x=\"3\" style=\"fill:#9a6700\">»</text>".to_owned(),
                "preempts".to_owned(),
            ));
        }
        if any(|l| l.stuck) {
            entries.push((
                "<text x=\"1\" class=\"r\">✖</text>".to_owned(),
                "never gets further".to_owned(),
            ));
        }
        for (lock, name) in self.lanes.locks.iter().enumerate() {
            let sign = format!(
                "<rect x=\"4\" y=\"-11\" width=\"{BAR}\" height=\"14\" rx=\"3\" fill=\"{}\"/>",
                colour(lock)
            );
            entries.push((sign, format!("{name} held")));
        }
        let mut x = MARGIN;
        for (sign, meaning) in entries {
            let wide = 20.0 + CHAR * width(&meaning) as f64;
            if x > MARGIN && x + wide > page - MARGIN {
                x = MARGIN;
                y += 20.0;
            }
            let meaning = escape(&meaning);
            self.push(&format!("<g transform=\"translate({x:.1} {y:.1})\">{sign}<text x=\"20\" style=\"fill:{GREY}\">{meaning}</text></g>"));
            x += wide + 20.0;
        }
        y
    }

    fn push(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }
}

fn colour(lock: usize) -> &'static str {
    LOCKS[lock % LOCKS.len()]
}
