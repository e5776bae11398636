//! Every metric there is, and where its value comes from. The [table](super) shows them to people.

use watchdog_service::query::status::{
    LaneStatus, PhaseStatus, ServiceStatus, VerdictStatus, WantedStatus, WatchdogStatus,
};
use watchdog_service::query::usage::{MachineUsage, ServiceUsage, Stall};

use super::family::Kind::{Counter, Gauge};
use super::family::{Kind, Metric, Unit, Value};

/// A metric of each thing of a kind, and how to read it off; of some there is none.
pub(super) struct Of<T> {
    pub(super) metric: Metric,
    pub(super) read: fn(&T) -> Option<Value>,
}

const fn of<T>(
    name: &'static str,
    unit: Unit,
    kind: Kind,
    help: &'static str,
    read: fn(&T) -> Option<Value>,
) -> Of<T> {
    Of { metric: Metric { name, unit, kind, help }, read }
}

/// The watchdog's own; counters since the keeper began.
pub(super) static WATCHDOG: [Of<WatchdogStatus>; 3] = [
    of("watchdog.uptime", Unit::Seconds, Gauge, "Since the keeper started.", |it| {
        Some(Value::of_millis(it.up_ms))
    }),
    of("watchdog.core.starts", Unit::Of("start"), Counter, "Cores since the keeper started.", |it| {
        Some(Value::Whole(it.cores))
    }),
    of(
        "watchdog.notes",
        Unit::Of("note"),
        Gauge,
        "What is worse than it should be, as watchdog status says in words.",
        |it| Some(Value::Whole(it.notes.len() as u64)),
    ),
];

/// One of the phases, and the level of health; of each service a series for every phase and level.
pub(super) static PHASE: Metric = Metric {
    name: "watchdog.service.phase",
    unit: Unit::None,
    kind: Gauge,
    help: "1 for the phase the service is in, 0 for the others.",
};
pub(super) const PHASES: [PhaseStatus; 7] = [
    PhaseStatus::Stopped,
    PhaseStatus::Starting,
    PhaseStatus::Ready,
    PhaseStatus::Stopping,
    PhaseStatus::Backoff,
    PhaseStatus::Failed,
    PhaseStatus::Completed,
];
pub(super) static HEALTH: Metric = Metric {
    name: "watchdog.service.health",
    unit: Unit::None,
    kind: Gauge,
    help: "1 for the level of health the service says it has, 0 for the others.",
};

/// Of each service; counters since its process began.
pub(super) static SERVICES: [Of<ServiceStatus>; 12] = [
    of(
        "watchdog.service.wanted",
        Unit::None,
        Gauge,
        "1 when it is wanted up, 0 when an operator wants it down.",
        |it| Some(Value::of_bool(it.wanted == WantedStatus::Up)),
    ),
    of("watchdog.service.uptime", Unit::Seconds, Gauge, "Since its process started.", |it| {
        it.uptime_ms.map(Value::of_millis)
    }),
    of(
        "watchdog.service.cpu.time",
        Unit::Seconds,
        Counter,
        "Processor time of all its processes and of those of their children that have ended.",
        |it| it.cpu_ms.map(Value::of_millis),
    ),
    of("watchdog.service.memory.usage", Unit::Bytes, Gauge, "Resident memory of all its processes.", |it| {
        it.memory.map(Value::Whole)
    }),
    of(
        "watchdog.service.descriptors",
        Unit::Of("descriptor"),
        Gauge,
        "Descriptors that all its processes have open.",
        |it| it.descriptors.map(Value::Whole),
    ),
    of(
        "watchdog.service.settings.revision",
        Unit::None,
        Gauge,
        "The newest revision of its settings.",
        |it| it.settings.as_ref().map(|settings| Value::Whole(settings.revision.get())),
    ),
    of(
        "watchdog.service.settings.pending",
        Unit::None,
        Gauge,
        "1 while it has not judged that revision, else 0.",
        |it| it.settings.as_ref().map(|settings| Value::of_bool(settings.verdict == VerdictStatus::Pending)),
    ),
    of("watchdog.service.state.age", Unit::Seconds, Gauge, "Since its state was written to disk.", |it| {
        it.state.as_ref()?.age_ms.map(Value::of_millis)
    }),
    of("watchdog.service.state.size", Unit::Bytes, Gauge, "The size of its state.", |it| {
        it.state.as_ref().map(|state| Value::Whole(state.bytes))
    }),
    of(
        "watchdog.service.state.unsaved",
        Unit::None,
        Gauge,
        "1 while its newest state can't be written to disk, else 0.",
        |it| it.state.as_ref().map(|state| Value::of_bool(state.failed.is_some())),
    ),
    of(
        "watchdog.service.drift",
        Unit::None,
        Gauge,
        "1 when its table or its program is not what it runs with, else 0.",
        |it| Some(Value::of_bool(it.drift)),
    ),
    of(
        "watchdog.service.frozen",
        Unit::None,
        Gauge,
        "1 while all its processes stand still, else 0.",
        |it| Some(Value::of_bool(it.frozen)),
    ),
];

