//! A file's text and the places in it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The characters of a source line that are shown; a longer line is cut around the place.
const SHOWN: usize = 120;

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: Arc<str>,
}

impl Source {
    /// `text` as read from `path`.
    pub fn new(path: &Path, text: impl Into<Arc<str>>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The folder that relative paths of the file start at.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Where a range of bytes is. A range outside the text is moved into it. Of settings the excerpt has the key and not
    /// the value: whether it is a secret only the service's schema knows, which is [`place_in_full`](Self::place_in_full).
    pub fn place(&self, range: Range<usize>) -> Place {
        let start = floor(&self.text, range.start);
        self.place_in(range, if self.is_among_settings(start) { without_value } else { str::to_owned })
    }

    /// The same, for a place where there is no secret.
    pub fn place_in_full(&self, range: Range<usize>) -> Place {
        self.place_in(range, str::to_owned)
    }

    /// Whether the word is on the line at `at` or above it in the same table.
    fn is_among_settings(&self, at: usize) -> bool {
        let end = self.text[at..].find('\n').map_or(self.text.len(), |length| at + length);
        for line in self.text[..end].rsplit('\n') {
            if line.contains("settings") {
                return true;
            }
            if is_header(line) {
                break;
            }
        }
        false
    }

    fn place_in(&self, range: Range<usize>, shown: fn(&str) -> String) -> Place {
        let text = &*self.text;
        let start = floor(text, range.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, range.end).clamp(start, line_end);
        let before = text[line_start..start].chars().count();
        let whole = text[line_start..line_end].trim_end_matches('\r');
        let line: String = shown(whole).chars().map(printable).collect();
        let length = line.chars().count();
        let column = before + 1;
        // What the caret would point at is the ellipsis now.
        let before = if shown(whole) == whole { before } else { before.min(length - 1) };
        let cut = if length <= SHOWN { 0 } else { before.saturating_sub(SHOWN / 2).min(length - SHOWN) };
        Place {
            path: self.path.clone(),
            line: text[..start].matches('\n').count() + 1,
            column,
            excerpt: line.chars().skip(cut).take(SHOWN).collect(),
            caret: before - cut,
            width: text[start..end].chars().count().clamp(1, SHOWN.saturating_sub(before - cut).max(1)),
        }
    }
}

/// `[service.counter.settings]`; an array that goes over several lines has quotes or numbers in it.
fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let name = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
    name.is_some_and(|name| {
        let of_names = |c: char| c.is_ascii_alphabetic() || "-_.@ ".contains(c) || c.is_ascii_digit();
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(of_names)
    })
}

/// What stands before the value; nothing of a line that has no key.
fn without_value(line: &str) -> String {
    match line.split_once('=') {
        _ if is_header(line) => line.to_owned(),
        Some((key, _)) => format!("{key}= …"),
        None => "…".to_owned(),
    }
}

/// The greatest character boundary not above `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A tab would move the caret away from what it points at, another control character could do anything to a
/// terminal.
fn printable(char: char) -> char {
    match char {
        '\t' => ' ',
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    }
}

/// One place in a file, with the line it is on.
///
/// [`Display`](fmt::Display) is `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    path: PathBuf,
    line: usize,
    column: usize,
    excerpt: String,
    caret: usize,
    width: usize,
}

impl Place {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// In characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The source line with a caret under the place, each line indented and without a line end.
    pub fn excerpt(&self) -> String {
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let caret = format!("{}{}", " ".repeat(self.caret), "^".repeat(self.width));
        format!("{}\n  {gutter} | {caret}", format!("  {number} | {}", self.excerpt).trim_end())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, range: Range<usize>) -> Place {
        Source::new(Path::new("watchdog.toml"), text).place(range)
    }

    #[test]
    fn a_place_counts_characters_and_its_caret_stands_below_them() {
        let text = "first\n\täö = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        let place = place(text, at..at + 3);
        assert_eq!(place.to_string(), "watchdog.toml:2:7");
        assert_eq!(place.excerpt(), "  2 |  äö = \"x\"\n    |       ^^^");
    }

    #[test]
    fn of_settings_the_key_is_shown_and_not_the_value() {
        let text = "[service.a]\nexec = [\"a\"]\n[service.a.settings]\ntoken = canary\nlist = [\n  \"canary\",\n]\n\
                    [service.b]\nexec = [\"b\"]\nsettings = { token = \"canary\" }\nuser = \"canary\"\n[service.c]\nexec = [1]\n";
        let shown = |line: usize| {
            let at = text.match_indices('\n').map(|(at, _)| at + 1).nth(line - 2).unwrap();
            place(text, at..at + 4).excerpt().lines().next().unwrap().trim().to_owned()
        };
        assert_eq!(shown(2), "2 | exec = [\"a\"]");
        assert_eq!(shown(3), "3 | [service.a.settings]");
        assert_eq!(shown(4), "4 | token = …");
        assert_eq!(shown(6), "6 | …");
        assert_eq!(shown(10), "10 | settings = …");
        assert_eq!(shown(11), "11 | user = …");
        assert_eq!(shown(13), "13 | exec = [1]");
        let behind = text.find("canary").unwrap();
        let excerpt = place(text, behind..behind + 6).excerpt();
        assert_eq!(excerpt, "  4 | token = …\n    |         ^^^^^^");
        let full = Source::new(Path::new("watchdog.toml"), text).place_in_full(behind..behind + 6);
        assert_eq!(full.excerpt(), "  4 | token = canary\n    |         ^^^^^^");
    }

    #[test]
    fn a_place_at_the_end_or_outside_is_still_within_the_text() {
        assert_eq!(place("", 0..0).to_string(), "watchdog.toml:1:1");
        assert_eq!(place("ab", 7..9).to_string(), "watchdog.toml:1:3");
        assert_eq!(place("ab\n", 3..3).to_string(), "watchdog.toml:2:1");
        assert_eq!(place("ä", 1..2).to_string(), "watchdog.toml:1:1");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let excerpt = place(&text, 500..501).excerpt();
        let (line, caret) = excerpt.split_once('\n').unwrap();
        assert_eq!(line.find('X'), caret.find('^'));
        assert!(line.len() < 140);
    }
}
