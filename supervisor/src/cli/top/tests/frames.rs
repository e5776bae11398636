//! Whole frames, pinned.

use watchdog_protocol::resources::LimitKey;
use watchdog_protocol::status::PhaseStatus;

use super::*;
use crate::cli::top::model::{Action, Link, Mode, Notice};
use crate::cli::top::table::{brief, columns};

const COLORED: Ink = Ink { has_color: true, has_signs: true };

#[test]
fn three_services_leave_room_for_events_in_80_by_24() {
    insta::assert_snapshot!(seen(&mut three(), 80, 24, PLAIN));
}

#[test]
fn three_services_show_all_columns_in_200_by_60() {
    insta::assert_snapshot!(seen(&mut three(), 200, 60, PLAIN));
}

#[test]
fn of_300_services_those_that_do_most_are_seen_in_80_by_24() {
    insta::assert_snapshot!(seen(&mut crowd(), 80, 24, PLAIN));
}

#[test]
fn of_300_services_40_are_seen_in_200_by_60_and_the_chosen_one_is_among_them() {
    let mut model = crowd();
    model.choose(200);
    insta::assert_snapshot!(seen(&mut model, 200, 60, PLAIN));
}

#[test]
fn colour_tells_how_things_are() {
    let mut model = three();
    model.choose(1);
    insta::assert_debug_snapshot!(frame(&mut model, 80, 24, COLORED));
}

#[test]
fn trouble_is_coloured_first_to_last() {
    insta::assert_debug_snapshot!(frame(&mut trouble(), 80, 24, COLORED));
}

#[test]
fn trouble_of_all_kinds_tells_its_reason_and_no_figure_that_is_not_known() {
    insta::assert_snapshot!(seen(&mut trouble(), 120, 30, PLAIN));
}

