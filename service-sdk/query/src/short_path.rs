//! Paths that fit in a socket address.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `sun_path` holds 108 bytes, one of them the closing zero.
const LONGEST: usize = 107;

/// A path as a socket address can hold it: itself, or through a descriptor of its folder when it is over 107
/// bytes. Valid while the value lives.
#[derive(Debug)]
pub struct ShortPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl ShortPath {
    /// # Errors
    /// When the path is too long and its folder can't be opened, or when the last component alone is too long.
    pub fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= LONGEST {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a file in a folder"));
        };
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    /// At most 107 bytes, unless the last component alone is longer.
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_fits_stays_itself() {
        let path = Path::new("/run/w/watchdog.sock");
        assert_eq!(ShortPath::of(path).unwrap().as_path(), path);
    }

    #[test]
    fn a_path_that_does_not_fit_leads_through_its_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("x".repeat(120));
        std::fs::create_dir(&folder).unwrap();
        let short = ShortPath::of(&folder.join("file")).unwrap();
        assert!(short.as_path().as_os_str().len() <= LONGEST);
        std::fs::write(short.as_path(), "here").unwrap();
        assert_eq!(std::fs::read(folder.join("file")).unwrap(), b"here");
    }
}
