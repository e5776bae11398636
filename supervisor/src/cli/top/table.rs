//! The table of services: which columns there is room for, and a line a service.

use ratatui::layout::Rect;
use watchdog_protocol::resources::LimitKey;

use super::draw::{Sheet, shortened};
use super::model::Model;
use super::rows::{Column, Row};
use crate::cli::figures::span;
use crate::cli::look::Paint;

/// Columns by what they are worth: the first ones are always there.
const WORTH: [Column; 14] = [
    Column::Name,
    Column::Status,
    Column::Cpu,
    Column::Memory,
    Column::Priority,
    Column::CpuLimit,
    Column::MemoryLimit,
    Column::Stalled,
    Column::Since,
    Column::Last,
    Column::Restarts,
    Column::Read,
    Column::Written,
    Column::Tasks,
];

/// Names have between so many cells.
const NAME: (u16, u16) = (10, 64);

/// Words of a reason that has less are no words.
const LAST: u16 = 20;

/// Of this share of its time nobody speaks of a service as stalled.
const CALM: f64 = 10.0;

/// Without the column of names and that of reasons, whose width is by the room there is.
fn width(column: Column) -> u16 {
    match column {
        Column::Name => NAME.0,
        Column::Last => LAST,
        Column::Priority => 4,
        Column::Tasks => 5,
        Column::Since
        | Column::Cpu
        | Column::CpuLimit
        | Column::Memory
        | Column::MemoryLimit
        | Column::Read => 6,
        Column::Written => 7,
        Column::Stalled | Column::Restarts => 8,
        Column::Status => 9,
    }
}

fn is_left(column: Column) -> bool {
    matches!(column, Column::Name | Column::Status | Column::Last)
}

/// Columns and their widths, from left to right.
pub(super) fn columns(room: u16, longest_name: usize) -> Vec<(Column, u16)> {
    let most = (if room < 100 { room / 3 } else { room / 4 }).clamp(NAME.0, NAME.1);
    let name = u16::try_from(longest_name).unwrap_or(u16::MAX).clamp(NAME.0, most);
    let mut taken = 0;
    let mut shown = Vec::new();
    for column in WORTH {
        let width = if column == Column::Name { name } else { width(column) };
        let gap = u16::from(taken > 0);
        if taken + gap + width <= room {
            taken += gap + width;
            shown.push((column, width));
        }
    }
    shown.sort_by_key(|(column, _)| Column::ALL.iter().position(|one| one == column));
    // What is left over is for words, else for names.
    let wide = shown.iter().position(|(column, _)| *column == Column::Last);
    let (_, width) = &mut shown[wide.unwrap_or(0)];
    let more = if wide.is_some() {
        u16::MAX
    } else {
        u16::try_from(longest_name).unwrap_or(u16::MAX).saturating_sub(*width)
    };
    *width += (room - taken).min(more);
    shown
}

pub(super) fn draw(model: &Model, area: Rect, sheet: &mut Sheet<'_>) {
    let longest = model.rows.iter().map(|row| row.name.as_str().len()).max().unwrap_or(0);
    let columns = columns(area.width, longest);
    for_each(&columns, area.x, |column, x, width| {
        let sorted = match model.view.sort == column {
            true if model.view.is_reversed => "▲",
            true => "▼",
            false => "",
        };
        let head = format!("{}{sorted}", column.head());
        sheet.put(x, area.y, width, &aligned(&head, column, width), Paint::Strong);
    });
    sheet.restyle(Rect { height: 1, ..area }, sheet.ink.reversed());
    if model.rows.is_empty() {
        let text = match model.services {
            0 => "no service is registered; `watchdog register FILE` adds one",
            _ => "no name is like this; Esc shows all",
        };
        sheet.put(area.x, area.y + 1, area.width, text, Paint::Faint);
    }
    let chosen = model.chosen();
    let rows = model.rows.iter().enumerate().skip(model.view.top);
    for ((at, row), y) in rows.zip(area.top() + 1..area.bottom()) {
        for_each(&columns, area.x, |column, x, width| {
            let (text, paint) = cell(row, column, width);
            sheet.put(x, y, width, &aligned(&text, column, width), paint);
        });
        if chosen == Some(at) {
            sheet.restyle(Rect { y, height: 1, ..area }, sheet.ink.reversed());
        }
    }
}

fn for_each(columns: &[(Column, u16)], from: u16, mut each: impl FnMut(Column, u16, u16)) {
    let mut x = from;
    for (column, width) in columns {
        each(*column, x, *width);
        x += width + 1;
    }
}

fn aligned(text: &str, column: Column, width: u16) -> String {
    let width = usize::from(width);
    if is_left(column) { text.to_owned() } else { format!("{text:>width$}") }
}

fn cell(row: &Row, column: Column, width: u16) -> (String, Paint) {
    let plain = |text: String| (text, Paint::Plain);
    let maybe = |text: Option<String>| text.map_or_else(|| ("-".to_owned(), Paint::Faint), plain);
    let limit = |text: Option<String>| match text {
        Some(text) if row.is_unheeded => (format!("{text}!"), Paint::Bad),
        text => maybe(text),
    };
    let rate = |rate: Option<f64>| maybe(rate.map(|rate| at_least(row, brief(rate as u64))));
    match column {
        Column::Name => (shortened(row.name.as_str(), width), Paint::Strong),
        Column::Status => (row.status.to_owned(), row.paint),
        Column::Since => plain(span(row.since_ms)),
        Column::Priority if row.is_priority_asked => {
            (row.priority.map(|priority| format!("{priority}*")).unwrap_or_default(), Paint::Doubtful)
        }
        Column::Priority => maybe(row.priority.map(|priority| priority.to_string())),
        Column::Cpu => maybe(row.cpu.map(|cpu| at_least(row, percent(cpu)))),
        Column::CpuLimit => limit(row.cpu_limit.map(|cpu| LimitKey::Cpu.show(cpu))),
        Column::Memory => maybe(row.memory.map(brief)),
        Column::MemoryLimit => limit(row.memory_limit.map(brief)),
        Column::Stalled => match row.stalled {
            Some((what, share)) if share >= 0.5 => {
                let what = if what == "memory" { "mem" } else { what };
                let paint = if share >= CALM { Paint::Doubtful } else { Paint::Plain };
                (format!("{share:.0}% {what}"), paint)
            }
            Some(_) => plain("0%".to_owned()),
            None => maybe(None),
        },
        Column::Read => rate(row.read),
        Column::Written => rate(row.written),
        Column::Tasks => maybe(row.tasks.map(|tasks| tasks.to_string())),
        Column::Restarts if row.restarts == 0 => ("0".to_owned(), Paint::Faint),
        Column::Restarts => plain(row.restarts.to_string()),
        Column::Last => (row.last.clone(), if row.paint == Paint::Bad { Paint::Bad } else { Paint::Plain }),
    }
}

fn at_least(row: &Row, figure: String) -> String {
    if row.at_least { format!("≥{figure}") } else { figure }
}

/// A tenth, as long as there is room for it.
fn percent(percent: f64) -> String {
    if percent < 999.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// `512B`, `1.5K`, `12.4M`, `1023M`: five signs.
pub(super) fn brief(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["K", "M", "G", "T"].into_iter();
    let mut unit = "B";
    while value >= 1024.0
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024.0, next);
    }
    let is_whole = value.fract() == 0.0 || value >= 99.95;
    if is_whole { format!("{value:.0}{unit}") } else { format!("{value:.1}{unit}") }
}
