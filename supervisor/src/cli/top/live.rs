//! The loop: keys, answers, entries of the event log, time; and a frame after what they changed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyEventKind};
use ratatui::layout::Rect;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use watchdog_query::{Changed, QueryError};

use super::asks::{Answer, Asks, Came};
use super::draw::{self, Layout, Now};
use super::ink::Ink;
use super::keys::{Wish, press};
use super::model::{Action, Link, Model, Notice};
use super::screen::{self, Screen};
use super::{Arguments, Column};
use crate::cli::console::Console;
use crate::cli::look::{Look, harmless};
use crate::cli::place::Place;
use crate::cli::report::CliError;
use crate::cli::{status, why};

/// Between two frames that no key asked for.
const FRAME: Duration = Duration::from_millis(100);

/// From the first reading to the second, so that rates are there at once.
const FIRST: Duration = Duration::from_millis(300);

/// A watchdog that has not answered for so long is shown to.
const SILENT: Duration = Duration::from_secs(2);

/// Where nobody says how wide it is.
const WIDTH: usize = 120;

const PLAIN: Look = Look { color: false, width: None };

/// Until the reader goes.
pub(super) async fn run(arguments: Arguments, ink: Ink, console: &Console) -> Result<(), CliError> {
    let io = |what| move |source| CliError::Io { what, source };
    // Whoever is not there is told as by any verb, before the terminal is taken.
    let status = console.ask(async |query| query.status(&[]).await).await?;
    let place = console.place()?;
    let mut top = Top::new(arguments, place);
    top.model.told_status(status, Duration::ZERO);
    let catch = |kind| signal(kind).map_err(io("catch signals"));
    let mut interrupted = catch(SignalKind::interrupt())?;
    let mut terminated = catch(SignalKind::terminate())?;
    let mut hung_up = catch(SignalKind::hangup())?;
    let mut screen = Screen::take(ink.has_color).map_err(io("use the terminal"))?;
    let mut typed = screen::events().map_err(io("read keys"))?;
    top.asks.follow(0);
    let mut draw_at = Instant::now();
    loop {
        top.asks.ask(top.period());
        if draw_at <= Instant::now() {
            top.draw(&mut screen, ink).map_err(io("draw on the terminal"))?;
            draw_at = Instant::now() + Duration::from_secs(1);
        }
        let soon = Instant::now() + FRAME;
        let wake_at = draw_at.min(top.asks.next(top.period()));
        tokio::select! {
            biased;
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            event = typed.recv() => {
                let event = event.expect("it says why it ends").map_err(io("read keys"))?;
                draw_at = Instant::now();
                let wish = match event {
                    Event::Key(key) if key.kind != KeyEventKind::Release => press(&mut top.model, key),
                    _ => Wish::Nothing,
                };
                match wish {
                    Wish::Nothing | Wish::Again => {}
                    Wish::Quit => return Ok(()),
                    Wish::Suspend => screen.suspend().map_err(io("use the terminal"))?,
                    Wish::Redraw => screen.clear().map_err(io("draw on the terminal"))?,
                    Wish::Act(action) => top.asks.act(action),
                    Wish::Explain(service) => top.asks.explain(service),
                }
            }
            answer = top.asks.next_answer() => {
                top.answered(answer);
                draw_at = draw_at.min(soon);
            }
            Some(event) = top.events.recv() => {
                top.asks.heard(&event);
                top.model.told_event(event);
                draw_at = draw_at.min(soon);
            }
            () = tokio::time::sleep_until(wake_at) => {}
        }
    }
}

/// One frame with all services.
pub(super) async fn once(arguments: Arguments, ink: Ink, console: &Console) -> Result<(), CliError> {
    let status = console.ask(async |query| query.status(&[]).await).await?;
    let before = console.ask(async |query| query.usage(&[], false).await).await?;
    let interval = arguments.interval;
    let place = console.place()?;
    let mut top = Top::new(arguments, place);
    let read = Instant::now();
    top.model.told_status(status, Duration::ZERO);
    top.model.told_usage(before);
    let limits = console.ask(async |query| query.limits(&[]).await).await?;
    top.model.limits = Some(limits);
    console
        .ask(async |query| {
            let mut events = query.events(0, 1000, false);
            while let Some(event) = events.next().await? {
                top.model.told_event(event);
            }
            Ok(())
        })
        .await?;
    top.asks.ask_standings();
    if let Some(Answer::Standings(standings)) = top.asks.next_answer().await {
        top.model.told_standings(standings);
    }
    tokio::time::sleep_until(read + interval).await;
    top.model.told_usage(console.ask(async |query| query.usage(&[], false).await).await?);
    top.model.arrange(top.begun.elapsed());
    let width = u16::try_from(console.look.width.unwrap_or(WIDTH)).unwrap_or(u16::MAX);
    // Head, services, ten entries of the log; the foot is for keys, and left out.
    let height = u16::try_from(top.model.rows.len() + 5 + 1 + 11 + 1).unwrap_or(u16::MAX);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    top.model.fit(usize::MAX);
    draw::frame(&top.model, now(), ink, area, &mut buffer);
    let lines = (0..height.saturating_sub(1)).map(|y| {
        let line: String = (0..width).filter_map(|x| Some(buffer.cell((x, y))?.symbol())).collect();
        line.trim_end().to_owned() + "\n"
    });
    console.print(&lines.collect::<String>())
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Now { wall_us: u64::try_from(since).unwrap_or(u64::MAX) }
}

