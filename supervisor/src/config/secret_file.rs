//! Secrets that the configuration does not have in it, but names a file of: `password = { file = "/run/secrets/mail" }`.
//!
//! ```text
//! configuration ─► reference ─► settings record, history        read each time a service is given its settings
//!                      └──────────────────────────► file ─► value ─► session ─► service
//! ```
//! What is kept and shown is the reference. The value is on no disk of the watchdog's, and every start has the file's
//! content of then.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde_json::{Map, Value};
use watchdog_protocol::limits::MAX_SETTINGS;

use super::schema::{Invalid, Schema};

/// Why there is no value in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretFileError {
    /// A path that would depend on whose folder it starts in.
    #[error("{} is no absolute path", path.display())]
    Relative {
        /// As written.
        path: PathBuf,
    },
    /// It can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder, a pipe, a device.
    #[error("{} is no file", path.display())]
    NoFile {
        /// Which.
        path: PathBuf,
    },
    /// Anybody may write it, and so choose what a service trusts.
    #[error("{} can be changed by everybody (mode {mode:04o})", path.display())]
    WritableByOthers {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Longer than all settings of a service may be.
    #[error("{} has more than {MAX_SETTINGS} bytes", path.display())]
    Long {
        /// Which.
        path: PathBuf,
    },
}

/// What the service gets for these values: secrets read, defaults filled in. Reads files.
///
/// # Errors
/// All that is wrong with them.
pub(crate) fn delivered(schema: &Schema, values: Map<String, Value>) -> Result<Value, Vec<Invalid>> {
    let in_words = |err: SecretFileError| match err.source() {
        Some(cause) => format!("{err}: {cause}"),
        None => err.to_string(),
    };
    schema.complete(schema.resolved(values, &|path| read(path).map_err(in_words))?)
}

/// The values with the defaults filled in and the references still in them, if a service could be given them. Reads files.
///
/// # Errors
/// All that is wrong with them.
pub(crate) fn fitting(schema: &Schema, values: Map<String, Value>) -> Result<Value, Vec<Invalid>> {
    delivered(schema, values.clone())?;
    Ok(schema.filled(values))
}

/// Of the files these values name, those that everybody can read, by the path of the setting.
pub(super) fn readable_by_all(
    schema: &Schema,
    values: &Map<String, Value>,
) -> Vec<(super::SettingPath, PathBuf, u32)> {
    let references = schema.references(values).into_iter();
    let exposed = references.filter_map(|(path, file)| {
        let mode = file.metadata().ok()?.mode() & 0o7777;
        (mode & 0o004 != 0).then_some((path, file, mode))
    });
    exposed.collect()
}

