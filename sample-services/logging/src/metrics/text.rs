//! The text that Prometheus reads. Pure.

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::family::{Family, Kind, Point, Value};

/// The content type of it.
pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All families, one after the other.
pub(crate) fn text(families: &[Family]) -> String {
    let families: Vec<_> = families.iter().map(encoded).collect();
    TextEncoder::new().encode_to_string(&families).expect("each family has a name and a point")
}

fn encoded(family: &Family) -> MetricFamily {
    let mut out = MetricFamily::default();
    out.set_name(family.metric.prometheus());
    out.set_help(family.metric.help.to_owned());
    out.set_field_type(match family.metric.kind {
        Kind::Gauge => MetricType::GAUGE,
        Kind::Counter => MetricType::COUNTER,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    out.set_metric(family.points.iter().map(|point| metric(family.metric.kind, point)).collect());
    out
}

fn metric(kind: Kind, point: &Point) -> Metric {
    let labels = point.labels.iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value.clone());
        label
    });
    let mut out = Metric::from_label(labels.collect());
    let number = match &point.value {
        Value::Whole(number) => *number as f64,
        Value::Real(number) => *number,
        Value::Histogram(measured) => {
            let buckets = measured.up_to().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            });
            let mut histogram = Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(measured.count());
            histogram.set_sample_sum(measured.sum);
            out.set_histogram(histogram);
            return out;
        }
    };
    match kind {
        Kind::Counter => {
            let mut counter = Counter::default();
            counter.set_value(number);
            out.set_counter(counter);
        }
        Kind::Gauge | Kind::Histogram => {
            let mut gauge = Gauge::default();
            gauge.set_value(number);
            out.set_gauge(gauge);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::metrics::family::{Metric, Unit};
    use crate::metrics::{families, sample};

    /// Each series and its value, by the rules of the format and no others.
    fn read(text: &str) -> BTreeMap<(String, Vec<(String, String)>), f64> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name_end = line.find(['{', ' ']).unwrap();
            let (name, mut rest) = line.split_at(name_end);
            let mut labels = Vec::new();
            if let Some(inner) = rest.strip_prefix('{') {
                rest = inner;
                loop {
                    let (label, behind) = rest.split_once("=\"").unwrap();
                    let (mut value, mut letters) = (String::new(), behind.chars());
                    loop {
                        match letters.next().unwrap() {
                            '"' => break,
                            '\\' => value.push(match letters.next().unwrap() {
                                'n' => '\n',
                                other => other,
                            }),
                            other => value.push(other),
                        }
                    }
                    labels.push((label.to_owned(), value));
                    rest = letters.as_str();
                    match rest.strip_prefix(',') {
                        Some(more) => rest = more,
                        None => break,
                    }
                }
                rest = rest.strip_prefix('}').unwrap();
            }
            let value = rest.strip_prefix(' ').unwrap().parse().unwrap();
            assert!(series.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
        series
    }

    static SPOKEN: Metric =
        Metric { name: "a.spoken", unit: Unit::Of("word"), kind: Kind::Counter, help: "As\nhelp \\ goes." };

    proptest! {
        #[test]
        fn whatever_a_label_says_it_is_read_as_it_was(values in prop::collection::btree_set(any::<String>(), 1..8), number: u64) {
            let points: Vec<_> = values
                .iter()
                .map(|value| Point {
                    labels: vec![("output", value.clone()), ("x", "y".to_owned())],
                    since: 0,
                    value: Value::Whole(number),
                })
                .collect();
            let series = read(&text(&[Family { metric: &SPOKEN, points }]));
            let found: Vec<_> = series.keys().map(|(_, labels)| labels[0].1.clone()).collect();
            prop_assert_eq!(found, values.into_iter().collect::<Vec<_>>());
            for ((name, _), value) in series {
                prop_assert_eq!((name.as_str(), value), ("a_spoken_total", number as f64));
            }
        }
    }

    #[test]
    fn no_line_of_help_is_two() {
        let point = Point { labels: Vec::new(), since: 0, value: Value::Real(0.5) };
        let text = text(&[Family { metric: &SPOKEN, points: vec![point] }]);
        assert_eq!(
            text,
            "# HELP a_spoken_total As\\nhelp \\\\ goes.\n# TYPE a_spoken_total counter\na_spoken_total 0.5\n"
        );
    }

    #[test]
    fn a_histogram_adds_up_to_infinity() {
        let found = sample::gathering();
        let series = read(&text(&families(&found)));
        let of = |name: &str| -> Vec<(String, f64)> {
            let its = series.iter().filter(|((found, labels), _)| {
                found == name && labels.contains(&("sender".to_owned(), "b".to_owned()))
            });
            its.map(|((_, labels), value)| (labels.last().unwrap().1.clone(), *value)).collect()
        };
        let buckets = of("watchdog_lane_propagation_seconds_bucket");
        let at = |bound: &str| buckets.iter().find(|(found, _)| found == bound).unwrap().1;
        assert_eq!(
            (at("0.000001024"), at("0.002097152"), at("17.179869184"), at("+Inf")),
            (0.0, 3.0, 3.0, 4.0)
        );
        let one = |name: &str| of(name)[0].1;
        assert_eq!(one("watchdog_lane_propagation_seconds_count"), 4.0);
        assert_eq!(one("watchdog_lane_propagation_seconds_sum"), 6.0);
    }
}
