//! What a key does: changes the view, or asks for something. Pure.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use watchdog_protocol::ServiceName;

use super::model::{Action, Mode, Model, Notice, settings_name};
use super::rows::Column;

/// By how much a priority is raised or lowered.
const STEP: u8 = 10;

/// Who has no service in hand is told.
const NOBODY: &str = "no service is chosen: choose one with the arrow keys";

/// From one reading to the next, as `-` and `+` go through them.
const PERIODS: [Duration; 9] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// All keys, for the reader.
pub(super) const HELP: &str = "\
choose      Up Down j k, PgUp PgDn, Home End g G
detail      Enter: one service; Esc: back
filter      / or F4: by a part of the name; Esc: all
sort        s > F6 next column, S < the one before, r reverse
            P by CPU%, M by MEM, N by NAME
priority    ] or F7 raise by 10, [ or F8 lower by 10
freeze      f: all its processes stand still; f again: go on
restart     R asks, then restarts
stop        X or F9 asks, then stops; on one that is down: starts
period      + longer, - shorter
events      e: shown or not
quit        q, F10, Esc, Ctrl-C; Ctrl-Z leaves it for a while

CPU% and CPUMAX are of one processor. CPUMAX and MEMMAX are limits;
with ! one is not in force. PRI is the priority in the settings of
the resource manager; with * it is on its way. STALLED is the share
of time in which something of it waited for a processor, memory or
the disks. A rate with >= is of a service that was restarted.
M is MiB, G GiB. watchdog limits tells what limits are made of.";

/// What is to be done beside what the view shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Leave the terminal to the shell until it is called back.
    Suspend,
    /// Draw all of it anew.
    Redraw,
    Act(Action),
    /// Why it is as it is.
    Explain(ServiceName),
    /// Another period.
    Again,
}

pub(super) fn press(model: &mut Model, key: KeyEvent) -> Wish {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Wish::Quit,
            KeyCode::Char('z') => Wish::Suspend,
            KeyCode::Char('l') => Wish::Redraw,
            _ => Wish::Nothing,
        };
    }
    model.view.notice = None;
    match model.view.mode.clone() {
        Mode::Table => in_table(model, key.code),
        Mode::Filter => in_filter(model, key.code),
        Mode::Asking(action) => in_question(model, action, key.code),
        Mode::Detail { service, from } => {
            let at = scrolled(from, model.view.page, key.code);
            match at {
                Some(from) => model.view.mode = Mode::Detail { service, from },
                None if is_back(key.code) => model.view.mode = Mode::Table,
                // What can be done to the service can be done here, too.
                None => return on_service(model, key.code),
            }
            Wish::Nothing
        }
        Mode::Help { from } => {
            let at = scrolled(from, model.view.page, key.code);
            model.view.mode = at.map_or(Mode::Table, |from| Mode::Help { from });
            Wish::Nothing
        }
    }
}

