//! Columns that fit the width they have.

use super::look::{Look, Paint, cut, harmless};

/// Nothing to show in a cell.
pub(super) const NONE: &str = "-";

/// Between two columns.
const GAP: usize = 2;

/// A column is cut to no less than this.
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

    /// The head and a line a row. A column without any value is left out; where the rest is too wide, columns go
    /// by rank, and then the widest is cut.
    pub(super) fn render(&self, look: &Look) -> String {
        let valued = |at: usize| self.rows.iter().any(|row| row[at].text != NONE);
        let mut shown: Vec<(usize, usize)> = (0..self.columns.len())
            .filter(|at| valued(*at) || self.columns[*at].rank == Rank::MAIN)
            .map(|at| (at, self.width(at)))
            .collect();
        if let Some(bound) = look.width {
            self.fit(&mut shown, bound);
        }
        let mut text = String::new();
        let heads = self.columns.iter().map(|column| Cell::painted(column.head, Paint::Strong)).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            text += self.line(row, &shown, look).trim_end();
            text.push('\n');
        }
        text
    }

    fn width(&self, at: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[at].width());
        cells.chain([self.columns[at].head.chars().count()]).max().unwrap_or(0)
    }

    fn fit(&self, shown: &mut Vec<(usize, usize)>, bound: usize) {
        let total = |shown: &[(usize, usize)]| {
            shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
        };
        while total(shown) > bound {
            let least = shown.iter().map(|(at, _)| self.columns[*at].rank).max().unwrap_or(Rank::MAIN);
            if least > Rank::MAIN {
                shown.retain(|(at, _)| self.columns[*at].rank != least);
                continue;
            }
            let over = total(shown) - bound;
            let Some((_, widest)) = shown.iter_mut().max_by_key(|(_, width)| *width) else { return };
            let next = (*widest).saturating_sub(over).max(NARROW);
            if next >= *widest {
                return;
            }
            *widest = next;
        }
    }

    fn line(&self, row: &[Cell], shown: &[(usize, usize)], look: &Look) -> String {
        let mut line = String::new();
        for (at, width) in shown {
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
        let column = |head, rank| Column { head, align: Align::Left, rank: Rank(rank) };
        let number = Column { head: "N", align: Align::Right, rank: Rank(2) };
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
    fn columns_go_by_rank_then_the_widest_is_cut() {
        assert_eq!(
            render(Some(35)),
            "NAME       WHY\n\
             a          it ended\u{fffd}[2J by itself\n\
             long-name  -\n"
        );
        assert_eq!(render(Some(12)), "NAME\na\nlong-name\n");
        assert_eq!(render(Some(8)), "NAME\na\nlong-na…\n");
    }
}
