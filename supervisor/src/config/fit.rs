//! What another build of a service meets in the place of the present one, by what both say of themselves. Pure, but for
//! the files that settings name.

use serde_json::{Map, Value};
use watchdog_protocol::fit::{About, Finding};
use watchdog_protocol::layout::{Inbox, Message, NoLayout, difference};
use watchdog_protocol::{Contract, Manifest, Mismatch, ServiceName};

use super::schema::{Invalid, Schema};
use super::secret_file::delivered;

/// Who sends, by what contract; as far as that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Senders<'a> {
    /// No watchdog runs.
    Unknown,
    /// Those that have a lane.
    Known(&'a [(ServiceName, Contract)]),
}

/// A build, and the messages it takes.
struct Build<'m> {
    contract: &'m Contract,
    inbox: Inbox,
}

impl<'m> Build<'m> {
    fn of(manifest: &'m Manifest) -> Self {
        Self { contract: &manifest.contract, inbox: Inbox::of(manifest) }
    }
}

/// What becomes of the messages a service takes, a line each.
pub(crate) fn changes(present: &Manifest, new: &Manifest) -> Vec<String> {
    changed(&Build::of(present), &Build::of(new))
}

fn changed(present: &Build<'_>, new: &Build<'_>) -> Vec<String> {
    let place = |name: &str| new.contract.0.iter().position(|shape| shape.name == name);
    let mut changes = Vec::new();
    for (at, shape) in present.contract.0.iter().enumerate() {
        let name = &shape.name;
        let Some(now) = place(name) else {
            changes.push(format!("`{name}` is gone"));
            continue;
        };
        if now != at {
            changes.push(format!("`{name}` was message {at} and is message {now}"));
        }
        if new.contract.0[now].hash != shape.hash {
            changes.push(reshaped(name, present.inbox.message(at), new.inbox.message(now)));
        }
    }
    let is_new = |name: &str| present.contract.0.iter().all(|shape| shape.name != name);
    let added = new.contract.0.iter().filter(|shape| is_new(&shape.name));
    changes.extend(added.map(|shape| format!("`{}` is new", shape.name)));
    changes
}

type Known<'a> = Option<Result<&'a Message, &'a NoLayout>>;

/// How a message differs from the one of the same name.
fn reshaped(name: &str, before: Known<'_>, after: Known<'_>) -> String {
    let parted = match (before, after) {
        (Some(Ok(before)), Some(Ok(after))) => difference(before, after),
        _ => None,
    };
    match parted {
        Some(parted) => format!("`{name}`: {parted}"),
        None => format!("`{name}` has other fields or another reply"),
    }
}

/// Where a sender's contract and that of the new build part: by field, where it is known what the sender says, which it is
/// if it is what the present build takes.
fn parting(sender: &Contract, present: Option<&Build<'_>>, new: &Build<'_>, parted: &Mismatch) -> String {
    let Mismatch::Reshaped { at, name } = parted else { return parted.to_string() };
    let at = usize::try_from(*at).unwrap_or(usize::MAX);
    let is_known = |present: &&Build<'_>| present.contract.0.get(at) == sender.0.get(at);
    match present.filter(is_known) {
        Some(present) => reshaped(name, present.inbox.message(at), new.inbox.message(at)),
        None => parted.to_string(),
    }
}

/// The messages it takes, against those who send.
pub(crate) fn contract(present: Option<&Manifest>, senders: Senders<'_>, new: &Manifest) -> Vec<Finding> {
    let note = |text: String| Finding::note(About::Contract, text);
    let breaks = |text: String| Finding::breaks(About::Contract, text);
    let mut findings = Vec::new();
    let (present, new) = (present.map(Build::of), Build::of(new));
    let (present, new) = (present.as_ref(), &new);
    let changes = present.map(|present| changed(present, new));
    match changes.as_deref() {
        None => findings.push(note("what the present build takes is not known".to_owned())),
        Some([]) => findings.push(note("it takes the same messages".to_owned())),
        Some(changes) => findings.extend(changes.iter().cloned().map(note)),
    }
    let parted = present.and_then(|present| {
        let parted = present.contract.fits(new.contract).err()?;
        Some(parting(present.contract, Some(present), new, &parted))
    });
    let known = match senders {
        Senders::Unknown => {
            findings.extend(parted.map(|parted| {
                breaks(format!("who is built against the present build gets ContractMismatch: {parted}"))
            }));
            return findings;
        }
        Senders::Known(known) => known,
    };
    let mut is_anybody_cut_off = false;
    for (sender, contract) in known {
        let fits_now = present.is_none_or(|present| contract.fits(present.contract).is_ok());
        match contract.fits(new.contract) {
            Ok(()) if fits_now => {}
            Ok(()) => findings.push(note(format!("{sender}, which gets ContractMismatch now, fits it"))),
            Err(parted) if !fits_now => {
                findings.push(note(format!("{sender} gets ContractMismatch now and would then: {parted}")));
            }
            Err(parted) => {
                is_anybody_cut_off = true;
                let parted = parting(contract, present, new, &parted);
                findings.push(breaks(format!("{sender} would get ContractMismatch: {parted}")));
            }
        }
    }
    if let Some(parted) = parted.filter(|_| !is_anybody_cut_off) {
        let text =
            "of those that send now nobody is cut off; who is built against the present build would be";
        findings.push(note(format!("{text}: {parted}")));
    }
    findings
}

