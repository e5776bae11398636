//! What a build of the watchdog can go on from: asked of another one before it becomes the core.
//!
//! The running core gives the other build what it would find (the notes of all services, on standard input) and the
//! configuration in force. What that build answers is compared with what is there: the keeper that would serve it, the
//! sessions that services speak, the files in the state folder.

use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use watchdog_lifecycle::Service;
use watchdog_protocol::session::SESSION_VERSION;

use super::note::Noted;
use crate::config;
use crate::run::kept_config;
use crate::store::envelope;

/// The oldest keeper a core of this build can be served by.
const OLDEST_KEEPER: u16 = 1;

/// Exit code of a build that can't go on from what it was given.
pub(super) const CANNOT: u8 = 78;

/// What a build says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Build {
    /// Its version.
    pub(super) release: String,
    /// The keepers that can serve it.
    keeper: RangeInclusive<u16>,
    /// The sessions it speaks.
    session: RangeInclusive<u16>,
    /// The state files it reads.
    state: RangeInclusive<u32>,
}

/// What it would have to go on from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// The version of the keeper.
    pub(super) keeper: u16,
}

impl Build {
    pub(super) fn ours() -> Self {
        Self {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            keeper: OLDEST_KEEPER..=watchdog_keeper::protocol::VERSION,
            session: SESSION_VERSION..=SESSION_VERSION,
            state: 1..=envelope::FORMAT,
        }
    }

    /// Why it can't go on from here; `None` when it can.
    pub(super) fn objection(&self, found: Found) -> Option<String> {
        let (session, state) = (SESSION_VERSION, envelope::FORMAT);
        if !self.keeper.contains(&found.keeper) {
            let text = format!("speaks versions {} of the keeper's protocol", of(&self.keeper));
            return Some(format!("{text}, the keeper that runs speaks {}", found.keeper));
        }
        if !self.session.contains(&session) {
            let text = format!("speaks versions {} of the session protocol", of(&self.session));
            return Some(format!("{text}, the services that run speak {session}"));
        }
        if !self.state.contains(&state) {
            let text = format!("reads state files of formats {}", of(&self.state));
            return Some(format!("{text}, the state folder has {state}"));
        }
        None
    }
}

fn of<T: PartialEq + std::fmt::Display>(range: &RangeInclusive<T>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{} to {}", range.start(), range.end())
    }
}

/// What the other build gets on standard input.
pub(super) fn question(notes: impl Iterator<Item = Vec<u8>>) -> io::Result<Vec<u8>> {
    let notes: Vec<ByteBuf> = notes.map(ByteBuf::from).collect();
    postcard::to_stdvec(&notes).map_err(io::Error::other)
}

/// The role of a build that is asked: says what it is, as JSON, or on standard error why it can't go on from here.
pub(crate) fn main(config: &Path, runtime: &Path) -> ExitCode {
    let answer = can_go_on(config, runtime).and_then(|()| {
        let text = serde_json::to_string(&Build::ours()).map_err(|err| err.to_string())?;
        writeln!(io::stdout(), "{text}").map_err(|err| err.to_string())
    });
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::from(CANNOT)
        }
    }
}

fn can_go_on(config: &Path, runtime: &Path) -> Result<(), String> {
    let kept = kept_config(runtime);
    let text =
        std::fs::read_to_string(&kept).map_err(|err| format!("cannot read {}: {err}", kept.display()))?;
    config::parse(config, text.as_str())
        .map_err(|err| format!("the configuration in force is none to it: {err}"))?;
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes).map_err(|err| format!("cannot read the notes: {err}"))?;
    let notes: Vec<ByteBuf> =
        postcard::from_bytes(&bytes).map_err(|err| format!("the notes are none to it: {err}"))?;
    match notes.iter().all(|note| is_a_note(note)) {
        true => Ok(()),
        false => Err("it can't read what the running core noted of its services".to_owned()),
    }
}

/// Read to its end and written again it must be the same: postcard says nothing of fields.
fn is_a_note(note: &[u8]) -> bool {
    note.is_empty()
        || postcard::take_from_bytes::<Noted<Service>>(note).is_ok_and(|(noted, rest)| {
            rest.is_empty() && postcard::to_stdvec(&noted).is_ok_and(|again| again == note)
        })
}

#[cfg(test)]
mod tests {
    use watchdog_lifecycle::{Moment, Wanted};
    use watchdog_protocol::Incarnation;

    use super::*;

    #[test]
    fn a_build_can_go_on_from_itself_and_says_what_it_can_not_go_on_from() {
        let keeper = watchdog_keeper::protocol::VERSION;
        let ours = Build::ours();
        assert_eq!(ours.objection(Found { keeper }), None);
        let text = serde_json::to_string(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Build>(&text).unwrap(), ours);
        let older = Build { keeper: 1..=1, ..ours.clone() };
        let objection = older.objection(Found { keeper: 2 }).unwrap();
        assert_eq!(objection, "speaks versions 1 of the keeper's protocol, the keeper that runs speaks 2");
        let other = Build { state: 7..=9, ..ours.clone() };
        let objection = other.objection(Found { keeper }).unwrap();
        assert_eq!(objection, "reads state files of formats 7 to 9, the state folder has 1");
        let other = Build { session: 7..=7, ..ours };
        assert!(other.objection(Found { keeper }).unwrap().contains("the services that run speak"));
    }

    #[test]
    fn a_note_that_is_longer_or_another_is_not_taken_for_one() {
        let moment = Moment::from_nanos(5);
        let service = Service::new(Wanted::Up, Incarnation::FIRST, moment);
        let note = postcard::to_stdvec(&Noted { service, built: 7 }).unwrap();
        assert!(is_a_note(&note));
        assert!(!is_a_note(&[&note[..], &[0]].concat()));
        assert!(!is_a_note(&note[..note.len() - 1]));
        assert!(!is_a_note(&[255; 40]));
    }
}
