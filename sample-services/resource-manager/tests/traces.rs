//! The policy on loads that were recorded, and on one that is made up to show all it does.
//!
//! A trace is a table: a line a second, of each party the processor time it used in thousandths of a processor. In a
//! machine that shares it, what was used is taken for what is wanted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use resource_manager::policy::{Allowance, Move, Party, Pool, Why};
use resource_manager::simulated::Machine;

type Name = &'static str;

/// Two processors.
const TOTAL: u64 = 2000;

/// A build is as many processes, and each wants a processor of its own while it lasts.
const COMPILERS: [Name; 4] = ["compiler 1", "compiler 2", "compiler 3", "compiler 4"];

fn pool(parties: &[(Name, u8)]) -> Pool<Name> {
    let party =
        |priority| Party { priority, guaranteed: 0, may_be_last: false, may_freeze: false, may_stop: false };
    Pool {
        total: TOTAL,
        step: 20,
        floor: 20,
        parties: parties.iter().map(|(name, high)| (*name, party(*high))).collect(),
    }
}

fn place(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("traces").join(file)
}

/// What each period wants, the names in the order of the columns.
fn trace(file: &str, names: &[Name]) -> Vec<BTreeMap<Name, u64>> {
    let text = fs::read_to_string(place(file)).expect("the trace is there");
    let line = |line: &str| {
        let numbers = line.split(',').map(|number| number.parse().expect("a trace is of numbers"));
        names.iter().copied().zip(numbers).collect()
    };
    text.lines().skip(1).map(line).collect()
}

/// What came of a run.
#[derive(Debug, Default)]
struct Run {
    /// What each was short of, over all periods.
    missed: BTreeMap<Name, u64>,
    /// For how many periods running it was, at the most.
    longest: BTreeMap<Name, u32>,
    moves: Vec<(usize, Move<Name>)>,
    used: Vec<BTreeMap<Name, u64>>,
    allowed: Vec<BTreeMap<Name, Allowance>>,
}

fn run(pool: Pool<Name>, wanted: &[BTreeMap<Name, u64>], with_policy: bool) -> Run {
    let (mut machine, mut run) = (Machine::new(pool), Run::default());
    let mut running: BTreeMap<Name, u32> = BTreeMap::new();
    for (at, wanted) in wanted.iter().enumerate() {
        machine.wanted.clone_from(wanted);
        for (name, seen) in machine.seen() {
            *run.missed.entry(name).or_default() += wanted[name] - seen.used;
            let for_so_long = running.entry(name).or_default();
            *for_so_long = if seen.is_short { *for_so_long + 1 } else { 0 };
            let longest = run.longest.entry(name).or_default();
            *longest = (*longest).max(*for_so_long);
        }
        run.used.push(machine.used());
        run.allowed.push(
            machine.pool.parties.keys().map(|name| (*name, machine.remembered.allowance(name))).collect(),
        );
        if with_policy {
            run.moves.extend(machine.period().into_iter().map(|one| (at, one)));
        }
    }
    run
}

#[test]
fn a_build_beside_a_node_leaves_it_what_it_wants_and_gets_all_of_it_back() {
    let recorded = trace("build-beside-a-node.csv", &["build", "node"]);
    let seconds = recorded.len();
    let at_rest = vec![BTreeMap::from([("build", TOTAL), ("node", 0)]); 12];
    let period = |recorded: BTreeMap<Name, u64>| {
        let compilers = COMPILERS.map(|name| (name, recorded["build"] / 2));
        compilers.into_iter().chain([("node", recorded["node"])]).collect()
    };
    let wanted: Vec<BTreeMap<Name, u64>> = recorded.into_iter().chain(at_rest).map(period).collect();
    let priorities: Vec<_> = COMPILERS.map(|name| (name, 10)).into_iter().chain([("node", 90)]).collect();
    let pool = pool(&priorities);
    let (without, with) = (run(pool.clone(), &wanted, false), run(pool, &wanted, true));
    assert!(without.missed["node"] > TOTAL, "nothing is to be seen: {:?}", without.missed);
    let (left, took) = (with.missed["node"], without.missed["node"]);
    assert!(left * 2 < took, "the node missed {left} with the policy, {took} without");
    let moves = with.moves.len() / COMPILERS.len();
    assert!(moves < seconds / 5, "{moves} moves in {seconds} s");
    let last = with.allowed.last().expect("it has periods");
    assert!(last.values().all(|allowed| *allowed == Allowance::Free), "{last:?}");
}

