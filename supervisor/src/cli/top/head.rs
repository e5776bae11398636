//! The lines at the top: the machine, and how many services are how.

use ratatui::layout::Rect;
use watchdog_protocol::usage::MachineUsage;

use super::draw::{Sheet, link};
use super::model::Model;
use super::rows::Column;
use crate::cli::figures::{count, size, span};
use crate::cli::look::{Paint, harmless};

/// Of the whole head.
pub(super) const LINES: u16 = 5;

/// Above these shares of what there is.
const BUSY: f64 = 0.6;
const FULL: f64 = 0.85;

/// Of this share of the time the machine stands still nobody speaks.
const CALM: f64 = 0.1;

/// Words that bars begin with.
const WORD: u16 = 8;

/// One bar: its share of the whole, and what that is in figures.
struct Bar {
    word: &'static str,
    share: Option<f64>,
    figures: String,
    /// Above these it is doubtful, then bad.
    bounds: (f64, f64),
}

pub(super) fn whole(model: &Model, area: Rect, sheet: &mut Sheet<'_>) {
    first(model, area, sheet);
    let left = area.width * 3 / 5;
    let right = Rect { x: area.x + left + 2, width: area.width - left - 2, ..area };
    let use_of = [Some(cpu(model)), Some(memory(model)), swap(model)];
    for (bar, y) in use_of.iter().zip(area.top() + 1..) {
        if let Some(bar) = bar {
            draw(bar, Rect { y, width: left, height: 1, ..area }, sheet);
        }
    }
    for (bar, y) in stalls(model).iter().zip(area.top() + 1..) {
        draw(bar, Rect { y, height: 1, ..right }, sheet);
    }
    let y = area.bottom() - 1;
    let mut text = services(model);
    if let Some(limits) = &model.limits {
        text += &format!("   limits: {}", harmless(&limits.back_end));
    }
    let written = sheet.put(area.x, y, area.width, &text, Paint::Plain);
    let mut right = Vec::new();
    // Where its column may be missing.
    if ![Column::Name, Column::Status, Column::Cpu, Column::Memory].contains(&model.view.sort) {
        let way = if model.view.is_reversed { "▲" } else { "▼" };
        right.push(format!("by {} {way}", model.view.sort.head()));
    }
    let (top, page, all) = (model.view.top, model.view.page, model.rows.len());
    if page < all {
        right.push(format!("{} to {} of {all}", top + 1, (top + page).min(all)));
    }
    let right = right.join(", ");
    let at = area.width.saturating_sub(u16::try_from(right.chars().count()).unwrap_or(u16::MAX));
    if written + 2 < at {
        sheet.put(area.x + at, y, area.width - at, &right, Paint::Faint);
    }
}

/// One line of figures.
pub(super) fn short(model: &Model, area: Rect, sheet: &mut Sheet<'_>) {
    if let Some(link) = link(model) {
        sheet.put(area.x, area.y, area.width, &harmless(&link), Paint::Bad);
        sheet.restyle(area, sheet.ink.reversed());
        return;
    }
    let known = [cpu(model), memory(model)].into_iter().filter(|bar| bar.share.is_some());
    let figures: Vec<String> = known.map(|bar| format!("{} {}", bar.word, bar.figures.trim())).collect();
    let text = format!("{}  {}", figures.join("  "), services(model));
    sheet.put(area.x, area.y, area.width, &text, Paint::Plain);
}

fn first(model: &Model, area: Rect, sheet: &mut Sheet<'_>) {
    let line = Rect { height: 1, ..area };
    if let Some(link) = link(model) {
        let text = format!("watchdog: {}", harmless(&link));
        sheet.put(area.x, area.y, area.width, &text, Paint::Bad);
        sheet.restyle(line, sheet.ink.reversed());
        return;
    }
    let mut text = "watchdog".to_owned();
    if let Some(status) = model.status() {
        text += &format!(" up {}", span(status.watchdog.up_ms));
        if status.watchdog.cores > 1 {
            text += &format!(", {} cores since", status.watchdog.cores);
        }
        if status.watchdog.stopping {
            text += ", shutting down";
        }
    }
    if let Some(usage) = model.usage() {
        text += &format!("   {}", count(u64::from(usage.machine.processors), "processor"));
        if let Some([one, five, fifteen]) = usage.machine.load {
            text += &format!(", load {one:.2} {five:.2} {fifteen:.2}");
        }
    }
    sheet.put(area.x, area.y, area.width, &text, Paint::Strong);
    let period = format!("every {}", every(model));
    let at = area.width.saturating_sub(u16::try_from(period.len()).unwrap_or(u16::MAX));
    sheet.put(area.x + at, area.y, area.width - at, &period, Paint::Faint);
}

