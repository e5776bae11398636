//! What a terminal can show: colours, and signs beyond ASCII.

use std::borrow::Cow;

use ratatui::style::{Color, Modifier, Style};

use crate::cli::look::Paint;

/// How much of a bar each sign fills, in eighths of a cell.
const EIGHTHS: [&str; 8] = [" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    pub(super) has_color: bool,
    /// Else what is shown is ASCII.
    pub(super) has_signs: bool,
}

impl Ink {
    /// By what the environment says of the terminal.
    pub(super) fn of(has_color: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        // The first that is set says it, as in the C library.
        let said =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|text| !text.is_empty());
        let is_utf8 = |text: String| {
            let text = text.to_ascii_lowercase();
            text.contains("utf-8") || text.contains("utf8")
        };
        Self { has_color, has_signs: said.is_some_and(is_utf8) }
    }

    pub(super) fn style(self, paint: Paint) -> Style {
        let colored = |color| if self.has_color { Style::new().fg(color) } else { Style::new() };
        match paint {
            Paint::Plain => Style::new(),
            Paint::Strong => Style::new().add_modifier(Modifier::BOLD),
            Paint::Faint => Style::new().add_modifier(Modifier::DIM),
            Paint::Good => colored(Color::Green),
            Paint::Doubtful => colored(Color::Yellow),
            // Also to be seen where there is no colour.
            Paint::Bad => colored(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// Of the head of the table, and of the chosen line.
    pub(super) fn reversed(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A text in the signs that can be shown.
    pub(super) fn text(self, text: &str) -> Cow<'_, str> {
        if self.has_signs || text.is_ascii() {
            return text.into();
        }
        let sign = |c: char| match c {
            '→' => "->".into(),
            '…' => "~".into(),
            '≥' => ">".into(),
            '▼' => "v".into(),
            '▲' => "^".into(),
            '─' | '│' => if c == '─' { "-" } else { "|" }.into(),
            '·' => ",".into(),
            'µ' => "u".into(),
            c if c.is_ascii() => Cow::Owned(c.to_string()),
            _ => "?".into(),
        };
        text.chars().map(sign).collect::<String>().into()
    }

    /// A bar of so many cells that is filled by a share from 0 to 1.
    pub(super) fn bar(self, share: f64, cells: u16) -> String {
        let cells = usize::from(cells);
        let eighths = (share.clamp(0.0, 1.0) * (cells * 8) as f64).round() as usize;
        let (full, rest) = (eighths / 8, eighths % 8);
        let (sign, part) = match self.has_signs {
            true => ("█", if full < cells { EIGHTHS[rest] } else { "" }),
            false => ("|", if full < cells { if rest >= 4 { "|" } else { " " } } else { "" }),
        };
        let empty = cells.saturating_sub(full + usize::from(!part.is_empty()));
        sign.repeat(full) + part + &" ".repeat(empty)
    }
}
