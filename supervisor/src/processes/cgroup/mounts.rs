//! Where cgroup trees are mounted, and where in them we are.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::NoCgroup;

/// Which tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tree<'a> {
    /// The one of version 2.
    Unified,
    /// That of version 1 with this controller.
    Of(&'a str),
}

/// What the kernel tells of cgroups to this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    mounts: Vec<Mount>,
    own: Vec<u8>,
}

impl Here {
    /// As it is now.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub(crate) fn read() -> Result<Self, NoCgroup> {
        const MOUNTS: &str = "/proc/self/mountinfo";
        const OWN: &str = "/proc/self/cgroup";
        let mountinfo = fs::read(MOUNTS).map_err(|source| NoCgroup::Read { path: MOUNTS, source })?;
        let own = fs::read(OWN).map_err(|source| NoCgroup::Read { path: OWN, source })?;
        Ok(Self { mounts: mounts(&mountinfo), own })
    }

    /// Our own cgroup as a folder.
    ///
    /// # Errors
    /// That tree is not mounted, or our place in it can't be seen from here.
    pub(crate) fn folder(&self, tree: Tree<'_>) -> Result<PathBuf, NoCgroup> {
        let not_mounted = || match tree {
            Tree::Unified => NoCgroup::NotMounted,
            Tree::Of(controller) => NoCgroup::NoController { controller: controller.to_owned() },
        };
        let own = own_cgroup(&self.own, tree).ok_or_else(not_mounted)?;
        let mut mounts = self.mounts.iter().filter(|mount| mount.has(tree)).peekable();
        mounts.peek().ok_or_else(not_mounted)?;
        mounts
            .find_map(|mount| Some(mount.at.join(own.strip_prefix(&mount.root).ok()?)))
            .ok_or(NoCgroup::Outside { own })
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Mount {
    /// The cgroup that is mounted.
    root: PathBuf,
    /// Where.
    at: PathBuf,
    /// Of version 1, with controllers among these words; else of version 2.
    options: Option<Vec<String>>,
}

impl Mount {
    fn has(&self, tree: Tree<'_>) -> bool {
        match (tree, &self.options) {
            (Tree::Unified, None) => true,
            (Tree::Of(controller), Some(options)) => options.iter().any(|option| option == controller),
            _ => false,
        }
    }
}

/// The cgroup trees in a mountinfo.
fn mounts(mountinfo: &[u8]) -> Vec<Mount> {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let separator = fields.iter().position(|field| field == b"-")?;
            let options = match *fields.get(separator + 1)? {
                b"cgroup2" => None,
                b"cgroup" => {
                    let words = String::from_utf8_lossy(fields.get(separator + 3)?).into_owned();
                    Some(words.split(',').map(str::to_owned).collect())
                }
                _ => return None,
            };
            Some(Mount { root: unescape(fields.get(3)?), at: unescape(fields.get(4)?), options })
        })
        .collect()
}

/// The kernel writes blanks and the like in a path as `\040`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Our line of that tree in `/proc/self/cgroup`: `0::/path`, `4:cpu,cpuacct:/path`.
fn own_cgroup(text: &[u8], tree: Tree<'_>) -> Option<PathBuf> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match tree {
            Tree::Unified => number == b"0",
            Tree::Of(wanted) => controllers.split(|byte| *byte == b',').any(|name| name == wanted.as_bytes()),
        };
        is_it.then(|| Path::new(&std::ffi::OsString::from_vec(path.to_vec())).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 /job /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n";

    fn folder(mountinfo: &[u8], own: &[u8], tree: Tree<'_>) -> Result<PathBuf, NoCgroup> {
        Here { mounts: mounts(mountinfo), own: own.to_vec() }.folder(tree)
    }

    #[test]
    fn our_place_is_found_in_each_tree_whatever_part_of_it_is_mounted() {
        let own = b"9:name=systemd:/x\n4:memory:/job/1\n2:cpuacct,cpu:/\n0::/user.slice/a b\n";
        for (tree, place) in [
            (Tree::Unified, "/sys/fs/cgroup/unified/user.slice/a b"),
            (Tree::Of("cpu"), "/sys/fs/cgroup/cpu,cpuacct/"),
            (Tree::Of("memory"), "/sys/fs/cgroup/memory/1"),
        ] {
            assert_eq!(folder(HYBRID, own, tree).unwrap(), Path::new(place), "{tree:?}");
        }
        let pure = b"41 31 0:38 /a /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folder(pure, b"0::/a/b\n", Tree::Unified).unwrap(), Path::new("/sys/fs/my cgroup/b"));
    }

    #[test]
    fn a_tree_that_is_not_there_is_named() {
        let text = |mountinfo, own, tree| folder(mountinfo, own, tree).unwrap_err().to_string();
        let plain = b"31 23 0:28 / / rw - ext4 /dev/root rw\n\n";
        assert_eq!(text(plain, b"0::/\n", Tree::Unified), "no cgroup v2 file system is mounted");
        let none = "no cgroup v1 file system with the controller `pids` is mounted";
        assert_eq!(text(HYBRID, b"0::/\n", Tree::Of("pids")), none);
        assert_eq!(text(plain, b"1:pids:/\n", Tree::Of("pids")), none);
        let outside = "our own cgroup \"/other\" is not below the mounted tree";
        assert_eq!(text(HYBRID, b"4:memory:/other\n", Tree::Of("memory")), outside);
    }
}
