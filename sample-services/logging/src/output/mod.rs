//! [`Outputs`]: each has a queue and a thread of its own, so that none waits for another, nor the intake for any.
//!
//! ```text
//! parcel ─┬─► queue ─► thread ─► FileSink ─► records/counter.jsonl
//!         ├─► queue ─► thread ─► ConsoleSink, JournalSink
//!         ├─► otlp: queues and a thread of its own kind
//!         ├   prometheus takes none: it serves metrics
//!         └─► queue, full ─► dropped, counted, and said in that output when there is room again
//! ```
//! A message of a lane is done when the next one is asked for. So that a kill loses nothing, the intake waits before
//! that until outputs that keep what they get have written it ([`Outputs::settle`]), as long as they are no burden to
//! the others: [`patience`] has the rule.

mod backoff;
mod console;
mod file;
mod journal;
mod patience;
mod queue;
mod runner;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout_at;
use watchdog_service::ServiceName;

pub(crate) use self::backoff::Backoff;
use self::console::ConsoleSink;
use self::file::FileSink;
use self::journal::JournalSink;
use self::patience::Patience;
use self::queue::Queue;
use crate::format::Format;
use crate::metrics::Source;
use crate::otlp::Exporter;
use crate::parcel::Parcel;
use crate::scrape::Scraped;
use crate::settings::OutputSettings;

/// How long an output that is configured no more has for what it still holds.
const RETIREMENT: Duration = Duration::from_secs(30);

/// Where records end up. It lives on a thread of its own, where it may block.
pub(crate) trait Sink: Send {
    /// Writes what is in the load, and marks each item that is done.
    ///
    /// # Errors
    /// Why some are not done: they come again, with what has come since, after a pause that grows from 100 ms to 30 s.
    fn write(&mut self, load: &mut Load) -> Result<(), SinkError>;

    /// Takes other settings of its own kind, before what is handed over after them.
    fn configure(&mut self, settings: &OutputSettings);
}

/// What waits to be written, the oldest first.
pub(crate) type Load = VecDeque<Item>;

/// One parcel in a load.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) parcel: Arc<Parcel>,
    /// How many bytes of its lines are written already, by a sink that writes in parts.
    pub(crate) from: usize,
    /// It is written, or needs not be: it does not come again.
    pub(crate) is_done: bool,
    /// What it counts for, whatever the sink has made of it; and its records.
    weight: usize,
    records: u64,
}

/// Why a sink can't write, for the operator: what it did, with what, and what the system said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SinkError(pub(crate) String);

/// What the threads of outputs wake the intake for.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// One of them has written all it was handed.
    settled: Notify,
    /// One of them works, or does not, where it was otherwise before.
    changed: Notify,
}

impl Board {
    /// The health of an output may be another one.
    pub(crate) fn tell_change(&self) {
        self.changed.notify_one();
    }

    /// Waits until it may be. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What came of the records that an output was handed since it was started. Of some a collector does not say whose they
/// were.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OutputCounts {
    pub(crate) written: BTreeMap<Option<ServiceName>, u64>,
    /// By reason.
    pub(crate) dropped: BTreeMap<(Option<ServiceName>, &'static str), u64>,
    /// Neither yet.
    pub(crate) waiting: u64,
}

/// All outputs.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// What relative paths are below.
    folder: PathBuf,
    /// Of metrics.
    source: Source,
    running: BTreeMap<String, Output>,
    /// Configured no more, and not done yet.
    retired: Vec<Output>,
    board: Arc<Board>,
}

#[derive(Debug)]
struct Output {
    name: String,
    settings: OutputSettings,
    drive: Drive,
}

/// What brings records out.
#[derive(Debug)]
enum Drive {
    /// A sink, on a thread that takes from a queue.
    Sink { queue: Arc<Queue>, thread: JoinHandle<()>, patience: Patience },
    /// Queues and threads of its own.
    Otlp(Exporter),
    /// No records: it is asked for metrics.
    Prometheus(Scraped),
}