/// The values in force, as given by file and operator, against its settings type. `present`: the type they are of, if
/// that is known.
pub(crate) fn settings(
    present: Option<&Schema>,
    values: Map<String, Value>,
    set: &[String],
    new: &Manifest,
) -> Vec<Finding> {
    let breaks = |text: String| Finding::breaks(About::Settings, text);
    let schema = match Schema::of(new) {
        Ok(schema) => schema,
        Err(error) => return vec![breaks(error.to_string())],
    };
    let is_empty = values.is_empty();
    match delivered(&schema, values) {
        Ok(Value::Null) => Vec::new(),
        Ok(_) if is_empty => vec![Finding::note(About::Settings, "its defaults are all it needs")],
        Ok(_) => vec![Finding::note(About::Settings, "the values in force fit")],
        Err(wrong) => {
            let told = |invalid: &Invalid| {
                let path = invalid.path();
                let was_set =
                    if set.contains(&path.to_string()) { ", which was set over the file" } else { "" };
                // It was given to the present build, and is a secret by what that says, whatever the new one does.
                let is_shown = present.is_some_and(|schema| schema.shows(path.keys()));
                match invalid {
                    Invalid::Value { path, expected, .. } if !is_shown => {
                        format!("{path} does not fit, expected {expected}{was_set}")
                    }
                    invalid => format!("{invalid}{was_set}"),
                }
            };
            wrong.iter().map(told).map(breaks).collect()
        }
    }
}

