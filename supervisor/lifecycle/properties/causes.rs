//! Each way to end, and what follows it.

use std::time::Duration;

use watchdog_lifecycle::restart::When;
use watchdog_lifecycle::{
    Cause, Command, Event, Exit, ExitReport, Fact, Gate, HostLook, Kind, Liveness, Manner, Occurrence, Phase,
    Policy, Purpose, Readiness, Verb,
};
use watchdog_protocol::Incarnation;
use watchdog_protocol::session::Health;

use crate::service::{GateKind, Input, Run, spawns};
use crate::world::{Move, OPERATOR};

const SECOND: Duration = Duration::from_secs(1);

fn ready(policy: Policy) -> Run {
    let mut run = Run::new(policy);
    run.run_out(GateKind::Open, true);
    assert_eq!(run.service.phase().as_str(), "ready");
    run
}

fn has(commands: &[Command], wanted: impl Fn(&Command) -> bool) -> bool {
    commands.iter().any(wanted)
}

fn kills(commands: &[Command]) -> bool {
    has(commands, |command| matches!(command, Command::KillAll { .. }))
}

fn asks(commands: &[Command]) -> bool {
    has(commands, |command| matches!(command, Command::AskStop { .. }))
}

/// What follows an input, and then a look at a host that is at rest.
fn calmly(run: &mut Run, input: &Input) -> Vec<Command> {
    looked_at(run, input, HostLook { over: SECOND, ..HostLook::default() })
}

fn looked_at(run: &mut Run, input: &Input, look: HostLook) -> Vec<Command> {
    let mut commands = run.input(input);
    commands.extend(run.input(&Input::World(Move::SeeHost(look))));
    commands
}

/// What ended it, once nothing is left.
fn cause(run: &mut Run) -> Cause {
    run.input(&Input::World(Move::Exit(Exit::Signal { signal: 9, dumped: false })));
    run.input(&Input::World(Move::LeaveNothing));
    run.service.last_end().unwrap().cause.clone()
}

#[test]
fn three_heartbeats_missed_in_a_row_are_a_hang_and_it_is_killed() {
    let mut run = ready(Policy { liveness: Liveness::Heartbeat { interval: SECOND }, ..Policy::service() });
    assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND))));
    assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND))));
    run.input(&Input::World(Move::Beat));
    assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND))));
    // However long it lasts, it is one miss.
    assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND * 3600))));
    assert!(kills(&calmly(&mut run, &Input::Wait(SECOND))));
    assert_eq!(cause(&mut run), Cause::Hung { missed: 3, interval: SECOND });
    assert!(spawns(&run.input(&Input::Gate(GateKind::Open))), "a hang is a failure: it is restarted");
}

#[test]
fn what_asks_to_be_taken_for_hung_is_killed_at_once_where_its_life_is_watched() {
    let mut run = ready(Policy { liveness: Liveness::Heartbeat { interval: SECOND }, ..Policy::program() });
    assert!(kills(&run.input(&Input::World(Move::CallItselfHung))));
    assert_eq!(cause(&mut run), Cause::CalledHung);
    let mut run = ready(Policy::program());
    assert!(!kills(&run.input(&Input::World(Move::CallItselfHung))));
}

#[test]
fn what_leaves_is_not_asked_and_its_own_end_is_the_cause() {
    let mut run = ready(Policy { stop_timeout: SECOND, ..Policy::program() });
    let commands = run.input(&Input::World(Move::Leave));
    assert!(!asks(&commands) && !kills(&commands));
    assert!(kills(&run.input(&Input::World(Move::Exit(Exit::Code(3))))), "what it left behind goes");
    assert_eq!(cause(&mut run), Cause::ExitCode { code: 3 });
}

