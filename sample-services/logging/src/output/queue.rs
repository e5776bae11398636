//! [`Queue`]: what waits for one output, bounded by bytes, and how that output is.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use watchdog_service::ServiceName;

use super::{Board, Item, Load, OutputCounts};
use crate::now;
use crate::parcel::{DroppedBy, Gap, Parcel};
use crate::settings::OutputSettings;
use watchdog_service::log::Batch;

/// What may wait for one output: some 50,000 records, so that a pause of a second costs a busy host nothing.
const ROOM: usize = 16 << 20;

/// What is taken at once: a chunk that a file is written in, and not so much that a stop has to wait for it.
const LOAD: usize = 1 << 20;

/// Between two tries of a sink that fails while it is to stop.
const LAST_TRIES: Duration = Duration::from_millis(100);

/// Why an output dropped records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// More waited than may.
    Full,
    /// It had to stop before they were written.
    Stopped,
}

impl Reason {
    /// As records and metrics say it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "queue-full",
            Self::Stopped => "stopped",
        }
    }
}

/// What waits for one output. Shared by the intake, which pushes, and the output's thread, which takes.
#[derive(Debug)]
pub(super) struct Queue {
    name: String,
    board: Arc<Board>,
    state: Mutex<State>,
    /// There is something for the thread to do.
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Load,
    /// Of all that waits or is in the thread's hands.
    bytes: usize,
    /// How many parcels that is, and records in them.
    open: usize,
    records: u64,
    order: Option<OutputSettings>,
    /// Until when it may go on.
    stop: Option<Instant>,
    /// Why the last try failed.
    failure: Option<String>,
    /// It did not keep up: nobody waits for it until it has written all.
    is_late: bool,
    /// Something was dropped since it had last written all.
    is_overrun: bool,
    written: BTreeMap<ServiceName, u64>,
    lost: BTreeMap<(ServiceName, Reason), Lost>,
}

/// What was dropped of one service for one reason.
#[derive(Debug, Default)]
struct Lost {
    total: u64,
    /// Of these, what the output does not say yet.
    unsaid: u64,
    /// The last process that lost some.
    incarnation: u64,
    pid: u32,
}

/// What the thread is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// There is something in the load.
    Write,
    /// First take other settings.
    Configure(OutputSettings),
    /// All is written, or it is too late.
    End,
}

impl Queue {
    pub(super) fn new(name: String, board: Arc<Board>) -> Self {
        Self { name, board, state: Mutex::default(), filled: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }

    /// Puts a parcel in, or drops it when there is no room. One parcel always finds room in an empty queue.
    pub(super) fn push(&self, parcel: Arc<Parcel>) {
        let mut state = self.state();
        let reason = match state.stop {
            Some(_) => Some(Reason::Stopped),
            None if state.bytes > 0 && state.bytes + parcel.weight() > ROOM => Some(Reason::Full),
            None => None,
        };
        if let Some(reason) = reason {
            let was_overrun = std::mem::replace(&mut state.is_overrun, true);
            state.lose(&parcel, reason);
            if !was_overrun {
                drop(state);
                self.board.changed.notify_one();
            }
            return;
        }
        for gap in state.gaps(&self.name) {
            state.put(Item::new(Arc::new(gap)));
        }
        state.put(Item::new(parcel));
        drop(state);
        self.filled.notify_one();
    }

    /// The thread's next task: fills the load up, waits while it is empty.
    pub(super) fn next(&self, load: &mut Load) -> Next {
        let mut state = self.state();
        loop {
            if let Some(settings) = state.order.take() {
                return Next::Configure(settings);
            }
            if state.stop.is_some_and(|deadline| deadline <= Instant::now()) {
                return Next::End;
            }
            let mut held: usize = load.iter().map(|item| item.weight).sum();
            while held < LOAD
                && let Some(item) = state.waiting.pop_front()
            {
                held += item.weight;
                load.push_back(item);
            }
            if !load.is_empty() {
                return Next::Write;
            }
            if state.stop.is_some() {
                return Next::End;
            }
            state = self.filled.wait(state).expect("nothing panics while it is held");
        }
    }

    /// The thread has written these of its load.
    pub(super) fn finish<'i>(&self, done: impl Iterator<Item = &'i Item>) {
        let mut state = self.state();
        for item in done {
            state.take_out(item);
            match state.written.get_mut(&item.parcel.service) {
                Some(written) => *written += item.records,
                None => drop(state.written.insert(item.parcel.service.clone(), item.records)),
            }
        }
        self.look(state);
    }

    /// The last try succeeded.
    pub(super) fn works(&self) {
        let mut state = self.state();
        if state.failure.take().is_none() {
            return;
        }
        let dropped = state.dropped();
        drop(state);
        tracing::info!(output = self.name, dropped, "the output works again");
        self.board.changed.notify_one();
    }

