//! Who may talk to whom.

use super::*;

/// Writes the entry's file, and registers it.
fn register(wd: &TestWatchdog, entry: &Entry) -> watchdog_tests::Said {
    let file = format!("{}.toml", entry.name());
    std::fs::write(wd.path(&file), entry.render(wd.folder())).expect("a file");
    wd.cli(&["register", &file])
}

#[test]
fn a_service_is_not_registered_when_it_can_never_talk_to_whom_it_names() {
    let wd = ready(&[
        puppet("closed", ByItself).key("offer = [\"friend\", \"late-*\"]"),
        puppet("friend", ByItself),
    ]);
    let refused = register(&wd, &puppet("late", ByItself).key("use = [\"closed\"]"));
    assert_eq!(refused.code, 78, "{refused}");
    // Where both rules are.
    assert!(refused.stderr.contains("late.toml:4:8"), "{refused}");
    assert!(
        refused.stderr.contains("watchdog.toml:") && refused.stderr.contains("leaves out `late`"),
        "{refused}"
    );
    let refused = register(&wd, &puppet("late", ByItself).key("use = [\"closd\"]"));
    assert!(refused.code == 78 && refused.stderr.contains("did you mean `closed`?"), "{refused}");
    register(&wd, &puppet("late-1", ByItself).key("use = [\"closed\"]")).ok();
    assert_eq!(wd.puppet("late-1").text(ask("closed", "who?")), "who?");
}

#[test]
fn nothing_starts_while_a_rule_refuses_another_and_a_rule_for_nobody_is_a_warning() {
    let wd = TestWatchdog::idle();
    let closed = puppet("closed", ByItself).key("offer = [\"friend\"]");
    wd.configure(
        "",
        &[closed.clone(), puppet("friend", ByItself), puppet("a", ByItself).key("use = [\"closed\"]")],
    );
    for verb in ["check", "run"] {
        let said = wd.cli(&[verb]);
        assert!(said.code == 78 && said.stderr.contains("which leaves out `a`"), "{said}");
    }
    wd.configure("", &[closed, puppet("friend", ByItself).key("use = [\"a*\"]"), puppet("a", ByItself)]);
    let said = wd.cli(&["check"]).ok();
    assert!(said.stderr.starts_with("warning: ") && said.stderr.contains("offer lets nobody in"), "{said}");
    assert!(!wd.path(".watchdog/state").exists());
}