#[test]
fn what_says_that_it_leaves_and_stays_is_killed_after_the_time_of_a_stop() {
    let mut run = ready(Policy { stop_timeout: SECOND, ..Policy::program() });
    run.input(&Input::World(Move::Leave));
    assert!(!kills(&run.input(&Input::Wait(SECOND / 2))));
    run.input(&Input::World(Move::AskForTime(SECOND * 2)));
    assert!(!kills(&run.input(&Input::Wait(SECOND))));
    assert!(kills(&run.input(&Input::Wait(SECOND))));
    assert_eq!(cause(&mut run), Cause::Leaving);
}

#[test]
fn a_new_core_gives_a_heartbeat_its_whole_interval_again() {
    let mut run = ready(Policy { liveness: Liveness::Heartbeat { interval: SECOND }, ..Policy::service() });
    calmly(&mut run, &Input::Wait(SECOND));
    calmly(&mut run, &Input::Wait(SECOND));
    run.now = run.now.after(SECOND * 10);
    run.input(&Input::TakeOver);
    assert!(!kills(&run.step(Event::Tick)));
    assert!(kills(&calmly(&mut run, &Input::Wait(SECOND))), "the misses before it count");
}

#[test]
fn what_the_host_does_not_let_run_is_left_alone_told_once_and_killed_when_it_is_silent_still() {
    let mut run = ready(Policy { liveness: Liveness::Heartbeat { interval: SECOND }, ..Policy::service() });
    let starved = HostLook { over: SECOND, waited: SECOND, ..HostLook::default() };
    let tells =
        |commands: &[Command]| has(commands, |it| matches!(it, Command::Log(Occurrence::Excused { .. })));
    let told: Vec<_> = (0..10)
        .map(|_| {
            let commands = looked_at(&mut run, &Input::Wait(SECOND), starved);
            assert!(!kills(&commands));
            tells(&commands)
        })
        .collect();
    assert_eq!(told.iter().position(|told| *told), Some(2), "with the third miss");
    assert_eq!(told.iter().filter(|told| **told).count(), 1);
    assert!(kills(&calmly(&mut run, &Input::Wait(SECOND))));
    assert_eq!(cause(&mut run), Cause::Hung { missed: 11, interval: SECOND });
}

#[test]
fn a_time_in_which_nobody_looked_counts_against_nobody() {
    let mut run = ready(Policy { liveness: Liveness::Heartbeat { interval: SECOND }, ..Policy::service() });
    let pause = |run: &mut Run| {
        let lasted = SECOND * 3600;
        run.now = run.now.after(lasted);
        run.step(Event::Paused { lasted });
        assert!(!kills(&run.step(Event::Tick)));
    };
    for _ in 0..5 {
        assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND))));
        assert!(!kills(&calmly(&mut run, &Input::Wait(SECOND))));
        pause(&mut run);
    }
    // The rest of its time to start, and at least so much that what it said meanwhile is heard.
    let mut run = Run::new(Policy { start_timeout: SECOND * 60, ..Policy::service() });
    run.input(&Input::Gate(GateKind::Open));
    run.input(&Input::World(Move::Exec));
    run.input(&Input::Wait(SECOND * 59));
    pause(&mut run);
    assert!(!kills(&run.input(&Input::Wait(SECOND * 4))));
    assert!(kills(&run.input(&Input::Wait(SECOND * 2))));
}

#[test]
fn three_unanswered_probes_in_a_row_are_a_hang() {
    let liveness = Liveness::Probe { interval: SECOND };
    let mut run = ready(Policy { liveness, ready: Readiness::Probe, ..Policy::program() });
    for wish in [Move::MissProbe, Move::MissProbe, Move::Beat, Move::MissProbe, Move::MissProbe] {
        assert!(!kills(&calmly(&mut run, &Input::World(wish))));
    }
    let commands = calmly(&mut run, &Input::World(Move::MissProbe));
    assert!(kills(&commands) && has(&commands, |command| matches!(command, Command::StopProbe { .. })));
    assert_eq!(cause(&mut run), Cause::Hung { missed: 3, interval: SECOND });
}