    /// The last try failed: leaves the sink alone for a while, or until there are other settings or a stop.
    pub(super) fn fails(&self, reason: String, pause: Duration) {
        let mut state = self.state();
        if state.failure.as_ref() != Some(&reason) {
            tracing::warn!(output = self.name, reason, "the output fails, and is tried again");
        }
        state.failure = Some(reason);
        self.board.changed.notify_one();
        // Nobody waits for a sink that fails.
        self.board.settled.notify_one();
        let started = Instant::now();
        let pause = if state.stop.is_some() { pause.min(LAST_TRIES) } else { pause };
        let until = state.stop.unwrap_or(started + pause).min(started + pause);
        while state.order.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let was_stopped = state.stop.is_some();
            state = self.filled.wait_timeout(state, left).expect("nothing panics while it is held").0;
            if state.stop.is_some() && !was_stopped {
                break;
            }
        }
    }

    /// The thread ends: what it holds is dropped.
    pub(super) fn abandon(&self, load: &mut Load) {
        let mut state = self.state();
        let rest: Vec<_> = load.drain(..).collect();
        let rest: Vec<_> = rest.into_iter().chain(std::mem::take(&mut state.waiting)).collect();
        for item in rest {
            state.take_out(&item);
            state.lose(&item.parcel, Reason::Stopped);
        }
        self.look(state);
    }

    fn look(&self, mut state: MutexGuard<'_, State>) {
        if state.open > 0 {
            return;
        }
        state.is_late = false;
        let was_overrun = std::mem::take(&mut state.is_overrun);
        drop(state);
        self.board.settled.notify_one();
        if was_overrun {
            self.board.changed.notify_one();
        }
    }

    /// Other settings, of the same kind.
    pub(super) fn order(&self, settings: OutputSettings) {
        self.state().order = Some(settings);
        self.filled.notify_one();
    }

    /// Nothing more comes. What waits may be written until the deadline.
    pub(super) fn stop(&self, deadline: Instant) {
        let mut state = self.state();
        let deadline = state.stop.map_or(deadline, |before| before.min(deadline));
        // What it has to say of drops it says as its last word.
        if state.stop.replace(deadline).is_none() {
            for gap in state.gaps(&self.name) {
                state.put(Item::new(Arc::new(gap)));
            }
        }
        drop(state);
        self.filled.notify_one();
    }

    /// Nothing is to be waited for: all is written, or it fails, or is late.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        state.open == 0 || state.is_late || state.failure.is_some()
    }

    /// It did not keep up.
    pub(super) fn run_late(&self) {
        self.state().is_late = true;
    }

    /// What is wrong with it, for the operator.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state();
        let what = match &state.failure {
            Some(reason) => reason.as_str(),
            None if state.is_overrun => "it is too slow for what it is handed",
            None => return None,
        };
        let dropped = match state.dropped() {
            0 => String::new(),
            1 => ", 1 record dropped".to_owned(),
            count => format!(", {count} records dropped"),
        };
        Some(format!("output `{}`: {what}{dropped}", self.name))
    }

    /// How many records it dropped, all in all.
    pub(super) fn dropped(&self) -> u64 {
        self.state().dropped()
    }

    /// What came of all that was handed over.
    pub(super) fn counts(&self) -> OutputCounts {
        let state = self.state();
        let written = state.written.iter().map(|(service, count)| (Some(service.clone()), *count));
        let dropped = state
            .lost
            .iter()
            .map(|((service, reason), lost)| ((Some(service.clone()), reason.as_str()), lost.total));
        OutputCounts { written: written.collect(), dropped: dropped.collect(), waiting: state.records }
    }

    /// Says at the end what came of all that was handed over.
    pub(super) fn report(&self) {
        let mut state = self.state();
        // A thread that the system holds has not counted what it leaves behind.
        for item in std::mem::take(&mut state.waiting) {
            state.lose(&item.parcel, Reason::Stopped);
        }
        for (service, written) in &state.written {
            let lost = |reason| state.lost.get(&(service.clone(), reason)).map_or(0, |lost| lost.total);
            let (full, stopped) = (lost(Reason::Full), lost(Reason::Stopped));
            tracing::debug!(output = self.name, %service, written, full, stopped, "what came of the records");
        }
        drop(state);
        let dropped = self.dropped();
        if dropped > 0 {
            tracing::warn!(output = self.name, dropped, "the output has dropped records");
        }
    }
}

impl State {
    fn put(&mut self, item: Item) {
        self.bytes += item.weight;
        self.open += 1;
        self.records += item.records;
        self.waiting.push_back(item);
    }

    fn take_out(&mut self, item: &Item) {
        self.bytes -= item.weight;
        self.open -= 1;
        self.records -= item.records;
    }

    fn lose(&mut self, parcel: &Parcel, reason: Reason) {
        let lost = self.lost.entry((parcel.service.clone(), reason)).or_default();
        lost.total += parcel.len();
        lost.unsaid += parcel.len();
        (lost.incarnation, lost.pid) = (parcel.batch.incarnation, parcel.batch.pid);
    }

    fn dropped(&self) -> u64 {
        self.lost.values().map(|lost| lost.total).sum()
    }

    /// What was dropped and not said yet, as parcels.
    fn gaps(&mut self, output: &str) -> Vec<Parcel> {
        let unsaid = self.lost.iter_mut().filter(|(_, lost)| lost.unsaid > 0);
        let gaps = unsaid.map(|((service, reason), lost)| {
            let gap = Gap {
                at: now::nanos(),
                by: DroppedBy::Output(output.to_owned()),
                reason: reason.as_str(),
                count: std::mem::take(&mut lost.unsaid),
                total: lost.total,
            };
            let (incarnation, pid) = (lost.incarnation, lost.pid);
            let nothing = Batch { incarnation, pid, first: 0, dropped: Vec::new(), records: Vec::new() };
            Parcel::new(service.clone(), nothing, vec![gap], false)
        });
        gaps.collect()
    }
}
