//! A puppet: an SDK service that does what a scenario tells it, one step at a time.
//!
//! A scenario that must kill a service *between* two steps can't leave the steps to the service. So
//! `probe-puppet` listens at a socket of its own and does one order a connection; the answer comes when the
//! order is done, which may be after a death of somebody else: [`Puppet::begin`] does not wait for it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, probe};
use crate::until::{DEADLINE, until};

/// What a puppet can do. All that names a peer takes an intercom handle once and keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// Says ready.
    Ready,
    /// Asks for the next event: what was in hand is done.
    Next,
    /// Answers the ask in hand.
    Answer { text: String },
    /// Drops the reply of the ask in hand.
    DropReply,
    /// Keeps the message in hand open, with its reply if it has one.
    Defer,
    /// Is done with the one that is open the longest, and answers with this if it was asked.
    Finish { text: String },
    /// Asks for a handle, no more.
    Intercom { to: String },
    /// Tells a text, waiting for room until the lane's deadline.
    Tell { to: String, text: String, deadline: Option<Duration> },
    /// Tells the texts `1`, `2` and so on, one after the other.
    TellMany { to: String, count: u32 },
    /// Tells at once or not at all.
    TryTell { to: String, text: String },
    /// Packs the texts `1`, `2` and so on; nothing is promised yet.
    Feed { to: String, count: u32 },
    /// Sends what was packed.
    Flush { to: String },
    /// Tells so many bytes.
    TellBytes { to: String, count: usize },
    /// Says a number where the peer expects a text.
    TellWrong { to: String },
    /// Asks with a text, until the deadline.
    Ask { to: String, text: String, deadline: Option<Duration> },
    /// The same over the contract whose asks may be repeated.
    AskPatiently { to: String, text: String, deadline: Option<Duration> },
    /// Says something over the counter's contract.
    Add { to: String, n: u32 },
    /// Asks over the counter's contract.
    Total { to: String },
    /// Shows the current settings.
    Settings,
    /// Refuses what was yielded last.
    Refuse { reason: String },
    /// Changes the state.
    Update { text: String },
    /// Waits until the state is on disk.
    Save,
    /// Shows the state.
    State,
    /// Shows where the state came from.
    Origin,
    /// Raises a health level.
    Health { level: Level },
    /// Says something by `tracing`, so many times: at level info, with `n` from 1.
    Inform { text: String, count: u32 },
    /// Says something at level debug.
    Debug { text: String },
    /// Says how far a start or stop has come.
    Progress { fraction: Option<f32>, text: String },
    /// Counts the services of the watchdog's status, by the grant of this one.
    CountServices,
    /// Stops a service, by the grant of this one.
    Stop { service: String },
    /// Changes a limit of a service, by the grant of this one, and shows all it has now.
    Limit { service: String, change: String },
    /// Freezes a service, by the grant of this one.
    Freeze { service: String },
    /// Shows the first cause of a service's state, by the grant of this one.
    Why { service: String },
    /// Shows a service's state as JSON, by the grant of this one.
    StateOf { service: String },
    /// Shows the last line a service printed, by the grant of this one.
    LastLine { service: String },
    /// Sets a value of a service's settings, by the grant of this one, and shows the revision.
    Set { service: String, path: String, value: String },
    /// Goes back to a revision of a service's settings, by the grant of this one, and shows the new one.
    RollBack { service: String, to: u64 },
    /// Counts the revisions of a service's settings, by the grant of this one.
    CountRevisions { service: String },
    /// Sends a text to a puppet as an operator would, by the grant of this one.
    SendByGrant { to: String, text: String },
    /// Ends the process with this code, at once.
    Exit { code: i32 },
    /// Returns from the service with this error.
    Fail { text: String },
    /// Panics.
    Panic { text: String },
    /// Does nothing any more, not even listen.
    Hang,
    /// Shuts the ends of all its lanes, as no SDK does.
    ShutLanes { way: Way },
}

/// A direction of a lane's end.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Way {
    /// Nothing is sent from it any more.
    Out,
    /// Nothing arrives at it any more.
    In,
}

/// A health level, as ordered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Level {
    /// All is well.
    Ok,
    /// Worse than it should be.
    Degraded(String),
    /// Does not do its work.
    Failing(String),
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shown {
    /// It is done.
    Done,
    /// A text: an answer, the state, the settings.
    Text(String),
    /// The next event.
    Message(Heard),
    /// The next event: other settings.
    SettingsUpdated,
    /// There is no next event: it was asked to stop.
    Stop,
    /// It failed: the error's variant, and its words.
    Failed { kind: String, text: String },
}

/// A message as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// What it says.
    pub text: String,
    /// Who sent it.
    pub sender: String,
    /// Its id.
    pub id: String,
    /// It was delivered before.
    pub redelivered: bool,
    /// It is an ask.
    pub is_ask: bool,
    /// From accepted to handed over.
    pub waited: Duration,
    /// The process it was delivered to.
    pub incarnation: u64,
}

/// How a puppet behaves without orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Is ready, takes every event and answers every ask with its own text.
    ByItself,
    /// Does nothing without an order; also no end when it is asked to stop.
    ByHand,
}

