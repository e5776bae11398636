//! Use over time, a column a moment: pure.

/// Lines of a chart.
const HEIGHT: u64 = 5;

/// Room for what stands at the left.
const MARGIN: usize = 10;

/// From nothing to a whole character.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// At one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    /// `None`: it did not run.
    pub(super) used: Option<u64>,
    /// `None`: no limit.
    pub(super) most: Option<u64>,
    pub(super) is_frozen: bool,
}

/// As lines no longer than `width`, from 0 up to the highest of all. Points for which there is no column of their own
/// share one: the highest use, the lowest limit.
pub(super) fn chart(points: &[Point], width: usize, shown: &dyn Fn(u64) -> String) -> String {
    let columns = columns(points, width.saturating_sub(MARGIN + 1).max(1));
    let top = columns.iter().flat_map(|point| [point.used, point.most]).flatten().max().unwrap_or(0).max(1);
    let eighths = |amount: u64| u64::try_from(u128::from(amount) * u128::from(HEIGHT * 8) / u128::from(top));
    let eighths = |amount: u64| eighths(amount).unwrap_or(HEIGHT * 8);
    let mut text = String::new();
    for line in (0..HEIGHT).rev() {
        let label = if line == HEIGHT - 1 { shown(top) } else { String::new() };
        text += &format!("{label:>MARGIN$}┤");
        let cell = |point: &Point| {
            let filled = eighths(point.used.unwrap_or(0)).saturating_sub(line * 8).min(8);
            let is_bound = point.most.is_some_and(|most| eighths(most).saturating_sub(1) / 8 == line);
            match filled {
                0 if is_bound => '╌',
                // What is used at all can be seen.
                0 if line == 0 && point.used.is_some_and(|used| used > 0) => EIGHTHS[1],
                filled => usize::try_from(filled).map_or('█', |filled| EIGHTHS[filled]),
            }
        };
        text += columns.iter().map(cell).collect::<String>().trim_end();
        text.push('\n');
    }
    text += &format!("{:>MARGIN$}┴", shown(0));
    text.extend(columns.iter().map(|point| match point {
        Point { is_frozen: true, .. } => 'F',
        Point { used: None, .. } => '·',
        _ => '─',
    }));
    text.push('\n');
    text
}

fn columns(points: &[Point], room: usize) -> Vec<Point> {
    let together = points.len().div_ceil(room).max(1);
    let merged = |points: &[Point]| Point {
        used: points.iter().filter_map(|point| point.used).max(),
        most: points.iter().filter_map(|point| point.most).min(),
        is_frozen: points.iter().any(|point| point.is_frozen),
    };
    // The newest columns are whole: a first one may have fewer.
    let first = points.len() % together;
    let (odd, whole) = points.split_at(first);
    let odd = (first > 0).then(|| merged(odd));
    odd.into_iter().chain(whole.chunks(together).map(merged)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(amount: u64) -> String {
        amount.to_string()
    }

    #[test]
    fn a_column_is_as_high_as_what_was_used_and_a_limit_lies_above_it() {
        let point = |used, most| Point { used, most, is_frozen: false };
        let frozen = Point { is_frozen: true, ..point(Some(0), Some(50)) };
        let points = [
            point(Some(100), None),
            point(Some(50), Some(60)),
            point(Some(1), Some(60)),
            frozen,
            point(None, None),
        ];
        assert_eq!(
            chart(&points, 80, &number),
            [
                "       100┤█",
                "          ┤█",
                "          ┤█▄╌╌",
                "          ┤██",
                "          ┤██▁",
                "         0┴───F·",
                "",
            ]
            .join("\n")
        );
    }

    proptest! {
        #[test]
        fn no_line_is_longer_than_it_may_be_and_all_amounts_can_be_drawn(
            points in prop::collection::vec((any::<Option<u64>>(), any::<Option<u64>>(), any::<bool>()), 0..200),
            width in 12_usize..150,
        ) {
            let point = |(used, most, is_frozen)| Point { used, most, is_frozen };
            let points: Vec<Point> = points.into_iter().map(point).collect();
            let drawn = chart(&points, width, &|_| "9".to_owned());
            prop_assert!(drawn.lines().all(|line| line.chars().count() <= width), "{}", drawn);
            prop_assert_eq!(drawn.lines().count() as u64, HEIGHT + 1);
        }
    }
}