fn every(model: &Model) -> String {
    span(u64::try_from(model.view.period.as_millis()).unwrap_or(u64::MAX))
}

fn machine(model: &Model) -> Option<&MachineUsage> {
    Some(&model.usage()?.machine)
}

fn cpu(model: &Model) -> Bar {
    let busy = model.rates.as_ref().and_then(|rates| rates.machine.cpu_percent);
    let processors = machine(model).map_or(1, |machine| machine.processors.max(1));
    let share = busy.map(|percent| percent / 100.0 / f64::from(processors));
    let figures = share.map(|share| format!("{:.0}%", share * 100.0));
    Bar { word: "cpu", share, figures: figures.unwrap_or_default(), bounds: (BUSY, FULL) }
}

fn memory(model: &Model) -> Bar {
    let known = machine(model).and_then(|machine| machine.memory.zip(machine.available));
    let used = known.map(|(all, available)| (all.saturating_sub(available), all));
    of("memory", used)
}

/// `None`: there is no swap.
fn swap(model: &Model) -> Option<Bar> {
    let (all, free) = machine(model).and_then(|machine| machine.swap.zip(machine.swap_free))?;
    (all > 0).then(|| of("swap", Some((all.saturating_sub(free), all))))
}

fn of(word: &'static str, used: Option<(u64, u64)>) -> Bar {
    let share = used.map(|(used, all)| used as f64 / all.max(1) as f64);
    let figures = used.map(|(used, all)| format!("{} of {}", size(used), size(all)));
    Bar { word, share, figures: figures.unwrap_or_default(), bounds: (BUSY, FULL) }
}

/// The shares of time in which something on the machine stood still.
fn stalls(model: &Model) -> [Bar; 3] {
    let stalled = model.rates.as_ref().map(|rates| rates.machine.stalled).unwrap_or_default();
    let known = [("cpu", stalled.cpu_some), ("memory", stalled.memory_some), ("io", stalled.io_some)];
    let words = [("cpu", "stalled"), ("memory", ""), ("io", "")];
    known.map(|(what, percent)| Bar {
        word: words.into_iter().find(|(of, _)| *of == what).map_or("", |(_, word)| word),
        share: percent.map(|percent| percent / 100.0),
        figures: percent.map(|percent| format!("{percent:.0}% {what}")).unwrap_or_default(),
        bounds: (CALM, 0.4),
    })
}

fn draw(bar: &Bar, area: Rect, sheet: &mut Sheet<'_>) {
    // What stands behind a bar has one width, so that bars end below each other.
    let behind = if area.width >= 44 { 20 } else { 11 };
    sheet.put(area.x, area.y, WORD, bar.word, Paint::Plain);
    let cells = area.width.saturating_sub(WORD + behind + 3);
    let x = area.x + WORD;
    let Some(share) = bar.share else {
        sheet.put(x, area.y, 3 + cells, " - ", Paint::Faint);
        return;
    };
    let paint = match share {
        share if share >= bar.bounds.1 => Paint::Bad,
        share if share >= bar.bounds.0 => Paint::Doubtful,
        _ => Paint::Good,
    };
    sheet.put(x, area.y, 1, "[", Paint::Faint);
    let filled = sheet.ink.bar(share, cells);
    sheet.put(x + 1, area.y, cells, &filled, paint);
    sheet.put(x + 1 + cells, area.y, 1, "]", Paint::Faint);
    sheet.put(x + 3 + cells, area.y, behind, &bar.figures, Paint::Plain);
}

/// How many there are, and how many are how: what is worst first.
fn services(model: &Model) -> String {
    let mut counts: Vec<(&'static str, u8, usize)> = Vec::new();
    for row in &model.rows {
        match counts.iter_mut().find(|(word, ..)| *word == row.status) {
            Some((.., count)) => *count += 1,
            None => counts.push((row.status, row.severity(), 1)),
        }
    }
    counts.sort_by(|one, other| other.1.cmp(&one.1).then(other.2.cmp(&one.2)).then(one.0.cmp(other.0)));
    let parts: Vec<String> = counts.iter().map(|(word, _, count)| format!("{count} {word}")).collect();
    let head = match model.view.filter.as_str() {
        "" => count(model.services as u64, "service"),
        filter => format!(
            "{} of {} like `{}`",
            model.rows.len(),
            count(model.services as u64, "service"),
            harmless(filter)
        ),
    };
    if parts.is_empty() { head } else { format!("{head}: {}", parts.join(", ")) }
}
