//! What services and the machine use, read from the kernel when somebody asks.
//!
//! ```text
//! event loop: who is to be measured ─► Meter, a thread ─► Gauge, one a service ─► cgroup, v1 groups, processes
//!                                          │              Machine ─► /proc/stat, meminfo, pressure
//!                                          └─► the reading, to whoever asked
//! ```
//! It is asked every second for hundreds of services, so it is made cheap: files stay open ([`Kept`]), nothing is looked
//! up that did not change, and what is dear is read for those who ask for it. A thread, since a process that hangs in the
//! kernel may make whoever looks at it wait, and control must not.
//!
//! Counters only grow: of processes that ended the cgroup knows; without one, an [`Account`] for each does.
//!
//! Absent: rates, which are the reader's to make of two readings; a history; anything that acts.
//!
//! [`Kept`]: kept::Kept
//! [`Account`]: account::Account

mod account;
mod kept;
mod machine;
mod process;
mod service;
mod told;
mod v1;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use watchdog_protocol::ServiceName;
use watchdog_protocol::usage::Usage;
use watchdog_seqpacket::clock;

use self::kept::Room;
use self::machine::Machine;
pub(crate) use self::service::Subject;
use self::service::{Around, Gauge};
use self::v1::Trees;
use crate::processes::ProcessTable;
use crate::processes::cgroup::{Surroundings, tree_name};
use crate::processes::ownership::{self, Sessions};

/// A reading is given again to whoever asks so soon after it: several who look at the same time cost as much as one.
const FRESH: Duration = Duration::from_millis(100);

/// After so long without a question the files are closed.
const IDLE: Duration = Duration::from_secs(60);

/// Questions that wait for the meter. One more is told to come again.
const QUESTIONS: usize = 64;

/// What is to be read, and who is told.
pub(crate) struct Question {
    pub(crate) subjects: Vec<Subject>,
    /// These are all services: what is remembered of others is let go.
    pub(crate) of_all: bool,
    /// How processes of those without a cgroup are found.
    pub(crate) below: Option<Below>,
    /// Also what is dear to read.
    pub(crate) is_dear: bool,
    pub(crate) answer: Box<dyn FnOnce(Usage) + Send>,
}

impl fmt::Debug for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Question").field("subjects", &self.subjects).finish_non_exhaustive()
    }
}

/// Whose children services' processes are.
#[derive(Debug)]
pub(crate) struct Below {
    pub(crate) keeper: i32,
    /// Its children are no service's.
    pub(crate) core: i32,
    pub(crate) sessions: Sessions,
}

/// Why nothing is read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("{QUESTIONS} others wait for what services use, and the kernel does not answer")]
    Busy,
    #[error("there is no thread to read what services use")]
    NoThread(#[source] io::Error),
}

/// The thread that reads. It begins with the first question.
#[derive(Debug)]
pub(crate) struct Meter {
    tree: String,
    questions: Option<SyncSender<Question>>,
}

impl Meter {
    /// Of the services of this state folder.
    pub(crate) fn new(state_folder: &Path) -> Self {
        Self { tree: tree_name(state_folder), questions: None }
    }

    /// Has it read, and answered from the thread.
    ///
    /// # Errors
    /// Nobody will be answered.
    pub(crate) fn ask(&mut self, question: Question) -> Result<(), Unread> {
        let questions = match &self.questions {
            Some(questions) => questions,
            None => {
                let (questions, asked) = sync_channel(QUESTIONS);
                let tree = self.tree.clone();
                let work = move || serve(&asked, Reader::new(Trees::find(&tree)));
                // Not joined: it holds nothing that matters, and may hang with a process it looks at.
                Builder::new().name("usage".to_owned()).spawn(work).map_err(Unread::NoThread)?;
                self.questions.insert(questions)
            }
        };
        match questions.try_send(question) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Unread::Busy),
            Err(TrySendError::Disconnected(_)) => unreachable!("it ends with its questions"),
        }
    }
}

