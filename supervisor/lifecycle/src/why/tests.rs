//! Each kind of way back, on logs made of what the lifecycle itself says.

use std::time::Duration;

use watchdog_protocol::session::{Health, Progress};
use watchdog_protocol::status::{
    EndStatus, PhaseStatus, ServiceKind, SettingsStatus, VerdictStatus, WantedStatus,
};
use watchdog_protocol::{Incarnation, Revision};

use super::*;
use crate::cause::{Absence, Actor, Cause, End, Exit, ExitReport, Manner, WatchdogReason};
use crate::event::{Occurrence, Verb};
use crate::moment::Moment;

const OPERATOR: Actor = Actor::Operator { uid: 1000 };

/// A log and the states at its end.
#[derive(Default)]
struct Tale {
    log: Vec<EventRecord>,
    services: Vec<ServiceStatus>,
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn at(number: u64) -> Incarnation {
    Incarnation::from_stored(number)
}

fn ended(number: u64, cause: Cause, line: &str) -> Occurrence {
    let exit = match &cause {
        Cause::ExitCode { code } => Exit::Code(*code),
        _ => Exit::Signal { signal: 9, dumped: false },
    };
    Occurrence::Ended(Box::new(End {
        incarnation: at(number),
        at: Moment::from_nanos(0),
        cause,
        manner: Manner::ByItself,
        ready_for: Some(Duration::from_secs(2)),
        report: Some(ExitReport { exit, last_lines: vec![line.to_owned()], last_word: None }),
    }))
}

impl Tale {
    fn record(&mut self, service: Option<&str>, what: &str, text: &str) -> &mut EventRecord {
        let number = self.log.last().map_or(1, |last| last.number + 1);
        self.log.push(EventRecord {
            number,
            at_us: number * 1_000_000,
            service: service.map(name),
            incarnation: None,
            what: what.to_owned(),
            cause: None,
            text: text.to_owned(),
            revision: None,
            sequence: None,
            evidence: None,
        });
        self.log.last_mut().unwrap()
    }

    /// As the core enters it.
    fn tells(&mut self, service: &str, occurrence: &Occurrence) {
        let record = self.record(Some(service), occurrence.kind(), &occurrence.to_string());
        record.incarnation = occurrence.incarnation();
        record.cause = occurrence.cause().map(|cause| cause.kind().to_owned());
        record.revision = occurrence.revision();
        record.evidence = occurrence.evidence().map(Box::new);
    }

    fn asks(&mut self, service: &str, verb: Verb) {
        self.tells(service, &Occurrence::Asked { verb, by: OPERATOR });
    }

    fn starts(&mut self, service: &str, number: u64) {
        self.tells(service, &Occurrence::Starting { incarnation: at(number) });
        self.tells(service, &Occurrence::Ready { incarnation: at(number), took: Duration::from_millis(3) });
    }

    fn set(&mut self, service: &str, revision: Option<u64>) {
        let record = self.record(Some(service), "settings", "settings changed by operator (uid 1000): step");
        record.revision = revision.map(Revision::from_stored);
        record.evidence = Some(Box::new(Evidence { by: Some(OPERATOR.to_string()), ..Evidence::default() }));
    }

    fn is(&mut self, service: &str, phase: PhaseStatus, number: u64) -> &mut ServiceStatus {
        self.services.push(status(service, phase, number));
        self.services.last_mut().unwrap()
    }

    fn blocked(&mut self, service: &str, requires: &str, by: &str) {
        let held = self.is(service, PhaseStatus::Stopped, 0);
        (held.requires, held.blocked_by) = (vec![name(requires)], vec![name(by)]);
    }

    /// Six times, the whole of it.
    fn loops(&mut self, service: &str) {
        for number in 1..=6 {
            self.starts(service, number);
            self.tells(service, &ended(number, Cause::ExitCode { code: 3 }, &format!("line of {number}")));
        }
        let last = Box::new(Cause::ExitCode { code: 3 });
        let cause = Cause::Limit { failures: 6, window: Duration::from_secs(60), last };
        self.tells(service, &Occurrence::Failed { cause });
        self.is(service, PhaseStatus::Failed, 6);
    }

    fn why(&self, service: &str) -> Why {
        why(&name(service), &self.services, &self.log).unwrap()
    }

