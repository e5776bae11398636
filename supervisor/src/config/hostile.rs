//! Manifests of programs that are broken or mean harm: refused by name, or used as far as they go.

use proptest::prelude::*;
use serde_json::{Map, json};
use watchdog_protocol::fit::Weight;
use watchdog_protocol::layout::Inbox;
use watchdog_protocol::limits::{MAX_CONTRACT, MAX_MANIFEST};
use watchdog_protocol::manifest::{Contract, ManifestError, MessageShape, fnv1a};
use watchdog_protocol::{Manifest, StateManifest};

use super::fit::{self, Senders};
use super::schema::Schema;

fn honest() -> Manifest {
    let texts =
        [("Add", "n:u32,note:?string,"), ("Draw", "0:Shape|Dot|Line(u8,u8,)|Label{text:string,}|,->bool")];
    let shape = |(name, text): (&str, &str)| MessageShape { name: name.into(), hash: fnv1a(text.as_bytes()) };
    let settings = json!({"type": "object", "required": ["step"], "properties": {
        "step": {"type": "integer", "minimum": 1, "default": 1}, "inner": {"$ref": "#/$defs/Inner"}},
        "$defs": {"Inner": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}}}});
    Manifest {
        format: 1,
        settings: Some(settings.to_string()),
        state: Some(StateManifest { version: 2, initial: vec![0] }),
        contract: Contract(texts.map(shape).to_vec()),
        layouts: texts.map(|(_, text)| Some(text.to_owned())).to_vec(),
    }
}

/// All that the watchdog does with what a program says of itself, before and beside running it.
fn used(manifest: &Manifest) {
    let honest = honest();
    let _ = manifest.hash();
    if let Ok(schema) = Schema::of(manifest) {
        let _ = schema.complete(Map::new());
        let _ = schema.shown(json!({"step": 1, "inner": {"on": 1}}).as_object().cloned().unwrap_or_default());
    }
    let known = [("a".parse().unwrap(), honest.contract.clone())];
    for (present, new) in [(&honest, manifest), (manifest, &honest), (manifest, manifest)] {
        let _ = fit::contract(Some(present), Senders::Known(&known), new);
        let _ = fit::settings(None, Map::new(), &[], new);
        let _ = fit::state(Some(1), new);
    }
    let inbox = Inbox::of(manifest);
    for (_, message) in inbox.messages() {
        if let Ok(message) = message {
            let _ = inbox.encode(&message.example());
        }
    }
    let _ = inbox.decode(&[0, 1, 2, 3, 4]);
}

proptest! {
    #[test]
    fn a_spoiled_manifest_is_refused_or_used_without_a_panic(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut text = honest().to_json().into_bytes();
        for (at, with) in spots {
            let at = at.index(text.len());
            text[at] = with;
        }
        if let Ok(manifest) = Manifest::parse(&text) {
            used(&manifest);
        }
    }

    #[test]
    fn a_layout_of_anything_is_refused_or_used_without_a_panic(text in "[a-zA|:,?()<>{}\\[\\]=-]{0,80}") {
        let shape = MessageShape { name: "Odd".into(), hash: fnv1a(text.as_bytes()) };
        used(&Manifest { contract: Contract(vec![shape]), layouts: vec![Some(text)], ..honest() });
    }
}

#[test]
fn what_is_too_much_is_refused_before_it_is_understood() {
    let long = vec![b' '; MAX_MANIFEST + 1];
    assert!(matches!(Manifest::parse(&long), Err(ManifestError::Long { .. })));
    let deep = format!("{{\"watchdog_manifest\":1,\"settings\":{}", "[".repeat(MAX_MANIFEST / 2));
    assert!(matches!(Manifest::parse(deep.as_bytes()), Err(ManifestError::Json(_))));
    let shape = MessageShape { name: String::new(), hash: 0 };
    let many = Manifest { contract: Contract(vec![shape; MAX_CONTRACT + 1]), ..honest() };
    assert!(matches!(Manifest::parse(many.to_json().as_bytes()), Err(ManifestError::Contract { .. })));
    let many = Manifest { layouts: vec![None; MAX_CONTRACT + 1], ..honest() };
    assert!(matches!(Manifest::parse(many.to_json().as_bytes()), Err(ManifestError::Contract { .. })));
}

#[test]
fn a_schema_that_contains_itself_or_is_very_deep_does_no_harm() {
    let of = |settings: String| used(&Manifest { settings: Some(settings), ..honest() });
    let itself = json!({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "default": {},
        "properties": {"inner": {"$ref": "#/$defs/A", "default": {}}}}}});
    of(itself.to_string());
    of(json!({"$ref": "#"}).to_string());
    of(json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}})
        .to_string());
    of(format!("{}{}", "{\"properties\":{\"a\":".repeat(60), "{}".to_owned() + &"}}".repeat(60)));
    of("[".repeat(500_000));
}

#[test]
fn as_many_messages_as_allowed_are_compared_with_those_of_many_senders() {
    let text = ["n:u32,", "n:u64,"];
    let of = |text: &str| {
        let shape = |at: usize| MessageShape { name: format!("M{at}"), hash: fnv1a(text.as_bytes()) };
        let contract = Contract((0..MAX_CONTRACT).map(shape).collect());
        Manifest { contract, layouts: vec![Some(text.to_owned()); MAX_CONTRACT], ..honest() }
    };
    let [present, new] = text.map(of);
    used(&present);
    let known: Vec<_> =
        (0..200).map(|at| (format!("sender-{at}").parse().unwrap(), present.contract.clone())).collect();
    let findings = fit::contract(Some(&present), Senders::Known(&known), &new);
    let broken = findings.iter().filter(|finding| finding.weight == Weight::Breaks);
    let said: Vec<_> = broken.map(|finding| finding.text.as_str()).collect();
    assert_eq!(said.len(), known.len());
    assert_eq!(said[199], "sender-199 would get ContractMismatch: `M0`: n was u32 and is u64");
}
