use super::*;
use crate::processes::cgroup::{Here, Tree, tree_name};

/// Carries what it is told to, and notes what it is asked.
#[derive(Debug)]
struct Player {
    name: &'static str,
    carries: Vec<LimitKey>,
    freezes: bool,
}

impl Player {
    fn boxed(name: &'static str, carries: &[LimitKey], freezes: bool) -> Box<dyn BackEnd> {
        Box::new(Self { name, carries: carries.to_vec(), freezes })
    }
}

impl BackEnd for Player {
    fn name(&self) -> &'static str {
        self.name
    }

    fn support(&self, key: LimitKey) -> Support {
        match self.carries.contains(&key) {
            true => Support::Full,
            false => Support::Refused(format!("not by {}", self.name)),
        }
    }

    fn shortcomings(&self) -> Vec<String> {
        vec![format!("{} is not all", self.name)]
    }

    fn prepare(&self, _: &ServiceName, limits: &Limits, _: &[Limit], prepared: &mut Prepared) {
        let told = limits.0.keys().map(|key| (*key, format!("prepared by {}", self.name)));
        prepared.not_in_force.extend(told);
    }

    fn apply(&self, change: &Change<'_>) -> NotInForce {
        change.changed().map(|(key, value)| (key, format!("{}: {value:?}", self.name))).collect()
    }

    fn freeze_support(&self) -> Support {
        match self.freezes {
            true => Support::Weaker(self.name.to_owned()),
            false => Support::Refused(self.name.to_owned()),
        }
    }

    fn freeze(&self, _: &ServiceName, _: Pids<'_>) -> io::Result<()> {
        Ok(())
    }

    fn thaw(&self, _: &ServiceName, _: Pids<'_>) -> io::Result<()> {
        Ok(())
    }

    fn is_frozen(&self, _: &ServiceName, _: Pids<'_>) -> bool {
        self.freezes
    }

    fn forget(&self, _: &ServiceName) {}

    fn clear(&self) {}
}

fn mixed() -> Means {
    Means::of(vec![
        Player::boxed("best", &[], true),
        Player::boxed("middle", &[LimitKey::MemoryMax], false),
        Player::boxed("last", &[LimitKey::MemoryMax, LimitKey::Cpu, LimitKey::Nofile], true),
    ])
}

fn limits(of: &[(LimitKey, u64)]) -> Limits {
    Limits(of.iter().copied().collect())
}

#[test]
fn each_limit_goes_to_the_first_that_carries_it_and_one_nobody_carries_is_told() {
    let means = mixed();
    let service: ServiceName = "counter".parse().unwrap();
    let wanted = limits(&[(LimitKey::Cpu, 500), (LimitKey::MemoryMax, 1 << 20), (LimitKey::TasksMax, 7)]);
    let prepared = means.prepare(&service, &wanted, &[]);
    let said: Vec<&str> = prepared.not_in_force.values().map(String::as_str).collect();
    assert_eq!(said, ["prepared by last", "prepared by middle", "not by middle"]);
    let before = limits(&[(LimitKey::MemoryMax, 1 << 20), (LimitKey::Nofile, 64)]);
    let told = means.apply(&service, &before, &wanted, &[], &Vec::new);
    let said: Vec<&str> = told.values().map(String::as_str).collect();
    assert_eq!(said, ["last: Some(500)", "not by middle", "last: None"], "what stays is left alone");
}

#[test]
fn the_whole_is_named_by_the_best_that_carries_more_than_descriptors() {
    assert_eq!(mixed().back_end(), "middle");
    assert_eq!(mixed().why_not_better(), ["best is not all", "middle is not all"]);
    assert_eq!(mixed().freeze_support(), Support::Weaker("best".to_owned()));
    let poor = Means::of(vec![
        Player::boxed("best", &[LimitKey::Nofile], false),
        Player::boxed("last", &[LimitKey::Nofile], true),
    ]);
    assert_eq!(poor.back_end(), "last");
    assert_eq!(poor.support(LimitKey::Cpu), Support::Refused("not by last".to_owned()));
    assert_eq!(poor.freeze_support(), Support::Weaker("last".to_owned()));
}

#[test]
fn this_machine_is_probed_and_nothing_of_it_stays() {
    let state = tempfile::tempdir().unwrap();
    let means = Means::look(state.path(), None);
    assert!(["cgroup-v1", "none"].contains(&means.back_end()), "{means:?}");
    assert!(!matches!(means.support(LimitKey::Nofile), Support::Refused(_)));
    assert!(!matches!(means.freeze_support(), Support::Refused(_)));
    let here = Here::read().unwrap();
    for controller in ["cpu", "memory", "pids", "freezer"] {
        let Ok(own) = here.folder(Tree::Of(controller)) else { continue };
        assert!(!own.join(tree_name(state.path())).exists(), "{controller}");
    }
}
