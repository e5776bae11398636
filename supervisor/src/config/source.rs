//! A file's text and the places in it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The characters of a source line that are shown; a longer line is cut around the place.
const SHOWN: usize = 120;

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// `text` as read from `path`.
    pub fn new(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
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

    /// Where a range of bytes is. A range outside the text is moved into it.
    pub fn place(&self, range: Range<usize>) -> Place {
        let text = self.text.as_str();
        let start = floor(text, range.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, range.end).clamp(start, line_end);
        let before = text[line_start..start].chars().count();
        let line: String = text[line_start..line_end].trim_end_matches('\r').chars().map(printable).collect();
        let length = line.chars().count();
        let cut = if length <= SHOWN { 0 } else { before.saturating_sub(SHOWN / 2).min(length - SHOWN) };
        Place {
            path: self.path.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            excerpt: line.chars().skip(cut).take(SHOWN).collect(),
            caret: before - cut,
            width: text[start..end].chars().count().clamp(1, SHOWN.saturating_sub(before - cut).max(1)),
        }
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
#[derive(Debug, Clone, PartialEq, Eq)]
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
