//! What keeper and core say to each other. Small, versioned and frozen: an old keeper serves a newer core.
//!
//! One message is one packet of a seqpacket socket, in postcard, its descriptors beside it. Enums grow at their
//! end only, structs not at all: a new field is a new variant. What a keeper can't decode it answers with
//! [`FromKeeper::Refused`], so a newer core learns what it must not ask for.
//!
//! ```text
//! core                              keeper
//!  │  ◄── Hello ───────────────────── │  who lives
//!  │  ◄── Descriptors + fds (≤ 100) ─ │  as often as needed
//!  │  ◄── Exited, SpawnFailed ─────── │  what was not acknowledged
//!  │  ◄── HandedOver ──────────────── │  from here on: as it happens
//!  │  ─── Spawn + fds ──────────────► │
//!  │  ◄── Spawned + pidfd ─────────── │  or SpawnFailed
//!  │  ◄── Exited ──────────────────── │  again to each new core, until
//!  │  ─── AckExit ──────────────────► │
//!  │  ─── Ready ────────────────────► │  it serves: a core that ends before is taken for one that can't start
//! ```

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use watchdog_protocol::{Incarnation, LaneEpoch, ServiceName};

/// The version told in [`Hello`]. It grows when a variant is added.
pub const VERSION: u16 = 3;

/// Descriptors of one packet, and so of one stored name: the kernel takes 253, a round number is easier to check.
pub const MAX_DESCRIPTORS: usize = 100;

/// Orphans named in one list. More are there when it is full: ask again when these are gone.
pub const MAX_ORPHANS: usize = 1024;

/// Bytes kept of what a core wrote before it failed: a screen full.
pub const MAX_LAST_WORDS: usize = 4096;

/// Attached descriptors may become the child's numbers 0 to 63.
pub const MAX_CHILD_DESCRIPTOR: u32 = 63;

/// Core → keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// Start a process. Beside it one descriptor per [`SpawnRequest::descriptors`], in that order.
    Spawn(SpawnRequest),
    /// Send a signal. Nothing happens if this incarnation does not live.
    ///
    /// Reaches nobody else: a dead leader keeps its pid until the keeper reaps it, and only the keeper reaps.
    Signal {
        /// Which service.
        service: ServiceName,
        /// Which process of it.
        incarnation: Incarnation,
        /// The signal's number.
        signal: i32,
        /// The leader alone, or its process group.
        whom: Whom,
    },
    /// The end of this incarnation, [`FromKeeper::Exited`] or [`FromKeeper::SpawnFailed`], is recorded: forget it.
    AckExit {
        /// Which service.
        service: ServiceName,
        /// Which process of it.
        incarnation: Incarnation,
    },
    /// Keep the descriptors beside this, 1 to [`MAX_DESCRIPTORS`], in their order, in place of what the name held.
    Store {
        /// Any bytes; the keeper does not read them.
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// Close what is stored under this name; nothing happens if there is nothing.
    Drop {
        /// As stored.
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
    },
    /// Asks for [`FromKeeper::Orphans`].
    Orphans,
    /// Send a signal to an adopted orphan. Nothing happens if `pid` is not a child of the keeper, or is a leader.
    SignalOrphan {
        /// Its pid.
        pid: u32,
        /// The signal's number.
        signal: i32,
    },
    /// All is stopped: end what is left with KILL and exit with this code. The core is expected to end by itself.
    Finish {
        /// Exit code of the keeper.
        code: u8,
    },
    /// Take an orphan for the process of a service whose own one, of this incarnation, has ended: a program that went
    /// into the background. Answered by [`FromKeeper::Spawned`], which also takes the place of the acknowledgement;
    /// or, when there is no such orphan any more, by the end once more.
    Adopt {
        /// Which service.
        service: ServiceName,
        /// Which process of it.
        incarnation: Incarnation,
        /// The orphan.
        pid: u32,
    },
    /// This core has taken over and serves. Since [`VERSION`] 2.
    Ready,
    /// Run the program beside this, one descriptor, as the core: once this core has ended, which is expected within
    /// 5 s, and only then. If it is not [`Ready`](Self::Ready) in time, or ends before, the program of this core runs
    /// again. What became of it is told to every core after by [`FromKeeper::Replaced`]. Since [`VERSION`] 2.
    Replace {
        /// Told again with the outcome. Any bytes; the keeper does not read them.
        #[serde(with = "serde_bytes")]
        label: Vec<u8>,
        /// Milliseconds it has from its start until it is ready.
        ready_within_ms: u64,
    },
}

