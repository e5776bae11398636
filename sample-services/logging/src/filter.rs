//! Which filter a service gets now: settings, and when those with an end began. Pure: time is an argument.
//!
//! ```text
//! service `worker@1`:  filter.worker@1 ─► filter.worker ─► filter.default ─► `info`
//!                      each that has ended passes on, or says what comes `then`
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::Targets;
use watchdog_service::{Reply, ServiceName};

use crate::settings::{DEFAULT, Directives, FilterSetting, Settings, TimedFilter};
use watchdog_service::log::{FilterUpdate, Sampling};

/// Milliseconds since 1970 by the system clock: what an end is counted by must outlive the host.
pub(crate) type UnixMillis = u64;

/// When a filter with an end began: what a restart must not lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    directives: String,
    period: u64,
    since: UnixMillis,
}

/// The filters of all services.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    settings: BTreeMap<String, FilterSetting>,
    sampling: Sampling,
    begun: BTreeMap<String, Begun>,
}

impl Filters {
    /// With what is known of before.
    pub(crate) fn resumed(begun: BTreeMap<String, Begun>) -> Self {
        Self { begun, ..Self::default() }
    }

    /// Takes settings. A filter with an end begins now when it is another one than before, or when `renewed` says that
    /// the same settings were set again.
    pub(crate) fn apply(&mut self, settings: &Settings, renewed: bool, now: UnixMillis) {
        self.settings = settings.filter.clone();
        self.sampling = settings.sampling();
        let mut begun = BTreeMap::new();
        for (key, setting) in &self.settings {
            let FilterSetting::Timed(TimedFilter { directives, period, .. }) = setting else { continue };
            let fresh =
                Begun { directives: directives.as_str().to_owned(), period: period.as_millis(), since: now };
            let before = self.begun.remove(key).filter(|before| {
                let is_same = (&before.directives, before.period) == (&fresh.directives, fresh.period);
                // A clock that was set back must not make it longer than it is.
                is_same && !renewed && before.since <= now
            });
            begun.insert(key.clone(), before.unwrap_or(fresh));
        }
        self.begun = begun;
    }

    /// When each with an end began.
    pub(crate) fn begun(&self) -> &BTreeMap<String, Begun> {
        &self.begun
    }

    /// What a service is to record.
    pub(crate) fn of(&self, service: &ServiceName, now: UnixMillis) -> FilterUpdate {
        let (directives, sampling) = (self.nearest(service, now).as_str().to_owned(), self.sampling);
        FilterUpdate { number: number(&directives, sampling), directives, sampling }
    }

    /// Which of the watchdog's own events are recorded: they are made in no span.
    pub(crate) fn of_watchdog(&self, now: UnixMillis) -> Targets {
        self.nearest(&ServiceName::watchdog(), now).targets()
    }

    fn nearest(&self, service: &ServiceName, now: UnixMillis) -> Cow<'_, Directives> {
        let mut keys = [service.as_str(), service.base(), DEFAULT].into_iter();
        let found = keys.find_map(|key| self.in_force(key, now));
        found.map_or_else(|| Cow::Owned(Directives::info()), Cow::Borrowed)
    }

    fn in_force(&self, key: &str, now: UnixMillis) -> Option<&Directives> {
        match self.settings.get(key)? {
            FilterSetting::Lasting(directives) => Some(directives),
            FilterSetting::Timed(timed) if self.end(key).is_some_and(|end| now < end) => {
                Some(&timed.directives)
            }
            FilterSetting::Timed(timed) => timed.then.as_ref(),
        }
    }

    fn end(&self, key: &str) -> Option<UnixMillis> {
        self.begun.get(key).map(|begun| begun.since.saturating_add(begun.period))
    }

    /// When the first filter ends after a point in time.
    fn next_end(&self, after: UnixMillis) -> Option<UnixMillis> {
        self.begun.keys().filter_map(|key| self.end(key)).filter(|end| *end > after).min()
    }
}

/// The same filter has the same number also after a restart of this service: nobody is told anew what it knows.
fn number(directives: &str, sampling: Sampling) -> u64 {
    let bytes =
        directives.bytes().chain(sampling.ratio.to_le_bytes()).chain(sampling.per_second.to_le_bytes());
    // FNV-1a.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // 0 says that a sender has none.
    hash.max(1)
}

/// Who waits for another filter.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    asks: BTreeMap<ServiceName, (u64, Reply<FilterUpdate>)>,
    /// When they were last told of what has ended.
    told: UnixMillis,
}

impl Waiting {
    /// Answers an ask as soon as its filter is another one than the `known`. A service has one process, and so one
    /// ask: an older one is dropped.
    pub(crate) fn ask(
        &mut self,
        service: ServiceName,
        known: u64,
        reply: Reply<FilterUpdate>,
        filters: &Filters,
        now: UnixMillis,
    ) {
        let update = filters.of(&service, now);
        if update.number == known {
            self.asks.insert(service, (known, reply));
        } else {
            self.asks.remove(&service);
            reply.send(update);
        }
    }

    /// When they are to be told next: the end of a filter, which may have passed while something else was done.
    pub(crate) fn due(&self, filters: &Filters) -> Option<UnixMillis> {
        filters.next_end(self.told)
    }