/// Of each service, since the keeper began.
pub(super) static STARTS: Of<ServiceStatus> = of(
    "watchdog.service.starts",
    Unit::Of("start"),
    Counter,
    "Processes started since the keeper started.",
    |it| Some(Value::Whole(it.starts)),
);
/// By the event log.
pub(super) static RESTARTS: Metric = Metric {
    name: "watchdog.service.restarts",
    unit: Unit::Of("restart"),
    kind: Counter,
    help: "Processes started after one had ended, by the cause of that end.",
};

/// By the event log.
pub(super) static MOVES: Metric = Metric {
    name: "watchdog.service.moves",
    unit: Unit::Of("move"),
    kind: Counter,
    help: "Changes of what it may use, by their kind.",
};

/// What each service uses; counters since they were seen to begin.
pub(super) static USAGE: [Of<ServiceUsage>; 11] = [
    of("watchdog.service.processes", Unit::Of("process"), Gauge, "Processes that live.", |it| {
        runs(it, Some(it.processes)).map(Value::Whole)
    }),
    of("watchdog.service.threads", Unit::Of("thread"), Gauge, "Threads of all its processes.", |it| {
        runs(it, it.threads).map(Value::Whole)
    }),
    of("watchdog.service.swap.usage", Unit::Bytes, Gauge, "Memory of it that was moved to the disk.", |it| {
        runs(it, it.swap).map(Value::Whole)
    }),
    of(
        "watchdog.service.wait.time",
        Unit::Seconds,
        Counter,
        "Time its threads were ready to run and were not let.",
        |it| runs(it, it.waited_us).map(Value::of_micros),
    ),
    of("watchdog.service.disk.read", Unit::Bytes, Counter, "Bytes read from disks, not from caches.", |it| {
        runs(it, it.read_bytes).map(Value::Whole)
    }),
    of("watchdog.service.disk.written", Unit::Bytes, Counter, "Bytes written that go to disks.", |it| {
        runs(it, it.written_bytes).map(Value::Whole)
    }),
    of(
        "watchdog.service.throttled.time",
        Unit::Seconds,
        Counter,
        "Time its limit of processor time held it back, added up over processors.",
        |it| runs(it, it.throttled.map(|throttled| throttled.us)).map(Value::of_micros),
    ),
    of(
        "watchdog.service.oom.kills",
        Unit::Of("process"),
        Counter,
        "Processes that the kernel ended for lack of memory.",
        |it| runs(it, it.oom_kills).map(Value::Whole),
    ),
    of(
        "watchdog.service.stalled.cpu",
        Unit::Seconds,
        Counter,
        "Time at least one of its threads waited for a processor.",
        |it| runs(it, some(it.pressure.cpu)).map(Value::of_micros),
    ),
    of(
        "watchdog.service.stalled.memory",
        Unit::Seconds,
        Counter,
        "Time at least one of its threads waited for memory.",
        |it| runs(it, some(it.pressure.memory)).map(Value::of_micros),
    ),
    of(
        "watchdog.service.stalled.io",
        Unit::Seconds,
        Counter,
        "Time at least one of its threads waited for the disks.",
        |it| runs(it, some(it.pressure.io)).map(Value::of_micros),
    ),
];

