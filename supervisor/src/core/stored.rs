//! The names under which the keeper stores descriptors for the next core.

use watchdog_protocol::{Incarnation, ServiceName};

/// What a stored name says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The core's end of a session.
    Session(ServiceName, Incarnation),
    /// What a new core must know of a service: the note.
    Note(ServiceName),
    /// What a service said of itself.
    Manifest(ServiceName),
    /// Standard output and error: read end, write end of each.
    Pipes(ServiceName),
    /// The socket of a program that notifies.
    Notify(ServiceName),
    /// A lane; its whole name.
    Lane(String),
    /// The requests that were answered: the note.
    Answered,
    /// What is remembered of the groups: the note.
    Groups,
}

/// Of a session.
pub(crate) fn session(service: &ServiceName, incarnation: Incarnation) -> Vec<u8> {
    format!("session/{service}/{incarnation}").into_bytes()
}

/// Of a service's note.
pub(crate) fn note(service: &ServiceName) -> Vec<u8> {
    format!("note/{service}").into_bytes()
}

/// Of a service's manifest.
pub(crate) fn manifest(service: &ServiceName) -> Vec<u8> {
    format!("manifest/{service}").into_bytes()
}

/// Of a service's pipes.
pub(crate) fn pipes(service: &ServiceName) -> Vec<u8> {
    format!("pipes/{service}").into_bytes()
}

/// Of the socket of a program that notifies.
pub(crate) fn notify(service: &ServiceName) -> Vec<u8> {
    format!("notify/{service}").into_bytes()
}

/// Of what the log capture has in hand.
pub(crate) const HAND: &[u8] = b"hand";

/// Of the note of answered requests.
pub(crate) const ANSWERED: &[u8] = b"answered";

/// Of the note of the groups.
pub(crate) const GROUPS: &[u8] = b"groups";

/// Reads a name; `None`: not of this version.
pub(crate) fn parse(name: &[u8]) -> Option<Stored> {
    let text = std::str::from_utf8(name).ok()?;
    if text.as_bytes() == ANSWERED {
        return Some(Stored::Answered);
    }
    if text.as_bytes() == GROUPS {
        return Some(Stored::Groups);
    }
    let (kind, rest) = text.split_once('/')?;
    Some(match kind {
        "session" => {
            let (service, incarnation) = rest.split_once('/')?;
            Stored::Session(service.parse().ok()?, Incarnation::from_stored(incarnation.parse().ok()?))
        }
        "note" => Stored::Note(rest.parse().ok()?),
        "manifest" => Stored::Manifest(rest.parse().ok()?),
        "pipes" => Stored::Pipes(rest.parse().ok()?),
        "notify" => Stored::Notify(rest.parse().ok()?),
        "lane" => Stored::Lane(text.to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        let name: ServiceName = "counter-2".parse().unwrap();
        let third = Incarnation::from_stored(3);
        assert_eq!(parse(&session(&name, third)), Some(Stored::Session(name.clone(), third)));
        assert_eq!(parse(&note(&name)), Some(Stored::Note(name.clone())));
        assert_eq!(parse(&pipes(&name)), Some(Stored::Pipes(name.clone())));
        assert_eq!(parse(&notify(&name)), Some(Stored::Notify(name)));
        assert_eq!(parse(ANSWERED), Some(Stored::Answered));
        assert_eq!(parse(GROUPS), Some(Stored::Groups));
        assert_eq!(parse(b"of the future"), None);
    }
}
