//! Whose disks mind a weight.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use watchdog_protocol::resources::Support;

use super::files::read_word;

/// What each disk is scheduled by.
pub(super) type Schedulers = BTreeMap<String, String>;

/// A weight is the business of a disk's scheduler, and of them BFQ alone minds it.
pub(super) fn io_support(disks: &Schedulers) -> Support {
    let (with, without): (Vec<_>, Vec<_>) = disks.iter().partition(|(_, scheduler)| *scheduler == "bfq");
    let named = |disks: &[(&String, &String)]| {
        disks.iter().map(|(disk, _)| disk.as_str()).collect::<Vec<_>>().join(", ")
    };
    if with.is_empty() {
        let words: BTreeSet<&str> = without.iter().map(|(_, scheduler)| scheduler.as_str()).collect();
        let found = words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "there is none".to_owned() } else { format!("it is {found}") };
        return Support::Refused(format!("it needs a disk whose scheduler is `bfq`, and {found}"));
    }
    match without.is_empty() {
        true => Support::Full,
        false => Support::Weaker(format!("only on {}, whose scheduler is `bfq`", named(&with))),
    }
}

/// The scheduler of each disk, the word in brackets. Memory and files that play a disk have none that matters.
pub(super) fn schedulers(block: &Path) -> Schedulers {
    let is_made_up = |name: &str| ["loop", "ram", "zram"].iter().any(|prefix| name.starts_with(prefix));
    let disks = fs::read_dir(block).into_iter().flatten().flatten();
    disks
        .filter_map(|disk| {
            let name = disk.file_name().into_string().ok().filter(|name| !is_made_up(name))?;
            let line = read_word(&disk.path().join("queue/scheduler")).ok()?;
            let (_, behind) = line.split_once('[')?;
            Some((name, behind.split_once(']')?.0.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_disks_needs_a_scheduler_that_minds_it_and_is_refused_with_those_there_are() {
        let disks = |all: &[(&str, &str)]| -> Schedulers {
            all.iter().map(|(disk, scheduler)| (disk.to_string(), scheduler.to_string())).collect()
        };
        let refused =
            |found: &str| Support::Refused(format!("it needs a disk whose scheduler is `bfq`, and {found}"));
        assert_eq!(io_support(&disks(&[])), refused("there is none"));
        assert_eq!(
            io_support(&disks(&[("vda", "none"), ("sda", "mq-deadline"), ("vdb", "none")])),
            refused("it is `mq-deadline`, `none`")
        );
        assert_eq!(io_support(&disks(&[("sda", "bfq")])), Support::Full);
    }

    #[test]
    fn schedulers_are_read_of_disks_alone() {
        let block = tempfile::tempdir().unwrap();
        for (disk, line) in
            [("vda", "[none] mq-deadline bfq\n"), ("sda", "none [bfq]\n"), ("loop0", "[none]\n")]
        {
            let queue = block.path().join(disk).join("queue");
            fs::create_dir_all(&queue).unwrap();
            fs::write(queue.join("scheduler"), line).unwrap();
        }
        fs::create_dir(block.path().join("dm-0")).unwrap();
        let found: Vec<_> = schedulers(block.path()).into_iter().collect();
        let expected = [("sda", "bfq"), ("vda", "none")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(found, expected);
    }
}