/// The text in a file, without the line end that editors put behind it.
fn read(path: &Path) -> Result<String, SecretFileError> {
    let path = path.to_owned();
    if !path.is_absolute() {
        return Err(SecretFileError::Relative { path });
    }
    // Nobody waits here for the other end of a pipe.
    let opened = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
    let found = opened.and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match found {
        Ok(found) => found,
        Err(source) => return Err(SecretFileError::Read { path, source }),
    };
    if !metadata.is_file() {
        return Err(SecretFileError::NoFile { path });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o002 != 0 {
        return Err(SecretFileError::WritableByOthers { path, mode });
    }
    let mut text = String::new();
    if let Err(source) = file.take(MAX_SETTINGS as u64 + 1).read_to_string(&mut text) {
        return Err(SecretFileError::Read { path, source });
    }
    if text.len() > MAX_SETTINGS {
        return Err(SecretFileError::Long { path });
    }
    text.truncate(without_line_end(&text).len());
    Ok(text)
}

/// A text as it was meant by whoever put it in a file.
pub(crate) fn without_line_end(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(text) => text.strip_suffix('\r').unwrap_or(text),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    const SCHEMA: &str = r##"{
        "type": "object",
        "properties": {
            "step": { "type": "integer", "default": 1 },
            "plain": { "anyOf": [{ "type": "string" }, { "type": "object", "properties": { "file": { "type": "string" } } }] },
            "token": { "type": ["string", "null"], "writeOnly": true, "x-secret": true },
            "pin": { "type": "integer", "writeOnly": true, "x-secret": true },
            "list": { "type": "array", "items": { "type": "string", "writeOnly": true, "x-secret": true } },
            "own": { "type": "object", "properties": { "file": { "type": "string" } }, "writeOnly": true, "x-secret": true },
            "deep": { "$ref": "#/$defs/Deep" }
        },
        "$defs": { "Deep": { "type": "object", "properties": {
            "password": { "type": "string", "writeOnly": true, "x-secret": true } } } }
    }"##;

    struct Files {
        folder: tempfile::TempDir,
        schema: Schema,
    }

    impl Files {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), schema: Schema::compile(SCHEMA).unwrap() }
        }

        fn write(&self, content: &str, mode: u32) -> Value {
            let count = fs::read_dir(self.folder.path()).unwrap().count();
            let path = self.folder.path().join(format!("secret-{count}"));
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            json!({ "file": path })
        }

        fn wrong(&self, values: &Value) -> String {
            let wrong = delivered(&self.schema, values.as_object().unwrap().clone()).unwrap_err();
            let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
            wrong.join("; ").replace(self.folder.path().to_str().unwrap(), "")
        }
    }

    #[test]
    fn a_secret_in_a_file_is_read_where_a_secret_is_wanted_and_stays_a_reference_in_what_is_kept() {
        let files = Files::new();
        let values = json!({
            "token": files.write("null\n", 0o600), "pin": files.write("735\n", 0o600),
            "list": [files.write("one", 0o600), "two"], "deep": { "password": files.write("\"a\"\r\n", 0o600) },
            "own": { "file": "x" }, "plain": { "file": "/etc/hostname" },
        });
        let values = values.as_object().unwrap();
        let mut expected = json!({
            "token": "null", "pin": 735, "list": ["one", "two"], "deep": { "password": "\"a\"" },
            "own": { "file": "x" }, "plain": { "file": "/etc/hostname" }, "step": 1,
        });
        assert_eq!(delivered(&files.schema, values.clone()).unwrap(), expected);
        for key in ["token", "pin", "list", "deep"] {
            expected[key] = values[key].clone();
        }
        assert_eq!(fitting(&files.schema, values.clone()).unwrap(), expected);
        let shown = Value::Object(files.schema.shown(values.clone())).to_string();
        assert!(!shown.contains("secret-"), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_the_file_or_with_what_is_in_it_is_told_without_it() {
        let files = Files::new();
        assert_eq!(
            files.wrong(&json!({ "pin": files.write("canary", 0o600) })),
            "pin = (secret), expected an integer"
        );
        assert_eq!(
            files.wrong(&json!({ "token": { "file": files.folder.path().join("none") } })),
            "token: cannot read /none: No such file or directory (os error 2)"
        );
        assert_eq!(
            files.wrong(&json!({ "token": { "file": "relative" } })),
            "token: relative is no absolute path"
        );
        assert_eq!(files.wrong(&json!({ "token": { "file": files.folder.path() } })), "token:  is no file");
        let open = files.write("x", 0o606);
        assert_eq!(
            files.wrong(&json!({ "token": open })),
            "token: /secret-1 can be changed by everybody (mode 0606)"
        );
        let pipe = files.folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(files.wrong(&json!({ "token": { "file": pipe } })), "token: /pipe is no file");
        let long = files.write(&"x".repeat(MAX_SETTINGS + 1), 0o600);
        assert!(files.wrong(&json!({ "token": long })).contains("has more than"));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_found() {
        let files = Files::new();
        let values =
            json!({ "token": files.write("x", 0o644), "deep": { "password": files.write("x", 0o640) } });
        let found = readable_by_all(&files.schema, values.as_object().unwrap());
        let found: Vec<_> = found.iter().map(|(path, _, mode)| (path.to_string(), *mode)).collect();
        assert_eq!(found, [("token".to_owned(), 0o644)]);
    }
}
