//! Lends what services declare: asks arrive, the ledger decides, what is lent is on disk before it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use resource_manager::lease::ledger::{self, Due, Ledger, Lent, Untaken};
use resource_manager::lease::{Answer, LEASE, MARGIN, Request, since_boot};
use resource_manager::policy::{Rules, Why};
use resource_manager::{Borrowing, Lending};
use watchdog_service::query::resources::LimitsView;
use watchdog_service::query::status::{PhaseStatus, ServiceStatus, Status};
use watchdog_service::query::usage::Usage;
use watchdog_service::{Reply, ServiceName, StateHandler, StateOrigin};

use crate::manager::Kept;
use crate::settings::Settings;

/// So many asks are answered by one write at the most: those that come while it is on its way wait for it.
const TOGETHER: usize = 64;

/// The longest time without a look at the clock: a timer does not count while the machine is suspended.
const LOOK: Duration = Duration::from_secs(1);

/// The lender.
#[derive(Debug)]
pub(crate) struct Lender {
    ledger: Ledger<ServiceName>,
    /// What there is; `None` until the watchdog said so.
    declared: Option<BTreeMap<String, u32>>,
    /// The newest ask of each that has no answer.
    open: BTreeMap<(String, ServiceName), Reply<Answer>>,
    /// Asks since the ledger was settled.
    unsettled: usize,
    trouble: Option<String>,
}

impl Lender {
    /// From what the one before has on disk.
    pub(crate) fn new(state: &StateHandler<Kept>) -> Self {
        let now = since_boot();
        let closed_until = match state.origin() {
            // Of two states the older one was readable: who has what may not be in it.
            StateOrigin::Recovered => now + LEASE + MARGIN,
            StateOrigin::Fresh | StateOrigin::Restored => now,
        };
        Self {
            ledger: state.read(|kept| Ledger::new(&kept.lent, now, closed_until)),
            declared: None,
            open: BTreeMap::new(),
            unsettled: 0,
            trouble: None,
        }
    }

    /// What there is by now, and what each is worth.
    pub(crate) fn declare(&mut self, view: &LimitsView, settings: &Settings) {
        let declared = declared(view);
        self.ledger.declare(&declared);
        self.declared = Some(declared);
        self.set_terms(settings);
    }

    /// What each is worth by now.
    pub(crate) fn set_terms(&mut self, settings: &Settings) {
        self.ledger.set_terms(|resource, name| terms(settings, resource, name));
        self.unsettled = self.unsettled.max(1);
    }

