//! The file: a tar archive, which every system opens without our tools, unpacked or by looking into it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::parts::Part;
use crate::cli::report::CliError;
use crate::store::replace::replace;

/// Whether a file that is there may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overwrite {
    Never,
    Replace,
}

/// The parts that could be had, in one folder of this name.
pub(super) fn pack(folder: &str, parts: &[Part], seconds: u64) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for part in parts {
        let Ok(content) = &part.content else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("{folder}/{}", part.name), &content[..])?;
    }
    archive.into_inner()
}

/// Writes it for its owner alone: logs, settings and state may hold what only the owner should read.
pub(super) fn write(path: &Path, bytes: &[u8], overwrite: Overwrite) -> Result<(), CliError> {
    let failed = |source| CliError::File { what: "write", path: path.to_owned(), source };
    if overwrite == Overwrite::Replace {
        return replace(path, bytes).map_err(|error| failed(error.source));
    }
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(CliError::Exists { path: path.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    };
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|source| {
        // A part of a bundle looks like one.
        let _ = fs::remove_file(path);
        failed(source)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_could_be_had_is_in_one_folder_and_can_be_read_back() {
        let part = |name, content: Result<&[u8], &str>| Part {
            name,
            what: "",
            content: content.map(<[u8]>::to_vec).map_err(str::to_owned),
        };
        let parts = [part("a.txt", Ok(b"text")), part("b.json", Err("no watchdog runs"))];
        let bytes = pack("counter-now", &parts, 7).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mtime().unwrap(), content)
            })
            .collect();
        assert_eq!(found, [("counter-now/a.txt".to_owned(), 7, "text".to_owned())]);
    }

    #[test]
    fn a_file_that_is_there_stays_unless_it_is_to_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        write(&path, b"one", Overwrite::Never).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write(&path, b"two", Overwrite::Never), Err(CliError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write(&path, b"two", Overwrite::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
