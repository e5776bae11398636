//! The demo's words. Pure: numbers in, lines of at most 80 characters out.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::cli::figures::{count, short};
use crate::cli::look::{Look, Paint};

/// The figures of a whole demo: its last line with `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Figures {
    /// Tells that returned Ok.
    pub(super) sent: u64,
    /// Messages applied, each once.
    pub(super) handled: u64,
    /// Sent and not handled.
    pub(super) lost: u64,
    /// Messages applied twice.
    pub(super) duplicated: u64,
    /// Processes of services beyond the first of each.
    pub(super) service_restarts: u64,
    /// Cores beyond the first.
    pub(super) core_restarts: u64,
    /// The longest time between two messages handled.
    pub(super) longest_pause_ms: u64,
}

/// What is done, as an operator would type it, and what it is about.
pub(super) struct Act {
    pub(super) number: u32,
    pub(super) typed: String,
    pub(super) about: &'static str,
}

pub(super) fn opening(folder: &Path) -> String {
    format!(
        "A real watchdog and its two sample services, in {}.\n\
         The bumper tells the counter to add, a hundred times a second.\n",
        folder.display()
    )
}

pub(super) fn start() -> Act {
    Act {
        number: 1,
        typed: "watchdog run".into(),
        about: "Each service is a process of its own; the bumper starts when the\n\
                counter is ready.",
    }
}

pub(super) fn set(step: u32) -> Act {
    Act {
        number: 2,
        typed: format!("watchdog set counter step={step}"),
        about: "A setting changes under load: checked against the service's own\n\
                type, written to disk, then handed to the running process.",
    }
}

pub(super) fn kill_counter(pid: u32) -> Act {
    Act {
        number: 3,
        typed: format!("kill -9 {pid}"),
        about: "The counter dies at work. The bumper is not told and goes on: its\n\
                messages wait in the lane, which the watchdog holds.",
    }
}

pub(super) fn kill_core(pid: u32) -> Act {
    Act {
        number: 4,
        typed: format!("kill -9 {pid}"),
        about: "Now the watchdog's own core, which decides everything. The keeper has\n\
                every queue and connection, and hands them to the next core.",
    }
}

pub(super) fn kill_bumper(pid: u32) -> Act {
    Act {
        number: 5,
        typed: format!("kill -9 {pid}"),
        about: "The bumper, while it tells. What is in the lane stays there.",
    }
}

pub(super) fn stop_bumper() -> Act {
    Act {
        number: 6,
        typed: "watchdog stop bumper".into(),
        about: "An operator's stop lasts. The counter empties the lane, and then both\n\
                sides' own records are compared, message by message.",
    }
}

pub(super) fn act(act: &Act, look: &Look) -> String {
    let prompt = look.paint(Paint::Faint, "$").into_owned();
    let mut text = format!("\n{} {prompt} {}\n", act.number, look.paint(Paint::Strong, &act.typed));
    for line in act.about.lines() {
        text += &format!("  {line}\n");
    }
    text
}

/// One line of what is seen.
pub(super) fn sight(seen: &str, look: &Look) -> String {
    format!("  {} {seen}\n", look.paint(Paint::Good, "→"))
}

pub(super) fn started(took: Duration, counter: u32, bumper: u32) -> String {
    format!("both ready after {}: counter is pid {counter}, bumper pid {bumper}", time(took))
}

pub(super) fn flowing(counted: u64) -> String {
    format!("{} counted so far", count(counted, "message"))
}

pub(super) fn in_force(took: Duration, revision: u64) -> String {
    format!("in force after {}, as revision {revision}; nothing restarted", time(took))
}

pub(super) fn ready_again(took: Duration, pid: u32) -> String {
    format!("ready again after {}, as pid {pid}", time(took))
}

pub(super) fn resumed(sequence: u64, again: u64) -> String {
    let again = match again {
        0 => "no message was in hand".to_owned(),
        _ => format!("{} in hand came again", count(again, "message")),
    };
    format!("its state is back, at change {sequence}; {again}")
}

