//! The terminal: taken, and given back as it was on every way out.

use std::io::{self, Stdout};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use tokio::sync::mpsc;

/// Keys that were pressed and not yet looked at: more than a person types while a frame is drawn.
const KEYS: usize = 64;

/// Dropping it gives the terminal back; a panic does before it is told.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub(super) fn take(has_color: bool) -> io::Result<Self> {
        // What the command line says of colour holds; crossterm looks at NO_COLOR by itself.
        force_color_output(has_color);
        // Beside the terminal it takes the hook of panics.
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                // Half of it may be taken.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(frame).map(drop)
    }

    /// The next frame is drawn whole, whatever is there.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Leaves the terminal to the shell, and takes it again when the shell calls us back.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        ratatui::try_restore()?;
        // As the terminal does it: the whole group, with whoever is beside us in a pipeline.
        kill(Pid::from_raw(0), Signal::SIGTSTP)?;
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone is as it was.
        let _ = ratatui::try_restore();
    }
}

/// What is typed, and changes of the terminal's size, as they come. The thread that reads is not waited for: it ends with
/// the process, and nothing of it is to be kept.
pub(super) fn events() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel(KEYS);
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let event = event::read();
            let is_end = event.is_err();
            if sender.blocking_send(event).is_err() || is_end {
                return;
            }
        }
    })?;
    Ok(receiver)
}