struct Top {
    model: Model,
    asks: Asks,
    events: tokio::sync::mpsc::Receiver<watchdog_protocol::status::EventRecord>,
    place: Place,
    begun: Instant,
}

impl Top {
    fn new(arguments: Arguments, place: Place) -> Self {
        let (asks, events) = Asks::new(place.silent_query(), arguments.manager);
        let model = Model::new(arguments.interval, Column::from(arguments.sort));
        Self { model, asks, events, place, begun: Instant::now() }
    }

    fn period(&self) -> Duration {
        match self.model.rates {
            Some(_) => self.model.view.period,
            None => self.model.view.period.min(FIRST),
        }
    }

    fn draw(&mut self, screen: &mut Screen, ink: Ink) -> std::io::Result<()> {
        self.model.link = match (&self.model.link, self.asks.silence()) {
            (Link::Away(why), _) => Link::Away(why.clone()),
            (_, Some(silence)) if silence >= SILENT => Link::Silent(silence),
            _ => Link::Fine,
        };
        self.model.arrange(self.begun.elapsed());
        screen.draw(|frame| {
            let area = frame.area();
            if let Some(layout) = Layout::of(area, &self.model) {
                let page = layout.page(&self.model);
                self.model.fit(page);
            }
            draw::frame(&self.model, now(), ink, area, frame.buffer_mut());
        })
    }

    fn answered(&mut self, answer: Option<Answer>) {
        match answer {
            // It is followed again when the watchdog answers.
            None => {}
            Some(Answer::Usage(answer)) => self.reached(answer, Model::told_usage),
            Some(Answer::Status(answer)) => {
                let now = self.begun.elapsed();
                self.reached(answer, |model, status| model.told_status(status, now));
            }
            Some(Answer::Limits(answer)) => self.reached(answer, |model, view| model.limits = Some(view)),
            Some(Answer::Standings(standings)) => self.model.told_standings(standings),
            Some(Answer::Why(service, why)) => {
                let lines = match why {
                    Ok(why) => why::text(&why, &PLAIN).trim().lines().map(harmless).collect(),
                    Err(error) => vec![harmless(&error.to_string())],
                };
                self.model.why = Some((service, lines));
            }
            Some(Answer::Acted(action, came)) => self.acted(&action, came),
        }
    }

    fn reached<T>(&mut self, answer: Result<T, QueryError>, tell: impl FnOnce(&mut Model, T)) {
        match answer {
            Ok(told) => {
                tell(&mut self.model, told);
                if matches!(self.model.link, Link::Away(_)) {
                    self.asks.forget();
                }
                self.model.link = Link::Fine;
                self.asks.follow(self.model.events.back().map_or(0, |event| event.number));
            }
            Err(QueryError::Silent { .. }) => {}
            // It is there, and says no: a safe core answers little.
            Err(error @ QueryError::Refused(_)) => {
                let text = one_line(&self.place.explain(error));
                self.model.view.notice = Some(Notice { text, is_error: true });
            }
            Err(error) => self.model.link = Link::Away(one_line(&self.place.explain(error))),
        }
    }

    fn acted(&mut self, action: &Action, came: Result<Came, QueryError>) {
        let came = match (action, came) {
            (Action::Priority { .. }, Ok(Came::Set(outcome))) => match outcome.refused {
                Some((reason, _)) => Err(format!("not done: {}: {reason}", action.words())),
                None => Ok(format!("done: {}", action.words())),
            },
            (_, Ok(Came::Changed(Changed::Status(status)))) => {
                let lines = status.services.iter().map(|service| status::headline(service, &PLAIN));
                Ok(lines.collect::<Vec<_>>().join("\n"))
            }
            (_, Ok(Came::Changed(Changed::Accepted(words)))) => Ok(words),
            (_, Ok(Came::Set(_))) => Ok(format!("done: {}", action.words())),
            (_, Err(error)) => Err(self.place.explain(error).text(&PLAIN)),
        };
        if let Action::Priority { service, to } = action {
            self.model.settled_priority(service, *to, came.is_ok());
        }
        let (text, is_error) = match came {
            Ok(text) => (text, false),
            Err(text) => (text, true),
        };
        self.model.view.notice = Some(Notice { text, is_error });
    }
}

/// Without what to do about it: that is for a command that ended.
fn one_line(error: &CliError) -> String {
    let text = error.text(&PLAIN);
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