pub(super) fn core_again(took: Duration, pid: u32, restarts: u64) -> String {
    let services = match restarts {
        0 => "no service restarted".to_owned(),
        _ => format!("{} of services", count(restarts, "restart")),
    };
    format!("a new core after {}, as pid {pid}; {services}", time(took))
}

pub(super) fn drained(took: Duration) -> String {
    format!("stopped, and the lane is empty, after {}", time(took))
}

pub(super) fn result(figures: &Figures, look: &Look) -> String {
    let Figures { sent, handled, lost, duplicated, .. } = figures;
    let verdict = format!("told {sent}, counted {handled}: {lost} lost, {duplicated} twice");
    let paint = if lost + duplicated == 0 { Paint::Good } else { Paint::Bad };
    format!(
        "\n{}\n{} of services, {} of the core; the longest pause between two\nmessages counted was {}.\n",
        look.paint(paint, &verdict),
        count(figures.service_restarts, "restart"),
        figures.core_restarts,
        time(Duration::from_millis(figures.longest_pause_ms)),
    )
}

/// What to type next. `kept`: the folder is still there.
pub(super) fn next(program: &Path, kept: Option<&Path>, look: &Look) -> String {
    let program = program.display();
    let (lines, more) = match kept {
        Some(folder) => {
            let folder = folder.display();
            let lines = vec![
                format!("cd {folder}"),
                format!("{program} run"),
                format!("{program} start bumper"),
                format!("{program} status"),
            ];
            (lines, "the last two in a second terminal; the bumper's stop lasts until then")
        }
        None => {
            let lines = vec![
                format!("{program} demo --keep"),
                "cd sample-services && ../target/release/watchdog run".to_owned(),
            ];
            (lines, "the first leaves its folder to you; README.md goes on with the second")
        }
    };
    let lines: String =
        lines.iter().map(|line| format!("  {} {line}\n", look.paint(Paint::Faint, "$"))).collect();
    format!("\nNext ({more}):\n{lines}")
}

fn time(span: Duration) -> String {
    short(span.as_nanos() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { color: false, width: None };

    fn figures() -> Figures {
        Figures {
            sent: 812,
            handled: 812,
            lost: 0,
            duplicated: 0,
            service_restarts: 2,
            core_restarts: 1,
            longest_pause_ms: 83,
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// All of it, as a run prints it.
    fn told(kept: Option<&Path>) -> String {
        let folder = Path::new("/tmp/watchdog-demo-0a1b2c3d");
        let scenes: [(Act, Vec<String>); 6] = [
            (start(), vec![started(ms(84), 4242, 4243), flowing(100)]),
            (set(10), vec![in_force(ms(12), 2), flowing(200)]),
            (kill_counter(4242), vec![ready_again(ms(61), 4250), resumed(214, 1), flowing(320)]),
            (kill_core(4241), vec![core_again(ms(95), 4260, 0), flowing(420)]),
            (kill_bumper(4243), vec![ready_again(ms(48), 4270), flowing(520)]),
            (stop_bumper(), vec![drained(ms(31))]),
        ];
        let mut text = opening(folder);
        for (scene, sights) in scenes {
            text += &act(&scene, &PLAIN);
            text.extend(sights.iter().map(|seen| sight(seen, &PLAIN)));
        }
        text + &result(&figures(), &PLAIN) + &next(Path::new("target/release/watchdog"), kept, &PLAIN)
    }

    #[test]
    fn the_story_fits_a_terminal() {
        let text = told(None);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_kept_folder_is_what_to_go_on_with() {
        let text = told(Some(Path::new("/tmp/watchdog-demo-0a1b2c3d")));
        insta::assert_snapshot!(text.split_once("Next").unwrap().1);
    }

    #[test]
    fn the_last_line_of_json_has_the_promised_keys() {
        insta::assert_snapshot!(serde_json::to_string(&figures()).unwrap());
    }

    #[test]
    fn what_was_lost_is_not_told_in_green() {
        let colored = Look { color: true, width: None };
        let lost = Figures { handled: 811, lost: 1, ..figures() };
        assert!(result(&lost, &colored).contains("\x1b[31mtold 812, counted 811: 1 lost"));
        assert!(result(&figures(), &colored).contains("\x1b[32mtold 812"));
    }
}
