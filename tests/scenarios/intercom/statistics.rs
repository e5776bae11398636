//! What is known of a lane.

use super::*;

#[test]
fn ic_4_the_statistics_of_a_lane_are_kept_across_restarts_and_shown_for_a_service_that_is_down() {
    let wd = ready(&[puppet("a", ByItself), puppet("b", ByItself)]);
    let a = wd.puppet("a");
    for _ in 0..3 {
        a.text(ask("b", "x"));
    }
    let before = lane(&wd, "a", "b");
    assert_eq!((before.sent, before.handled, before.queued), (3, 3, 0));
    assert_eq!(before.propagation.count, 3);
    let p = &before.propagation;
    assert!(p.mean > 0.0 && p.max > 0 && p.p50 <= p.p99 && p.p99 <= p.max, "{p:?}");
    assert_eq!(p.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 3);
    assert!(p.buckets.iter().any(|bucket| p.max < bucket.below && p.max >= bucket.below / 2), "{p:?}");
    assert!((p.deviation * p.deviation - p.variance).abs() <= p.variance * 1e-6, "{p:?}");
    assert!(before.rate > 0.0);

    kill_and_wait(&wd, "b");
    wd.kill_core();
    a.text(ask("b", "x"));
    assert_eq!(lane(&wd, "a", "b").propagation.count, 4);
    wd.cli(&["stop", "b"]).ok();
    let down = lane(&wd, "a", "b");
    assert_eq!((down.sent, down.handled), (4, 4));
    assert!(down.held_ms.is_some());
    let seen = wd.status();
    assert_eq!((seen.of("b").messages_in, seen.of("a").messages_out), (4, 4));
    let table = wd.cli(&["intercoms", "b"]).ok().stdout;
    assert!(table.contains('a') && table.contains('b'), "{table}");
}

#[test]
fn ic_4_the_propagation_time_holds_the_waiting() {
    let wd = ready_by_hand();
    let (a, b) = (wd.puppet("a"), wd.puppet("b"));
    a.does(say("b", "patience"));
    kill_and_wait(&wd, "b");
    let heard = b.next();
    assert!(heard.waited > Duration::ZERO);
    let measured =
        wd.until_some("it is measured", || Some(lane(&wd, "a", "b").propagation).filter(|p| p.count == 1));
    assert_eq!(u128::from(measured.max), heard.waited.as_nanos());
    assert!((measured.mean - heard.waited.as_nanos() as f64).abs() < 1.0, "{measured:?}");
    assert!(measured.variance.abs() < f64::EPSILON, "of one there is none");
}
