//! Keys: what they change, and what they ask for.

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use watchdog_protocol::status::{PhaseStatus, WantedStatus};

use super::*;
use crate::cli::top::keys::{Wish, press};
use crate::cli::top::model::{Action, Mode};

fn tap(model: &mut Model, key: KeyCode) -> Wish {
    let wish = press(model, KeyEvent::new(key, KeyModifiers::NONE));
    model.arrange(SECOND);
    wish
}

fn signs(model: &mut Model, keys: &str) -> Vec<Wish> {
    let wishes = keys.chars().map(|c| tap(model, KeyCode::Char(c)));
    wishes.filter(|wish| *wish != Wish::Nothing).collect()
}

fn names(model: &Model) -> Vec<&str> {
    model.rows.iter().map(|row| row.name.as_str()).collect()
}

fn chosen(model: &Model) -> Option<&str> {
    model.view.chosen.as_ref().map(|name| name.as_str())
}

#[test]
fn what_was_chosen_stays_chosen_whatever_comes_first() {
    let mut model = three();
    assert_eq!(names(&model), ["node", "hog", "web"]);
    signs(&mut model, "jj");
    assert_eq!((chosen(&model), model.view.row), (Some("hog"), 1));
    signs(&mut model, "N");
    assert_eq!(names(&model), ["hog", "node", "web"]);
    assert_eq!((chosen(&model), model.view.row), (Some("hog"), 0));
    signs(&mut model, "r");
    assert_eq!(names(&model), ["web", "node", "hog"]);
    assert_eq!((chosen(&model), model.view.row), (Some("hog"), 2));
}

#[test]
fn without_a_choice_nothing_is_done_to_anybody() {
    let mut model = three();
    assert_eq!(signs(&mut model, "f]RX"), []);
    assert!(model.view.notice.as_ref().is_some_and(|notice| notice.text.contains("no service is chosen")));
    assert_eq!(tap(&mut model, KeyCode::Enter), Wish::Nothing);
    // Nor to one that the filter hides.
    signs(&mut model, "jj/web");
    tap(&mut model, KeyCode::Enter);
    assert_eq!((names(&model), chosen(&model)), (vec!["web"], Some("hog")));
    assert_eq!(signs(&mut model, "f"), []);
    tap(&mut model, KeyCode::Esc);
    assert_eq!(signs(&mut model, "f"), [Wish::Act(Action::Freeze(name("hog")))]);
}

#[test]
fn one_that_went_away_is_not_chosen_any_more_and_its_row_is_where_to_go_on() {
    let mut model = three();
    signs(&mut model, "jj");
    model.told_status(
        status(vec![service("node", PhaseStatus::Ready), service("web", PhaseStatus::Ready)]),
        SECOND,
    );
    model.arrange(SECOND);
    assert_eq!((model.chosen(), signs(&mut model, "f")), (None, vec![]));
    signs(&mut model, "j");
    assert_eq!(chosen(&model), Some("web"));
}

#[test]
fn what_ends_something_is_asked_first_and_only_a_yes_is_one() {
    let mut model = three();
    signs(&mut model, "j");
    for (key, action) in [("R", Action::Restart(name("node"))), ("X", Action::Stop(name("node")))] {
        for no in ["n", "q", "R", "X", " "] {
            assert_eq!(signs(&mut model, key), []);
            assert_eq!(model.view.mode, Mode::Asking(action.clone()));
            assert_eq!(signs(&mut model, no), []);
        }
        assert_eq!(signs(&mut model, &format!("{key}y")), [Wish::Act(action)]);
    }
    let stopped = ServiceStatus { wanted: WantedStatus::Down, ..down("node", PhaseStatus::Stopped) };
    for at_rest in [stopped, down("node", PhaseStatus::Failed), down("node", PhaseStatus::Completed)] {
        model.told_status(status(vec![at_rest]), SECOND);
        model.arrange(SECOND);
        assert_eq!(signs(&mut model, "X"), [Wish::Act(Action::Start(name("node")))]);
    }
    // Between two tries it has no process, and can be kept from the next one.
    model.told_status(status(vec![down("node", PhaseStatus::Backoff)]), SECOND);
    model.arrange(SECOND);
    assert_eq!(signs(&mut model, "Xy"), [Wish::Act(Action::Stop(name("node")))]);
}

#[test]
fn priorities_go_by_ten_from_what_was_asked_last_and_instances_share_one() {
    let mut model = three();
    let set = |service: &str, to| Wish::Act(Action::Priority { service: service.into(), to });
    model.choose(1);
    assert_eq!(signs(&mut model, "]]["), [set("hog", 20), set("hog", 30), set("hog", 20)]);
    assert_eq!(model.chosen_row().map(|row| (row.priority, row.is_priority_asked)), Some((Some(20), true)));
    // An answer to a request before the newest one settles nothing.
    model.settled_priority("hog", 30, true);
    model.arrange(SECOND);
    assert_eq!(model.chosen_row().map(|row| (row.priority, row.is_priority_asked)), Some((Some(20), true)));
    model.settled_priority("hog", 20, true);
    model.arrange(SECOND);
    assert_eq!(model.chosen_row().map(|row| (row.priority, row.is_priority_asked)), Some((Some(20), false)));
    model.choose(0);
    assert_eq!(signs(&mut model, "]]"), [set("node", 100)]);
    assert!(model.view.notice.as_ref().is_some_and(|notice| notice.text.contains("none beyond")));

    model.told_status(status(vec![service("worker@2", PhaseStatus::Ready)]), SECOND);
    model.told_standings(Ok(vec![standing("worker@2", 50, "all")]));
    model.arrange(SECOND);
    model.choose(0);
    assert_eq!(tap(&mut model, KeyCode::F(8)), set("worker", 40));
    // A refusal leaves it as it was.
    model.settled_priority("worker", 40, false);
    model.arrange(SECOND);
    assert_eq!(model.chosen_row().map(|row| row.priority), Some(Some(50)));
    model.told_standings(Err("no service `resource-manager` is registered".into()));
    model.arrange(SECOND);
    assert_eq!(signs(&mut model, "]"), []);
    let notice = model.view.notice.clone().unwrap();
    assert_eq!(
        notice.text,
        "the priority of worker@2 is not known: no service `resource-manager` is registered"
    );
}