    fn first_cause(&self, service: &str) -> String {
        match self.why(service).origin {
            Origin::FirstCause(words) => words,
            Origin::NotInLog(words) => panic!("not known: {words}"),
        }
    }
}

fn status(service: &str, phase: PhaseStatus, number: u64) -> ServiceStatus {
    ServiceStatus {
        name: name(service),
        kind: ServiceKind::Service,
        task: false,
        wanted: WantedStatus::Up,
        wanted_by: None,
        phase,
        phase_ms: 0,
        requires: vec![],
        blocked_by: vec![],
        progress: None::<Progress>,
        says: None,
        health: Health::Ok,
        incarnation: at(number),
        pid: None,
        uptime_ms: None,
        starts: number,
        last_end: None,
        next_try_ms: None,
        memory: None,
        cpu_ms: None,
        descriptors: None,
        settings: None,
        state: None,
        handles: 0,
        messages_in: 0,
        messages_out: 0,
        queued: 0,
        survivors: vec![],
        drift: false,
        frozen: false,
    }
}

fn whats(why: &Why) -> Vec<&str> {
    why.chain.iter().map(|link| &*link.what).collect()
}

#[test]
fn a_crash_loop_tells_its_last_and_its_first_failure_with_their_lines() {
    let mut tale = Tale::default();
    tale.record(None, "started", "the watchdog started");
    tale.loops("c");
    let why = tale.why("c");
    assert_eq!(
        whats(&why),
        [
            "failed: crash loop: 6 failures within 60s, the last one: ended by itself with exit code 3",
            "the last failure: ended by itself with exit code 3",
            "the first of 6 failures, 15s before the last: ended by itself with exit code 3",
        ]
    );
    let lines: Vec<_> = why.chain.iter().flat_map(|link| &link.last_lines).collect();
    assert_eq!(lines, ["line of 6", "line of 1"]);
    assert_eq!(why.origin, Origin::FirstCause("c: ended by itself with exit code 3".into()));
    assert_eq!(why.advice[0], "watchdog logs c -n 50");
}

#[test]
fn what_comes_up_after_several_failures_tells_the_first_of_them_and_once_it_is_up_the_last() {
    let mut tale = Tale::default();
    for number in 1..=3 {
        tale.starts("c", number);
        tale.tells("c", &ended(number, Cause::ExitCode { code: 3 }, &format!("line of {number}")));
    }
    tale.tells("c", &Occurrence::Backoff { wait: Duration::from_secs(1), streak: 3 });
    tale.starts("c", 4);
    for (phase, expected) in
        [(PhaseStatus::Starting, &["line of 3", "line of 1"][..]), (PhaseStatus::Ready, &["line of 3"])]
    {
        tale.services.clear();
        tale.is("c", phase, 4);
        let why = tale.why("c");
        let lines: Vec<_> = why.chain.iter().flat_map(|link| &link.last_lines).collect();
        assert_eq!(lines, expected);
    }
}

#[test]
fn failures_before_a_reset_are_not_of_this_crash_loop() {
    let mut tale = Tale::default();
    tale.starts("c", 1);
    tale.tells("c", &ended(1, Cause::ExitCode { code: 1 }, "of another day"));
    tale.asks("c", Verb::Reset);
    tale.starts("c", 2);
    tale.tells("c", &ended(2, Cause::ExitCode { code: 3 }, "today"));
    tale.tells("c", &Occurrence::Backoff { wait: Duration::from_secs(1), streak: 1 });
    tale.is("c", PhaseStatus::Backoff, 2);
    assert_eq!(whats(&tale.why("c")).len(), 2);
    assert_eq!(tale.first_cause("c"), "c: ended by itself with exit code 3");
}

#[test]
fn a_log_that_begins_within_a_crash_loop_says_so() {
    let mut tale = Tale::default();
    tale.loops("c");
    tale.log.drain(..8);
    let why = tale.why("c");
    assert!(why.chain.last().unwrap().what.starts_with("one of 6 failures"), "{why:?}");
    let expected = "c: the event log, which begins with entry 9, does not tell the first 2 of its failures";
    assert_eq!(why.origin, Origin::NotInLog(expected.into()));
}

#[test]
fn what_is_blocked_goes_on_over_what_it_requires_to_the_first_cause() {
    let mut tale = Tale::default();
    tale.record(None, "started", "the watchdog started");
    tale.loops("c");
    tale.blocked("b", "c", "c");
    tale.blocked("a", "b", "c");
    let why = tale.why("a");
    let services: Vec<_> = why.chain.iter().map(|link| link.service.as_ref().unwrap().as_str()).collect();
    assert_eq!(services, ["a", "b", "c", "c", "c"]);
    assert_eq!(why.chain[0].what, "does not run: it requires `b`, which does not run either");
    assert_eq!(why.chain[1].what, "does not run: it requires `c`, which has failed");
    assert_eq!(why.chain.last().unwrap().last_lines, ["line of 1"]);
    assert_eq!(tale.first_cause("a"), "c: ended by itself with exit code 3");
    assert!(why.advice.iter().all(|line| line.contains(" c")), "{:?}", why.advice);
}

#[test]
fn a_stop_names_who_and_when() {
    let mut tale = Tale::default();
    tale.starts("a", 1);
    tale.asks("a", Verb::Stop);
    let asked = tale.log.last().unwrap().number;
    tale.tells("a", &ended(1, Cause::Operator { by: OPERATOR, verb: Verb::Stop }, "bye"));
    tale.tells("a", &Occurrence::Stopped);
    tale.is("a", PhaseStatus::Stopped, 1).wanted = WantedStatus::Down;
    let why = tale.why("a");
    assert_eq!(why.chain[0].what, "stop by operator (uid 1000)");
    assert!(why.chain[0].last_lines.is_empty(), "they explain nothing");
    assert_eq!(why.chain.last().unwrap().event, Some(asked));
    assert_eq!(tale.first_cause("a"), "a: stop by operator (uid 1000)");
    assert_eq!(why.advice, ["watchdog start a"]);
}

#[test]
fn a_stop_that_the_log_has_forgotten_is_known_by_the_status() {
    let mut tale = Tale::default();
    let down = tale.is("a", PhaseStatus::Stopped, 1);
    (down.wanted, down.wanted_by) = (WantedStatus::Down, Some("stop by operator (uid 7)".into()));
    assert_eq!(tale.first_cause("a"), "a: stop by operator (uid 7)");
}

#[test]
fn what_runs_again_tells_why_it_ended_even_over_a_service_it_required_then() {
    let mut tale = Tale::default();
    tale.starts("b", 1);
    tale.starts("a", 1);
    tale.asks("b", Verb::Stop);
    tale.tells("a", &ended(1, Cause::Dependency { on: name("b"), absence: Absence::Stopped }, ""));
    tale.asks("b", Verb::Start);
    tale.starts("b", 2);
    tale.starts("a", 2);
    tale.is("a", PhaseStatus::Ready, 2);
    tale.is("b", PhaseStatus::Ready, 2);
    let why = tale.why("a");
    assert_eq!(whats(&why)[0], "runs well: ready after 3ms");
    assert_eq!(tale.first_cause("a"), "b: stop by operator (uid 1000)");
    assert_eq!(tale.first_cause("b"), "b: start by operator (uid 1000)");
    assert!(why.advice.is_empty());
}

#[test]
fn what_was_reset_after_a_crash_loop_still_tells_the_first_failure() {
    let mut tale = Tale::default();
    tale.loops("c");
    tale.services.clear();
    tale.asks("c", Verb::Reset);
    tale.starts("c", 7);
    tale.is("c", PhaseStatus::Ready, 7);
    assert_eq!(whats(&tale.why("c"))[1], "reset by operator (uid 1000)");
    assert_eq!(tale.first_cause("c"), "c: ended by itself with exit code 3");
}

#[test]
fn a_signal_from_outside_is_told_from_one_sent_through_the_watchdog_and_from_a_fault() {
    for (sent, signal, expected) in [
        (None, 9, "killed by SIGKILL (signal 9), from outside: the watchdog sent no such signal"),
        (Some(1), 9, "killed by SIGKILL (signal 9), from outside: the watchdog sent no such signal"),
        (Some(9), 9, "SIGKILL sent by operator (uid 1000)"),
        (None, 11, "killed by SIGSEGV (signal 11): a fault of the program itself"),
    ] {
        let mut tale = Tale::default();
        tale.starts("a", 1);
        if let Some(sent) = sent {
            let record = tale.record(Some("a"), "signal", "SIGKILL sent by operator (uid 1000)");
            record.incarnation = Some(at(1));
            record.evidence = Some(Box::new(Evidence { signal: Some(sent), ..Evidence::default() }));
        }
        tale.tells("a", &ended(1, Cause::Signal { signal, dumped: false }, ""));
        tale.starts("a", 2);
        tale.is("a", PhaseStatus::Ready, 2);
        assert_eq!(tale.first_cause("a"), format!("a: {expected}"));
        let may_be_memory = tale.why("a").advice.iter().any(|line| line.starts_with("dmesg"));
        assert_eq!(may_be_memory, expected.starts_with("killed by SIGKILL"));
    }
}

#[test]
fn refused_settings_name_who_set_them_also_when_the_service_runs_on() {
    for numbered in [Some(3), None] {
        let mut tale = Tale::default();
        tale.starts("a", 1);
        tale.set("a", numbered);
        let text = "settings revision 3 refused: step is too large; revision 4 has the values before it";
        let refused = tale.record(Some("a"), "settings", text);
        (refused.cause, refused.revision) = (Some("settings".into()), Some(Revision::from_stored(3)));
        tale.is("a", PhaseStatus::Ready, 1).settings = Some(SettingsStatus {
            revision: Revision::from_stored(4),
            verdict: VerdictStatus::Accepted,
            refused: Some("step is too large".into()),
            waiting: 0,
        });
        let why = tale.why("a");
        assert_eq!(whats(&why)[1..], [text, "settings changed by operator (uid 1000): step"]);
        assert_eq!(why.chain[1].revision, Some(Revision::from_stored(3)));
    }
}

#[test]
fn each_end_that_is_a_first_cause_is_told_with_its_reason() {
    let span = Duration::from_secs(30);
    for cause in [
        Cause::Oom { evidence: "oom_kill 1".into() },
        Cause::Hung { missed: 3, interval: span },
        Cause::CalledHung,
        Cause::Leaving,
        Cause::Failing { reason: "no disk".into(), lasted: span },
        Cause::Spawn { step: "exec".into(), reason: "/x/y: no such file".into() },
        Cause::NotReady { waited: span, progress: Some("reads its index".into()) },
        Cause::EndedEarly,
        Cause::State { reason: "a.snapshot: wrong checksum".into() },
        Cause::Protocol { reason: "it sent garbage".into() },
        Cause::Settings { revision: None, reason: "step = 0".into() },
        Cause::Unseen,
    ] {
        let mut tale = Tale::default();
        tale.starts("a", 1);
        tale.tells("a", &ended(1, cause.clone(), "the line"));
        tale.tells("a", &Occurrence::Failed { cause: cause.clone() });
        tale.is("a", PhaseStatus::Failed, 1);
        let why = tale.why("a");
        assert_eq!(why.chain.last().unwrap().last_lines, ["the line"], "{cause:?}");
        let words = tale.first_cause("a");
        assert!(words.contains(&cause.to_string()), "{words}");
    }
}

#[test]
fn a_restart_of_the_watchdog_is_told_as_what_it_is() {
    let mut tale = Tale::default();
    tale.record(None, "started", "the watchdog started");
    tale.starts("a", 1);
    tale.is("a", PhaseStatus::Ready, 1);
    assert_eq!(tale.first_cause("a"), "a: started with the watchdog, and has not ended since");

    tale.services.clear();
    tale.record(None, "shutdown", "shutdown by operator (uid 1000): stopping every service");
    tale.tells("a", &ended(1, Cause::Watchdog { reason: WatchdogReason::Shutdown }, ""));
    tale.record(None, "started", "the watchdog started");
    tale.starts("a", 2);
    tale.is("a", PhaseStatus::Ready, 2);
    assert_eq!(tale.first_cause("a"), "shutdown by operator (uid 1000): stopping every service");

    // Its keeper was killed: nobody saw the end of what ran.
    tale.services.clear();
    tale.record(None, "started", "the watchdog started");
    tale.starts("a", 3);
    tale.is("a", PhaseStatus::Ready, 3);
    let expected = "a: the watchdog was started anew; how process 2 ended was seen by nobody";
    assert_eq!(tale.first_cause("a"), expected);
}

#[test]
fn what_a_killed_core_did_not_write_is_not_taken_from_an_older_end() {
    let mut tale = Tale::default();
    tale.starts("a", 1);
    tale.tells("a", &ended(1, Cause::ExitCode { code: 1 }, "older"));
    tale.tells("a", &Occurrence::Backoff { wait: Duration::from_secs(1), streak: 1 });
    tale.starts("a", 2);
    tale.tells("a", &ended(2, Cause::ExitCode { code: 2 }, "newest"));
    tale.is("a", PhaseStatus::Backoff, 2);
    let why = tale.why("a");
    assert_eq!(whats(&why), ["waits for its next try", "ended by itself with exit code 2"]);
    assert_eq!(why.chain[1].last_lines, ["newest"]);
}

#[test]
fn without_a_log_the_last_end_is_told_from_the_status() {
    let mut tale = Tale::default();
    tale.is("a", PhaseStatus::Failed, 1).last_end = Some(EndStatus {
        incarnation: at(1),
        cause: "exit-code".into(),
        why: "ended by itself with exit code 3".into(),
        ago_ms: 7,
        last_lines: vec!["no such table".into()],
    });
    let why = tale.why("a");
    assert_eq!(whats(&why), ["has failed: ended by itself with exit code 3"]);
    assert_eq!(why.chain[0].last_lines, ["no such table"]);
    let expected = "a: the event log, which is empty, does not tell what led to it";
    assert_eq!(why.origin, Origin::NotInLog(expected.into()));
}

#[test]
fn entries_of_an_older_build_are_read_and_told_by_their_words() {
    let old = r#"{"number":1,"at_us":5,"service":"a","incarnation":1,"what":"ended","cause":"operator",
        "text":"restart by operator (uid 0)","revision":null,"sequence":null}"#;
    let mut tale = Tale { log: vec![serde_json::from_str(old).unwrap()], ..Tale::default() };
    tale.starts("a", 2);
    tale.is("a", PhaseStatus::Ready, 2);
    assert_eq!(tale.first_cause("a"), "a: restart by operator (uid 0)");
}

#[test]
fn an_unknown_service_has_no_state() {
    assert_eq!(why(&name("a"), &[], &[]), None);
}