impl Item {
    fn new(parcel: Arc<Parcel>) -> Self {
        let (weight, records) = (parcel.weight(), parcel.len());
        Self { parcel, from: 0, is_done: false, weight, records }
    }
}

impl Outputs {
    pub(crate) fn new(folder: PathBuf, source: Source) -> Self {
        Self { folder, source, running: BTreeMap::new(), retired: Vec::new(), board: Arc::default() }
    }

    /// Makes it these outputs. One that stays of its kind keeps its thread and its queue.
    pub(crate) fn configure(&mut self, wanted: &BTreeMap<String, OutputSettings>) {
        let now = Instant::now();
        let gone = self.running.extract_if(.., |name, output| {
            wanted.get(name).is_none_or(|settings| !settings.is_kind_of(&output.settings))
        });
        for (_, output) in gone {
            output.stop(now + RETIREMENT);
            self.retired.push(output);
        }
        self.retired.retain(|output| !output.is_finished());
        for (name, settings) in wanted {
            match self.running.get_mut(name) {
                Some(output) if output.settings == *settings => {}
                Some(output) => {
                    output.order(settings.clone());
                }
                None => match self.start(name, settings) {
                    Ok(output) => drop(self.running.insert(name.clone(), output)),
                    Err(error) => tracing::error!(output = name, %error, "no thread for the output"),
                },
            }
        }
    }

    fn start(&self, name: &str, settings: &OutputSettings) -> std::io::Result<Output> {
        let drive = match settings {
            OutputSettings::File(settings) => {
                let (folder, settings) = (self.folder.clone(), settings.clone());
                self.drive(name, move || Box::new(FileSink::new(folder, &settings)))?
            }
            OutputSettings::Console(settings) => {
                let settings = settings.clone();
                self.drive(name, move || Box::new(ConsoleSink::new(&settings)))?
            }
            OutputSettings::Journald(settings) => {
                let settings = settings.clone();
                self.drive(name, move || Box::new(JournalSink::new(&settings)))?
            }
            OutputSettings::Otlp(settings) => {
                let config = settings.config().map_err(std::io::Error::other)?;
                Drive::Otlp(Exporter::start(config, &self.board, &self.source)?)
            }
            OutputSettings::Prometheus(settings) => {
                Drive::Prometheus(Scraped::start(settings.listen(), &self.board, &self.source)?)
            }
        };
        Ok(Output { name: name.to_owned(), settings: settings.clone(), drive })
    }

    /// The sink is made on its thread, for that may block.
    fn drive(
        &self,
        name: &str,
        sink: impl FnOnce() -> Box<dyn Sink> + Send + 'static,
    ) -> std::io::Result<Drive> {
        let queue = Arc::new(Queue::new(name.to_owned(), Arc::clone(&self.board)));
        let mine = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name(format!("output-{name}"))
            .spawn(move || runner::run(&mine, &mut *sink()))?;
        Ok(Drive::Sink { queue, thread, patience: Patience::new(Instant::now()) })
    }

    /// Hands a parcel to every output. Never waits: an output without room drops it.
    pub(crate) fn hand(&self, parcel: Parcel) {
        let parcel = Arc::new(parcel);
        for output in self.running.values() {
            // Here, so that the wait for an output is that for its file and nothing else.
            if let Some(format) = output.format() {
                parcel.lines(format);
            }
            match &output.drive {
                Drive::Sink { queue, .. } => queue.push(Arc::clone(&parcel)),
                Drive::Otlp(exporter) => exporter.push(&parcel),
                Drive::Prometheus(_) => {}
            }
        }
    }

    /// Waits until the outputs that keep what they get have written all they were handed, as far as patience goes.
    ///
    /// Cancel safe.
    pub(crate) async fn settle(&mut self) {
        for output in self.running.values_mut().filter(|output| output.settings.keeps()) {
            let Drive::Sink { queue, patience, .. } = &mut output.drive else { continue };
            if queue.is_settled() {
                continue;
            }
            let began = Instant::now();
            let Some(deadline) = patience.until(began) else { continue };
            let settled = async {
                while !queue.is_settled() {
                    self.board.settled.notified().await;
                }
            };
            if timeout_at(deadline.into(), settled).await.is_err() {
                queue.run_late();
            }
            patience.spent(began, Instant::now());
        }
    }

