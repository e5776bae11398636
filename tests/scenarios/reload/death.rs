//! The core is killed around a reload, and messages are on their way.

use std::fs;
use std::time::Duration;

use watchdog_tests::puppet::Manner::ByItself;
use watchdog_tests::puppet::{Heard, Order, Pending, Shown, puppet};
use watchdog_tests::{Entry, Seen, probe};

use super::{names, reloaded, running};

fn texts(heard: &[Heard]) -> Vec<u32> {
    heard.iter().map(|heard| heard.text.parse().expect("a number")).collect()
}

#[test]
fn nothing_in_flight_is_lost_or_comes_twice_or_out_of_order() {
    /// All of them fit into a lane, whoever is down.
    const EACH: u32 = 400;
    const ROUNDS: u32 = 3;
    let wd = running(&[
        puppet("a", ByItself),
        puppet("b", ByItself),
        puppet("c", ByItself),
        puppet("d", ByItself),
    ]);
    let before = wd.status();
    let mut name = "d".to_owned();
    for round in 0..ROUNDS {
        let tell =
            |from: &str, to: &str| wd.puppet(from).begin(Order::TellMany { to: to.to_owned(), count: EACH });
        let sent = [tell("a", "b"), tell("c", "a"), tell("c", &name)];
        reloaded(
            &wd,
            &[
                puppet("a", ByItself).settings(&format!("number = {}", round + 2)),
                puppet("b", ByItself).env("ROUND", round.to_string()),
                puppet("c", ByItself),
                probe(&format!("more-{round}"), "mirror", &[]),
                puppet(&format!("d-{round}"), ByItself).key(&format!("renamed_from = \"{name}\"")),
            ],
        );
        assert_eq!(sent.map(Pending::shown), [Shown::Done, Shown::Done, Shown::Done]);
        name = format!("d-{round}");
    }
    let all: Vec<_> = (0..ROUNDS).flat_map(|_| 1..=EACH).collect();
    for names in [&["b"][..], &["a"], &["d", "d-0", "d-1", "d-2"]] {
        // Whoever was renamed has heard a part under each of its names.
        let heard = || names.iter().flat_map(|name| wd.puppet(name).heard()).collect::<Vec<_>>();
        let heard = wd.until_some("all is heard", || Some(heard()).filter(|heard| heard.len() >= all.len()));
        assert_eq!(texts(&heard), all, "{names:?}");
    }
    let seen = wd.status();
    assert_eq!((seen.of("a").pid, seen.of("b").starts), (before.of("a").pid, 4));
    assert_eq!(names(&seen), ["a", "b", "c", "d-2", "more-2"]);
}

#[test]
fn a_core_killed_at_any_moment_of_a_reload_leaves_the_old_configuration_or_the_new_one() {
    const ROUNDS: u64 = 12;
    const EACH: u32 = 40;
    let entries = |round: u64| -> Vec<Entry> {
        let own = format!("only-{}", round % 2);
        vec![
            puppet("a", ByItself).settings(&format!("number = {}", round % 900 + 1)),
            puppet("b", ByItself).env("ROUND", round.to_string()),
            puppet(&own, ByItself),
            puppet(&format!("name-{}", round % 2), ByItself)
                .key(&format!("renamed_from = \"name-{}\"", (round + 1) % 2)),
            probe("p", "mirror", &[&round.to_string()]),
        ]
    };
    let wd = running(&entries(0));
    wd.puppet("name-0").does(Order::Update { text: "precious".into() });
    // On disk: a core and a service that die within a second of an update may lose it.
    wd.puppet("name-0").does(Order::Save);
    let mut random = fastrand::Rng::with_seed(7);
    let mut told = 0;
    for round in 1..=ROUNDS {
        let sent = wd.puppet("a").begin(Order::TellMany { to: "b".into(), count: EACH });
        wd.configure("", &entries(round));
        let operator = wd.operator();
        let mut reload = operator.command(&["reload"]).spawn().expect("the watchdog's program runs");
        // The moment itself is what is tried here: any will do.
        std::thread::sleep(Duration::from_micros(random.u64(0..60_000)));
        wd.kill_core();
        let code = reload.wait().expect("a child of ours").code();
        assert_eq!(sent.shown(), Shown::Done);
        told += EACH;
        // Whole, old or new, and gone on with to its end.
        let own = |round: u64| format!("only-{}", round % 2);
        let seen = wd.until("one of both is in force", |seen| {
            let names = names(seen);
            let (old, new) = (names.contains(&own(round - 1).as_str()), names.contains(&own(round).as_str()));
            old != new && names.len() == 5 && seen.all_ready()
        });
        let is_new = seen.find(&own(round)).is_some();
        let name = format!("name-{}", if is_new { round } else { round - 1 } % 2);
        assert_eq!(wd.puppet(&name).text(Order::State), "precious", "{name}");
        let number = format!("\"number\":{}", if is_new { round } else { round - 1 } % 900 + 1);
        wd.until_some("the settings are of the same one", || {
            wd.puppet("a").text(Order::Settings).contains(&number).then_some(())
        });
        let line = fs::read(format!("/proc/{}/cmdline", seen.of("p").process().pid)).expect("it runs");
        let argument = if is_new { round } else { round - 1 };
        assert!(line.ends_with(format!("\0{argument}\0").as_bytes()), "round {round}: {is_new}");
        assert!(is_new || code != Some(0), "it said that it was done");
        wd.cli(&["reload"]).ok();
        wd.cli(&["diff"]).ok();
        wd.until("all are ready", Seen::all_ready);
    }
    let heard = wd.until_some("all is heard", || {
        Some(wd.puppet("b").heard()).filter(|heard| heard.len() >= told as usize)
    });
    let once: Vec<_> = (0..ROUNDS).flat_map(|_| 1..=EACH).collect();
    assert_eq!(texts(&heard), once);
}
