//! [`Directives`]: what to record, as `tracing-subscriber` reads it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use strsim::damerau_levenshtein;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Targets;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Directives that an `EnvFilter` can be made of: `info,counter::add=debug`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Directives(String);

/// Why a text is no filter, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectivesError {
    /// It says nothing, which would be read as errors only.
    #[error("an empty filter, expected a level like \"info\", or \"off\"")]
    Empty,
    /// One directive is none.
    #[error(
        "`{directive}` at character {at} of {whole:?} is no directive ({reason}); expected a level (off, error, warn, \
         info, debug, trace) or TARGET=LEVEL like `counter::add=debug`"
    )]
    Directive {
        /// Which.
        directive: String,
        /// Where it begins, from 1.
        at: usize,
        /// All of the text.
        whole: String,
        /// In the words of `tracing-subscriber`.
        reason: String,
    },
    /// A single word is a target with all its levels, which a mistyped level is not meant to be.
    #[error(
        "`{word}` at character {at} of {whole:?} is no level; did you mean `{level}`? A target of that name is \
         written `{word}=trace`"
    )]
    Level {
        /// As given.
        word: String,
        /// Where it begins, from 1.
        at: usize,
        /// All of the text.
        whole: String,
        /// The level it is like.
        level: &'static str,
    },
}

impl Directives {
    pub(crate) fn info() -> Self {
        Self("info".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What of it is about targets and levels alone, for records that are made in no span.
    pub(crate) fn targets(&self) -> Targets {
        let plain: Vec<_> = self.0.split(',').filter(|word| !is_about_spans(word)).collect();
        // Whatever an EnvFilter takes without spans is taken here.
        plain.join(",").parse().unwrap_or_default()
    }

    /// The first that is about spans or their fields, and where it begins, from 1.
    pub(crate) fn first_about_spans(&self) -> Option<(&str, usize)> {
        let mut at = 1;
        for word in self.0.split(',') {
            if is_about_spans(word) {
                return Some((word, at));
            }
            at += word.chars().count() + 1;
        }
        None
    }
}

impl TryFrom<String> for Directives {
    type Error = DirectivesError;

    fn try_from(text: String) -> Result<Self, DirectivesError> {
        if text.split(',').all(|directive| directive.trim().is_empty()) {
            return Err(DirectivesError::Empty);
        }
        let mut at = 1;
        // At each comma, as EnvFilter does it.
        for directive in text.split(',') {
            let word = directive.trim();
            let place = at + directive.chars().take_while(|c| c.is_whitespace()).count();
            at += directive.chars().count() + 1;
            if directive.is_empty() {
                continue;
            }
            let (whole, directive) = (|| text.clone(), word.to_owned());
            if let Err(error) = EnvFilter::builder().parse(word).map(drop) {
                let reason = error.to_string();
                return Err(DirectivesError::Directive { directive, at: place, whole: whole(), reason });
            }
            if let Some(level) = mistyped(word) {
                return Err(DirectivesError::Level { word: directive, at: place, whole: whole(), level });
            }
        }
        // Without blanks, which EnvFilter takes for a part of the target.
        Ok(Self(text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(",")))
    }
}

fn is_about_spans(word: &str) -> bool {
    word.contains('[')
}

/// The level that a single word is one slip away from.
fn mistyped(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    let is_level = LEVELS.contains(&lower.as_str()) || lower.parse::<u8>().is_ok_and(|number| number <= 5);
    if is_level || !lower.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    LEVELS.into_iter().find(|level| level.len() > 3 && damerau_levenshtein(level, &lower) == 1)
}

impl From<Directives> for String {
    fn from(directives: Directives) -> Self {
        directives.0
    }
}

impl JsonSchema for Directives {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Directives".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    fn read(text: &str) -> Result<String, String> {
        Directives::try_from(text.to_owned()).map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn what_an_env_filter_takes_is_taken() {
        for good in
            ["info", "off", "WARN", "3", "counter", "counter::add=debug", "a=1,b[span]=trace", "[{id=3}]"]
        {
            assert_eq!(read(good).as_deref(), Ok(good));
        }
        assert_eq!(read(" info , counter::add=debug,").as_deref(), Ok("info,counter::add=debug"));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let error = read("info,counter::add=dbug").unwrap_err();
        assert!(error.starts_with("`counter::add=dbug` at character 6 of "), "{error}");
        assert!(error.contains("TARGET=LEVEL"), "{error}");
        let error = read("größe=info, =debug").unwrap_err();
        assert!(error.starts_with("`=debug` at character 13 of "), "{error}");
    }

    #[test]
    fn a_mistyped_level_is_no_target() {
        let error = read("info,debgu").unwrap_err();
        assert!(
            error.contains("`debgu` at character 6") && error.contains("did you mean `debug`?"),
            "{error}"
        );
        assert_eq!(read("warp=trace").as_deref(), Ok("warp=trace"));
        assert_eq!(read("my_crate").as_deref(), Ok("my_crate"));
    }

    #[test]
    fn without_spans_the_rest_holds_as_an_env_filter_reads_it() {
        let takes = |text: &str, target: &str, level: Level| {
            Directives::try_from(text.to_owned()).unwrap().targets().would_enable(target, &level)
        };
        for (text, target, level, expected) in [
            ("warn", "watchdog::ended", Level::WARN, true),
            ("warn", "watchdog::ended", Level::INFO, false),
            ("off", "watchdog::failed", Level::ERROR, false),
            ("3", "watchdog::ended", Level::INFO, true),
            ("WARN,watchdog::settings=INFO", "watchdog::settings", Level::INFO, true),
            ("info,watchdog::took-over=off", "watchdog::took-over", Level::INFO, false),
            ("info,watchdog::took-over=off", "watchdog::ended", Level::INFO, true),
            ("watchdog", "watchdog::ended", Level::TRACE, true),
            ("warn,a[span]=trace", "watchdog::ended", Level::WARN, true),
            ("warn,a[span]=trace", "a", Level::INFO, false),
            ("warn,[{id=3}]=trace", "watchdog::ended", Level::WARN, true),
            ("warn,[{id=3}]=trace", "watchdog::ended", Level::INFO, false),
            ("warn,a[{id}]=trace", "a", Level::INFO, false),
        ] {
            assert_eq!(takes(text, target, level), expected, "{text} {target} {level}");
        }
    }

    #[test]
    fn what_is_about_spans_is_named_with_its_place() {
        let read = |text: &str| Directives::try_from(text.to_owned()).unwrap();
        let found = read("größe=info, b[span]=trace,[{id=3}]");
        assert_eq!(found.first_about_spans(), Some(("b[span]=trace", 12)));
        assert_eq!(read("info,a=debug").first_about_spans(), None);
    }

    #[test]
    fn nothing_is_no_filter() {
        for empty in ["", ",", "  "] {
            assert!(read(empty).unwrap_err().contains("empty filter"), "{empty:?}");
        }
    }
}
