//! Files that are written no more: which there are, and which must go.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::naming::{Kind, Naming};

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldFile {
    pub(super) name: String,
    /// The file it was.
    pub(super) current: String,
    /// When it was rotated: milliseconds since 1970.
    pub(super) stamp: u64,
    pub(super) is_packed: bool,
    pub(super) length: u64,
}

/// What a folder holds of one output.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The oldest first.
    pub(super) files: Vec<OldFile>,
    /// Bytes of those that are being written.
    pub(super) current: u64,
    /// What a killed process has left of compressing.
    pub(super) unfinished: Vec<String>,
}

/// What there is; nothing when there is no folder.
pub(super) fn list(folder: &Path, naming: &Naming) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(listing),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some((name, kind)) = name.to_str().and_then(|name| Some((name, naming.kind(name)?))) else {
            continue;
        };
        let length = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            // Gone since, or none of ours.
            Ok(_) | Err(_) => continue,
        };
        match kind {
            Kind::Current => listing.current += length,
            Kind::Unfinished => listing.unfinished.push(name.to_owned()),
            Kind::Old { current, stamp, is_packed } => listing.files.push(OldFile {
                name: name.to_owned(),
                current: current.to_owned(),
                stamp,
                is_packed,
                length,
            }),
        }
    }
    listing.files.sort_by(|a, b| (a.stamp, &a.name).cmp(&(b.stamp, &b.name)));
    Ok(listing)
}

/// Which of them must go, of each file all but the last `keep`, and then the oldest of all until they and those that
/// are being written take no more than `total`. A file that is there both packed and not was packed by a process that
/// was killed before it removed it.
pub(super) fn doomed(listing: &Listing, keep: usize, total: u64) -> Vec<&OldFile> {
    let (mut doomed, mut left) = (Vec::new(), Vec::new());
    // How many newer ones there are of each, and the oldest of them.
    let mut newer: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for file in listing.files.iter().rev() {
        let (count, oldest) = newer.get(file.current.as_str()).copied().unwrap_or((0, u64::MAX));
        // The packed one sorts behind the other.
        if count >= keep || oldest == file.stamp {
            doomed.push(file);
        } else {
            newer.insert(&file.current, (count + 1, file.stamp));
            left.push(file);
        }
    }
    let mut sum = listing.current.saturating_add(left.iter().map(|file| file.length).sum());
    while sum > total
        && let Some(oldest) = left.pop()
    {
        sum -= oldest.length;
        doomed.push(oldest);
    }
    doomed
}

/// Which are to be packed: all but the last of each, which a restart may have to look into.
pub(super) fn to_pack(listing: &Listing) -> impl Iterator<Item = &OldFile> {
    let last: BTreeMap<&str, u64> =
        listing.files.iter().map(|file| (file.current.as_str(), file.stamp)).collect();
    let is_last = move |file: &OldFile| last.get(file.current.as_str()) == Some(&file.stamp);
    listing.files.iter().filter(move |file| !file.is_packed && !is_last(file))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(current: &str, stamp: u64, is_packed: bool, length: u64) -> OldFile {
        let name = format!("{current}.{stamp}{}", if is_packed { ".gz" } else { "" });
        OldFile { name, current: current.to_owned(), stamp, is_packed, length }
    }

    #[test]
    fn what_was_packed_goes_and_the_packed_one_stays() {
        let files = vec![file("a", 1, false, 10), file("a", 1, true, 2), file("a", 2, false, 10)];
        let listing = Listing { files, current: 0, unfinished: Vec::new() };
        assert_eq!(doomed(&listing, 2, 100), [&listing.files[0]]);
        assert_eq!(to_pack(&listing).collect::<Vec<_>>(), [&listing.files[0]]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_newest_and_within_its_limits(
            files in prop::collection::btree_map((0u64..30, "[abc]"), (any::<bool>(), 1u64..50), 0..30),
            current in 0u64..100, keep in 0usize..6, total in 0u64..400,
        ) {
            let files: Vec<_> = files
                .into_iter()
                .map(|((stamp, name), (is_packed, length))| file(&name, stamp, is_packed, length))
                .collect();
            let listing = Listing { files, current, unfinished: Vec::new() };
            let doomed = doomed(&listing, keep, total);
            let left: Vec<_> = listing.files.iter().filter(|file| !doomed.contains(file)).collect();
            let sum = current + left.iter().map(|file| file.length).sum::<u64>();
            prop_assert!(sum <= total || left.is_empty());
            for name in ["a", "b", "c"] {
                let of = |all: &[&OldFile]| {
                    all.iter().filter(|file| file.current == name).map(|file| file.stamp).collect::<Vec<_>>()
                };
                let (left, doomed) = (of(&left), of(&doomed));
                prop_assert!(left.len() <= keep);
                prop_assert!(left.iter().min() >= doomed.iter().max() || left.is_empty());
            }
            // Nothing goes without need: one more of what is gone last would be too much.
            if let Some(last) = doomed.last() {
                let same = left.iter().filter(|file| file.current == last.current);
                let is_twice = same.clone().any(|file| file.stamp == last.stamp);
                prop_assert!(is_twice || same.count() >= keep || sum + last.length > total);
            }
        }
    }
}