#[test]
fn one_that_is_frozen_goes_on_by_the_same_key() {
    let mut model = trouble();
    let ice = names(&model).iter().position(|name| *name == "ice").unwrap();
    model.choose(ice);
    assert_eq!(signs(&mut model, "f"), [Wish::Act(Action::Thaw(name("ice")))]);
}

#[test]
fn escape_leads_back_one_step_and_out_at_last() {
    let mut model = three();
    signs(&mut model, "j/o");
    tap(&mut model, KeyCode::Enter);
    assert_eq!(names(&model), ["node", "hog"]);
    assert_eq!(tap(&mut model, KeyCode::Enter), Wish::Explain(name("node")));
    assert_eq!(tap(&mut model, KeyCode::Esc), Wish::Nothing);
    assert_eq!((&model.view.mode, names(&model).len()), (&Mode::Table, 2));
    assert_eq!(tap(&mut model, KeyCode::Esc), Wish::Nothing);
    assert_eq!(names(&model).len(), 3);
    assert_eq!(signs(&mut model, "?q"), [], "it closes the help");
    assert_eq!(tap(&mut model, KeyCode::Esc), Wish::Quit);
    for out in [KeyCode::Char('q'), KeyCode::F(10)] {
        assert_eq!(tap(&mut model, out), Wish::Quit);
    }
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    model.view.mode = Mode::Filter;
    assert_eq!(press(&mut model, control('c')), Wish::Quit);
    assert_eq!(press(&mut model, control('z')), Wish::Suspend);
}

#[test]
fn the_period_goes_in_steps_between_its_ends() {
    let mut model = three();
    signs(&mut model, "+");
    assert_eq!(model.view.period, Duration::from_secs(2));
    signs(&mut model, "--");
    assert_eq!(model.view.period, Duration::from_millis(500));
    signs(&mut model, &"-".repeat(20));
    assert_eq!(model.view.period, Duration::from_millis(100));
    signs(&mut model, &"+".repeat(20));
    assert_eq!(model.view.period, Duration::from_secs(60));
}

#[test]
fn figures_that_are_not_known_come_last_and_names_decide_between_equals() {
    let mut model = three();
    model.told_standings(Ok(vec![standing("web", 50, "all")]));
    model.view.sort = Column::Priority;
    model.arrange(SECOND);
    assert_eq!(names(&model), ["web", "hog", "node"]);
}

#[test]
fn a_newer_reading_of_a_restarted_machine_tells_no_rates_and_the_same_one_changes_none() {
    let mut model = three();
    let usage = model.usage().unwrap().clone();
    model.told_usage(usage);
    model.arrange(SECOND);
    assert_eq!(model.rows[0].cpu, Some(87.5));
    model.told_usage(reading(5, vec![usage_of("node", 1, 1)]));
    model.arrange(SECOND);
    assert_eq!(model.rows[0].cpu, None);
}

fn any_key() -> impl Strategy<Value = KeyCode> {
    let sign = proptest::sample::select("jkgGsS<>rPMN/\\?he+-][fRXyn oqw1".chars().collect::<Vec<_>>());
    let other = proptest::sample::select(vec![
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Backspace,
        KeyCode::F(6),
        KeyCode::F(9),
        KeyCode::Insert,
    ]);
    prop_oneof![3 => sign.prop_map(KeyCode::Char), 2 => other]
}

proptest! {
    /// Whatever is pressed, while services come and go and the terminal changes its size: the chosen one is seen, rows are
    /// those of the filter in order, what ends something was asked for, and there is a frame.
    #[test]
    fn no_keys_lead_astray(
        steps in proptest::collection::vec((any_key(), 0..40usize, 1..120u16, 1..40u16), 1..60)
    ) {
        let mut model = three();
        for (key, there, width, height) in steps {
            let asked = model.view.mode.clone();
            let was_chosen = model.chosen().is_some();
            let wish = press(&mut model, KeyEvent::new(key, KeyModifiers::NONE));
            if let Wish::Act(action) = &wish {
                match action {
                    Action::Restart(_) | Action::Stop(_) => {
                        prop_assert_eq!(asked, Mode::Asking(action.clone()));
                        prop_assert_eq!(key, KeyCode::Char('y'));
                    }
                    Action::Priority { to, .. } => prop_assert!(was_chosen && *to <= 100),
                    Action::Freeze(_) | Action::Thaw(_) | Action::Start(_) => prop_assert!(was_chosen),
                }
            }
            let services = (0..there).map(|at| service(&format!("w{at}"), PhaseStatus::Ready)).collect();
            model.told_status(status(services), SECOND);
            model.arrange(SECOND);
            frame(&mut model, width, height, PLAIN);
            let filter = &model.view.filter;
            prop_assert!(model.rows.iter().all(|row| row.name.as_str().contains(filter.as_str())));
            prop_assert!(model.rows.len() <= there);
            if let Some(row) = model.chosen() {
                let seen = model.view.top..model.view.top + model.view.page;
                prop_assert!(seen.contains(&row), "{} is not in {:?}", row, seen);
            }
            if model.rows.len() >= model.view.page {
                prop_assert!(model.view.top + model.view.page <= model.rows.len());
            }
        }
    }
}