    /// Waits until the health of an output may be another one. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.board.changed().await;
    }

    /// What came of all that was handed over, by output; of those that take records.
    pub(crate) fn counts(&self) -> BTreeMap<String, OutputCounts> {
        let counts = self.running.iter().filter_map(|(name, output)| {
            let counts = match &output.drive {
                Drive::Sink { queue, .. } => queue.counts(),
                Drive::Otlp(exporter) => exporter.report().counts(),
                Drive::Prometheus(_) => return None,
            };
            Some((name.clone(), counts))
        });
        counts.collect()
    }

    /// What is wrong with outputs; `None`: nothing.
    pub(crate) fn trouble(&self) -> Option<String> {
        let troubles: Vec<_> = self.running.values().filter_map(Output::trouble).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Ends all outputs: each has until the deadline to write what it holds. What it can't is counted as dropped.
    pub(crate) async fn stop(self, deadline: Instant) {
        /// A thread does not tell that it is over.
        const LOOK: Duration = Duration::from_millis(5);
        let all: Vec<_> = self.running.into_values().chain(self.retired).collect();
        for output in &all {
            output.stop(deadline);
        }
        for output in all {
            // Beyond the deadline it is the system that holds it, and it ends with the process.
            while !output.is_finished() && Instant::now() < deadline + LOOK * 20 {
                tokio::time::sleep(LOOK).await;
            }
            output.report();
        }
    }
}

impl Output {
    /// The lines it asks for.
    fn format(&self) -> Option<Format> {
        match &self.settings {
            OutputSettings::File(settings) => Some(settings.format.into()),
            OutputSettings::Console(settings) => Some(console::format(settings)),
            OutputSettings::Journald(_) => Some(Format::Journal),
            OutputSettings::Otlp(_) | OutputSettings::Prometheus(_) => None,
        }
    }

    /// Takes other settings of its kind.
    fn order(&mut self, settings: OutputSettings) {
        match (&self.drive, &settings) {
            (Drive::Sink { queue, .. }, _) => queue.order(settings.clone()),
            (Drive::Otlp(exporter), OutputSettings::Otlp(settings)) => {
                exporter.configure(settings.config().expect("checked when it was read"));
            }
            (Drive::Prometheus(scraped), OutputSettings::Prometheus(settings)) => {
                scraped.configure(settings.listen());
            }
            (Drive::Otlp(_) | Drive::Prometheus(_), _) => {
                unreachable!("one of another kind is another output")
            }
        }
        self.settings = settings;
    }

    /// Nothing more comes. What waits may go until the deadline.
    fn stop(&self, deadline: Instant) {
        match &self.drive {
            Drive::Sink { queue, .. } => queue.stop(deadline),
            Drive::Otlp(exporter) => exporter.stop(deadline),
            Drive::Prometheus(scraped) => scraped.stop(),
        }
    }

    fn is_finished(&self) -> bool {
        match &self.drive {
            Drive::Sink { thread, .. } => thread.is_finished(),
            Drive::Otlp(exporter) => exporter.is_finished(),
            Drive::Prometheus(scraped) => scraped.is_finished(),
        }
    }

    fn trouble(&self) -> Option<String> {
        match &self.drive {
            Drive::Sink { queue, .. } => queue.trouble(),
            Drive::Otlp(exporter) => {
                exporter.report().trouble.map(|trouble| format!("output `{}`: {trouble}", self.name))
            }
            Drive::Prometheus(scraped) => {
                scraped.trouble().map(|trouble| format!("output `{}`: {trouble}", self.name))
            }
        }
    }

    /// Says at the end what came of all that was handed over.
    fn report(&self) {
        match &self.drive {
            Drive::Sink { queue, .. } => queue.report(),
            Drive::Otlp(exporter) => exporter.report().say(&self.name),
            Drive::Prometheus(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