    /// Answers all whose filter is another one by now.
    pub(crate) fn tell(&mut self, filters: &Filters, now: UnixMillis) {
        self.told = now;
        let changed =
            self.asks.extract_if(.., |service, (known, _)| filters.of(service, now).number != *known);
        for (service, (_, reply)) in changed {
            reply.send(filters.of(&service, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing::Level;

    use super::*;

    const START: UnixMillis = 1_000_000;

    fn settings(json: &str) -> Settings {
        serde_json::from_str(json).unwrap()
    }

    fn name(text: &str) -> ServiceName {
        text.parse().unwrap()
    }

    fn at(filters: &Filters, service: &str, now: UnixMillis) -> String {
        filters.of(&name(service), now).directives
    }

    #[test]
    fn the_nearest_filter_holds() {
        let mut filters = Filters::default();
        assert_eq!(at(&filters, "counter", START), "info");
        let json = r#"{"filter": {"default": "warn", "worker": "debug", "worker@2": "trace"}}"#;
        filters.apply(&settings(json), false, START);
        for (service, expected) in
            [("counter", "warn"), ("worker", "debug"), ("worker@1", "debug"), ("worker@2", "trace")]
        {
            assert_eq!(at(&filters, service, START), expected, "{service}");
        }
    }

    #[test]
    fn after_its_end_the_default_holds_or_what_comes_then() {
        let json = r#"{"filter": {
            "default": { "directives": "error", "for": "1s" },
            "counter": { "directives": "debug", "for": "2s" },
            "bumper": { "directives": "debug", "for": "2s", "then": "warn" }
        }}"#;
        let mut filters = Filters::default();
        filters.apply(&settings(json), false, START);
        let all = |now| ["counter", "bumper", "other"].map(|service| at(&filters, service, now));
        assert_eq!(all(START + 999), ["debug", "debug", "error"]);
        assert_eq!(filters.next_end(START), Some(START + 1000));
        assert_eq!(all(START + 1000), ["debug", "debug", "info"]);
        assert_eq!(filters.next_end(START + 1000), Some(START + 2000));
        assert_eq!(all(START + 2000), ["info", "warn", "info"]);
        assert_eq!(filters.next_end(START + 2000), None);
    }

    #[test]
    fn the_watchdog_has_a_filter_like_any_service() {
        let mut filters = Filters::default();
        let all = |filters: &Filters, now| {
            let targets = filters.of_watchdog(now);
            [Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
                .map(|level| targets.would_enable("watchdog::ended", &level))
        };
        assert_eq!(all(&filters, START), [false, true, true, true]);
        let json = r#"{"filter": {
            "default": "error,a[b]=trace",
            "watchdog": { "directives": "warn", "for": "1s" }
        }}"#;
        filters.apply(&settings(json), false, START);
        assert_eq!(all(&filters, START + 999), [false, false, true, true]);
        assert_eq!(all(&filters, START + 1000), [false, false, false, true]);
    }

    #[test]
    fn the_same_settings_set_again_begin_anew() {
        let json = settings(r#"{"filter": {"a": {"directives": "debug", "for": "1s"}}}"#);
        let mut filters = Filters::default();
        filters.apply(&json, false, START);
        filters.apply(&json, true, START + 1500);
        assert_eq!(at(&filters, "a", START + 2000), "debug");
    }

    #[test]
    fn an_end_is_due_until_it_was_told() {
        let mut filters = Filters::default();
        filters.apply(&settings(r#"{"filter": {"a": {"directives": "debug", "for": "1s"}}}"#), false, START);
        let mut waiting = Waiting::default();
        waiting.tell(&filters, START);
        // However much is done meanwhile.
        for _ in 0..2 {
            assert_eq!(waiting.due(&filters), Some(START + 1000));
        }
        waiting.tell(&filters, START + 3000);
        assert_eq!(waiting.due(&filters), None);
    }

    #[test]
    fn a_filter_has_one_number_and_another_one_another() {
        let mut filters = Filters::default();
        let (first, other) = (filters.of(&name("a"), START), filters.of(&name("b"), START));
        assert_eq!(first.number, other.number);
        filters.apply(&settings(r#"{"filter": {"a": "debug"}}"#), false, START);
        assert_ne!(filters.of(&name("a"), START).number, first.number);
        assert_eq!(filters.of(&name("b"), START).number, other.number);
        filters.apply(&settings(r#"{"traces": {"ratio": 0.5}}"#), false, START);
        assert_ne!(filters.of(&name("b"), START).number, other.number);
    }

    proptest! {
        /// However often the service restarts and other settings change, and however the clock jumps back.
        #[test]
        fn a_filter_ends_after_its_time_and_no_later(
            period in 1_000u64..100_000,
            steps in prop::collection::vec((0u64..20_000, any::<bool>()), 0..12),
        ) {
            let json = |ratio: usize| settings(&format!(
                r#"{{"filter": {{"a": {{"directives": "debug", "for": "{period}ms"}}}}, "traces": {{"ratio": 0.{ratio}}}}}"#
            ));
            let mut filters = Filters::default();
            filters.apply(&json(0), false, START);
            let mut now = START;
            for (at_step, (passed, restarts)) in steps.into_iter().enumerate() {
                now += passed;
                if restarts {
                    filters = Filters::resumed(filters.begun().clone());
                }
                filters.apply(&json(at_step), false, now);
                let expected = if now - START < period { "debug" } else { "info" };
                prop_assert_eq!(at(&filters, "a", now), expected);
                prop_assert_eq!(filters.next_end(now), Some(START + period).filter(|end| *end > now));
            }
        }

        #[test]
        fn a_clock_set_back_makes_no_filter_longer_than_it_is(back in 1u64..START, period in 1u64..100_000) {
            let json =
                settings(&format!(r#"{{"filter": {{"a": {{"directives": "debug", "for": "{period}ms"}}}}}}"#));
            let mut filters = Filters::default();
            filters.apply(&json, false, START);
            let now = START - back;
            filters.apply(&json, false, now);
            prop_assert_eq!(filters.next_end(now), Some(now + period));
        }
    }
}