/// Its state type, against the version of what is stored.
pub(crate) fn state(stored: Option<u32>, new: &Manifest) -> Vec<Finding> {
    let note = |text: String| vec![Finding::note(About::State, text)];
    match (stored, &new.state) {
        (None, None) => Vec::new(),
        (None, Some(_)) => note("nothing is stored: it starts with its initial state".to_owned()),
        (Some(stored), None) => {
            note(format!("it has no state; version {stored} stays on disk, and nobody reads it"))
        }
        (Some(stored), Some(new)) if stored == new.version => note(format!("version {stored}, as stored")),
        (Some(stored), Some(new)) if stored < new.version => {
            note(format!("a migration runs, from version {stored} to {}", new.version))
        }
        (Some(stored), Some(new)) => {
            let text =
                format!("version {stored} is stored, it reads up to {}: it would not start", new.version);
            vec![Finding::breaks(About::State, text)]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use watchdog_protocol::StateManifest;
    use watchdog_protocol::fit::Weight;
    use watchdog_protocol::manifest::{MessageShape, SECRET_KEYWORD, fnv1a};

    use super::*;

    fn build(messages: &[(&str, &str)], settings: Option<Value>, state: Option<u32>) -> Manifest {
        let shape = |(name, text): &(&str, &str)| MessageShape {
            name: (*name).to_owned(),
            hash: fnv1a(text.as_bytes()),
        };
        Manifest {
            format: 1,
            settings: settings.map(|schema| schema.to_string()),
            state: state.map(|version| StateManifest { version, initial: Vec::new() }),
            contract: Contract(messages.iter().map(shape).collect()),
            layouts: messages.iter().map(|(_, text)| Some((*text).to_owned())).collect(),
        }
    }

    fn taking(messages: &[(&str, &str)]) -> Manifest {
        build(messages, None, None)
    }

    fn shown(findings: &[Finding]) -> String {
        let line = |finding: &Finding| match finding.weight {
            Weight::Note => format!("        {}", finding.text),
            Weight::Breaks => format!("breaks  {}", finding.text),
        };
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    const PRESENT: [(&str, &str); 3] = [("Add", "n:u32,"), ("Total", "->u64"), ("Clear", "")];

    #[test]
    fn each_change_of_a_contract_is_named() {
        let told = |new: &[(&str, &str)]| changes(&taking(&PRESENT), &taking(new)).join("; ");
        assert_eq!(told(&PRESENT), "");
        assert_eq!(told(&[PRESENT[0], PRESENT[1], PRESENT[2], ("Sub", "n:u32,")]), "`Sub` is new");
        assert_eq!(
            told(&[("Add", "n:u64,"), ("Total", "=>u64")]),
            "`Add`: n was u32 and is u64; \
             `Total`: was asked, at most once and is asked, until it is answered; `Clear` is gone"
        );
        assert_eq!(
            told(&[PRESENT[0], PRESENT[2], PRESENT[1]]),
            "`Total` was message 1 and is message 2; `Clear` was message 2 and is message 1"
        );
        let untold = Manifest { layouts: Vec::new(), ..taking(&[("Add", "n:u64,"), PRESENT[1], PRESENT[2]]) };
        assert_eq!(changes(&taking(&PRESENT), &untold), ["`Add` has other fields or another reply"]);
    }

    #[test]
    fn only_who_is_cut_off_breaks() {
        let present = taking(&PRESENT);
        let new = taking(&[("Add", "n:u32,"), ("Total", "->u32"), ("Clear", "")]);
        let name = |text: &str| text.parse::<ServiceName>().unwrap();
        let of = |count: usize| Contract(present.contract.0[..count].to_vec());
        let odd = taking(&[("Add", "n:u8,")]).contract;
        let known = [
            (name("short"), of(1)),
            (name("long"), of(2)),
            (name("odd"), odd),
            (name("anew"), new.contract.clone()),
        ];
        let told = |senders| shown(&contract(Some(&present), senders, &new));
        assert_eq!(
            told(Senders::Known(&known)),
            "        `Total`: reply was u64 and is u32\n\
             breaks  long would get ContractMismatch: `Total`: reply was u64 and is u32\n        \
             odd gets ContractMismatch now and would then: message 0 `Add` has other fields or another reply at the receiver\n        \
             anew, which gets ContractMismatch now, fits it"
        );
        assert_eq!(
            told(Senders::Known(&known[..1])),
            "        `Total`: reply was u64 and is u32\n        \
             of those that send now nobody is cut off; who is built against the present build would be: \
             `Total`: reply was u64 and is u32"
        );
        assert_eq!(
            told(Senders::Unknown),
            "        `Total`: reply was u64 and is u32\n\
             breaks  who is built against the present build gets ContractMismatch: `Total`: reply was u64 and is u32"
        );
        let longer = taking(&[PRESENT[0], PRESENT[1], PRESENT[2], ("Sub", "")]);
        assert_eq!(
            shown(&contract(Some(&present), Senders::Known(&known[..2]), &longer)),
            "        `Sub` is new"
        );
    }

    #[test]
    fn values_that_do_not_fit_are_named_and_secrets_are_not_shown() {
        let schema = json!({"type": "object", "required": ["rate", "key"], "properties": {
            "rate": {"type": "integer", "maximum": 10}, "key": {"type": "integer"}, "name": {"type": "string"}}});
        let secret = json!({"type": "object", "properties": {"key": {"type": "string", SECRET_KEYWORD: true}, "rate": {}}});
        let present = Schema::of(&build(&[], Some(secret), None)).unwrap();
        let new = build(&[], Some(schema), None);
        let values = |values: Value| values.as_object().unwrap().clone();
        let told = |of: Value, set: &[String]| shown(&settings(Some(&present), values(of), set, &new));
        assert_eq!(told(json!({"rate": 1, "key": 1}), &[]), "        the values in force fit");
        let wrong = told(json!({"rate": 11, "key": "hush", "old": 1}), &["rate".to_owned()]);
        assert_eq!(
            wrong,
            "breaks  unknown setting `old`\n\
             breaks  rate = 11, expected at most 10, which was set over the file\n\
             breaks  key does not fit, expected an integer"
        );
        assert_eq!(shown(&settings(None, Map::new(), &[], &taking(&[]))), "");
    }

    #[test]
    fn a_value_that_may_be_a_secret_of_the_present_build_is_not_shown() {
        let number = json!({"type": "object", "properties": {"key": {"type": "integer"}}});
        let new = build(&[], Some(number), None);
        let values = json!({"key": "hush"}).as_object().unwrap().clone();
        let told = |present: Option<&Schema>| shown(&settings(present, values.clone(), &[], &new));
        let hidden = "breaks  key does not fit, expected an integer";
        assert_eq!(told(None), hidden, "it does not say of itself what is");
        for (present, expected) in [
            (json!({"type": "null"}), hidden),
            (json!({"type": "object", "properties": {"name": {"type": "string"}}}), hidden),
            (
                json!({"type": "object", "properties": {"key": {"type": "string"}}}),
                "breaks  key = \"hush\", expected an integer",
            ),
        ] {
            let present = Schema::of(&build(&[], Some(present), None)).unwrap();
            assert_eq!(told(Some(&present)), expected);
        }
    }

    #[test]
    fn a_stored_version_is_the_same_older_newer_or_left_alone() {
        let told = |stored, version| shown(&state(stored, &build(&[], None, version)));
        assert_eq!(told(None, None), "");
        assert_eq!(told(Some(2), Some(2)), "        version 2, as stored");
        assert_eq!(told(Some(1), Some(3)), "        a migration runs, from version 1 to 3");
        assert_eq!(
            told(Some(3), Some(2)),
            "breaks  version 3 is stored, it reads up to 2: it would not start"
        );
        assert_eq!(
            told(Some(3), None),
            "        it has no state; version 3 stays on disk, and nobody reads it"
        );
        assert_eq!(told(None, Some(1)), "        nothing is stored: it starts with its initial state");
    }
}