/// Keeper → core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromKeeper {
    /// The first message to each core.
    Hello(Hello),
    /// Stored descriptors, beside it in this order. Part of the hand-over.
    Descriptors(Vec<Stored>),
    /// The end of the hand-over: all living children, descriptors and unacknowledged ends were told.
    HandedOver,
    /// The process runs its program. Its pidfd is beside it.
    Spawned(Child),
    /// It could not be started; nothing of it is left. Told again to each new core until acknowledged.
    SpawnFailed {
        /// Which service.
        service: ServiceName,
        /// Which process of it.
        incarnation: Incarnation,
        /// What failed.
        step: FailedStep,
        /// Why; `ETIMEDOUT` when the step had no end within 5 s and the child was killed.
        errno: i32,
    },
    /// A leader's end. Its process group was killed before it was reaped. Told again to each new core until
    /// acknowledged.
    Exited(ExitReport),
    /// An adopted orphan ended. A hint: left out when the core does not read; the level is [`ToKeeper::Orphans`].
    OrphanReaped {
        /// Its pid, free from now on.
        pid: u32,
    },
    /// The keeper's children that are neither leaders nor the core, at most [`MAX_ORPHANS`] of them.
    Orphans(Vec<u32>),
    /// Somebody sent the keeper TERM, INT or HUP: shut down. Said for each one; the second one means quickly.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// A request was not done.
    Refused(Refusal),
    /// What became of the newest [`ToKeeper::Replace`]. Part of the hand-over to every core after it. Since
    /// [`VERSION`] 2.
    Replaced {
        /// As given.
        #[serde(with = "serde_bytes")]
        label: Vec<u8>,
        /// Which core was the first to be told: the new one, or the one after it.
        core_generation: u64,
        /// `None`: the new program runs, and a core of that generation is on trial until it is
        /// [`Ready`](ToKeeper::Ready). Else why the old one does.
        undone: Option<CoreEnd>,
    },
    /// Core after core could not start: this one is to be content with little (it was given `--safe` as its last
    /// argument). Part of the hand-over. Since [`VERSION`] 2.
    Safe {
        /// How many there were, one after the other.
        ends: u32,
        /// What became of the last of them.
        last: CoreEnd,
    },
}

/// How a core ended that did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreEnd {
    /// In what way.
    pub how: CoreFailure,
    /// The end of what it had written to standard error; at most [`MAX_LAST_WORDS`] bytes.
    #[serde(with = "serde_bytes")]
    pub last_words: Vec<u8>,
}

/// In what way a core did not become ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CoreFailure {
    /// There was no process.
    NotStarted {
        /// What failed.
        step: FailedStep,
        /// Why.
        errno: i32,
    },
    /// It ended by itself or by somebody's signal.
    Ended(ExitStatus),
    /// It took too long, and was killed.
    Late,
}

/// What a new core is told first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The keeper's [`VERSION`].
    pub version: u16,
    /// The keeper's pid.
    pub pid: u32,
    /// When the keeper's process started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
    /// When the keeper started, in milliseconds since 1970, by the clock of that moment.
    pub started_unix_ms: u64,
    /// Random, made when the keeper started: lanes it holds belong to this life.
    pub epoch: LaneEpoch,
    /// 1 for the first core of this keeper.
    pub core_generation: u64,
    /// The limits children should get back; the keeper has raised its own.
    pub original_limits: Vec<Limit>,
    /// Who lives. A child still on its way to exec is not here: its [`FromKeeper::Spawned`] follows.
    pub children: Vec<Child>,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The kernel's number, `RLIMIT_…`.
    pub resource: u32,
    /// `rlim_cur`; `u64::MAX` is none.
    pub soft: u64,
    /// `rlim_max`; `u64::MAX` is none.
    pub hard: u64,
}

/// A living leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Which service.
    pub service: ServiceName,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Its pid.
    pub pid: u32,
    /// When it started, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_time: u64,
}

/// A name of the store and how many descriptors it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// As given in [`ToKeeper::Store`].
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// How many of the packet's descriptors are its.
    pub count: u32,
}

/// How a leader ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitReport {
    /// Which service.
    pub service: ServiceName,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// The pid it had.
    pub pid: u32,
    /// Code or signal.
    pub status: ExitStatus,
    /// What it used.
    pub usage: Usage,
    /// The keeper's children that are neither leaders nor the core at that moment, whosever they are; at most
    /// [`MAX_ORPHANS`]. None are told with the end of a process that was born into a [cgroup](Attach::Cgroup).
    pub orphans: Vec<u32>,
}

/// What the kernel says of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether a core file was written.
        core_dumped: bool,
    },
}

/// What a process and its waited-for children used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of the program, in microseconds.
    pub user_us: u64,
    /// Processor time of the kernel for it, in microseconds.
    pub system_us: u64,
    /// The most memory it had, in KiB.
    pub max_rss_kib: u64,
}

/// Whom a signal goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whom {
    /// The process that was spawned.
    Leader,
    /// Its process group, which it leads after [`ChildStep::SetSid`]; before that, the leader.
    Group,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The packet does not decode: damaged, or of a newer core.
    NotUnderstood,
    /// Nothing was stored: no descriptor, or more than [`MAX_DESCRIPTORS`], or some were lost on the way because
    /// the keeper's table is full.
    Descriptors {
        /// The name they were meant for.
        #[serde(with = "serde_bytes")]
        name: Vec<u8>,
        /// How many arrived.
        arrived: u32,
    },
}

