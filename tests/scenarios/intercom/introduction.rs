//! Inboxes and handles: there from the first moment, kept through everything.

use super::*;

#[test]
fn ic_1_a_registered_service_has_an_inbox_before_anyone_asks_for_it() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let inbox = inbox(&wd, "b");
    assert_eq!((inbox.handles, inbox.lanes.len()), (0, 0));
    wd.puppet("a").does(Order::Intercom { to: "b".into() });
    assert_eq!(self::inbox(&wd, "b").handles, 1);
    assert_eq!(wd.status().of("b").handles, 1);
}

#[test]
fn ic_1_a_service_that_is_down_has_its_inbox_all_the_same() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    wd.cli(&["stop", "b"]).ok();
    wd.puppet("a").does(say("b", "hello"));
    let lane = lane(&wd, "a", "b");
    assert_eq!((lane.queued, lane.handled), (1, 0));
    assert!(lane.held_ms.is_some());
}

#[test]
fn ic_2_any_service_asks_for_a_handle_to_any_other_at_run_time() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    std::fs::write(wd.path("late.toml"), puppet("late", ByItself).render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "late"), ("late", "b")] {
        assert_eq!(wd.puppet(from).text(ask(to, "who?")), "who?", "{from} asks {to}");
        assert_eq!(wd.puppet(to).heard().last().expect("it heard").sender, from);
    }
}

#[test]
fn ic_2_an_unknown_name_is_an_error_at_once() {
    let wd = ready(&[puppet("a", ByItself)]);
    assert_eq!(wd.puppet("a").fails(ask("nobody", "who?")), "NoSuchService");
    assert_eq!(wd.puppet("a").fails(ask("No Name At All", "who?")), "NoSuchService");
}

#[test]
fn ic_2_a_plain_program_has_no_inbox() {
    let wd = ready(&[puppet("a", ByItself), watchdog_tests::probe("p", "mirror", &[])]);
    assert_eq!(wd.puppet("a").fails(ask("p", "who?")), "NoInbox");
}

#[test]
fn ic_2_what_the_rules_of_one_side_forbid_is_denied() {
    let wd = ready(&[
        puppet("a", ByItself).key("use = [\"c*\"]"),
        puppet("b", ByItself),
        puppet("closed", ByItself).key("offer = [\"b\"]"),
    ]);
    assert_eq!(wd.puppet("a").fails(ask("b", "who?")), "Denied");
    assert_eq!(wd.puppet("a").fails(ask("closed", "who?")), "Denied");
    assert_eq!(wd.puppet("b").text(ask("closed", "who?")), "who?");
}

#[test]
fn ic_3_a_handle_taken_before_a_kill_works_after_it() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "before")), "before");
    let killed = wd.kill("b", Signal::SIGKILL);
    // Waits for the next one: it is queued, and nobody had taken it.
    assert_eq!(a.text(ask("b", "after")), "after");
    wd.until("the next one is ready", |seen| seen.of("b").is_ready_after(killed));
    let lane = lane(&wd, "a", "b");
    assert_eq!(lane.handed_over, 2);
    assert_eq!(inbox(&wd, "b").handles, 1);
}

#[test]
fn ic_3_a_handle_works_after_the_core_was_killed_and_while_it_is_away() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("b", "before")), "before");
    let core = wd.core();
    core.signal(Signal::SIGSTOP);
    wd.until_some("the core is halted", || core.is_stopped().then_some(()));
    assert_eq!(a.text(ask("b", "without a core")), "without a core");
    core.signal(Signal::SIGKILL);
    wd.until("the next core is there", |seen| seen.watchdog.core_pid != core.pid);
    assert_eq!(a.text(ask("b", "after")), "after");
    // And handles are made anew by the new core.
    assert_eq!(wd.puppet("b").text(ask("a", "back")), "back");
}

#[test]
fn a_lane_ends_when_its_receiver_is_unregistered() {
    let wd = ready(&[puppet("a", ByItself)]);
    std::fs::write(wd.path("late.toml"), puppet("late", ByItself).render(wd.folder())).expect("a file");
    wd.cli(&["register", "late.toml"]).ok();
    let a = wd.puppet("a");
    assert_eq!(a.text(ask("late", "hello")), "hello");
    wd.cli(&["stop", "late"]).ok();
    wd.cli(&["unregister", "late"]).ok();
    wd.until_some("the handle says so", || (a.order(say("late", "hello?")) != Shown::Done).then_some(()));
    assert_eq!(a.fails(say("late", "hello?")), "NoSuchService");
}

#[test]
fn a_restart_of_either_side_leaks_no_descriptor() {
    let [a, b] = ["a", "b"].map(|name| puppet(name, ByItself).key("restart_limit = \"off\""));
    let wd = ready(&[a.key("restart_delay = \"0s\""), b.key("restart_delay = \"0s\"")]);
    wd.puppet("a").text(ask("b", "x"));
    let counts =
        || [wd.keeper(), wd.core()].map(|process| watchdog_tests::proc::descriptors(process.pid).len());
    // What is opened at a first end is kept for the next ones.
    kill_and_wait(&wd, "b");
    kill_and_wait(&wd, "a");
    wd.puppet("a").text(ask("b", "x"));
    let before = counts();
    for _ in 0..10 {
        kill_and_wait(&wd, "b");
        kill_and_wait(&wd, "a");
        wd.puppet("a").text(ask("b", "x"));
    }
    wd.until_some("as many descriptors as before", || {
        let now = counts();
        (now[0] <= before[0] && now[1] <= before[1]).then_some(())
    });
}