    /// Whether anybody has, or wants, anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.ledger.shown(since_boot()).all(|(_, _, loans)| loans.is_empty())
    }

    /// Takes note of processes that are gone.
    pub(crate) fn look(&mut self, status: &Status, usage: &Usage) {
        let left: BTreeMap<&ServiceName, u64> =
            usage.services.iter().map(|usage| (&usage.name, usage.processes)).collect();
        let borrowers: Vec<ServiceName> = self
            .ledger
            .shown(since_boot())
            .flat_map(|(_, _, loans)| loans)
            .map(|loan| loan.borrower)
            .collect();
        for name in borrowers {
            // One that was unregistered has no process either.
            let of = status.services.iter().find(|service| service.name == name);
            let last = of.map_or(u64::MAX, |service| gone(service, left.get(&name).copied()));
            self.ledger.gone(&name, last);
        }
        self.unsettled = self.unsettled.max(1);
    }

    /// A period ended.
    pub(crate) fn period(&mut self, rules: &Rules) {
        for (resource, one) in self.ledger.period(rules) {
            let why = match &one.why {
                Why::ShortIs(Some(who)) => format!("{who} is short of {resource}"),
                Why::ShortIs(None) => format!("there is less of {resource}"),
                Why::Unused(_) => format!("nobody above it is short of {resource}"),
                Why::Configured => "it is guaranteed more".to_owned(),
            };
            tracing::info!(service = %one.of, resource, from = %one.from, to = %one.to, why, "moved");
        }
        self.unsettled = self.unsettled.max(1);
    }

    /// Takes an ask.
    pub(crate) fn ask(
        &mut self,
        who: ServiceName,
        request: &Request,
        reply: Reply<Answer>,
        settings: &Settings,
    ) {
        // Its drop tells the borrower to come again.
        if self.declared.is_none() {
            return;
        }
        let terms = terms(settings, &request.resource, &who);
        match self.ledger.ask(since_boot(), who.clone(), request, terms) {
            Ok(()) => {
                self.open.insert((request.resource.clone(), who), reply);
                self.unsettled += 1;
            }
            Err(Untaken::Stale) => {}
            Err(error @ Untaken::NoSuchResource { .. }) => {
                reply.send(Answer::Refused { why: error.to_string() });
            }
        }
    }

    /// Whether something is to be settled; and whether it is before another ask is taken.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// As many asks as are answered together came.
    pub(crate) fn is_full(&self) -> bool {
        self.unsettled >= TOGETHER
    }

    /// How long until it is to be settled, if nothing happens.
    pub(crate) fn rest(&self) -> Duration {
        let now = since_boot();
        self.ledger.next(now).map_or(LOOK, |next| next.saturating_sub(now)).min(LOOK)
    }

    /// Answers who has to know. What is lent beyond what is on disk goes there first, for all of them together.
    pub(crate) async fn settle(&mut self, state: &StateHandler<Kept>) {
        self.unsettled = 0;
        let due = self.ledger.settle(since_boot());
        let mut is_saved = true;
        if due.iter().any(|due| due.tokens > due.before_saved) {
            let lent: Lent<ServiceName> = self.ledger.to_save(since_boot());
            state.update(|kept| kept.lent.clone_from(&lent));
            let saved = state.save().await;
            is_saved = saved.is_ok();
            self.trouble = saved.err().map(|error| format!("no more is lent: {error}"));
            if is_saved {
                self.ledger.saved(&lent);
            }
        }
        for Due { resource, to, tokens, before_saved, known } in due {
            let tokens = if is_saved { tokens } else { before_saved };
            if tokens != known {
                let what = if tokens > known { "lent" } else { "asked back" };
                tracing::info!(borrower = %to, resource, from = known, to = tokens, "{what}");
            }
            let for_ms = u64::try_from(LEASE.as_millis()).expect("a lease is short");
            if let Some(reply) = self.open.remove(&(resource, to)) {
                reply.send(Answer::Lent { tokens, for_ms });
            }
        }
    }

    /// What is wrong, if anything.
    pub(crate) fn trouble(&self, settings: &Settings) -> Option<String> {
        let declared = self.declared.as_ref()?;
        let untrue = || settings.check_tokens(declared, &[]).err().map(|error| error.to_string());
        self.trouble.clone().or_else(untrue)
    }

    /// Who has what, for who asks.
    pub(crate) fn leases(&self) -> Vec<Lending> {
        let borrowing = |loan: ledger::Loaned<ServiceName>| Borrowing {
            service: loan.borrower.to_string(),
            priority: loan.terms.priority,
            guaranteed: loan.terms.guaranteed,
            wanted: loan.wanted,
            lent: loan.lent,
            asked_back: loan.asked_back,
        };
        let lending = |(resource, total, loans): (&str, u32, Vec<ledger::Loaned<ServiceName>>)| Lending {
            resource: resource.to_owned(),
            total,
            borrowers: loans.into_iter().map(borrowing).collect(),
        };
        self.ledger.shown(since_boot()).map(lending).collect()
    }
}

/// What all services declare; instances of one declare the same.
pub(crate) fn declared(view: &LimitsView) -> BTreeMap<String, u32> {
    let all = view.services.iter().flat_map(|service| &service.resources);
    all.map(|(name, tokens)| (name.clone(), *tokens)).collect()
}

fn terms(settings: &Settings, resource: &str, name: &ServiceName) -> ledger::Terms {
    let terms = settings.terms(name);
    let guaranteed = terms.tokens.get(resource).copied().unwrap_or(0);
    ledger::Terms { priority: terms.priority, guaranteed }
}

/// The newest process of it of which nothing is left.
fn gone(service: &ServiceStatus, left: Option<u64>) -> u64 {
    let newest = service.incarnation.get();
    let is_down = match service.phase {
        PhaseStatus::Stopped | PhaseStatus::Backoff | PhaseStatus::Failed | PhaseStatus::Completed => true,
        PhaseStatus::Starting | PhaseStatus::Ready | PhaseStatus::Stopping => false,
    };
    // The next one is started only when nothing of the one before is left.
    if is_down && left == Some(0) { newest } else { newest.saturating_sub(1) }
}