/// What the machine uses; counters since it was started.
pub(super) static MACHINE: [Of<MachineUsage>; 6] = [
    of("watchdog.machine.cpu.time", Unit::Seconds, Counter, "Time processors were busy, added up.", |it| {
        it.busy_us.map(Value::of_micros)
    }),
    of(
        "watchdog.machine.memory.size",
        Unit::Bytes,
        Gauge,
        "Memory of the machine, or of a cgroup around the watchdog that has less.",
        |it| it.memory.map(Value::Whole),
    ),
    of(
        "watchdog.machine.memory.available",
        Unit::Bytes,
        Gauge,
        "Memory that could be had without swapping.",
        |it| it.available.map(Value::Whole),
    ),
    of(
        "watchdog.machine.stalled.cpu",
        Unit::Seconds,
        Counter,
        "Time somebody waited for a processor.",
        |it| some(it.pressure.cpu).map(Value::of_micros),
    ),
    of("watchdog.machine.stalled.memory", Unit::Seconds, Counter, "Time somebody waited for memory.", |it| {
        some(it.pressure.memory).map(Value::of_micros)
    }),
    of("watchdog.machine.stalled.io", Unit::Seconds, Counter, "Time somebody waited for the disks.", |it| {
        some(it.pressure.io).map(Value::of_micros)
    }),
];

/// Of one that is down nothing is told.
fn runs(usage: &ServiceUsage, figure: Option<u64>) -> Option<u64> {
    figure.filter(|_| usage.processes > 0)
}

fn some(stall: Option<Stall>) -> Option<u64> {
    stall.map(|stall| stall.some_us)
}

/// What waits on the lanes between two services: those that are retired, too.
pub(super) static QUEUED: Metric = Metric {
    name: "watchdog.lane.queued",
    unit: Unit::Of("message"),
    kind: Gauge,
    help: "Messages that wait.",
};

/// Of each lane that may be sent on; counters since it was made.
pub(super) static LANES: [Of<LaneStatus>; 8] = [
    of("watchdog.lane.used", Unit::Bytes, Gauge, "What is in it, as the kernel charges.", |it| {
        Some(Value::Whole(it.used))
    }),
    of("watchdog.lane.size", Unit::Bytes, Gauge, "What it holds.", |it| Some(Value::Whole(it.size))),
    of("watchdog.lane.sent", Unit::Of("message"), Counter, "Messages sent.", |it| {
        Some(Value::Whole(it.sent))
    }),
    of(
        "watchdog.lane.handled",
        Unit::Of("message"),
        Counter,
        "Messages handed to the handler for the first time.",
        |it| Some(Value::Whole(it.handled)),
    ),
    of(
        "watchdog.lane.redelivered",
        Unit::Of("message"),
        Counter,
        "Messages handed over again after a death.",
        |it| Some(Value::Whole(it.redelivered)),
    ),
    of("watchdog.lane.full", Unit::Of("message"), Counter, "Times it was full for its sender.", |it| {
        Some(Value::Whole(it.full))
    }),
    of(
        "watchdog.lane.handovers",
        Unit::Of("process"),
        Counter,
        "Times it was handed to a process of the receiver.",
        |it| Some(Value::Whole(it.handed_over)),
    ),
    of(
        "watchdog.lane.propagation",
        Unit::Seconds,
        Kind::Histogram,
        "From accepted by tell or ask until handed to the handler.",
        |it| Some(Value::Histogram(Box::new((&it.propagation).into()))),
    ),
];

const RECORDS: Unit = Unit::Of("record");

const fn of_records(name: &'static str, kind: Kind, help: &'static str) -> Metric {
    Metric { name, unit: RECORDS, kind, help }
}

/// This service's own; counters since its process began.
pub(super) static RECEIVED: Metric =
    of_records("watchdog.log.received", Counter, "Records that came from a service.");
pub(super) static LOST: Metric =
    of_records("watchdog.log.lost", Counter, "Records that a service said it had dropped before they came.");
pub(super) static WRITTEN: Metric = of_records(
    "watchdog.log.output.written",
    Counter,
    "Records that an output has written, or a collector taken.",
);
pub(super) static DROPPED: Metric =
    of_records("watchdog.log.output.dropped", Counter, "Records that an output will never have.");
pub(super) static WAITING: Metric =
    of_records("watchdog.log.output.waiting", Gauge, "Records that an output has not written yet.");

/// All of them.
#[cfg(test)]
pub(super) fn all() -> Vec<&'static Metric> {
    let mut all: Vec<_> = WATCHDOG.iter().map(|of| &of.metric).collect();
    all.extend([&PHASE, &HEALTH]);
    all.extend(SERVICES.iter().map(|of| &of.metric));
    all.extend([&STARTS.metric, &RESTARTS, &MOVES]);
    all.extend(USAGE.iter().map(|of| &of.metric));
    all.extend(MACHINE.iter().map(|of| &of.metric));
    all.push(&QUEUED);
    all.extend(LANES.iter().map(|of| &of.metric));
    all.extend([&RECEIVED, &LOST, &WRITTEN, &DROPPED, &WAITING]);
    all
}