#[test]
fn a_probe_for_readiness_is_followed_by_one_for_life() {
    let liveness = Liveness::Probe { interval: SECOND };
    let mut run = Run::new(Policy { liveness, ready: Readiness::Probe, ..Policy::program() });
    run.input(&Input::Gate(GateKind::Open));
    let incarnation = Incarnation::FIRST;
    let probe = |purpose| Command::StartProbe { incarnation, purpose };
    assert_eq!(run.input(&Input::World(Move::Exec)), [probe(Purpose::Ready)]);
    assert_eq!(run.input(&Input::TakeOver), [probe(Purpose::Ready)], "a new core asks on");
    let commands = run.input(&Input::World(Move::BecomeReady));
    assert_eq!(commands[..2], [Command::StopProbe { incarnation }, probe(Purpose::Alive)]);
    assert_eq!(run.input(&Input::TakeOver), [probe(Purpose::Alive)]);
}

#[test]
fn failing_for_longer_than_allowed_is_a_restart_and_another_reason_does_not_begin_anew() {
    let mut run = ready(Policy::service());
    let failing = |reason: &str| Move::Say(Health::Failing { reason: reason.into() });
    run.input(&Input::World(failing("no disk")));
    run.input(&Input::Wait(SECOND * 59));
    run.input(&Input::World(Move::Say(Health::Ok)));
    run.input(&Input::World(failing("no disk")));
    assert!(!asks(&run.input(&Input::Wait(SECOND * 59))));
    run.input(&Input::World(failing("still no disk")));
    assert!(asks(&run.input(&Input::Wait(SECOND))), "it has time to save");
    assert_eq!(cause(&mut run), Cause::Failing { reason: "still no disk".into(), lasted: SECOND * 60 });
    assert!(spawns(&run.input(&Input::Gate(GateKind::Open))));

    let mut patient = ready(Policy { failing_timeout: None, ..Policy::service() });
    patient.input(&Input::World(failing("no disk")));
    assert!(!asks(&patient.input(&Input::Wait(SECOND * 86_400))));
}

#[test]
fn not_ready_in_time_is_killed_and_counts_as_a_failure() {
    let mut run = Run::new(Policy::service());
    run.input(&Input::Gate(GateKind::Open));
    run.input(&Input::World(Move::Exec));
    assert!(!kills(&run.input(&Input::Wait(Duration::from_millis(29_999)))));
    assert!(kills(&run.input(&Input::Wait(Duration::from_millis(1)))));
    assert_eq!(cause(&mut run), Cause::NotReady { waited: SECOND * 30, progress: None });
    assert_eq!(run.service.streak(), 1);
}

#[test]
fn a_spawn_that_can_not_heal_is_no_hot_loop_but_a_crash_loop() {
    let mut run = Run::new(Policy::program());
    let mut spawned = 0;
    for _ in 0..100 {
        spawned += usize::from(spawns(&run.input(&Input::Gate(GateKind::Open))));
        run.input(&Input::World(Move::FailToSpawn));
        run.input(&Input::Wait(SECOND));
    }
    assert_eq!(spawned, 6, "five failures are borne");
    let Phase::Failed { cause, .. } = run.service.phase() else { panic!("{:?}", run.service) };
    assert_eq!(
        cause.to_string(),
        "crash loop: 6 failures within 60s, the last one: could not be started, step exec: no such file"
    );
}

