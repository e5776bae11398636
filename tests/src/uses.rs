//! What `probe-borrower` writes down, and how many tokens were in use at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of one process.
pub fn file(folder: &Path, service: &str, incarnation: u64) -> PathBuf {
    folder.join(format!("{service}-{incarnation}.uses"))
}

/// A token was in use at this moment.
pub fn line(number: u64, at: Duration) -> String {
    format!("{number} {}\n", at.as_micros())
}

/// From when until when each token was in use at the least, in microseconds, of all processes of these services.
pub fn uses(folder: &Path, services: &[&str]) -> Vec<(u64, u64)> {
    let mut uses: BTreeMap<(PathBuf, u64), (u64, u64)> = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder of the watchdog").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Some(name) = name.strip_suffix(".uses") else { continue };
        if !name.rsplit_once('-').is_some_and(|(service, _)| services.contains(&service)) {
            continue;
        }
        // What a kill cut off is no line.
        let text = fs::read_to_string(&path).expect("a file of a borrower");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            let mut numbers = line.split(' ').map(|number| number.parse::<u64>().expect("a number"));
            let (number, at) = (numbers.next().expect("of the use"), numbers.next().expect("of the moment"));
            let (from, to) = uses.entry((path.clone(), number)).or_insert((at, at));
            (*from, *to) = (at.min(*from), at.max(*to));
        }
    }
    uses.into_values().collect()
}

/// The most that were in use at one moment.
pub fn most_at_once(uses: &[(u64, u64)]) -> i64 {
    let mut turns: Vec<(u64, i64)> = uses.iter().flat_map(|(from, to)| [(*from, 1), (*to, -1)]).collect();
    // At the same moment one ends before the next begins.
    turns.sort_unstable();
    let mut now = 0;
    turns.into_iter().map(|(_, change)| (now += change, now).1).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_that_overlap_count_and_those_that_follow_do_not() {
        assert_eq!(most_at_once(&[]), 0);
        assert_eq!(most_at_once(&[(1, 5), (5, 9), (9, 12)]), 1);
        assert_eq!(most_at_once(&[(1, 5), (4, 9), (3, 12), (6, 7)]), 3);
    }
}
