//! What a service says of itself when run with `WATCHDOG_DESCRIBE=1`: one JSON text on standard output.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_CONTRACT, MAX_MANIFEST};

/// The environment variable that asks an SDK service to print its [`Manifest`] and exit.
pub const DESCRIBE: &str = "WATCHDOG_DESCRIBE";

/// The environment variable that asks an SDK service to print its state as JSON and exit. Its value is the version
/// of the stored state, whose bytes are the program's standard input.
pub const SHOW_STATE: &str = "WATCHDOG_SHOW_STATE";

/// Marks a schema in the settings' JSON Schema: with it `true`, no value there is ever shown.
pub const SECRET_KEYWORD: &str = "x-secret";

/// The exit code of an SDK service whose stored state can't be read by its program.
pub const UNREADABLE_STATE: u8 = 65;

/// The format this crate writes and the newest it reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// A service's settings type, state type and contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`]; first, so that a newer one is told apart before the rest is understood.
    #[serde(rename = "watchdog_manifest")]
    pub format: u32,
    /// JSON Schema of the settings type, as text; `None` when it is `()`.
    pub settings: Option<String>,
    /// Of the state type; `None` when it is `()`.
    pub state: Option<StateManifest>,
    /// What the service's inbox takes.
    pub contract: Contract,
    /// Of each message of the contract, the text its hash is taken of: what [`layout`](crate::layout) reads. `None` of
    /// one that is longer than [`MAX_LAYOUT`](crate::limits::MAX_LAYOUT), or beyond
    /// [`MAX_LAYOUTS`](crate::limits::MAX_LAYOUTS) of all; empty from an SDK that said nothing of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layouts: Vec<Option<String>>,
}

/// A state type as its service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateManifest {
    /// `State::VERSION`: the newest version the program can read.
    pub version: u32,
    /// The initial value, encoded.
    #[serde(with = "serde_bytes")]
    pub initial: Vec<u8>,
}

/// Why a manifest can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More bytes than any manifest has.
    #[error("the manifest has {length} bytes, at most {MAX_MANIFEST} are read")]
    Long {
        /// Its length.
        length: usize,
    },
    /// Not the JSON of a manifest.
    #[error("it printed no manifest")]
    Json(#[source] serde_json::Error),
    /// Written by a newer SDK.
    #[error("the manifest has format {found}, this watchdog knows up to {MANIFEST_FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// A contract beyond its bound.
    #[error("the contract has {found} messages, at most {MAX_CONTRACT} are allowed")]
    Contract {
        /// How many it lists.
        found: usize,
    },
}

impl Manifest {
    /// Reads what a described program printed.
    ///
    /// # Errors
    /// [`ManifestError`] when it is no manifest, too long or newer than known.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        if text.len() > MAX_MANIFEST {
            return Err(ManifestError::Long { length: text.len() });
        }
        #[derive(Deserialize)]
        struct Head {
            watchdog_manifest: u32,
        }
        let head: Head = serde_json::from_slice(text).map_err(ManifestError::Json)?;
        if head.watchdog_manifest > MANIFEST_FORMAT {
            return Err(ManifestError::Newer { found: head.watchdog_manifest });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(ManifestError::Json)?;
        let messages = manifest.contract.0.len().max(manifest.layouts.len());
        if messages > MAX_CONTRACT {
            return Err(ManifestError::Contract { found: messages });
        }
        Ok(manifest)
    }

    /// The text a described program prints.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a manifest holds nothing JSON can't")
    }

    /// Names this manifest in a hello: equal texts, equal hash.
    pub fn hash(&self) -> u64 {
        fnv1a(self.to_json().as_bytes())
    }
}

/// FNV-1a, 64 bits: stable across builds, which the standard library's hasher does not promise. It guards
/// against mistakes, not against forgery.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The ordered messages of an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Contract(pub Vec<MessageShape>);

/// One variant of a message enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageShape {
    /// The variant's name.
    pub name: String,
    /// Hash of its postcard layout and its reply's: types, field names, order; no docs.
    pub hash: u64,
}