/// One puppet's strings.
#[derive(Debug, Clone)]
pub struct Puppet {
    name: String,
    folder: PathBuf,
}

/// An order under way.
#[derive(Debug)]
pub struct Pending {
    order: Order,
    answer: BufReader<UnixStream>,
}

/// The entry of a puppet in a `watchdog.toml`. It works in the watchdog's folder.
pub fn puppet(name: &str, manner: Manner) -> Entry {
    let entry = probe(name, "puppet", &[]).with_session();
    match manner {
        Manner::ByItself => entry,
        // Nobody asks for its next event, so nobody sees a stop.
        Manner::ByHand => entry.env("PUPPET", "by hand").key("stop_timeout = \"300ms\""),
    }
}

/// Where a puppet listens: short and relative, its working folder is the watchdog's.
pub fn socket_name(name: &str) -> String {
    format!("puppet-{name}.sock")
}

/// Where a puppet notes what it heard, a JSON line each, before it asks for the next event.
pub fn notes_name(name: &str) -> String {
    format!("puppet-{name}.heard")
}

impl Puppet {
    /// The puppet of this name of a watchdog in this folder; it need not run yet.
    pub fn new(name: &str, folder: &Path) -> Self {
        Self { name: name.to_owned(), folder: folder.to_owned() }
    }

    /// Gives an order and waits until it is done.
    ///
    /// # Panics
    /// When the puppet ends before, or nothing comes within the harness's deadline.
    #[track_caller]
    pub fn order(&self, order: Order) -> Shown {
        self.begin(order).shown()
    }

    /// Gives an order that is to be done.
    ///
    /// # Panics
    /// When something else came of it.
    #[track_caller]
    pub fn does(&self, order: Order) {
        let what = format!("{order:?}");
        assert_eq!(self.order(order), Shown::Done, "{} and {what}", self.name);
    }

    /// Gives an order whose answer is a text.
    ///
    /// # Panics
    /// When something else came of it.
    #[track_caller]
    pub fn text(&self, order: Order) -> String {
        let what = format!("{order:?}");
        match self.order(order) {
            Shown::Text(text) => text,
            other => panic!("{} and {what}: {other:?}", self.name),
        }
    }

    /// Gives an order that is to fail, and gives the error's variant.
    ///
    /// # Panics
    /// When something else came of it.
    #[track_caller]
    pub fn fails(&self, order: Order) -> String {
        self.begin(order).fails()
    }

    /// The next event, a message.
    ///
    /// # Panics
    /// When it is another event.
    #[track_caller]
    pub fn next(&self) -> Heard {
        match self.order(Order::Next) {
            Shown::Message(heard) => heard,
            other => panic!("{}: not a message: {other:?}", self.name),
        }
    }

    /// Gives an order and does not wait for what comes of it. The puppet has it when this returns.
    ///
    /// # Panics
    /// When no process of the puppet takes it within the harness's deadline.
    pub fn begin(&self, order: Order) -> Pending {
        let text = serde_json::to_string(&order).expect("an order is JSON");
        let path = self.folder.join(socket_name(&self.name));
        let explain = || format!("{} is not there or nobody listens", path.display());
        // The socket of a killed process refuses; the next one binds it anew.
        let answer = until(&format!("`{}` takes {text}", self.name), explain, || {
            let mut stream = UnixStream::connect(&path).ok()?;
            writeln!(stream, "{text}").ok()?;
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            let mut answer = BufReader::new(stream);
            // An empty line says that it has the order.
            let mut taken = String::new();
            answer.read_line(&mut taken).ok().filter(|length| *length > 0).map(|_| answer)
        });
        Pending { order, answer }
    }

    /// What it noted of what it heard, all its processes, oldest first.
    pub fn heard(&self) -> Vec<Heard> {
        let text = fs::read_to_string(self.folder.join(notes_name(&self.name))).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a note is JSON")).collect()
    }
}

impl Pending {
    /// Waits for what comes of it.
    ///
    /// # Panics
    /// When the puppet ends before, or nothing comes within the harness's deadline.
    #[track_caller]
    pub fn shown(mut self) -> Shown {
        let mut line = String::new();
        match self.answer.read_line(&mut line) {
            Ok(0) => panic!("the puppet ended with {:?} in hand", self.order),
            Ok(_) => serde_json::from_str(&line).expect("what came of an order is JSON"),
            Err(err) => panic!("nothing came of {:?}: {err}", self.order),
        }
    }

    /// Waits for its failure and gives the error's variant.
    ///
    /// # Panics
    /// When something else came of it.
    #[track_caller]
    pub fn fails(self) -> String {
        let order = self.order.clone();
        match self.shown() {
            Shown::Failed { kind, .. } => kind,
            other => panic!("{order:?} was to fail: {other:?}"),
        }
    }

    /// Whether nothing has come of it yet.
    pub fn is_open(&mut self) -> bool {
        self.answer.get_ref().set_nonblocking(true).expect("a mode");
        let nothing =
            matches!(self.answer.fill_buf(), Err(err) if err.kind() == std::io::ErrorKind::WouldBlock);
        self.answer.get_ref().set_nonblocking(false).expect("a mode");
        nothing
    }
}
