//! Which lines are shown. No I/O.

use jiff::Timestamp;
use regex::Regex;

use crate::capture::reader;
use crate::cli::figures::parse_span;
use crate::cli::record;
use crate::records::{Level, Record, What};

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) level: Option<Level>,
    pub(super) grep: Option<Regex>,
    pub(super) spans: bool,
}

impl Wanted {
    /// Whether a captured line is among it.
    pub(super) fn takes_printed(&self, line: &reader::Record) -> bool {
        self.level.is_none() && self.is_time(&line.time) && self.is_matched(&line.text)
    }

    /// Whether a record is among it. A line that is none is no more than a captured one.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let is_kind = match record.what {
            What::Span { .. } => self.spans,
            What::Event { .. } | What::Dropped { .. } | What::Unreadable => true,
        };
        // What is missing is as grave as what is there.
        let is_grave = matches!(record.what, What::Dropped { .. })
            || self.level.is_none_or(|least| record.level >= Some(least));
        is_kind && is_grave && self.is_time(&record.time) && self.is_matched(&record::said(record))
    }

    fn is_time(&self, time: &str) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        // What has no time can't be said to be outside.
        let Ok(time) = time.parse::<Timestamp>() else { return true };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    fn is_matched(&self, text: &str) -> bool {
        self.grep.as_ref().is_none_or(|grep| grep.is_match(text))
    }
}

/// A moment: so long ago, or a point in time.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_span(text) {
        return Timestamp::now().checked_sub(ago).map_err(|error| error.to_string());
    }
    text.parse()
        .map_err(|_| "expected so long ago, as 10m or 2h, or a time, as 2026-11-30T04:15:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        serde_json::from_str(json).unwrap()
    }

    fn event(level: &str, message: &str) -> Record {
        record(&format!(
            r#"{{"time":"2026-11-30T04:15:00.5Z","kind":"event","service":"a","level":"{level}","target":"t","message":"{message}","fields":{{"peer":"bumper"}}}}"#
        ))
    }

    #[test]
    fn a_level_leaves_out_what_is_less_grave_and_what_was_only_printed() {
        let wanted = Wanted { level: Some(Level::Warn), ..Wanted::default() };
        let taken = |level| wanted.takes(&event(level, "m"));
        assert!(taken("ERROR") && taken("WARN") && !taken("INFO") && !taken("TRACE"));
        let gap =
            r#"{"time":"2026-11-30T04:15:00Z","kind":"dropped","service":"a","reason":"full","count":3}"#;
        assert!(wanted.takes(&record(gap)));
        let printed = reader::Record {
            service: "a".parse().unwrap(),
            time: "2026-11-30T04:15:00.000000Z".to_owned(),
            stream: None,
            goes_on: false,
            text: "m".to_owned(),
        };
        assert!(!wanted.takes_printed(&printed) && Wanted::default().takes_printed(&printed));
    }

    #[test]
    fn a_time_is_a_half_open_span() {
        let at = |text: &str| Some(text.parse().unwrap());
        let wanted = |since, until| Wanted { since, until, ..Wanted::default() }.takes(&event("INFO", "m"));
        let (before, exact, after) =
            (at("2026-11-30T04:15:00Z"), at("2026-11-30T04:15:00.5Z"), at("2026-11-30T04:15:01Z"));
        assert!(wanted(exact, after) && wanted(before, None) && wanted(None, after));
        assert!(!wanted(after, None) && !wanted(before, exact));
    }

    #[test]
    fn an_expression_is_looked_for_in_all_that_is_said() {
        let wanted = |grep: &str| {
            let wanted = Wanted { grep: Some(grep.parse().unwrap()), ..Wanted::default() };
            wanted.takes(&event("INFO", "not added"))
        };
        assert!(wanted("^t: not") && wanted("peer=bumper$") && !wanted("INFO"));
    }

    #[test]
    fn a_moment_is_so_long_ago_or_a_time() {
        assert_eq!(moment("2026-11-30T04:15:00Z"), Ok("2026-11-30T04:15:00Z".parse().unwrap()));
        let before = Timestamp::now();
        let ago = moment("10m").unwrap() + jiff::SignedDuration::from_mins(10);
        assert!((before..=Timestamp::now()).contains(&ago), "{ago}");
        assert!(moment("yesterday").unwrap_err().contains("expected"));
    }
}
