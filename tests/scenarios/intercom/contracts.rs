//! Two sides that were built with different messages.

use super::*;

#[test]
fn a_sender_of_another_contract_is_told_and_what_is_queued_stays() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    assert_eq!(wd.puppet("a").fails(Order::TellWrong { to: "b".into() }), "ContractMismatch");
    assert_eq!(wd.puppet("a").fails(Order::Total { to: "b".into() }), "ContractMismatch");
    let lane = lane(&wd, "a", "b");
    assert!(lane.mismatch.is_some_and(|text| text.contains("Say")));
    assert_eq!(wd.puppet("b").heard(), []);
}

#[test]
fn a_receiver_that_comes_back_with_another_contract_is_noticed_and_its_queue_waits_for_the_right_one() {
    let mut wd = TestWatchdog::idle();
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    wd.configure("", &[puppet("a", ByItself), puppet("b", ByItself).exec(program.path())]);
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "hello")), "hello");
    wd.cli(&["stop", "b"]).ok();
    a.does(say("b", "for a puppet"));
    program.becomes("probe-puppet-patient");
    wd.cli(&["start", "b"]).ok();
    wd.until_some("the lane says where they part", || lane(&wd, "a", "b").mismatch);
    assert_eq!(a.fails(say("b", "more")), "ContractMismatch");
    assert_eq!(lane(&wd, "a", "b").queued, 1);
    wd.cli(&["stop", "b"]).ok();
    program.becomes("probe-puppet");
    wd.cli(&["start", "b"]).ok();
    let heard = wd.until_some("what waited arrives", || wd.puppet("b").heard().get(1).cloned());
    assert_eq!(heard.text, "for a puppet");
    assert_eq!(a.text(ask("b", "again")), "again");
}

#[test]
fn what_was_queued_by_an_older_contract_is_never_read_by_a_newer_one() {
    let mut wd = TestWatchdog::idle();
    let program = Rebuilt::new(wd.path("program"), "probe-puppet");
    wd.configure("", &[puppet("a", ByItself), puppet("b", ByItself).exec(program.path())]);
    wd.run_again();
    wd.until("both are ready", Seen::all_ready);
    assert_eq!(wd.puppet("a").text(ask("b", "hello")), "hello");
    wd.cli(&["stop", "b"]).ok();
    wd.puppet("a").does(say("b", "for a puppet"));
    // Both sides are built anew, by a contract that has nothing of the old one.
    program.becomes("probe-puppet-patient");
    wd.cli(&["start", "b"]).ok();
    wd.until_some("the lane says where they part", || lane(&wd, "a", "b").mismatch);
    kill_and_wait(&wd, "a");
    let patiently = |text: &str| Order::AskPatiently { to: "b".into(), text: text.into(), deadline: LONG };
    assert_eq!(wd.puppet("a").text(patiently("new?")), "new?");
    kill_and_wait(&wd, "b");
    wd.kill_core();
    assert_eq!(wd.puppet("a").text(patiently("still?")), "still?");
    let queued: Vec<_> = inbox(&wd, "b").lanes.iter().map(|lane| (lane.queued, lane.is_retired)).collect();
    assert_eq!(queued, [(1, true), (0, false)]);
    // Until a process comes that can read it.
    wd.cli(&["stop", "b"]).ok();
    program.becomes("probe-puppet");
    wd.cli(&["start", "b"]).ok();
    wd.until_some("what waited arrives", || {
        wd.puppet("b").heard().iter().any(|heard| heard.text == "for a puppet").then_some(())
    });
    assert!(wd.puppet("b").heard().iter().filter(|heard| heard.text == "for a puppet").count() == 1);
}
