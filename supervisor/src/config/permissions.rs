//! Whether services can talk to those they name: the sender's `use` and the receiver's `offer` must both say yes.
//!
//! A `use` of a name is a wish, so one that can't come true is an error. An `offer`, or the beginning of a name, may be
//! there for services that come later: one that lets nobody through is told, and no more.

use std::collections::BTreeMap;

use watchdog_lifecycle::access::{Denied, Pattern};
use watchdog_lifecycle::policy::Kind;
use watchdog_protocol::ServiceName;

use super::problem::{ConfigError, Problem};
use super::spec::{Mention, ServiceSpec};

type Services<'s> = BTreeMap<&'s ServiceName, &'s ServiceSpec>;

/// The entries of `use` that name a service which can't be talked to: it has no inbox, or its `offer` leaves the sender
/// out, all instances of it where there are some. All names are there.
pub(super) fn refused(services: &Services<'_>) -> Vec<ConfigError> {
    let senders = services.values().filter(|spec| spec.is_first());
    senders
        .flat_map(|sender| named(sender, "use").filter_map(|mention| refusal(sender, mention, services)))
        .collect()
}

/// The entries of `use` and `offer` by which nobody can talk to anybody, in file order; worth a warning.
pub fn unused<'s>(services: impl IntoIterator<Item = &'s ServiceSpec>) -> Vec<ConfigError> {
    let services: Services<'_> = services.into_iter().map(|spec| (&spec.name, spec)).collect();
    let mut unused: Vec<ConfigError> = Vec::new();
    for spec in services.values().filter(|spec| spec.is_first()) {
        for mention in named(spec, "offer").chain(named(spec, "use")) {
            let all = table(spec, &services);
            let mut meant = services
                .values()
                .filter(|other| other.kind() == Kind::Service && mention.whom.matches(&other.name));
            let is_used = meant.any(|other| {
                let (uses, offers) = (&other.policy.access.uses, &other.policy.access.offers);
                let rules = if mention.key == "offer" { uses } else { offers };
                all.iter().any(|name| lets(rules, name))
            });
            if !is_used {
                let (service, entry) = (spec.name.base().to_owned(), mention.whom.to_string());
                unused.push(spec.error(&mention.at, Problem::Unused { key: mention.key, entry, service }));
            }
        }
    }
    unused.sort_by_key(|warning| warning.place.as_ref().map(|place| (place.line(), place.column())));
    unused
}

fn refusal(sender: &ServiceSpec, mention: &Mention, services: &Services<'_>) -> Option<ConfigError> {
    let Pattern::Exact(name) = &mention.whom else { return None };
    // Instances have one table, and with it one rule.
    let receiver = services.values().find(|spec| name.covers(&spec.name))?;
    if receiver.kind() == Kind::Program {
        return Some(sender.error(&mention.at, Problem::NoInbox { name: name.clone() }));
    }
    let offers = &receiver.policy.access.offers;
    if table(sender, services).iter().any(|name| lets(offers, name)) {
        return None;
    }
    let sender_name = sender.name.base().parse().expect("the name of all instances is a name");
    let denied = Denied::Offer { sender: sender_name, receiver: name.clone(), offers: offers.clone() };
    let places = &receiver.places;
    let offer = places.source.place(places.offer.as_ref().unwrap_or(&places.name).clone());
    Some(sender.error(&mention.at, Problem::Refused { denied: Box::new(denied), offer }))
}

/// The service, or all instances that there are of it.
fn table<'s>(spec: &ServiceSpec, services: &Services<'s>) -> Vec<&'s ServiceName> {
    // In the order of names, instances of one service stand behind each other, the first one first.
    let from = services.range::<ServiceName, _>(&spec.name..).map(|(name, _)| *name);
    from.take_while(|name| name.base() == spec.name.base()).collect()
}

fn named<'s>(spec: &'s ServiceSpec, key: &'static str) -> impl Iterator<Item = &'s Mention> + use<'s> {
    spec.places.mentions.iter().filter(move |mention| mention.key == key)
}

fn lets(rules: &[Pattern], name: &ServiceName) -> bool {
    rules.iter().any(|pattern| pattern.matches(name))
}
