//! Who changed what, or tried to.

use nix::sys::signal::Signal;
use watchdog_protocol::audit::{AuditRecord, AuditResult, Auditee};
use watchdog_protocol::control::FailureKind;
use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Order, puppet};
use watchdog_tests::{Seen, TestWatchdog};

#[test]
fn every_changing_call_is_recorded_with_who_made_it_and_what_came_of_it() {
    let wd = TestWatchdog::run(&[
        puppet("a", ByItself),
        puppet("granted", ByItself).key("control = [\"stop:a\"]"),
        puppet("stranger", ByItself).key("control = [\"status\"]"),
    ]);
    wd.until("all are ready", Seen::all_ready);
    wd.cli(&["status"]).ok();
    wd.cli(&["set", "a", "word=\"a value nobody else may read\"", "number=2"]).ok();
    assert_ne!(wd.cli(&["set", "a", "number=\"none\""]).code, 0);
    assert_ne!(wd.cli(&["stop", "nobody"]).code, 0);
    wd.puppet("granted").does(Order::Stop { service: "a".into() });
    wd.puppet("stranger").fails(Order::Stop { service: "granted".into() });
    wd.cli(&["start", "a"]).ok();

    let all = audit(&wd, &[]);
    let said: Vec<_> = all.iter().map(|record| (record.verb.as_str(), record.details.as_str())).collect();
    assert_eq!(
        said,
        [("set", "word, number"), ("set", "number"), ("stop", ""), ("stop", ""), ("stop", ""), ("start", "")]
    );
    assert!(all.windows(2).all(|two| two[1].number == two[0].number + 1 && two[0].at_us <= two[1].at_us));
    let kinds: Vec<_> = all.iter().map(|record| kind(&record.result)).collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(FailureKind::Configuration),
            Some(FailureKind::Usage),
            None,
            Some(FailureKind::NotPermitted),
            None
        ]
    );
    let Auditee::Operator { uid, pid, .. } = all[0].by else { panic!("{:?}", all[0]) };
    assert!(uid == nix::unistd::geteuid().as_raw() && pid > 0);
    let incarnation = wd.status().of("stranger").incarnation;
    let stranger = Auditee::Service { name: "stranger".parse().expect("a name"), incarnation };
    assert_eq!(all[4].by, stranger);
    // Made by it, or about it.
    assert_eq!(audit(&wd, &["stranger"]), [all[4].clone()]);
    assert_eq!(audit(&wd, &["granted", "-n", "1"]), [all[4].clone()]);
    assert_eq!(audit(&wd, &["granted"]), [all[3].clone(), all[4].clone()]);
    let shown = wd.cli(&["audit"]).ok().stdout;
    assert!(shown.contains("denied: `stranger` has no grant to `stop granted`"), "{shown}");
    assert!(!shown.contains("nobody else may read"), "{shown}");
}

#[test]
fn the_audit_goes_on_through_deaths_and_restarts() {
    let mut wd = TestWatchdog::run(&[puppet("a", ByItself)]);
    wd.until("it is ready", Seen::all_ready);
    wd.cli(&["restart", "a"]).ok();
    // The core dies while somebody waits: the call is repeated, and recorded when it ends.
    let operator = wd.operator();
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    let restart = std::thread::spawn(move || operator.run(&["restart", "a"]));
    core.signal(Signal::SIGKILL);
    restart.join().expect("it ends").ok();
    wd.cli(&["shutdown"]).ok();
    wd.ended();
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    wd.cli(&["stop", "a"]).ok();
    let verbs: Vec<_> = audit(&wd, &[]).into_iter().map(|record| (record.number, record.verb)).collect();
    let expected = [(1, "restart"), (2, "restart"), (3, "shutdown"), (4, "stop")];
    assert_eq!(verbs, expected.map(|(number, verb)| (number, verb.to_owned())));
}

fn audit(wd: &TestWatchdog, words: &[&str]) -> Vec<AuditRecord> {
    wd.cli(&[&["audit", "--json"][..], words].concat()).ok().json()
}

fn kind(result: &AuditResult) -> Option<FailureKind> {
    match result {
        AuditResult::Done => None,
        AuditResult::Failed { kind, .. } => Some(*kind),
        AuditResult::Unanswered => panic!("somebody waited"),
    }
}
