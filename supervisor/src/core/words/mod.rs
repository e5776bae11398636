//! What the core says by `tracing` becomes entries of the event log, when it is a warning or worse.
//!
//! ```text
//! tracing ─┬─► console
//!          └─► Words, a layer, on any thread ── flood: how many ──► channel ─► Said ─► event loop ─► event log
//! ```
//! A broken or hostile thing may make the core say the same all the time: the [`flood`] keeps it from pushing the history
//! out of the log. What the log itself says while it can't be written is left out, or it would say it for ever.

mod flood;

use std::fmt::{self, Write as _};
use std::future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, mpsc};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use self::flood::Flood;
use super::events::Entry;

/// The target of what is not noted.
pub(super) const UNNOTED: &str = "watchdog::unnoted";

/// Words on their way to the event loop: all that a core says at its start. What finds no room is counted.
const WAITING: usize = 64;

/// Characters of an entry. Longer words are cut.
const LONGEST: usize = 1000;

/// Something that was said.
#[derive(Debug, Clone, PartialEq)]
struct Word {
    what: &'static str,
    text: String,
}

/// Where it is said in the code: who says it often has an account of its own.
type Origin = (Option<&'static str>, Option<u32>);

#[derive(Debug)]
struct Shared {
    flood: Mutex<Flood<Origin, Word>>,
    /// Something is held back.
    held: Notify,
    out: mpsc::Sender<Word>,
}

/// The layer.
pub(super) struct Words(Arc<Shared>);

/// What was said, for the event log.
#[derive(Debug)]
pub(super) struct Said {
    shared: Arc<Shared>,
    words: mpsc::Receiver<Word>,
}

/// Both ends.
pub(super) fn channel() -> (Words, Said) {
    let (out, words) = mpsc::channel(WAITING);
    let shared = Arc::new(Shared { flood: Mutex::default(), held: Notify::new(), out });
    (Words(Arc::clone(&shared)), Said { shared, words })
}

/// Whether this entry was said before it became one.
pub(super) fn was_said(what: &str) -> bool {
    [WARNING, ERROR].contains(&what)
}

/// What an entry is that was said as a warning.
const WARNING: &str = "warning";

/// What an entry is that was said as an error.
const ERROR: &str = "error";

impl<S: Subscriber> Layer<S> for Words {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let what = match *metadata.level() {
            Level::ERROR => ERROR,
            Level::WARN => WARNING,
            _ => return,
        };
        if metadata.target() == UNNOTED {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        self.0.take((metadata.file(), metadata.line()), Word { what, text: text.whole() });
    }
}

impl Shared {
    /// Nothing panics while it is held.
    fn flood(&self) -> MutexGuard<'_, Flood<Origin, Word>> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, origin: Origin, word: Word) {
        let noted = self.flood().take(origin, word, Instant::now());
        let is_held = match noted {
            Some((word, before)) => match self.out.try_send(word.with(before)) {
                Ok(()) => false,
                Err(_) => {
                    self.flood().hold(&origin, 1 + before);
                    true
                }
            },
            None => true,
        };
        if is_held {
            self.held.notify_one();
        }
    }
}

impl Said {
    /// The next entry. Cancel safe.
    pub(super) async fn next(&mut self) -> Entry {
        loop {
            let due = self.shared.flood().due(Instant::now());
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                Some(word) = self.words.recv() => return word.entry(),
                () = self.shared.held.notified() => {}
                () = wait => {
                    if let Some((word, held)) = self.shared.flood().overdue(Instant::now()) {
                        return word.with(held).entry();
                    }
                }
            }
        }
    }

    /// What is there without a wait.
    pub(super) fn now(&mut self) -> Option<Entry> {
        self.words.try_recv().ok().map(Word::entry)
    }
}

impl Word {
    /// With how many like it were held back.
    fn with(self, held: u64) -> Self {
        match held {
            0 => self,
            _ => Self { text: format!("{} ({held} more like it were not noted)", self.text), ..self },
        }
    }

    fn entry(self) -> Entry {
        Entry::new(self.what, self.text)
    }
}

/// A message and its fields, as the console shows them.
#[derive(Debug, Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(self) -> String {
        let whole = self.message + &self.fields;
        match whole.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &whole[..end]),
            None => whole,
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Memory takes all that is written to it.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn heard(say: impl FnOnce()) -> Vec<(&'static str, String)> {
        let (words, mut said) = channel();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(words), say);
        std::iter::from_fn(|| said.now()).map(|entry| (entry.what, entry.text)).collect()
    }

    #[test]
    fn warnings_and_errors_are_noted_with_their_fields_from_any_thread() {
        let heard = heard(|| {
            tracing::info!("nobody needs to know");
            tracing::warn!(path = %"/run/a b", "the socket was deleted");
            let mine = tracing::dispatcher::get_default(Clone::clone);
            let other = std::thread::spawn(move || {
                tracing::dispatcher::with_default(&mine, || {
                    tracing::error!(
                        error = &std::io::Error::other("no disk") as &dyn std::error::Error,
                        "lost"
                    );
                });
            });
            other.join().unwrap();
            tracing::warn!(target: UNNOTED, "the log can't be written");
        });
        let expected = [("warning", "the socket was deleted path=/run/a b"), ("error", "lost error=no disk")];
        assert_eq!(heard, expected.map(|(what, text)| (what, text.to_owned())));
    }

    #[test]
    fn what_is_said_over_and_over_is_noted_a_few_times_and_keeps_nobody_else_out() {
        let heard = heard(|| {
            for n in 0..10_000 {
                tracing::warn!("the same, {n}");
            }
            tracing::warn!("another");
        });
        assert!(heard.len() < 10, "{heard:?}");
        assert_eq!(heard.last().unwrap().1, "another");
    }

    #[test]
    fn long_words_are_cut() {
        let heard = heard(|| tracing::warn!("{}", "ü".repeat(5000)));
        assert_eq!(heard[0].1.chars().count(), LONGEST + 1);
    }

    #[test]
    fn what_was_held_back_is_said_in_the_end() {
        let (words, mut said) = channel();
        let origin = (Some("here"), Some(1));
        for n in 0..100 {
            words.0.take(origin, Word { what: WARNING, text: format!("the same, {n}") });
        }
        while said.now().is_some() {}
        let (last, held) = words.0.flood().overdue(Instant::now() + flood::PACE).unwrap();
        assert_eq!((last.text.as_str(), held), ("the same, 99", 100 - u64::from(flood::BURST)));
        assert!(last.with(held).text.ends_with("(95 more like it were not noted)"));
    }
}