/// Where two contracts part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Mismatch {
    /// The sender knows a message that the receiver does not.
    #[error("message {at} `{sender}` is unknown to the receiver")]
    Unknown {
        /// Position in the list, from 0.
        at: u32,
        /// Its name at the sender.
        sender: String,
    },
    /// Same place, another name.
    #[error("message {at} is `{sender}` to the sender and `{receiver}` to the receiver")]
    Renamed {
        /// Position in the list, from 0.
        at: u32,
        /// Its name at the sender.
        sender: String,
        /// Its name at the receiver.
        receiver: String,
    },
    /// Same name, other fields or another reply.
    #[error("message {at} `{name}` has other fields or another reply at the receiver")]
    Reshaped {
        /// Position in the list, from 0.
        at: u32,
        /// Its name.
        name: String,
    },
}

impl Contract {
    /// A sender may talk when its list is a prefix of the receiver's.
    ///
    /// # Errors
    /// The first place where it is not.
    pub fn fits(&self, receiver: &Contract) -> Result<(), Mismatch> {
        for (at, shape) in self.0.iter().enumerate() {
            let position = u32::try_from(at).unwrap_or(u32::MAX);
            match receiver.0.get(at) {
                None => return Err(Mismatch::Unknown { at: position, sender: shape.name.clone() }),
                Some(other) if other.name != shape.name => {
                    return Err(Mismatch::Renamed {
                        at: position,
                        sender: shape.name.clone(),
                        receiver: other.name.clone(),
                    });
                }
                Some(other) if other.hash != shape.hash => {
                    return Err(Mismatch::Reshaped { at: position, name: shape.name.clone() });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Contract {
    /// The name of the message that a payload is, by the number it begins with; the rest of it is not looked at.
    /// `None`: no message of this contract.
    pub fn name_of(&self, payload: &[u8]) -> Option<&str> {
        let (at, _) = postcard::take_from_bytes::<u32>(payload).ok()?;
        self.0.get(usize::try_from(at).ok()?).map(|shape| shape.name.as_str())
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, shape) in self.0.iter().enumerate() {
            write!(out, "{}{}:{:016x}", if at == 0 { "" } else { " " }, shape.name, shape.hash)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract(shapes: &[(&str, u64)]) -> Contract {
        Contract(
            shapes.iter().map(|(name, hash)| MessageShape { name: (*name).into(), hash: *hash }).collect(),
        )
    }

    #[test]
    fn a_sender_fits_when_its_list_is_a_prefix() {
        let receiver = contract(&[("Add", 1), ("Total", 2)]);
        assert_eq!(contract(&[]).fits(&receiver), Ok(()));
        assert_eq!(contract(&[("Add", 1)]).fits(&receiver), Ok(()));
        assert_eq!(receiver.fits(&receiver), Ok(()));
        assert!(matches!(
            contract(&[("Add", 1), ("Total", 2), ("New", 3)]).fits(&receiver),
            Err(Mismatch::Unknown { at: 2, .. })
        ));
        assert!(matches!(contract(&[("Sub", 1)]).fits(&receiver), Err(Mismatch::Renamed { at: 0, .. })));
        assert!(matches!(contract(&[("Add", 9)]).fits(&receiver), Err(Mismatch::Reshaped { at: 0, .. })));
    }

    #[test]
    fn a_manifest_comes_back_from_its_text() {
        let manifest = Manifest {
            format: MANIFEST_FORMAT,
            settings: Some("{\"type\":\"object\"}".into()),
            state: Some(StateManifest { version: 3, initial: vec![0, 255] }),
            contract: contract(&[("Add", u64::MAX), ("Big", 2)]),
            layouts: vec![Some("n:u32,".into()), None],
        };
        assert_eq!(Manifest::parse(manifest.to_json().as_bytes()).unwrap(), manifest);
        let untold = Manifest { layouts: Vec::new(), ..manifest };
        assert!(!untold.to_json().contains("layouts"), "as a program of an older SDK writes it");
        assert_eq!(Manifest::parse(untold.to_json().as_bytes()).unwrap(), untold);
        assert!(matches!(Manifest::parse(b"hello"), Err(ManifestError::Json(_))));
        assert!(matches!(
            Manifest::parse(br#"{"watchdog_manifest":2,"more":1}"#),
            Err(ManifestError::Newer { found: 2 })
        ));
    }
}
