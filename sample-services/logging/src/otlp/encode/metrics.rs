//! Metrics: cumulative, each with its beginning.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{attribute, scope};
use crate::metrics::{BOUNDS, Family, Gathering, Kind, Point, Value, families};

/// Points of one request: with labels of a usual length some 2 MiB, of which collectors take 4 unless told otherwise.
const MOST: usize = 4096;

/// What counted.
const SCOPE: &str = "watchdog";

/// All of it, in as few requests as it takes.
pub(super) fn requests(found: &Gathering) -> impl Iterator<Item = ExportMetricsServiceRequest> {
    let mut requests: Vec<Vec<Metric>> = Vec::new();
    let mut room = 0;
    for family in families(found) {
        let mut points = &family.points[..];
        while !points.is_empty() {
            if room == 0 {
                requests.push(Vec::new());
                room = MOST;
            }
            let (now, later) = points.split_at(points.len().min(room));
            let request = requests.last_mut().expect("pushed before there is room in it");
            request.push(metric(&family, now, found.at));
            (points, room) = (later, room - now.len());
        }
    }
    let resource = resource(found);
    requests.into_iter().map(move |metrics| {
        let scope_metrics =
            vec![ScopeMetrics { scope: scope(SCOPE.to_owned()), metrics, ..ScopeMetrics::default() }];
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics,
            ..ResourceMetrics::default()
        }];
        ExportMetricsServiceRequest { resource_metrics }
    })
}

/// Which watchdog it is, of all that send to the same collector.
fn resource(found: &Gathering) -> Resource {
    let text = |key, value: &str| attribute(key, Any::StringValue(value.to_owned()));
    let attributes = vec![
        text("service.name", "watchdog"),
        text("service.instance.id", &found.instance()),
        text("host.name", &found.host),
    ];
    Resource { attributes, ..Resource::default() }
}

fn metric(family: &Family, points: &[Point], at: u64) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let data = match family.metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers(points, at) }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(points, at),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: points.iter().filter_map(|point| histogram(point, at)).collect(),
            aggregation_temporality: temporality,
        }),
    };
    Metric {
        name: family.metric.name.to_owned(),
        description: family.metric.help.to_owned(),
        unit: family.metric.unit.otel(),
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(points: &[Point], at: u64) -> Vec<NumberDataPoint> {
    let number = |point: &Point| {
        let value = match point.value {
            // What is too large for it is no count of anything.
            Value::Whole(number) => Number::AsInt(i64::try_from(number).unwrap_or(i64::MAX)),
            Value::Real(number) => Number::AsDouble(number),
            Value::Histogram(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: labels(point),
            start_time_unix_nano: point.since,
            time_unix_nano: at,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    };
    points.iter().filter_map(number).collect()
}

fn histogram(point: &Point, at: u64) -> Option<HistogramDataPoint> {
    let Value::Histogram(measured) = &point.value else { return None };
    Some(HistogramDataPoint {
        attributes: labels(point),
        start_time_unix_nano: point.since,
        time_unix_nano: at,
        count: measured.count(),
        sum: Some(measured.sum),
        bucket_counts: measured.counts.to_vec(),
        explicit_bounds: BOUNDS.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn labels(point: &Point) -> Vec<KeyValue> {
    point.labels.iter().map(|(name, value)| attribute(name, Any::StringValue(value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost::Message;

    use super::*;
    use crate::metrics::sample;

    fn all(requests: Vec<ExportMetricsServiceRequest>) -> Vec<Metric> {
        requests
            .into_iter()
            .flat_map(|request| request.resource_metrics)
            .flat_map(|found| found.scope_metrics)
            .flat_map(|found| found.metrics)
            .collect()
    }

    #[test]
    fn a_watchdog_is_one_resource_and_each_metric_says_what_it_is() {
        let found = sample::gathering();
        let requests: Vec<_> = requests(&found).collect();
        let [ref request] = requests[..] else { panic!("it is one request") };
        let resource = request.resource_metrics[0].resource.as_ref().unwrap();
        let told: BTreeMap<_, _> = resource
            .attributes
            .iter()
            .map(|pair| (pair.key.as_str(), pair.value.clone().unwrap().value.unwrap()))
            .collect();
        let text = |text: &str| Any::StringValue(text.to_owned());
        assert_eq!(told["service.name"], text("watchdog"));
        assert_eq!(told["service.instance.id"], text("box:/w/watchdog.toml"));
        let metrics = all(requests);
        let named = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap();
        let cpu = named("watchdog.service.cpu.time");
        assert_eq!(cpu.unit, "s");
        let Some(Data::Sum(sum)) = &cpu.data else { panic!("it is a counter") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(Number::AsDouble(1.24)));
        assert_eq!(point.time_unix_nano, found.at);
        assert!((found.at - 127_000_000_000..found.at).contains(&point.start_time_unix_nano));
        assert!(matches!(named("watchdog.lane.queued").data, Some(Data::Gauge(_))));
        let Some(Data::Histogram(histogram)) = &named("watchdog.lane.propagation").data else {
            panic!("it is a histogram")
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(6.0)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    }

    #[test]
    fn many_lanes_are_several_requests_that_a_collector_takes_and_no_point_is_left_out() {
        let mut found = sample::gathering();
        let names: Vec<_> =
            (0..1000).map(|number| format!("a-service-with-a-longer-name-{number}")).collect();
        let senders: Vec<_> = names.iter().map(String::as_str).collect();
        found.set_inboxes(vec![sample::inbox("a", &senders)]);
        let count = |metrics: &[Metric]| -> usize {
            let of = |metric: &Metric| match metric.data.as_ref().unwrap() {
                Data::Gauge(gauge) => gauge.data_points.len(),
                Data::Sum(sum) => sum.data_points.len(),
                Data::Histogram(histogram) => histogram.data_points.len(),
                other => panic!("{other:?}"),
            };
            metrics.iter().map(of).sum()
        };
        let requests: Vec<_> = requests(&found).collect();
        assert!(requests.len() > 1);
        assert!(requests.iter().all(|request| request.encoded_len() < 4 << 20));
        let told: usize = families(&found).iter().map(|family| family.points.len()).sum();
        assert_eq!(count(&all(requests)), told);
    }
}
