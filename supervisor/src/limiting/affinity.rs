//! Which processors a service is kept to, where that is all that can be limited.

use rustix::thread::CpuSet;
use watchdog_protocol::ServiceName;

/// So many of those we may use, starting at another one for each service: else all would meet on the first.
pub(super) fn chosen(service: &ServiceName, usable: &CpuSet, how_many: usize) -> CpuSet {
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|number| usable.is_set(*number)).collect();
    let sum =
        service.as_str().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let mut set = CpuSet::new();
    for number in all.iter().cycle().skip(sum % all.len().max(1)).take(how_many.min(all.len())) {
        set.set(*number);
    }
    set
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_service_gets_as_many_as_it_may_use_and_no_other(
            usable in prop::collection::btree_set(0_usize..CpuSet::MAX_CPU, 1..20),
            how_many in 1_usize..30,
            name in "[a-z][a-z0-9-]{0,8}",
        ) {
            let mut set = CpuSet::new();
            usable.iter().for_each(|number| set.set(*number));
            let found = chosen(&name.parse().unwrap(), &set, how_many);
            prop_assert_eq!(found.count() as usize, how_many.min(usable.len()));
            prop_assert!((0..CpuSet::MAX_CPU).all(|number| !found.is_set(number) || usable.contains(&number)));
        }
    }
}
