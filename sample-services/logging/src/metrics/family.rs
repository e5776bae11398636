//! What metrics are: their names, and what was measured. Pure.

use super::histogram::Histogram;

/// One metric, whomever it is of: a row of the [table](super).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// As OpenTelemetry writes names.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) kind: Kind,
    /// In a sentence.
    pub(crate) help: &'static str,
}

/// What a metric is counted in: base units, and things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
    /// Things, by their name in the singular.
    Of(&'static str),
    /// A number that orders, or says yes (1) or no (0).
    None,
}

/// What becomes of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only grows, until what it counts begins anew.
    Counter,
    /// So many values were so large; it only grows as well.
    Histogram,
}

/// All that was measured of one metric at one time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) metric: &'static Metric,
    /// One at least.
    pub(crate) points: Vec<Point>,
}

/// What was measured once: of whom, and how much. No two of a family have the same labels.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Point {
    pub(crate) labels: Vec<(&'static str, String)>,
    /// Since when it is counted, in nanoseconds since 1970; of a gauge 0.
    pub(crate) since: u64,
    pub(crate) value: Value,
}

/// How much.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Whole(u64),
    Real(f64),
    Histogram(Box<Histogram>),
}

impl Unit {
    /// As OpenTelemetry writes it (UCUM).
    pub(crate) fn otel(self) -> String {
        match self {
            Self::Seconds => "s".to_owned(),
            Self::Bytes => "By".to_owned(),
            Self::Of(what) => format!("{{{what}}}"),
            Self::None => String::new(),
        }
    }

    /// As a name for Prometheus ends in it.
    fn suffix(self) -> &'static str {
        match self {
            Self::Seconds => "_seconds",
            Self::Bytes => "_bytes",
            Self::Of(_) | Self::None => "",
        }
    }
}

impl Metric {
    /// The name for Prometheus, by the rule that OpenTelemetry has for it: the unit behind, and `_total` behind a counter.
    pub(crate) fn prometheus(&self) -> String {
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{}{total}", self.name.replace('.', "_"), self.unit.suffix())
    }
}

impl Value {
    /// Milliseconds, as seconds.
    pub(crate) fn of_millis(millis: u64) -> Self {
        Self::Real(millis as f64 / 1000.0)
    }

    /// Microseconds, as seconds.
    pub(crate) fn of_micros(micros: u64) -> Self {
        Self::Real(micros as f64 / 1e6)
    }

    pub(crate) fn of_bool(is_so: bool) -> Self {
        Self::Whole(is_so.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_for_prometheus_has_the_unit_behind_and_total_behind_a_counter() {
        let name = |name, unit, kind| Metric { name, unit, kind, help: "" }.prometheus();
        assert_eq!(
            name("watchdog.service.cpu.time", Unit::Seconds, Kind::Counter),
            "watchdog_service_cpu_time_seconds_total"
        );
        assert_eq!(name("watchdog.lane.used", Unit::Bytes, Kind::Gauge), "watchdog_lane_used_bytes");
        assert_eq!(
            name("watchdog.lane.sent", Unit::Of("message"), Kind::Counter),
            "watchdog_lane_sent_total"
        );
        assert_eq!(
            name("watchdog.lane.propagation", Unit::Seconds, Kind::Histogram),
            "watchdog_lane_propagation_seconds"
        );
    }
}