fn in_table(model: &mut Model, key: KeyCode) -> Wish {
    let page = model.view.page;
    match key {
        KeyCode::Char('q') | KeyCode::F(10) => return Wish::Quit,
        KeyCode::Esc if !model.view.filter.is_empty() => model.view.filter.clear(),
        KeyCode::Esc => return Wish::Quit,
        KeyCode::Up | KeyCode::Char('k') => go(model, |row| row.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => go(model, |row| row + 1),
        KeyCode::PageUp => go(model, |row| row.saturating_sub(page)),
        KeyCode::PageDown => go(model, |row| row + page),
        KeyCode::Home | KeyCode::Char('g') => model.choose(0),
        KeyCode::End | KeyCode::Char('G') => model.choose(usize::MAX),
        KeyCode::Char('s' | '>') | KeyCode::F(6) => model.view.sort = model.view.sort.after(1),
        KeyCode::Char('S' | '<') => model.view.sort = model.view.sort.after(-1),
        KeyCode::Char('r') => model.view.is_reversed = !model.view.is_reversed,
        KeyCode::Char('P') => (model.view.sort, model.view.is_reversed) = (Column::Cpu, false),
        KeyCode::Char('M') => (model.view.sort, model.view.is_reversed) = (Column::Memory, false),
        KeyCode::Char('N') => (model.view.sort, model.view.is_reversed) = (Column::Name, false),
        KeyCode::Char('/' | '\\') | KeyCode::F(4) => model.view.mode = Mode::Filter,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => model.view.mode = Mode::Help { from: 0 },
        KeyCode::Char('e') => model.view.has_events = !model.view.has_events,
        KeyCode::Char('+') => return period(model, |period| PERIODS.into_iter().find(|next| *next > period)),
        KeyCode::Char('-') => {
            return period(model, |period| PERIODS.into_iter().rev().find(|next| *next < period));
        }
        KeyCode::Enter => match model.chosen_row() {
            Some(row) => {
                let service = row.name.clone();
                model.view.mode = Mode::Detail { service: service.clone(), from: 0 };
                return Wish::Explain(service);
            }
            None => nobody(model),
        },
        key => return on_service(model, key),
    }
    Wish::Nothing
}

fn on_service(model: &mut Model, key: KeyCode) -> Wish {
    let is_one = matches!(
        key,
        KeyCode::Char(']' | '[' | 'f' | 'R' | 'X') | KeyCode::F(7) | KeyCode::F(8) | KeyCode::F(9)
    );
    if !is_one {
        return Wish::Nothing;
    }
    let Some(row) = model.chosen_row() else {
        nobody(model);
        return Wish::Nothing;
    };
    let name = row.name.clone();
    match key {
        KeyCode::Char(']') | KeyCode::F(7) => {
            prefer(model, |priority| priority.saturating_add(STEP).min(100))
        }
        KeyCode::Char('[') | KeyCode::F(8) => prefer(model, |priority| priority.saturating_sub(STEP)),
        KeyCode::Char('f') => {
            Wish::Act(if row.is_frozen { Action::Thaw(name) } else { Action::Freeze(name) })
        }
        KeyCode::Char('R') => ask(model, Action::Restart(name)),
        _ if row.is_up => ask(model, Action::Stop(name)),
        _ => Wish::Act(Action::Start(name)),
    }
}

fn in_filter(model: &mut Model, key: KeyCode) -> Wish {
    match key {
        KeyCode::Char(c) => model.view.filter.push(c),
        KeyCode::Backspace => {
            model.view.filter.pop();
        }
        KeyCode::Enter => model.view.mode = Mode::Table,
        KeyCode::Esc => {
            model.view.filter.clear();
            model.view.mode = Mode::Table;
        }
        KeyCode::Up => go(model, |row| row.saturating_sub(1)),
        KeyCode::Down => go(model, |row| row + 1),
        _ => {}
    }
    Wish::Nothing
}

/// Only a yes is one.
fn in_question(model: &mut Model, action: Action, key: KeyCode) -> Wish {
    model.view.mode = Mode::Table;
    match key {
        KeyCode::Char('y' | 'Y') => Wish::Act(action),
        _ => {
            let text = format!("nothing was done: {}", action.words());
            model.view.notice = Some(Notice { text, is_error: false });
            Wish::Nothing
        }
    }
}

/// The first key chooses who is there; the next ones go on from it.
fn go(model: &mut Model, to: impl Fn(usize) -> usize) {
    match model.chosen() {
        Some(row) => model.choose(to(row)),
        None => model.choose(model.view.row.max(model.view.top)),
    }
}

fn scrolled(from: usize, page: usize, key: KeyCode) -> Option<usize> {
    Some(match key {
        KeyCode::Up | KeyCode::Char('k') => from.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => from + 1,
        KeyCode::PageUp => from.saturating_sub(page),
        KeyCode::PageDown | KeyCode::Char(' ') => from + page,
        KeyCode::Home | KeyCode::Char('g') => 0,
        _ => return None,
    })
}

fn is_back(key: KeyCode) -> bool {
    matches!(key, KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') | KeyCode::F(10))
}

fn ask(model: &mut Model, action: Action) -> Wish {
    model.view.mode = Mode::Asking(action);
    Wish::Nothing
}

fn prefer(model: &mut Model, to: impl Fn(u8) -> u8) -> Wish {
    let Some(row) = model.chosen_row() else { return Wish::Nothing };
    let Some(priority) = row.priority else {
        let why = model.no_standings.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let text = format!("the priority of {} is not known{why}", row.name);
        model.view.notice = Some(Notice { text, is_error: true });
        return Wish::Nothing;
    };
    let (service, to) = (settings_name(&row.name).to_owned(), to(priority));
    if to == priority {
        let text = format!("{} has priority {to}, and there is none beyond", row.name);
        model.view.notice = Some(Notice { text, is_error: false });
        return Wish::Nothing;
    }
    model.asked_priority(&service, to);
    Wish::Act(Action::Priority { service, to })
}

fn nobody(model: &mut Model) {
    model.view.notice = Some(Notice { text: NOBODY.to_owned(), is_error: false });
}

fn period(model: &mut Model, next: impl Fn(Duration) -> Option<Duration>) -> Wish {
    match next(model.view.period) {
        Some(period) => {
            model.view.period = period;
            Wish::Again
        }
        None => Wish::Nothing,
    }
}
