//! The keys about what is executed, and in which surroundings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::launch::{Resource, Rlimit};
use super::problem::Problem;
use super::quantity;
use super::section::{Entry, Report, Section, integer};

/// What a command looks like, for errors.
pub(super) const COMMAND: &str = "a program and its arguments, like [\"bin/worker\", \"--fast\"]";

pub(super) fn command(
    entry: &Entry<'_>,
    folder: &Path,
    report: &mut Report,
) -> Option<(PathBuf, Vec<String>)> {
    let texts = entry.texts(report, COMMAND)?;
    let Some((program, args)) = texts.split_first().filter(|(program, _)| !program.is_empty()) else {
        return entry.expected(report, COMMAND);
    };
    let program = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    // `./bin/worker` is read again in errors and in the process list.
    let program = program.components().collect();
    Some((program, args.iter().map(|arg| (*arg).to_owned()).collect()))
}

/// The filter of what a service built on the SDK logs: of all `WATCHDOG_` variables the one that is the operator's.
const LOG: &str = "WATCHDOG_LOG";

pub(super) fn environment(entry: &Entry<'_>, report: &mut Report) -> Option<BTreeMap<String, String>> {
    let section = entry.section(report, "a table of strings, like { MODE = \"fast\" }")?;
    let mut environment = BTreeMap::new();
    for variable in section.entries() {
        let named = !variable.name.is_empty() && !variable.name.contains(['=', '\0']);
        let ours = variable.name.starts_with("WATCHDOG_") && variable.name != LOG;
        if !named || ours {
            report.at(variable.key.clone(), Problem::Variable { name: variable.name.clone() });
        }
        if let Some(value) = variable.text(report, "a string, in quotes") {
            environment.insert(variable.name, value.to_owned());
        }
    }
    Some(environment)
}

pub(super) fn account(entry: &Entry<'_>, report: &mut Report) -> Option<String> {
    if let Some(uid) = integer(entry.value.get_ref()) {
        // The highest one means "leave it as it is" to the kernel.
        if uid < u64::from(u32::MAX) {
            return Some(uid.to_string());
        }
    }
    let named = |text: &str| (!text.is_empty() && !text.contains(['\0', ':'])).then(|| text.to_owned());
    entry.parsed(report, "the name or number of a user", named)
}

pub(super) fn mask(entry: &Entry<'_>, report: &mut Report) -> Option<u32> {
    const EXPECTED: &str = "an octal mask in quotes, like \"077\"";
    entry.parsed(report, EXPECTED, |text| {
        let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        u32::from_str_radix(text, 8).ok().filter(|mask| octal && *mask <= 0o777)
    })
}

pub(super) fn rlimits(entry: &Entry<'_>, report: &mut Report) -> Option<BTreeMap<Resource, Rlimit>> {
    const EXPECTED: &str =
        "a number, a size like \"1GiB\", \"unlimited\", or two of them as { soft = …, hard = … }";
    fn value(entry: &Entry<'_>, report: &mut Report) -> Option<u64> {
        if let Some(number) = integer(entry.value.get_ref()) {
            return Some(number);
        }
        entry.parsed(report, EXPECTED, |text| match text {
            "unlimited" => Some(u64::MAX),
            size => quantity::size(size),
        })
    }
    let mut section = entry.section(report, "a table, like { nofile = 1024, core = 0 }")?;
    let mut limits = BTreeMap::new();
    for (name, resource) in Resource::ALL {
        let Some(limit) = section.get(name) else { continue };
        let Some(table) = limit.value.get_ref().as_table() else {
            if let Some(both) = value(&limit, report) {
                limits.insert(*resource, Rlimit { soft: both, hard: both });
            }
            continue;
        };
        let mut two = Section::new(format!("`rlimits.{name}`"), table);
        let soft = two.get("soft").map(|soft| value(&soft, report));
        let hard = two.get("hard").map(|hard| value(&hard, report));
        two.end(report);
        match (soft, hard) {
            (Some(Some(soft)), Some(Some(hard))) if soft <= hard => {
                limits.insert(*resource, Rlimit { soft, hard });
            }
            (Some(None), _) | (_, Some(None)) => {}
            _ => {
                let _: Option<()> = limit.expected(report, "both soft and hard, soft not above hard");
            }
        }
    }
    section.end(report);
    Some(limits)
}
