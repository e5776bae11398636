//! The configuration file of a folder.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::problem::{ConfigErrors, Problem};
use super::{Config, parse};

/// The name of the configuration file.
pub const FILE_NAME: &str = "watchdog.toml";

/// A configuration is text a person wrote; a larger file was named by mistake.
const LARGEST: u64 = 4 * 1024 * 1024;

/// The nearest `watchdog.toml`: in `start`, which is absolute, or in a folder above it.
///
/// # Errors
/// [`Problem::NotFound`].
pub fn find(start: &Path) -> Result<PathBuf, Problem> {
    start
        .ancestors()
        .map(|folder| folder.join(FILE_NAME))
        .find(|file| file.is_file())
        .ok_or_else(|| Problem::NotFound { start: start.to_owned() })
}

/// Reads and parses `path`. Paths in the result are absolute.
///
/// # Errors
/// When the file can't be read, may be changed by others, or says something wrong: then all that is wrong.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let (path, text) = read(path)?;
    parse(&path, text)
}

/// The text of a configuration, and its absolute path.
///
/// # Errors
/// When the file can't be read, or may be changed by others.
pub fn read(path: &Path) -> Result<(PathBuf, String), ConfigErrors> {
    let unreadable = |source| Problem::Read { path: path.to_owned(), source };
    let path = std::path::absolute(path).map_err(unreadable)?;
    let file = File::open(&path).map_err(unreadable)?;
    // Of the open file, so that it is the one that is read.
    let metadata = file.metadata().map_err(unreadable)?;
    let foreign = ![0, nix::unistd::geteuid().as_raw()].contains(&metadata.uid());
    let who = match metadata.mode() {
        mode if mode & 0o002 != 0 => Some("everybody"),
        mode if mode & 0o020 != 0 && foreign => Some("its group"),
        _ => None,
    };
    if let Some(who) = who {
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        return Err(Problem::WritableByOthers { path, who, mode, owner }.into());
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST {
        return Err(unreadable(std::io::Error::other("it is larger than 4 MiB")).into());
    }
    Ok((path, text))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_nearest_file_above_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(folder.path().join(FILE_NAME), "").unwrap();
        assert_eq!(find(&inner).unwrap(), folder.path().join(FILE_NAME));
        fs::write(folder.path().join("a").join(FILE_NAME), "").unwrap();
        assert_eq!(find(&inner).unwrap(), folder.path().join("a").join(FILE_NAME));
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, "").unwrap();
        let refused = |mode: u32, owner: u32| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
            load(&path).err().map(|errors| errors.to_string().replace(folder.path().to_str().unwrap(), ""))
        };
        assert_eq!(refused(0o644, 0), None);
        assert_eq!(refused(0o664, 0), None);
        insta::assert_snapshot!(refused(0o666, 0).unwrap(), @r#"
        /watchdog.toml can be changed by everybody (mode 0666, owner 0)
          hint: whoever changes it runs programs as you: chmod go-w /watchdog.toml
        "#);
        insta::assert_snapshot!(refused(0o664, 65534).unwrap(), @r#"
        /watchdog.toml can be changed by its group (mode 0664, owner 65534)
          hint: whoever changes it runs programs as you: chmod go-w /watchdog.toml
        "#);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let errors = load(Path::new("/nowhere/watchdog.toml")).unwrap_err();
        insta::assert_snapshot!(errors, @"cannot read /nowhere/watchdog.toml: No such file or directory (os error 2)");
    }
}
