//! The trace for a terminal.

use std::collections::BTreeMap;

use super::lanes::{Lane, Lanes, enters_handler};
use super::options::Options;
use super::pick::{self, Part, Row};
use super::said::says_more;
use super::sites::{Sites, file_of};
use super::words::{clean, find_word, kind, minimality, steps, width, wrap};
use crate::trace::{FailureKind, Line, Trace};

const STUCK: &str = "✖ ";
const PREEMPTS: &str = "» ";
/// Between two columns.
const BETWEEN: usize = 2;
/// The letters of this many locks fit in a column's gutter.
const MOST_LETTERS: usize = 4;
/// The greatest width of a column, and of prose, where there is no terminal to fit into.
const COLUMN: usize = 100;
const PROSE: usize = 120;
/// A handler in a handler is set in; from so deep on no further.
const DEEPEST: usize = 6;

pub(super) fn render(trace: &Trace, options: Options) -> String {
    let page = Page {
        trace,
        lanes: Lanes::of(trace),
        sites: Sites::of(trace),
        width: options.width.max(60),
    };
    let rows = match options.all_steps {
        true => pick::all(trace),
        false => page.rows(options.max_lines.max(16)),
    };
    let mut out = String::new();
    for line in page.lines(&rows) {
        out.push_str(line.print(options.colour).trim_end());
        out.push('\n');
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ink {
    Plain,
    Dim,
    Bold,
    Red,
    Yellow,
    Lock(usize),
}

impl Ink {
    fn code(self) -> String {
        match self {
            Ink::Plain => String::new(),
            Ink::Dim => "\x1b[2m".to_owned(),
            Ink::Bold => "\x1b[1m".to_owned(),
            Ink::Red => "\x1b[1;31m".to_owned(),
            Ink::Yellow => "\x1b[33m".to_owned(),
            Ink::Lock(n) => format!("\x1b[1;{}m", [36, 35, 32, 34, 33][n % 5]),
        }
    }
}

/// A line of output: pieces, each in its ink.
#[derive(Default)]
struct Inked {
    pieces: Vec<(String, Ink)>,
}

impl Inked {
    fn push(&mut self, text: impl Into<String>, ink: Ink) {
        self.pieces.push((text.into(), ink));
    }

    fn width(&self) -> usize {
        self.pieces.iter().map(|p| width(&p.0)).sum()
    }

    /// Fills with spaces up to `column`.
    fn pad_to(&mut self, column: usize) {
        self.push(" ".repeat(column.saturating_sub(self.width())), Ink::Plain);
    }

    fn print(&self, colour: bool) -> String {
        let piece = |(text, ink): &(String, Ink)| match ink.code() {
            code if colour && !code.is_empty() && !text.trim().is_empty() => {
                format!("{code}{text}\x1b[0m")
            }
            _ => text.clone(),
        };
        self.pieces.iter().map(piece).collect()
    }
}

/// A cell before it is fitted: what goes into one column of one row.
struct Cell {
    indent: usize,
    text: String,
    ink: Ink,
}

/// Where things stand on the line.
struct Layout {
    step: usize,
    /// The columns that are shown.
    shown: Vec<usize>,
    /// The letters in each shown column's gutter, and the column's width with the gutter.
    columns: Vec<(usize, usize)>,
    site: usize,
    /// The file that is not said in each row, because most of them are in it.
    file: Option<String>,
    /// The locks that are held in a row that is shown; the position is the letter.
    letters: Vec<usize>,
}

struct Page<'a> {
    trace: &'a Trace,
    lanes: Lanes,
    sites: Sites,
    width: usize,
}

impl Page<'_> {
    /// All steps if they fit, or else those that matter, or else as many of those as fit.
    fn rows(&self, most: usize) -> Vec<Row> {
        // The words about it are all there: the steps have some lines left, however many those are.
        let words = self.why().len() + self.waits().len();
        let most = most.max(words + 8);
        // Each step takes a line at least: a run may be long, and is not laid out in vain.
        let fits = |rows: &[Row], most| pick::steps(rows) <= most && self.lines(rows).len() <= most;
        [pick::all(self.trace), pick::mattering(self.trace)]
            .into_iter()
            .find(|rows| fits(rows, most))
            .unwrap_or_else(|| pick::most_telling(self.trace, &self.lanes, most, fits))
    }

    /// The columns of which a step is shown; the others would only take room.
    fn shown(&self, rows: &[Row]) -> Vec<usize> {
        let speaks = |column| {
            rows.iter()
                .any(|row| matches!(row, Row::Step(at) if self.trace.lines[*at].column == column))
        };
        self.lanes.used.iter().copied().filter(|&column| speaks(column)).collect()
    }

    /// The whole page.
    fn lines(&self, rows: &[Row]) -> Vec<Inked> {
        let shown = self.shown(rows);
        let cells = self.cells(rows, &shown);
        let layout = self.layout(rows, &cells, shown);
        // Of a run without an end, the place where it goes round says more than its steps.
        let endless = self.trace.kind == FailureKind::TooLong;
        let mut lines = if endless { self.why() } else { Vec::new() };
        lines.extend(self.title());
        lines.extend(self.heads(&layout));
        for (row, cells) in rows.iter().zip(&cells) {
            if cells.iter().any(Option::is_some) {
                lines.extend(self.row(row, cells, &layout));
            }
        }
        lines.push(Inked::default());
        lines.extend(self.legend(rows, &layout));
        lines.extend(self.waits());
        if !endless {
            lines.extend(self.why());
        }
        lines
    }

    /// The width of sentences.
    fn prose(&self) -> usize {
        if self.width == Options::UNLIMITED { PROSE } else { self.width }
    }

    /// The sentence that says why, unless the list of waits has said the same.
    fn why(&self) -> Vec<Inked> {
        if !says_more(self.trace) {
            return Vec::new();
        }
        let inked = |line| {
            let mut inked = Inked::default();
            inked.push(line, Ink::Bold);
            inked
        };
        wrap(&clean(&self.trace.why), self.prose()).into_iter().map(inked).collect()
    }

    fn title(&self) -> Vec<Inked> {
        let name = kind(self.trace.kind);
        let rest = format!(", {}, {}", steps(self.trace.lines.len()), minimality(self.trace));
        let inked = |(at, text): (usize, String)| {
            let mut line = Inked::default();
            let red = if at == 0 { name.len() } else { 0 };
            line.push(&text[..red], Ink::Red);
            line.push(&text[red..], Ink::Plain);
            line
        };
        wrap(&format!("{name}{rest}"), self.prose()).into_iter().enumerate().map(inked).collect()
    }

    /// For every row the cells, by shown column.
    fn cells(&self, rows: &[Row], shown: &[usize]) -> Vec<Vec<Option<Cell>>> {
        let mut speaking: Vec<Option<String>> =
            self.lanes.tasks.iter().map(|t| self.sole(t).cloned()).collect();
        let mut cells = Vec::new();
        for row in rows {
            let mut in_row: Vec<Option<Cell>> = shown.iter().map(|_| None).collect();
            match row {
                Row::Step(at) => {
                    let line = &self.trace.lines[*at];
                    if let Some(place) = shown.iter().position(|c| *c == line.column) {
                        in_row[place] = Some(self.step(*at, line, &mut speaking[line.column]));
                    }
                }
                Row::Gap { parts, .. } => {
                    for part in parts {
                        if let Some(place) = shown.iter().position(|c| *c == part.column) {
                            in_row[place] = Some(self.gap(part));
                        }
                        speaking[part.column].clone_from(&part.of);
                    }
                }
            }
            cells.push(in_row);
        }
        cells
    }

    /// The task that a column can be headed with.
    fn sole<'t>(&self, tasks: &'t [String]) -> Option<&'t String> {
        tasks.first().filter(|_| tasks.len() == 1)
    }

    fn step(&self, at: usize, line: &Line, speaking: &mut Option<String>) -> Cell {
        let context = clean(&line.context);
        let sole = self.sole(&self.lanes.tasks[line.column]) == Some(&context);
        let text = clean(&line.text);
        let named =
            speaking.as_ref() == Some(&context) || sole || find_word(&text, &context).is_some();
        *speaking = Some(context.clone());
        let mark = match (line.stuck, line.preempts) {
            (true, _) => STUCK,
            (_, true) => PREEMPTS,
            _ => "",
        };
        let who = if named { String::new() } else { format!("{context}: ") };
        let ink = match (line.stuck, line.preempts) {
            (true, _) => Ink::Red,
            (_, true) => Ink::Yellow,
            _ if enters_handler(&line.text) => Ink::Yellow,
            _ if line.matters => Ink::Plain,
            _ => Ink::Dim,
        };
        Cell {
            indent: 2 * self.lanes.depth[at].min(DEEPEST),
            text: format!("{mark}{who}{text}"),
            ink,
        }
    }

    fn gap(&self, part: &Part) -> Cell {
        let of =
            part.of.as_ref().filter(|of| self.sole(&self.lanes.tasks[part.column]) != Some(of));
        let text = match of {
            Some(of) => format!("… {} of {of}", steps(part.steps)),
            None => format!("… {}", steps(part.steps)),
        };
        Cell { indent: 0, text, ink: Ink::Dim }
    }

    fn layout(&self, rows: &[Row], cells: &[Vec<Option<Cell>>], shown: Vec<usize>) -> Layout {
        let mut letters: Vec<usize> = Vec::new();
        let lanes = |row: &Row| &self.lanes.after[row.last()];
        for lock in rows
            .iter()
            .flat_map(|row| shown.iter().map(|&c| &lanes(row)[c]))
            .flat_map(|lane| &lane.holds)
        {
            if !letters.contains(lock) {
                letters.push(*lock);
            }
        }
        letters.sort_unstable();
        let file = self.file(rows);
        let site = rows
            .iter()
            .map(|row| width(&self.site(row, file.as_deref())))
            .max()
            .unwrap_or(0)
            .min(if self.width == Options::UNLIMITED { usize::MAX } else { 30 });
        let step = self.trace.lines.last().map_or(1, |l| l.step.to_string().len()).max(2);
        let used = shown.iter().enumerate();
        let gutters: Vec<usize> = used
            .clone()
            .map(|(_, &c)| {
                rows.iter()
                    .map(|row| lanes(row)[c].holds.len())
                    .max()
                    .unwrap_or(0)
                    .min(MOST_LETTERS)
            })
            .collect();
        let needs: Vec<usize> = used
            .map(|(place, &c)| {
                let texts = cells
                    .iter()
                    .filter_map(|row| row[place].as_ref())
                    .map(|cell| cell.indent + width(&cell.text));
                let text = texts.max().unwrap_or(0).max(width(&self.head(c)));
                2 + gutters[place] + text.min(COLUMN)
            })
            .collect();
        let room = self.width.saturating_sub(step + 2 + site + BETWEEN * needs.len());
        let columns = gutters.into_iter().zip(share(room, &needs)).collect();
        Layout { step, shown, columns, site, file, letters }
    }

    fn head(&self, column: usize) -> String {
        match self.sole(&self.lanes.tasks[column]) {
            Some(task) if *task == self.lanes.titles[column] => task.clone(),
            Some(task) => format!("{}  {task}", self.lanes.titles[column]),
            None => self.lanes.titles[column].clone(),
        }
    }

    fn heads(&self, layout: &Layout) -> Vec<Inked> {
        let columns = layout.shown.iter().zip(&layout.columns);
        let heads: Vec<(Vec<String>, usize)> =
            columns.map(|(&column, &(_, wide))| (wrap(&self.head(column), wide), wide)).collect();
        let height = heads.iter().map(|head| head.0.len()).max().unwrap_or(1);
        let line = |at: usize| {
            let mut line = Inked::default();
            let mut start = layout.step + 2;
            for (head, wide) in &heads {
                line.pad_to(start);
                line.push(head.get(at).cloned().unwrap_or_default(), Ink::Bold);
                start += wide + BETWEEN;
            }
            line
        };
        (0..height).map(line).collect()
    }

    /// The place of the row's step, without `file`; nothing for a gap.
    fn site(&self, row: &Row, file: Option<&str>) -> String {
        let Row::Step(at) = row else { return String::new() };
        let site = clean(&self.sites.shorten(&self.trace.lines[*at].site));
        match file.and_then(|file| site.strip_prefix(file)) {
            Some(line) => line.to_owned(),
            None => site,
        }
    }

    /// The file of most rows, if to say its name in each of them would take much room.
    fn file(&self, rows: &[Row]) -> Option<String> {
        const LONG: usize = 12;
        let steps = rows.iter().filter(|row| matches!(row, Row::Step(_)));
        let sites: Vec<String> = steps.map(|row| self.site(row, None)).collect();
        let mut files: BTreeMap<&str, usize> = BTreeMap::new();
        for file in sites.iter().filter_map(|site| file_of(site)) {
            *files.entry(file).or_default() += 1;
        }
        let (file, of) = files.into_iter().max_by_key(|(_, of)| *of)?;
        (width(file) > LONG && 2 * of > sites.len()).then(|| file.to_owned())
    }

    fn row(&self, row: &Row, cells: &[Option<Cell>], layout: &Layout) -> Vec<Inked> {
        let texts: Vec<Vec<String>> = cells
            .iter()
            .zip(&layout.columns)
            .map(|(cell, &(gutter, wide))| {
                let Some(cell) = cell else { return Vec::new() };
                let room = wide.saturating_sub(2 + gutter + cell.indent).max(1);
                wrap(&cell.text, room)
            })
            .collect();
        let height = texts.iter().map(Vec::len).max().unwrap_or(1).max(1);
        (0..height).map(|at| self.row_line(row, cells, &texts, layout, at)).collect()
    }

    fn row_line(
        &self,
        row: &Row,
        cells: &[Option<Cell>],
        texts: &[Vec<String>],
        layout: &Layout,
        at: usize,
    ) -> Inked {
        let mut line = Inked::default();
        if let (Row::Step(index), 0) = (row, at) {
            line.push(format!("{:>1$}", self.trace.lines[*index].step, layout.step), Ink::Dim);
        }
        let mut start = layout.step + 2;
        for (place, &column) in layout.shown.iter().enumerate() {
            let (gutter, wide) = layout.columns[place];
            line.pad_to(start);
            self.gutter(&mut line, &self.lanes.after[row.last()][column], layout, gutter);
            if let (Some(cell), Some(text)) = (&cells[place], texts[place].get(at)) {
                line.push(" ".repeat(cell.indent), Ink::Plain);
                self.inked(&mut line, text, cell.ink, layout);
            }
            start += wide + BETWEEN;
        }
        if at == 0 {
            let site = self.site(row, layout.file.as_deref());
            let long = width(&site);
            let tail: String = site.chars().skip(long.saturating_sub(layout.site)).collect();
            line.pad_to(start);
            line.push(tail, Ink::Dim);
        }
        line
    }

    fn gutter(&self, line: &mut Inked, lane: &Lane, layout: &Layout, wide: usize) {
        match lane.irqs_on {
            Some(true) => line.push("│", Ink::Dim),
            Some(false) => line.push("┃", Ink::Red),
            None => line.push("┊", Ink::Dim),
        }
        let end = line.width() + wide + 1;
        let shown = if lane.holds.len() > wide { wide.saturating_sub(1) } else { lane.holds.len() };
        for lock in &lane.holds[..shown] {
            line.push(letter(layout, *lock), Ink::Lock(*lock));
        }
        if shown < lane.holds.len() {
            line.push("+", Ink::Plain);
        }
        line.pad_to(end);
    }

    /// Pushes text with the names of locks in their colours.
    fn inked(&self, line: &mut Inked, text: &str, ink: Ink, layout: &Layout) {
        let found = layout
            .letters
            .iter()
            .filter_map(|&l| Some((find_word(text, &self.lanes.locks[l])?, l)));
        match found.min_by_key(|&(at, l)| (at, usize::MAX - self.lanes.locks[l].len())) {
            Some((at, lock)) if ink != Ink::Dim => {
                let end = at + self.lanes.locks[lock].len();
                line.push(&text[..at], ink);
                line.push(&text[at..end], Ink::Lock(lock));
                line.push(&text[end..], ink);
            }
            _ => line.push(text, ink),
        }
    }

    /// What the marks mean, only those that are there; then an empty line.
    fn legend(&self, rows: &[Row], layout: &Layout) -> Vec<Inked> {
        let any = |what: &dyn Fn(&Line) -> bool| {
            rows.iter().any(|row| matches!(row, Row::Step(at) if what(&self.trace.lines[*at])))
        };
        let mut entries: Vec<(String, String, Ink)> = Vec::new();
        let mut add =
            |sign: String, meaning: &str, ink| entries.push((sign, meaning.to_owned(), ink));
        let off = |row: &Row| {
            layout.shown.iter().any(|&c| self.lanes.after[row.last()][c].irqs_on == Some(false))
        };
        if rows.iter().any(off) {
            add("┃".to_owned(), "interrupts off", Ink::Red);
        }
        if any(&|l| l.preempts && !l.stuck) {
            add(PREEMPTS.trim().to_owned(), "preempts", Ink::Yellow);
        }
        if any(&|l| l.stuck) {
            add(STUCK.trim().to_owned(), "never gets further", Ink::Red);
        }
        for (at, &lock) in layout.letters.iter().enumerate() {
            let held = if at == 0 { "held: " } else { "" };
            add(
                format!("{held}{}", letter(layout, lock)),
                &self.lanes.locks[lock],
                Ink::Lock(lock),
            );
        }
        let hidden: Vec<String> = self
            .lanes
            .used
            .iter()
            .filter(|c| !layout.shown.contains(c))
            .map(|&c| self.head(c))
            .collect();
        if let Some(file) = &layout.file {
            add(":n".to_owned(), &format!("a line of {file}"), Ink::Dim);
        }
        if !hidden.is_empty() {
            add("not shown:".to_owned(), &hidden.join(", "), Ink::Plain);
        }
        let mut lines: Vec<Inked> = vec![Inked::default()];
        for (sign, meaning, ink) in entries {
            let wide = width(&sign) + 1 + width(&meaning);
            if lines.last().is_some_and(|l| l.width() > 0 && l.width() + 3 + wide > self.prose()) {
                lines.push(Inked::default());
            }
            let line = lines.last_mut().expect("never empty");
            if line.width() > 0 {
                line.push("   ", Ink::Plain);
            }
            let room = self.prose().saturating_sub(line.width() + width(&sign) + 1);
            line.push(sign, ink);
            let mut meaning = wrap(&meaning, room).into_iter();
            line.push(format!(" {}", meaning.next().unwrap_or_default()), Ink::Dim);
            for more in meaning {
                lines.push(Inked::default());
                lines.last_mut().expect("just pushed").push(more, Ink::Dim);
            }
        }
        if lines[0].width() == 0 {
            return Vec::new();
        }
        lines.push(Inked::default());
        lines
    }

    /// The wait-for list; then an empty line.
    fn waits(&self) -> Vec<Inked> {
        /// What is said needs so much room beside the names.
        const BESIDE: usize = 30;
        let waits = &self.trace.waits;
        let column = |of: &dyn Fn(usize) -> String| {
            (0..waits.len()).map(|i| width(&of(i))).max().unwrap_or(0)
        };
        let place = |i: usize| clean(&waits[i].place);
        // Hardware is its own place.
        let who = |i: usize| {
            if waits[i].who == waits[i].place { String::new() } else { clean(&waits[i].who) }
        };
        let site = |i: usize| clean(&self.sites.shorten(&waits[i].site));
        let says = |i: usize| clean(&waits[i].says());
        let (places, whos, sites) = (column(&place), column(&who), column(&site));
        let start = places + 2 + if whos > 0 { whos + 2 } else { 0 };
        let beside = self.prose().saturating_sub(start + 2 + sites);
        let (start, room) = match beside {
            0..BESIDE => (2, self.prose() - 2),
            _ => (start, beside),
        };
        let wide = (0..waits.len()).flat_map(|i| wrap(&says(i), room)).map(|l| width(&l)).max();
        let mut lines = Vec::new();
        for i in 0..waits.len() {
            let names =
                format!("{}{}{}", place(i), " ".repeat(places + 2 - width(&place(i))), who(i));
            let mut says = wrap(&says(i), room);
            if beside < BESIDE {
                let names = wrap(&format!("{names} ({})", site(i)), self.prose());
                lines.extend(names.into_iter().map(|name| {
                    let mut line = Inked::default();
                    line.push(name, Ink::Bold);
                    line
                }));
            } else {
                let mut line = Inked::default();
                line.push(names, Ink::Bold);
                line.pad_to(start);
                line.push(says.remove(0), Ink::Plain);
                line.pad_to(start + wide.unwrap_or(0) + 2);
                line.push(site(i), Ink::Dim);
                lines.push(line);
            }
            for more in says {
                let mut line = Inked::default();
                line.pad_to(start);
                line.push(more, Ink::Plain);
                lines.push(line);
            }
        }
        if !lines.is_empty() {
            lines.push(Inked::default());
        }
        lines
    }
}

/// `A` for the first lock that is shown, and so on.
fn letter(layout: &Layout, lock: usize) -> String {
    let at = layout.letters.iter().position(|l| *l == lock);
    at.and_then(|at| ('A'..='Z').chain('a'..='z').nth(at)).unwrap_or('*').to_string()
}

/// Shares out `room`: who needs less than an equal share gets what it needs, the others share the
/// rest.
fn share(room: usize, needs: &[usize]) -> Vec<usize> {
    let mut given = vec![0; needs.len()];
    let mut open: Vec<usize> = (0..needs.len()).collect();
    let mut left = room;
    while !open.is_empty() {
        let fair = left / open.len();
        let modest: Vec<usize> = open.iter().copied().filter(|&i| needs[i] <= fair).collect();
        if modest.is_empty() {
            open.iter().for_each(|&i| given[i] = fair);
            break;
        }
        for i in modest {
            given[i] = needs[i];
            left -= needs[i];
            open.retain(|&o| o != i);
        }
    }
    given
}
