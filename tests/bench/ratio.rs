//! Ratios of bursts that follow each other.

use std::time::Duration;

/// Product over floor, one pair a round.
#[derive(Debug)]
pub(crate) struct Rounds {
    key: &'static str,
    pairs: Vec<(Duration, Duration)>,
}

impl Rounds {
    /// Measures `rounds` pairs, the product and the floor in turn; which goes first alternates, so that neither
    /// has the cache to itself each time.
    pub(crate) fn measure(
        key: &'static str,
        rounds: usize,
        mut product: impl FnMut() -> Duration,
        mut floor: impl FnMut() -> Duration,
    ) -> Self {
        let pair = |round: usize| {
            if round.is_multiple_of(2) {
                let first = product();
                (first, floor())
            } else {
                let first = floor();
                (product(), first)
            }
        };
        Self { key, pairs: (0..rounds).map(pair).collect() }
    }

    /// As measured elsewhere, the product's first.
    pub(crate) fn of(key: &'static str, pairs: Vec<(Duration, Duration)>) -> Self {
        Self { key, pairs }
    }

    /// Prints the line of this figure, and the times behind it to standard error.
    pub(crate) fn report(&self) {
        self.print(|product, floor| product / floor);
    }

    /// As [`report`](Self::report), of work done a second: the same work, so it is the times' ratio upside down.
    pub(crate) fn report_rates(&self) {
        self.print(|product, floor| floor / product);
    }

    fn print(&self, ratio: fn(f64, f64) -> f64) {
        let of = |(product, floor): &(Duration, Duration)| ratio(product.as_secs_f64(), floor.as_secs_f64());
        let mut ratios: Vec<f64> = self.pairs.iter().map(of).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        println!("ratio {} {:.2} (n={}, {least:.2}..{most:.2})", self.key, median(&ratios), ratios.len());
        let middle = |of: fn(&(Duration, Duration)) -> Duration| {
            median_of(self.pairs.iter().map(|pair| of(pair).as_secs_f64() * 1e6).collect())
        };
        eprintln!(
            "  {}: product {:.1} µs, floor {:.1} µs",
            self.key,
            middle(|pair| pair.0),
            middle(|pair| pair.1)
        );
    }
}

/// Prints a figure that is no ratio; its unit is in its name.
pub(crate) fn figure(key: &str, value: f64) {
    println!("figure {key} {value:.2}");
}

pub(crate) fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    median(&values)
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], sorted[half]) } else { sorted[half] }
}
