//! What limits are made of here.

use watchdog_protocol::resources::{LimitKey, Support};

use super::finding::Finding;
use crate::limiting::Means;
use crate::processes::cgroup::CgroupTree;

/// Looks from where it is called: a watchdog in another cgroup may have more or less.
pub(super) fn examine() -> Finding {
    // A state folder of nobody: the place of a living watchdog is left alone.
    let nobody = std::env::temp_dir().join(format!("watchdog-doctor-limits-{}", std::process::id()));
    let tree = CgroupTree::make(&nobody).ok();
    let means = Means::look(&nobody, tree.as_ref());
    means.clear();
    if let Some(tree) = tree {
        let _ = tree.remove();
    }
    let all: Vec<_> = LimitKey::ALL.into_iter().map(|key| (key.as_str(), means.support(key))).collect();
    finding(means.back_end(), &all, &means.freeze_support(), &means.why_not_better())
}

fn finding(back_end: &str, limits: &[(&str, Support)], freeze: &Support, reasons: &[String]) -> Finding {
    let what = "limits";
    let all = || limits.iter().map(|(name, support)| (*name, support)).chain([("freezing", freeze)]);
    let named = |is: fn(&Support) -> bool| {
        all().filter(|(_, support)| is(support)).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    };
    let kinds = [
        ("", named(|support| matches!(support, Support::Full))),
        ("weaker ", named(|support| matches!(support, Support::Weaker(_)))),
        ("not ", named(|support| matches!(support, Support::Refused(_)))),
    ];
    let kinds: Vec<String> = kinds
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(how, names)| format!("{how}{names}"))
        .collect();
    let found = format!("{back_end}: {}", kinds.join("; "));
    let why = |(name, support): (&str, &Support)| match support {
        Support::Full => None,
        Support::Weaker(how) | Support::Refused(how) => Some(format!("{name}: {how}")),
    };
    let means: Vec<String> = all().filter_map(why).chain(reasons.iter().cloned()).collect();
    if means.is_empty() {
        return Finding::ok(what, found);
    }
    let hint = match back_end {
        "none" => "run the watchdog where it may make cgroups: as root, or under systemd with Delegate=yes",
        "cgroup-v1" => {
            "for more, boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1) and run the watchdog with Delegate=yes"
        }
        _ => {
            "for more, give the watchdog a cgroup of its own with all controllers: under systemd, Delegate=yes"
        }
    };
    Finding::less(what, found, means.join("; ")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn what_is_weaker_or_refused_is_named_with_its_reason_and_what_to_do() {
        let weaker = Support::Weaker("only now and then".to_owned());
        let refused = Support::Refused("there is no disk".to_owned());
        let limits = [("cpu", Support::Full), ("memory_high", weaker), ("io_weight", refused)];
        let lacking = ["cgroup v2 gives us nothing".to_owned()];
        let found = finding("cgroup-v1", &limits, &Support::Full, &lacking);
        assert_eq!(found.level, Level::Less);
        assert_eq!(found.found, "cgroup-v1: cpu, freezing; weaker memory_high; not io_weight");
        let means = "memory_high: only now and then; io_weight: there is no disk; cgroup v2 gives us nothing";
        assert_eq!(found.means.as_deref(), Some(means));
        assert!(found.hint.is_some_and(|hint| hint.contains("Delegate=yes")));
    }

    #[test]
    fn a_machine_that_carries_all_in_full_is_as_it_should_be() {
        let limits = [("cpu", Support::Full), ("memory_max", Support::Full)];
        let found = finding("cgroup-v2", &limits, &Support::Full, &[]);
        assert_eq!((found.level, &*found.found), (Level::Ok, "cgroup-v2: cpu, memory_max, freezing"));
    }
}
