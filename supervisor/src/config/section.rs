//! One table of the file, read key by key. A key that nobody asks for is unknown, so the known ones are listed
//! nowhere else than where they are read.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Problem};
use super::quantity;
use super::source::Source;

/// What is found wrong goes here; reading goes on.
pub(super) struct Report {
    pub(super) source: Arc<Source>,
    pub(super) errors: Vec<ConfigError>,
}

impl Report {
    pub(super) fn at(&mut self, at: Range<usize>, problem: Problem) {
        self.errors.push(ConfigError { place: Some(self.source.place(at)), problem });
    }
}

/// A value under the name it has in errors.
#[derive(Clone)]
pub(super) struct Entry<'d> {
    pub(super) name: String,
    /// Of the key, or of the value itself in an array.
    pub(super) key: Range<usize>,
    pub(super) value: &'d Spanned<DeValue<'d>>,
}

impl<'d> Entry<'d> {
    /// The value's place.
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Says that something else was expected.
    pub(super) fn expected<T>(&self, report: &mut Report, expected: &str) -> Option<T> {
        let found = found(self.value, report.source.text());
        let problem = Problem::Value { key: self.name.clone(), found, expected: expected.to_owned() };
        report.at(self.span(), problem);
        None
    }

    pub(super) fn text(&self, report: &mut Report, expected: &str) -> Option<&'d str> {
        match self.value.get_ref().as_str() {
            // No value of the file may hold one: it would end a C string early.
            Some(text) if !text.contains('\0') => Some(text),
            _ => self.expected(report, expected),
        }
    }

    /// A string that `read` understands.
    pub(super) fn parsed<T>(
        &self,
        report: &mut Report,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.value.get_ref().as_str().and_then(read) {
            Some(read) => Some(read),
            None => self.expected(report, expected),
        }
    }

    /// A whole number from `lowest` to `highest`.
    pub(super) fn number(&self, report: &mut Report, lowest: u64, highest: u64) -> Option<u64> {
        match integer(self.value.get_ref()) {
            Some(number) if (lowest..=highest).contains(&number) => Some(number),
            _ => self.expected(report, &format!("a whole number from {lowest} to {highest}")),
        }
    }

    pub(super) fn boolean(&self, report: &mut Report) -> Option<bool> {
        match self.value.get_ref().as_bool() {
            Some(boolean) => Some(boolean),
            None => self.expected(report, "true or false"),
        }
    }

    pub(super) fn duration(&self, report: &mut Report) -> Option<Duration> {
        self.parsed(report, quantity::DURATION, quantity::duration)
    }

    /// A duration above zero.
    pub(super) fn some_time(&self, report: &mut Report) -> Option<Duration> {
        let duration = self.duration(report)?;
        if duration.is_zero() {
            return self.expected(report, "a duration above zero");
        }
        Some(duration)
    }

    /// Each element of an array, under the array's name.
    pub(super) fn elements(&self, report: &mut Report, expected: &str) -> Option<Vec<Entry<'d>>> {
        let Some(array) = self.value.get_ref().as_array() else { return self.expected(report, expected) };
        let element =
            |value: &'d Spanned<DeValue<'d>>| Entry { name: self.name.clone(), key: value.span(), value };
        Some(array.iter().map(element).collect())
    }

    /// An array of strings.
    pub(super) fn texts(&self, report: &mut Report, expected: &str) -> Option<Vec<&'d str>> {
        let elements = self.elements(report, expected)?;
        elements.iter().map(|element| element.text(report, "a string")).collect()
    }

    pub(super) fn section(&self, report: &mut Report, expected: &str) -> Option<Section<'d>> {
        match self.value.get_ref().as_table() {
            Some(table) => Some(Section::new(format!("`{}`", self.name), table)),
            None => self.expected(report, expected),
        }
    }
}

/// Not negative.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The value as written, or what it is when that would be long.
fn found(value: &Spanned<DeValue<'_>>, text: &str) -> String {
    const LONGEST: usize = 40;
    let written = text.get(value.span()).unwrap_or_default();
    match value.get_ref() {
        DeValue::Table(_) => "a table".to_owned(),
        _ if written.chars().count() <= LONGEST && !written.chars().any(char::is_control) => {
            written.to_owned()
        }
        DeValue::Array(_) => "an array".to_owned(),
        _ => "a long value".to_owned(),
    }
}

/// A table, under the name it has in errors.
pub(super) struct Section<'d> {
    name: String,
    table: &'d DeTable<'d>,
    asked: Vec<&'static str>,
}

impl<'d> Section<'d> {
    pub(super) fn new(name: String, table: &'d DeTable<'d>) -> Self {
        Self { name, table, asked: Vec::new() }
    }

    /// The same table under the name that its header has.
    pub(super) fn called(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The value of a key, if it is there. The key is known from now on.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Entry<'d>> {
        self.asked.push(key);
        self.entries().find(|entry| entry.name == key)
    }

    /// All entries, for a table whose keys are free.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'d>> + use<'d> {
        self.table.iter().map(|(key, value)| Entry {
            name: key.get_ref().to_string(),
            key: key.span(),
            value,
        })
    }

    /// Says which keys nobody asked for.
    pub(super) fn end(self, report: &mut Report) {
        for entry in self.entries().filter(|entry| !self.asked.iter().any(|known| *known == entry.name)) {
            let known = self.asked.iter().map(|known| (*known).to_owned()).collect();
            let problem = Problem::UnknownKey { key: entry.name, table: self.name.clone(), known };
            report.at(entry.key, problem);
        }
    }
}
