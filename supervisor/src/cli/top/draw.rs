//! A frame: from the model to cells. Pure.
//!
//! ```text
//! head        the machine, five lines; one where the terminal is low
//! table       its head, and a line a service
//! events      where there is room
//! foot        what keys do, a question, or what came of an action
//! ```

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use watchdog_protocol::status::EventRecord;

use super::head;
use super::ink::Ink;
use super::keys::HELP;
use super::model::{Link, Mode, Model};
use super::rows::is_move;
use super::{detail, table};
use crate::cli::figures::span;
use crate::cli::look::{Paint, harmless};

/// With less there is nothing to be seen.
const LEAST: (u16, u16) = (40, 8);

/// From so many lines on the head is whole, and there are events.
const TALL: u16 = 16;

/// Lines of the foot at the most: what the watchdog says of an error is told as a whole.
const FOOT: usize = 6;

/// Where the words of a subject begin, in details and in the help.
const HANG: usize = 12;

/// What the clock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Microseconds since 1970, as the event log has it.
    pub(super) wall_us: u64,
}

/// Which lines are whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) head: Rect,
    pub(super) table: Rect,
    pub(super) events: Rect,
    pub(super) foot: Rect,
}

impl Layout {
    /// `None`: there is no room.
    pub(super) fn of(area: Rect, model: &Model) -> Option<Self> {
        if area.width < LEAST.0 || area.height < LEAST.1 {
            return None;
        }
        let foot = u16::try_from(foot(model, area.width).len()).unwrap_or(1);
        let head = if area.height >= TALL { head::LINES } else { 1 };
        let rest = area.height - head - foot;
        let events = match model.view.has_events && area.height >= TALL {
            // What the table does not need, and a quarter at least.
            true => {
                let needed = u16::try_from(model.rows.len() + 1).unwrap_or(u16::MAX);
                (rest / 4).clamp(4, 16).max(rest.saturating_sub(needed.max(3)))
            }
            false => 0,
        };
        let mut y = area.y;
        let mut next = |height| {
            let part = Rect { y, height, ..area };
            y += height;
            part
        };
        Some(Self { head: next(head), table: next(rest - events), events: next(events), foot: next(foot) })
    }

    /// Lines of services.
    pub(super) fn page(self, model: &Model) -> usize {
        let lines = match model.view.mode {
            Mode::Detail { .. } | Mode::Help { .. } => self.table.height + self.events.height,
            Mode::Table | Mode::Filter | Mode::Asking(_) => self.table.height,
        };
        usize::from(lines.saturating_sub(1))
    }
}

pub(super) fn frame(model: &Model, now: Now, ink: Ink, area: Rect, buffer: &mut Buffer) {
    let mut sheet = Sheet { buffer, ink };
    let Some(layout) = Layout::of(area, model) else {
        let text = format!("{} columns and {} lines are needed; q quits", LEAST.0, LEAST.1);
        let lines = wrapped(&text, area.width, 0);
        for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
            sheet.put(area.x, y, area.width, line, Paint::Plain);
        }
        return;
    };
    match layout.head.height {
        head::LINES => head::whole(model, layout.head, &mut sheet),
        _ => head::short(model, layout.head, &mut sheet),
    }
    let below = Rect { height: layout.table.height + layout.events.height, ..layout.table };
    match &model.view.mode {
        Mode::Detail { service, from } => {
            let lines = detail::lines(model, service, now);
            paper(service.as_str(), &lines, *from, below, &mut sheet);
        }
        Mode::Help { from } => {
            let lines: Vec<String> = HELP.lines().map(str::to_owned).collect();
            paper("keys", &lines, *from, below, &mut sheet);
        }
        Mode::Table | Mode::Filter | Mode::Asking(_) => {
            table::draw(model, layout.table, &mut sheet);
            events(model, now, layout.events, &mut sheet);
        }
    }
    for ((line, paint), y) in foot(model, area.width).iter().zip(layout.foot.top()..) {
        sheet.put(area.x, y, area.width, line, *paint);
    }
}

/// Cells, and how they are written on.
pub(super) struct Sheet<'b> {
    buffer: &'b mut Buffer,
    pub(super) ink: Ink,
}

impl Sheet<'_> {
    /// Writes at most so many cells, and says how many it wrote.
    pub(super) fn put(&mut self, x: u16, y: u16, width: u16, text: &str, paint: Paint) -> u16 {
        self.put_styled(x, y, width, text, self.ink.style(paint))
    }

    pub(super) fn put_styled(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let text = self.ink.text(text);
        let (end, _) = self.buffer.set_stringn(x, y, text, usize::from(width), style);
        end - x
    }

    pub(super) fn restyle(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area, style);
    }
}

/// A text of its own in the place of the table, from one of its lines on.
fn paper(title: &str, lines: &[String], from: usize, area: Rect, sheet: &mut Sheet<'_>) {
    let lines: Vec<String> = lines.iter().flat_map(|line| wrapped(line, area.width, HANG)).collect();
    let room = usize::from(area.height.saturating_sub(1));
    let from = from.min(lines.len().saturating_sub(room));
    let below = lines.len().saturating_sub(from + room);
    let more = if below > 0 { format!("  {below} lines below: PgDn") } else { String::new() };
    sheet.put(area.x, area.y, area.width, &format!(" {title}{more}"), Paint::Strong);
    sheet.restyle(Rect { height: 1, ..area }, sheet.ink.reversed());
    for (line, y) in lines.iter().skip(from).zip(area.top() + 1..area.bottom()) {
        sheet.put(area.x, y, area.width, line, Paint::Plain);
    }
}