fn serve(asked: &Receiver<Question>, mut reader: Reader) {
    loop {
        let question = match asked.recv_timeout(IDLE) {
            Ok(question) => question,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                reader.close();
                let Ok(question) = asked.recv() else { return };
                question
            }
        };
        let usage = reader.reading(&question, Instant::now());
        (question.answer)(usage);
    }
}

/// All that is remembered from one reading to the next.
#[derive(Debug)]
struct Reader {
    room: Room,
    buffer: Vec<u8>,
    trees: Trees,
    machine: Machine,
    services: HashMap<ServiceName, Gauge>,
    last: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    is_dear: bool,
    usage: Usage,
}

impl Reader {
    fn new(trees: Trees) -> Self {
        Self {
            room: Room::of_process(),
            // What is read in one piece is shorter, but for the interrupts behind what is looked for in `/proc/stat`.
            buffer: vec![0; 16 * 1024],
            trees,
            machine: Machine::within(Surroundings::find()),
            services: HashMap::new(),
            last: None,
        }
    }

    /// The last one, if it is fresh and has all that is asked for; else a new one.
    fn reading(&mut self, question: &Question, at: Instant) -> Usage {
        let fresh = self.last.as_ref().filter(|last| at.duration_since(last.at) < FRESH);
        if let Some(usage) = fresh.and_then(|last| last.answer_to(question)) {
            return usage;
        }
        let at_us = clock::monotonic_ns() / 1000;
        let usage = Usage { at_us, ..self.read(question) };
        self.last = Some(Reading { at, is_dear: question.is_dear, usage: usage.clone() });
        usage
    }

    fn read(&mut self, question: &Question) -> Usage {
        let Self { room, buffer, trees, machine, services, .. } = self;
        let machine = machine.read(room, buffer);
        trees.look();
        if question.of_all {
            let known: HashSet<&ServiceName> =
                question.subjects.iter().map(|subject| &subject.name).collect();
            services.retain(|name, gauge| {
                let stays = known.contains(name);
                if !stays {
                    gauge.close(room);
                }
                stays
            });
        }
        let table = question.below.as_ref().and_then(|_| ProcessTable::read().ok()).unwrap_or_default();
        let found = question
            .below
            .as_ref()
            .map(|below| ownership::of_all(&table, below.keeper, below.core, &below.sessions));
        let swaps = machine.swap.zip(machine.swap_free).is_none_or(|(all, free)| all > free);
        let mut around = Around { room, buffer, trees, swaps, is_dear: question.is_dear };
        let of_service = |subject: &Subject| {
            let gauge = services.entry(subject.name.clone()).or_insert_with(|| Gauge::of(subject));
            if !gauge.fits(subject) {
                gauge.close(around.room);
                *gauge = Gauge::of(subject);
            }
            let found = found.as_ref().and_then(|found| found.get(&subject.name));
            let pids: Vec<i32> = found.into_iter().flatten().map(|process| process.identity.pid).collect();
            gauge.read(subject, &pids, &mut around)
        };
        Usage { at_us: 0, services: question.subjects.iter().map(of_service).collect(), machine }
    }

    /// Closes all files; what was counted is kept.
    fn close(&mut self) {
        self.machine.close(&mut self.room);
        self.services.values_mut().for_each(|gauge| gauge.close(&mut self.room));
        self.last = None;
    }
}

impl Reading {
    fn answer_to(&self, question: &Question) -> Option<Usage> {
        if question.is_dear && !self.is_dear {
            return None;
        }
        let known: HashMap<_, _> =
            self.usage.services.iter().map(|of| ((&of.name, of.incarnation), of)).collect();
        let of = |subject: &Subject| known.get(&(&subject.name, subject.incarnation)).copied().cloned();
        let services: Option<Vec<_>> = question.subjects.iter().map(of).collect();
        Some(Usage { at_us: self.usage.at_us, services: services?, machine: self.usage.machine.clone() })
    }
}
