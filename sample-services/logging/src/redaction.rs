//! [`Redaction`]: what must not be seen is taken out of records before any output has them.

use regex::{NoExpand, Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use watchdog_service::log::{Batch, Field, Record, SpanStatus, Value};

/// What stands for what was taken out.
pub(crate) const REDACTED: &str = "[redacted]";

/// Bytes a compiled pattern may take: `\w{1000}{1000}` is a short text.
const MOST_COMPILED: usize = 1 << 20;

/// The patterns of what is taken out.
#[derive(Debug, Default)]
pub(crate) struct Redaction {
    /// All at once, to see whether there is anything to do.
    any: RegexSet,
    patterns: Vec<Regex>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RedactionError {
    /// In the words of the regex crate.
    #[error("{pattern:?} is no pattern: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It would redact between any two letters.
    #[error("{0:?} matches an empty text, expected a pattern of at least one character")]
    Empty(String),
}

impl RedactionError {
    /// The crate draws the pattern and points at the place, in several lines; the last one says what is wrong.
    fn pattern(text: &str, error: &regex::Error) -> Self {
        let drawn = error.to_string();
        let last = drawn.lines().last().unwrap_or_default();
        let reason = last.strip_prefix("error: ").unwrap_or(last).to_owned();
        Self::Pattern { pattern: text.to_owned(), reason }
    }
}

impl Redaction {
    /// Of regular expressions.
    ///
    /// # Errors
    /// Which of them is none, from 0, and why.
    pub(crate) fn new(texts: &[String]) -> Result<Self, (usize, RedactionError)> {
        let mut patterns = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let pattern = RegexBuilder::new(text)
                .size_limit(MOST_COMPILED)
                .build()
                .map_err(|error| (at, RedactionError::pattern(text, &error)))?;
            if pattern.is_match("") {
                return Err((at, RedactionError::Empty(text.clone())));
            }
            patterns.push(pattern);
        }
        let any = RegexSetBuilder::new(texts)
            .size_limit(MOST_COMPILED * texts.len().max(1))
            .build()
            .map_err(|error| (0, RedactionError::pattern(&texts.join("|"), &error)))?;
        Ok(Self { any, patterns })
    }

    /// Takes it out of all texts of a batch: messages, names of spans, values, and what is said of failures. Keys and
    /// targets are the program's own words.
    pub(crate) fn apply(&self, batch: &mut Batch) {
        if self.patterns.is_empty() {
            return;
        }
        for record in &mut batch.records {
            let fields = match record {
                Record::Event(event) => {
                    self.text(&mut event.message);
                    &mut event.fields
                }
                Record::Span(span) => {
                    self.text(&mut span.name);
                    if let SpanStatus::Error(why) = &mut span.status {
                        self.text(why);
                    }
                    &mut span.fields
                }
            };
            for Field { value, .. } in fields {
                if let Value::Text(text) = value {
                    self.text(text);
                }
            }
        }
    }

    fn text(&self, text: &mut String) {
        if !self.any.is_match(text) {
            return;
        }
        // Each pattern sees the text as the process wrote it where those before it have found nothing.
        for pattern in &self.patterns {
            if let std::borrow::Cow::Owned(redacted) = pattern.replace_all(text, NoExpand(REDACTED)) {
                *text = redacted;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parcel::sample;

    fn redacted(patterns: &[&str], text: &str) -> String {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let mut text = text.to_owned();
        Redaction::new(&patterns).unwrap().text(&mut text);
        text
    }

    #[test]
    fn every_match_of_every_pattern_is_taken_out() {
        let text = "card 4111-1111 of a@b.de, card 4222-2222";
        assert_eq!(
            redacted(&[r"\d{4}-\d{4}", r"\S+@\S+\.\w+"], text),
            "card [redacted] of [redacted], card [redacted]"
        );
    }

    #[test]
    fn what_stands_for_it_is_no_template() {
        assert_eq!(redacted(&["(k)ey"], "key"), REDACTED);
    }

    #[test]
    fn a_pattern_that_is_too_large_is_refused() {
        let (at, error) = Redaction::new(&["a".into(), r"\w{1000}".repeat(100)]).unwrap_err();
        assert_eq!(at, 1);
        assert!(error.to_string().contains("size limit"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_secret_is_left_and_nothing_else_is_changed(
            parts in prop::collection::vec(("[a-f ]{0,6}", "[0-9]{4,8}"), 0..6)
        ) {
            let text: String = parts.iter().flat_map(|(plain, secret)| [plain.as_str(), secret]).collect();
            let expected: String = {
                // Secrets with nothing between them are one match.
                let mut out = String::new();
                for (plain, _) in &parts {
                    if !plain.is_empty() || !out.ends_with(REDACTED) {
                        out.push_str(plain);
                        out.push_str(REDACTED);
                    }
                }
                out
            };
            prop_assert_eq!(redacted(&["[0-9]{4,}"], &text), expected);
        }

        #[test]
        fn a_secret_is_in_no_text_of_a_record(mut batch in sample::batches(), secret in "[0-9]{9}") {
            sample::hide(&mut batch, &secret);
            Redaction::new(&["[0-9]{9}".to_owned()]).unwrap().apply(&mut batch);
            let shown = format!("{:?}", batch.records);
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }
    }
}
