//! Columns that fit the width they have.

use super::look::{Look, Paint, cut, harmless};

/// Nothing to show in a cell.
pub(super) const NONE: &str = "-";

/// Between two columns.
const GAP: usize = 2;

/// A main column is cut to no less than this.
const NARROW: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// How dear a column is. The one with the highest number goes first where they do not all fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(pub(super) u8);

impl Rank {
    /// Never goes.
    pub(super) const MAIN: Self = Self(0);
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    pub(super) head: &'static str,
    pub(super) align: Align,
    pub(super) rank: Rank,
    /// Longer texts are cut to so many characters before another column goes; `None`: they are not.
    pub(super) cut: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Self {
        Self::painted(text, Paint::Plain)
    }

    pub(super) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: harmless(text.as_ref()), paint }
    }

    pub(super) fn maybe(text: Option<impl AsRef<str>>) -> Self {
        text.map_or_else(|| Self::painted(NONE, Paint::Faint), Self::new)
    }

    /// Characters, not columns of a terminal: names and words of the watchdog have one each.
    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// One cell a column.
    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The head and a line a row. A column without any value is left out. Where the rest is too wide, texts are
    /// cut, columns go by rank, and what room is left is given back to the texts.
    pub(super) fn render(&self, look: &Look) -> String {
        let valued = |at: usize| self.rows.iter().any(|row| row[at].text != NONE);
        let all = 0..self.columns.len();
        let mut shown: Vec<usize> = all.filter(|at| valued(*at) || self.rank(*at) == Rank::MAIN).collect();
        let widths = match look.width {
            None => shown.iter().map(|at| self.width(*at)).collect(),
            Some(bound) => self.fit(&mut shown, bound),
        };
        let mut text = String::new();
        let heads = self.columns.iter().map(|column| Cell::painted(column.head, Paint::Strong)).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            text += self.line(row, &shown, &widths, look).trim_end();
            text.push('\n');
        }
        text
    }

    fn rank(&self, at: usize) -> Rank {
        self.columns[at].rank
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].width());
        cells.chain([self.columns[at].head.chars().count()]).max().unwrap_or(0)
    }

    /// The widths of the columns that are left in `shown`.
    fn fit(&self, shown: &mut Vec<usize>, bound: usize) -> Vec<usize> {
        let least = |at: usize| self.width(at).min(self.columns[at].cut.unwrap_or(usize::MAX));
        let total =
            |widths: &[usize]| (widths.iter().sum::<usize>() + GAP * widths.len()).saturating_sub(GAP);
        let mut widths: Vec<usize> = shown.iter().map(|at| least(*at)).collect();
        while total(&widths) > bound
            && let Some(last) = shown.iter().map(|at| self.rank(*at)).max()
            && last > Rank::MAIN
        {
            shown.retain(|at| self.rank(*at) != last);
            widths = shown.iter().map(|at| least(*at)).collect();
        }
        while total(&widths) > bound
            && let Some(widest) = widths.iter_mut().filter(|width| **width > NARROW).max()
        {
            *widest -= 1;
        }
        for (at, width) in shown.iter().zip(0..) {
            let room = bound.saturating_sub(total(&widths));
            widths[width] += room.min(self.width(*at) - widths[width]);
        }
        widths
    }

    fn line(&self, row: &[Cell], shown: &[usize], widths: &[usize], look: &Look) -> String {
        let mut line = String::new();
        for (at, width) in shown.iter().zip(widths) {
            let text = cut(&row[*at].text, *width);
            let pad = " ".repeat(width - text.chars().count());
            let text = look.paint(row[*at].paint, &text);
            match self.columns[*at].align {
                Align::Left => line.extend([&*text, &pad]),
                Align::Right => line.extend([&*pad, &*text]),
            }
            line += &" ".repeat(GAP);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(width: Option<usize>) -> String {
        let column = |head, rank| Column { head, align: Align::Left, rank: Rank(rank), cut: Some(9) };
        let number = Column { head: "N", align: Align::Right, rank: Rank(2), cut: None };
        let mut table = Table::new(vec![column("NAME", 0), number, column("GONE", 1), column("WHY", 1)]);
        table.row(vec![
            Cell::new("a"),
            Cell::new("1"),
            Cell::new(NONE),
            Cell::new("it ended\x1b[2J by itself"),
        ]);
        table.row(vec![Cell::new("long-name"), Cell::new("1000"), Cell::new(NONE), Cell::new(NONE)]);
        table.render(&Look { color: false, width })
    }

    #[test]
    fn all_columns_with_a_value_are_there_without_a_bound() {
        assert_eq!(
            render(None),
            "NAME          N  WHY\n\
             a             1  it ended\u{fffd}[2J by itself\n\
             long-name  1000  -\n"
        );
    }

    #[test]
    fn texts_are_cut_then_columns_go_by_rank_then_the_widest_is_cut() {
        assert_eq!(
            render(Some(35)),
            "NAME          N  WHY\n\
             a             1  it ended\u{fffd}[2J by i…\n\
             long-name  1000  -\n"
        );
        assert_eq!(
            render(Some(25)),
            "NAME       WHY\n\
             a          it ended\u{fffd}[2J …\n\
             long-name  -\n"
        );
        assert_eq!(render(Some(12)), "NAME\na\nlong-name\n");
        assert_eq!(render(Some(8)), "NAME\na\nlong-na…\n");
    }
}