#[test]
fn without_signs_beyond_ascii_all_is_told_in_ascii() {
    let ascii = Ink { has_color: false, has_signs: false };
    let text = seen(&mut three(), 80, 24, ascii);
    assert!(text.is_ascii(), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_low_terminal_has_no_events_and_one_line_of_the_machine() {
    insta::assert_snapshot!(seen(&mut three(), 40, 8, PLAIN), @r"
    cpu 75%  memory 5.0GiB of 8.0GiB  3 serv
    NAME       STATUS     PRI  CPU%▼    MEM
    node       ready       90   87.5   1.3G
    hog        ready       10   62.5    13M
    web        ready       50    1.2    40M


    ? help  q quit  / filter  s sort
    ");
}

#[test]
fn where_nothing_can_be_seen_it_says_what_is_needed() {
    assert_eq!(seen(&mut three(), 39, 8, PLAIN).lines().next(), Some("40 columns and 8 lines are needed; q"));
    assert!(seen(&mut three(), 80, 7, PLAIN).starts_with("40 columns and 8 lines are needed; q quits\n"));
    // No size breaks it.
    for (width, height) in [(1, 1), (2, 1), (1, 30), (300, 1), (40, 300)] {
        seen(&mut three(), width, height, PLAIN);
    }
}

#[test]
fn a_core_that_is_away_or_hangs_is_told_at_the_top_and_what_is_known_stays() {
    let mut model = three();
    model.link = Link::Silent(std::time::Duration::from_millis(3400));
    let text = seen(&mut model, 80, 24, PLAIN);
    assert_eq!(text.lines().next(), Some("watchdog: no answer for 3s"));
    assert!(text.contains("\nnode "), "{text}");
    model.link = Link::Away("no watchdog runs for /w/watchdog.toml".into());
    assert!(seen(&mut model, 80, 24, PLAIN).starts_with("watchdog: no watchdog runs for /w/watchdog.toml\n"));
    assert!(seen(&mut model, 60, 10, PLAIN).starts_with("no watchdog runs for /w/watchdog.toml\n"));
}

#[test]
fn nothing_but_a_status_is_known_at_first() {
    let mut model = Model::new(SECOND, Column::Cpu);
    model.told_status(status(vec![service("counter", PhaseStatus::Ready)]), Duration::ZERO);
    model.arrange(SECOND);
    insta::assert_snapshot!(seen(&mut model, 80, 16, PLAIN));
    model.told_status(status(vec![]), Duration::ZERO);
    model.arrange(SECOND);
    assert!(seen(&mut model, 80, 16, PLAIN).contains("\nno service is registered; `watchdog register FILE`"));
}

#[test]
fn one_service_is_told_in_lines_that_can_be_scrolled() {
    let mut model = three();
    let mut view = limits(&[("hog", &[(LimitKey::Cpu, 625), (LimitKey::MemoryMax, 1 << 30)])]);
    view.services[0]
        .not_in_force
        .insert(LimitKey::MemoryMax, "it uses more, and gives none of it back".into());
    model.limits = Some(view);
    model.why = Some((name("hog"), vec!["first cause: hog: started with the watchdog".into()]));
    model.view.mode = Mode::Detail { service: name("hog"), from: 0 };
    insta::assert_snapshot!(seen(&mut model, 80, 30, PLAIN));
    model.view.mode = Mode::Detail { service: name("hog"), from: 1000 };
    let end = seen(&mut model, 80, 16, PLAIN);
    assert!(end.contains("first cause: hog: started with the watchdog\nEsc back"), "{end}");
    model.view.mode = Mode::Detail { service: name("gone"), from: 0 };
    assert!(seen(&mut model, 80, 24, PLAIN).contains("gone is not registered any more"));
}

#[test]
fn the_help_names_every_key_in_80_columns() {
    let mut model = three();
    model.view.mode = Mode::Help { from: 0 };
    insta::assert_snapshot!(seen(&mut model, 80, 30, PLAIN));
}

#[test]
fn the_foot_asks_shows_the_filter_and_tells_an_error_as_a_whole() {
    let mut model = three();
    let last = |model: &mut Model| seen(model, 80, 24, PLAIN).lines().last().unwrap_or_default().to_owned();
    model.view.mode = Mode::Asking(Action::Restart(name("node")));
    assert_eq!(last(&mut model), "restart node? y/n");
    model.view.mode = Mode::Filter;
    model.view.filter = "o".into();
    assert_eq!(last(&mut model), "filter: o_  Enter: keep it, Esc: all");
    model.view.mode = Mode::Table;
    let text = "error: resource-manager: services.node.priority: it is no service that is registered here, and no task\n  hint: watchdog status".to_owned();
    model.view.notice = Some(Notice { text, is_error: true });
    let text = seen(&mut model, 80, 24, PLAIN);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[21..],
        [
            "error: resource-manager: services.node.priority: it is no service that is",
            "  registered here, and no task",
            "  hint: watchdog status"
        ]
    );
}

#[test]
fn columns_fit_what_matters_most_is_always_there_and_all_of_it_where_there_is_room() {
    for room in 40..220 {
        let shown = columns(room, 12);
        let total: u16 = shown.iter().map(|(_, width)| width + 1).sum();
        assert!(total - 1 <= room, "{room}: {shown:?}");
        for main in [Column::Name, Column::Status, Column::Cpu, Column::Memory] {
            assert!(shown.iter().any(|(column, _)| *column == main), "{room}: {shown:?}");
        }
    }
    assert_eq!(columns(160, 12).len(), Column::ALL.len());
}

#[test]
fn sizes_have_five_signs() {
    let sizes = [0, 1023, 1536, 13_002_342, 1000 << 20, 1 << 30, 1536 << 30];
    assert_eq!(sizes.map(brief), ["0B", "1023B", "1.5K", "12.4M", "1000M", "1G", "1.5T"]);
}

#[test]
fn signs_are_used_where_the_locale_has_them() {
    let ink = |all: &str, ctype: &str, lang: &str| {
        let said = [("LC_ALL", all), ("LC_CTYPE", ctype), ("LANG", lang)];
        let said = said.map(|(name, value)| (name, value.to_owned()));
        Ink::of(false, |name| said.iter().find(|(of, _)| *of == name).map(|(_, value)| value.clone()))
            .has_signs
    };
    assert!(ink("", "", "de_DE.UTF-8") && ink("", "C.utf8", "C"));
    assert!(!ink("", "", "") && !ink("C", "C.utf8", "de_DE.UTF-8") && !ink("", "", "de_DE"));
}

#[test]
fn a_bar_is_as_long_as_its_share() {
    let ascii = Ink { has_color: false, has_signs: false };
    assert_eq!([0.0, 0.5, 1.0, 2.0].map(|share| PLAIN.bar(share, 4)), ["    ", "██  ", "████", "████"]);
    assert_eq!([0.4, f64::NAN].map(|share| PLAIN.bar(share, 4)), ["█▋  ", "    "]);
    assert_eq!([0.0, 0.4, 1.0].map(|share| ascii.bar(share, 4)), ["    ", "||  ", "||||"]);
}