/// One process to start.
///
/// Idempotent by (service, incarnation): until its end is acknowledged a repeat starts nothing and answers what
/// the first one came to. Refused while another incarnation of the service lives.
///
/// The child always has: no descriptor but the attached ones (0, 1 and 2 are `/dev/null` unless attached), all
/// signals at their default and none blocked. All else is a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpawnRequest {
    /// Which service.
    pub service: ServiceName,
    /// Which process of it.
    pub incarnation: Incarnation,
    /// Absolute path of the executable.
    #[serde(with = "serde_bytes")]
    pub program: Vec<u8>,
    /// All arguments; the first is the name the program is told.
    pub argv: Vec<ByteBuf>,
    /// The whole environment, `KEY=VALUE` each.
    pub env: Vec<ByteBuf>,
    /// What the child does before exec, in this order.
    pub steps: Vec<ChildStep>,
    /// What each descriptor beside the request is for.
    pub descriptors: Vec<Attach>,
}

/// What an attached descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attach {
    /// The program finds it under this number, at most [`MAX_CHILD_DESCRIPTOR`].
    Child(u32),
    /// The folder of a v2 cgroup: the child is born in it.
    Cgroup,
    /// A file open for writing: the child writes its [`PidRecord`](crate::PidRecord) at the start of it before
    /// anything else, so that it is known even if keeper and core die in between.
    PidRecord,
    /// The file to run, whatever its path leads to by now; the request's program is then only its name. No script:
    /// its interpreter would find the descriptor closed.
    Program,
    /// The `cgroup.procs` of a v1 cgroup, open for writing: the child joins it before its steps. One for each
    /// hierarchy. It costs milliseconds, and the child alone waits for it. Since [`VERSION`] 3.
    Join,
}

/// One system call of the child between its birth and exec.
///
/// Absent on purpose: dumpable and the OOM score. The child still shares the keeper's memory, and the kernel
/// keeps both per memory: they would change the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildStep {
    /// A session and process group of its own.
    SetSid,
    /// The working folder.
    ChangeDir(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The mode bits new files don't get.
    Umask(u32),
    /// A resource limit.
    Rlimit(Limit),
    /// User and groups, in the order groups, gid, uid.
    Ids {
        /// Real, effective and saved user.
        uid: u32,
        /// Real, effective and saved group.
        gid: u32,
        /// Supplementary groups, all of them.
        groups: Vec<u32>,
    },
    /// No program started from here on gains rights by set-user-ID bits.
    NoNewPrivs,
    /// The nice value, -20 to 19.
    Nice(i32),
}

/// Where a start failed. Whole, so that it can be explained without the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedStep {
    /// Refused: this incarnation of the service lives.
    AnotherLives(Incarnation),
    /// The request itself: a NUL byte, a relative program, a descriptor missing or attached to an impossible number.
    Request,
    /// Making room for the child's descriptors in the keeper.
    Stage,
    /// Making the process.
    Clone,
    /// Making the process inside the attached cgroup.
    CloneIntoCgroup,
    /// Giving the child a descriptor table of its own.
    Unshare,
    /// Writing the pid record.
    PidRecord,
    /// A step of the request.
    Child(ChildStep),
    /// Giving an attached descriptor its number.
    Attach(u32),
    /// Running the program.
    Exec,
    /// Joining an attached v1 cgroup. Since [`VERSION`] 3.
    Join,
}

impl SpawnRequest {
    /// A request without arguments, environment, steps and descriptors; the first argument is the program's path.
    pub fn new(service: ServiceName, incarnation: Incarnation, program: &Path) -> Self {
        let program = program.as_os_str().as_bytes().to_vec();
        let argv = vec![ByteBuf::from(program.clone())];
        Self {
            service,
            incarnation,
            program,
            argv,
            env: Vec::new(),
            steps: Vec::new(),
            descriptors: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(ByteBuf::from(arg.as_ref().as_bytes()));
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let entry = [key.as_ref().as_bytes(), value.as_ref().as_bytes()].join(&b'=');
        self.env.push(ByteBuf::from(entry));
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn step(mut self, step: ChildStep) -> Self {
        self.steps.push(step);
        self
    }

    /// Says what the next descriptor beside the request is for.
    #[must_use]
    pub fn attach(mut self, what: Attach) -> Self {
        self.descriptors.push(what);
        self
    }

    /// The program as a path.
    pub fn program_path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.program.clone()))
    }
}

impl ChildStep {
    /// Change to this folder.
    pub fn change_dir(folder: &Path) -> Self {
        Self::ChangeDir(folder.as_os_str().as_bytes().to_vec())
    }
}