/// The newest entries, the last one at the bottom.
fn events(model: &Model, now: Now, area: Rect, sheet: &mut Sheet<'_>) {
    if area.height == 0 {
        return;
    }
    let rule = "─".repeat(usize::from(area.width));
    sheet.put(area.x, area.y, area.width, &rule, Paint::Faint);
    sheet.put(area.x + 2, area.y, area.width - 2, " events ", Paint::Strong);
    let room = usize::from(area.height - 1);
    let shown: Vec<&EventRecord> = model.events.iter().rev().take(room).collect();
    let whom = shown.iter().map(|event| who(event).chars().count()).max().unwrap_or(0);
    let whom = u16::try_from(whom).unwrap_or(u16::MAX).clamp(8, (area.width / 5).max(8));
    for (event, y) in shown.iter().rev().zip(area.top() + 1..) {
        entry(event, now, whom, Rect { y, height: 1, ..area }, sheet);
    }
}

fn entry(event: &EventRecord, now: Now, whom: u16, line: Rect, sheet: &mut Sheet<'_>) {
    let (age, paint) = (age(event, now), paint(event));
    let mut x = line.x;
    let mut part = |width: u16, text: &str, paint| {
        let left = line.right().saturating_sub(x);
        sheet.put(x, line.y, width.min(left), text, paint);
        x += (width + 1).min(left);
    };
    part(6, &format!("{age:>6}"), Paint::Faint);
    part(whom, &shortened(&who(event), whom), Paint::Plain);
    part(9, &harmless(&event.what), paint);
    let cause = event.cause.as_ref().map(|cause| format!("[{cause}] ")).unwrap_or_default();
    part(
        u16::MAX - 1,
        &harmless(&format!("{cause}{}", event.text)),
        if is_move(event) { paint } else { Paint::Plain },
    );
}

/// How long ago.
pub(super) fn age(event: &EventRecord, now: Now) -> String {
    span(now.wall_us.saturating_sub(event.at_us) / 1_000_000 * 1000).replace("0ms", "now")
}

pub(super) fn paint(event: &EventRecord) -> Paint {
    match &*event.what {
        "ready" => Paint::Good,
        "ended" | "refused" | "warning" => Paint::Doubtful,
        "failed" | "error" => Paint::Bad,
        _ if is_move(event) => Paint::Strong,
        _ => Paint::Plain,
    }
}

fn who(event: &EventRecord) -> String {
    match (&event.service, event.incarnation) {
        (None, _) => "watchdog".to_owned(),
        (Some(service), None) => service.to_string(),
        (Some(service), Some(incarnation)) => format!("{service}#{incarnation}"),
    }
}

/// The last lines: never none, and the cheapest to see at the bottom.
fn foot(model: &Model, width: u16) -> Vec<(String, Paint)> {
    let view = &model.view;
    let one = |text: String, paint| vec![(text, paint)];
    match &view.mode {
        Mode::Asking(action) => return one(format!("{} y/n", action.question()), Paint::Bad),
        Mode::Filter => {
            let text = format!("filter: {}_  Enter: keep it, Esc: all", view.filter);
            return one(text, Paint::Strong);
        }
        Mode::Table | Mode::Detail { .. } | Mode::Help { .. } => {}
    }
    if let Some(notice) = &view.notice {
        let paint = if notice.is_error { Paint::Bad } else { Paint::Strong };
        let lines = notice.text.lines().flat_map(|line| wrapped(&harmless(line), width, 2));
        return lines.take(FOOT).map(|line| (line, paint)).collect();
    }
    let keys = match view.mode {
        Mode::Detail { .. } => "Esc back  ]/[ priority  f freeze  R restart  X stop  Up/Down scroll",
        Mode::Help { .. } => "any other key: back",
        _ if width >= 125 => {
            "? help  q quit  / filter  s/S sort  r reverse  Enter detail  ]/[ priority  f freeze  R restart  X stop  e events  +/- period"
        }
        _ if width >= 100 => {
            "? help  q quit  / filter  s sort  Enter detail  ]/[ priority  f freeze  R restart  X stop  e events"
        }
        _ if width >= 72 => "? help  q quit  / filter  s sort  Enter detail  ]/[ priority  f R X act",
        _ => "? help  q quit  / filter  s sort",
    };
    one(keys.to_owned(), Paint::Faint)
}

/// What is told of the connection, if it is not as it should be.
pub(super) fn link(model: &Model) -> Option<String> {
    match &model.link {
        Link::Fine => None,
        Link::Silent(since) => Some(format!("no answer for {}", span(whole_seconds(*since)))),
        Link::Away(why) => Some(why.clone()),
    }
}

fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() * 1000
}

/// A name within so many cells; of an instance its number is kept.
pub(super) fn shortened(name: &str, width: u16) -> String {
    let width = usize::from(width);
    if name.chars().count() <= width {
        return name.to_owned();
    }
    let tail = name.rfind(['@', '#']).map_or("", |at| &name[at..]);
    let head = width.saturating_sub(tail.chars().count() + 1);
    match head {
        0 => name.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        head => name.chars().take(head).chain(['…']).chain(tail.chars()).collect(),
    }
}

/// A line in pieces of a width, broken at blanks where that is possible; those that follow are indented.
pub(super) fn wrapped(line: &str, width: u16, hang: usize) -> Vec<String> {
    let width = usize::from(width.max(1));
    let indent = " ".repeat(hang.min(width / 3));
    let mut pieces = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    while rest.len() > width {
        // What is indented is not broken within that.
        let blank = rest[..=width].iter().rposition(|c| *c == ' ').filter(|at| *at > width / 2);
        let at = blank.unwrap_or(width);
        pieces.push(rest[..at].iter().collect());
        let tail = rest[at..].iter().skip_while(|c| **c == ' ');
        rest = indent.chars().chain(tail.copied()).collect();
    }
    pieces.push(rest.into_iter().collect());
    pieces
}