#[test]
fn exit_code_78_of_a_service_is_failed_settings_and_of_a_program_a_failure_like_any_other() {
    for kind in [Kind::Service, Kind::Program] {
        let mut run = ready(Policy { kind, ..Policy::program() });
        let exit = ExitReport {
            exit: Exit::Code(78),
            last_lines: vec!["step = 0".into()],
            last_word: Some("step must be at least 1".into()),
        };
        run.step(Event::Fact { incarnation: Incarnation::FIRST, fact: Fact::Exited(exit.clone()) });
        run.step(Event::Fact { incarnation: Incarnation::FIRST, fact: Fact::Gone });
        let end = run.service.last_end().unwrap();
        assert_eq!((end.report.as_ref(), end.manner), (Some(&exit), Manner::ByItself));
        match kind {
            Kind::Service => {
                let reason = "step must be at least 1".into();
                assert_eq!(end.cause, Cause::Settings { revision: None, reason });
                assert_eq!(run.service.phase().as_str(), "failed");
            }
            Kind::Program => {
                assert_eq!(end.cause, Cause::ExitCode { code: 78 });
                assert_eq!(run.service.phase().as_str(), "stopped");
            }
        }
    }
}

#[test]
fn settings_refused_at_the_start_fall_back_once_or_fail() {
    for (falls_back, phase) in [(true, "stopped"), (false, "failed")] {
        let mut run = Run::new(Policy::service());
        run.input(&Input::Gate(GateKind::Open));
        run.input(&Input::World(Move::Exec));
        assert!(asks(&run.input(&Input::World(Move::RefuseSettings { falls_back }))));
        assert_eq!(cause(&mut run).kind(), "settings");
        assert_eq!(run.service.phase().as_str(), phase);
    }
}

#[test]
fn exit_code_0_completes_what_was_ready_and_is_a_failure_before_that() {
    let mut run = ready(Policy::service());
    run.input(&Input::World(Move::Exit(Exit::Code(0))));
    run.input(&Input::World(Move::LeaveNothing));
    assert_eq!(run.service.phase().as_str(), "completed");
    assert!(!spawns(&run.input(&Input::Gate(GateKind::Open))));

    let mut early = Run::new(Policy::service());
    early.input(&Input::Gate(GateKind::Open));
    early.input(&Input::World(Move::Exec));
    early.input(&Input::World(Move::Exit(Exit::Code(0))));
    early.input(&Input::World(Move::LeaveNothing));
    assert_eq!(early.service.last_end().unwrap().cause, Cause::EndedEarly);
    assert!(spawns(&early.input(&Input::Gate(GateKind::Open))));
}

#[test]
fn what_is_never_restarted_fails_of_its_first_failure() {
    let mut policy = Policy::program();
    policy.restart.when = When::Never;
    let mut run = ready(policy);
    run.input(&Input::World(Move::Exit(Exit::Code(3))));
    run.input(&Input::World(Move::LeaveNothing));
    let Phase::Failed { cause, .. } = run.service.phase() else { panic!("{:?}", run.service) };
    assert_eq!(cause, &Cause::ExitCode { code: 3 });
}

#[test]
fn an_end_that_was_asked_for_is_no_failure_and_says_who_asked_and_how_it_went() {
    let mut run = ready(Policy::service());
    run.step(Event::Asked { verb: Verb::Restart, by: OPERATOR });
    assert!(kills(&run.input(&Input::Wait(SECOND * 10))), "it did not listen");
    assert_eq!(cause(&mut run), Cause::Operator { by: OPERATOR, verb: Verb::Restart });
    let end = run.service.last_end().unwrap();
    assert_eq!(end.manner, Manner::Killed);
    assert_eq!(
        end.to_string(),
        "restart by operator (uid 0); had to be killed (killed by SIGKILL (signal 9))"
    );
    assert_eq!(run.service.streak(), 0);
}

#[test]
fn a_kill_from_outside_is_a_failure() {
    let mut run = ready(Policy::service());
    run.input(&Input::World(Move::Exit(Exit::Signal { signal: 9, dumped: false })));
    run.input(&Input::World(Move::LeaveNothing));
    assert_eq!(run.service.streak(), 1);
    let commands = run.step(Event::Gate(Gate::Open));
    assert!(spawns(&commands), "the first restart comes at once: {commands:?}");
}