/// A node, a web server and a batch job. What the node wants comes, stays for two minutes and goes.
fn made_up() -> Vec<BTreeMap<Name, u64>> {
    let node = |at: u64| match at {
        30..150 => 1300,
        150..180 => 500,
        _ => 100,
    };
    (0..240).map(|at| BTreeMap::from([("batch", 2000), ("web", 400), ("node", node(at))])).collect()
}

#[test]
fn the_plot_in_the_documentation_is_of_this_policy() {
    let priorities = [("batch", 10), ("web", 50), ("node", 90)];
    let run = run(pool(&priorities), &made_up(), true);
    assert!(run.longest["node"] <= 12, "{:?}", run.longest);
    let of_whom: Vec<_> = run.moves.iter().map(|(_, one)| one.of).collect();
    assert!(of_whom.contains(&"batch"), "{of_whom:?}");
    let (drawn, file) = (drawn(&run), place("one-run.svg"));
    if std::env::var_os("UPDATE_PLOT").is_some() {
        fs::write(&file, &drawn).expect("the folder is there");
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    assert!(kept == drawn, "{} shows another policy; UPDATE_PLOT=1 draws it anew", file.display());
}

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const LANE: f64 = 90.0;

/// A lane for each party: what it uses, what it is let have, and a mark where that is moved.
fn drawn(run: &Run) -> String {
    let names: Vec<Name> = ["node", "web", "batch"].to_vec();
    let across = (WIDTH - LEFT - 10.0) / run.used.len() as f64;
    let x = |at: usize| LEFT + at as f64 * across;
    let height = 30.0 + LANE * names.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"18\">Two processors: \
         use (filled), what is let have (line), moves (▼ taken, ▲ given back)</text>\n"
    );
    for (lane, name) in names.iter().enumerate() {
        let top = 30.0 + LANE * lane as f64;
        let (bottom, full) = (top + LANE - 14.0, LANE - 24.0);
        let y = |amount: u64| bottom - full * amount as f64 / TOTAL as f64;
        let _ = writeln!(svg, "<text x=\"4\" y=\"{:.0}\">{name}</text>", bottom - full / 2.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{bottom:.0}\" x2=\"{:.0}\" y2=\"{bottom:.0}\" stroke=\"#999\"/>",
            WIDTH - 10.0
        );
        let mut area = format!("M{LEFT} {bottom:.1}");
        let mut line = String::new();
        for (at, (used, allowed)) in run.used.iter().zip(&run.allowed).enumerate() {
            let _ = write!(area, "L{:.1} {:.1}L{:.1} {:.1}", x(at), y(used[name]), x(at + 1), y(used[name]));
            let most = y(allowed[name].most(TOTAL));
            let _ = write!(
                line,
                "{}{:.1} {most:.1}L{:.1} {most:.1}",
                if at == 0 { "M" } else { "L" },
                x(at),
                x(at + 1)
            );
        }
        let _ = writeln!(svg, "<path d=\"{area}L{:.1} {bottom:.1}Z\" fill=\"#9ecae1\"/>", x(run.used.len()));
        let _ = writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"#d95f02\"/>");
        for (at, one) in run.moves.iter().filter(|(_, one)| one.of == *name) {
            let mark = if matches!(one.why, Why::ShortIs(_)) { '▼' } else { '▲' };
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.0}\" font-size=\"8\">{mark}</text>",
                x(at + 1) - 3.0,
                top + 8.0
            );
        }
    }
    for second in (0..run.used.len()).step_by(30) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"#666\">{second} s</text>",
            x(second),
            height - 8.0
        );
    }
    svg + "</svg>\n"
}
