//! What services used and were let have, lately: of the last looks each, of the time before in longer pieces.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use resource_manager::{History, Sample, Samples};
use watchdog_service::ServiceName;

/// Samples kept of each kind.
const KEPT: usize = 120;

/// Looks that make one piece: with a period of a second, pieces reach back for an hour.
const PIECE: usize = 30;

/// By service.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    of: BTreeMap<ServiceName, Lately>,
}

#[derive(Debug, Default)]
struct Lately {
    looks: VecDeque<Sample>,
    pieces: VecDeque<Sample>,
    /// Looks since the last piece was made.
    open: usize,
}

impl Histories {
    /// One look at all services there are, which stands for so many periods; those that are not there are forgotten.
    pub(crate) fn note(&mut self, samples: BTreeMap<ServiceName, Sample>, periods: usize) {
        self.of.retain(|name, _| samples.contains_key(name));
        for (name, sample) in samples {
            let lately = self.of.entry(name).or_default();
            (0..periods.clamp(1, KEPT)).for_each(|_| lately.note(sample.clone()));
        }
    }

    /// Lengths of time are no longer those of the looks that were noted.
    pub(crate) fn clear(&mut self) {
        self.of.clear();
    }

    /// Of one service. `None`: it was not seen yet.
    pub(crate) fn of(&self, name: &ServiceName, period: Duration) -> Option<History> {
        let lately = self.of.get(name)?;
        let samples = |of: &VecDeque<Sample>, looks: usize| Samples {
            every_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX).saturating_mul(looks as u64),
            samples: of.iter().cloned().collect(),
        };
        Some(History { looks: samples(&lately.looks, 1), pieces: samples(&lately.pieces, PIECE) })
    }
}

impl Lately {
    fn note(&mut self, sample: Sample) {
        push(&mut self.looks, sample);
        self.open += 1;
        if self.open == PIECE {
            self.open = 0;
            let newest = self.looks.range(self.looks.len() - PIECE..);
            push(&mut self.pieces, piece(&newest.collect::<Vec<_>>()));
        }
    }
}

fn push(all: &mut VecDeque<Sample>, one: Sample) {
    if all.len() == KEPT {
        all.pop_front();
    }
    all.push_back(one);
}

/// What was used on average, and the least that was let have: a short time without is what one looks for.
fn piece(looks: &[&Sample]) -> Sample {
    let average = |of: fn(&Sample) -> Option<u64>| {
        let known: Vec<u64> = looks.iter().filter_map(|look| of(look)).collect();
        known.iter().sum::<u64>().checked_div(known.len() as u64)
    };
    let least = |of: fn(&Sample) -> Option<u64>| looks.iter().filter_map(|look| of(look)).min();
    Sample {
        cpu: average(|look| look.cpu),
        cpu_most: least(|look| look.cpu_most),
        memory: average(|look| look.memory),
        memory_most: least(|look| look.memory_most),
        is_frozen: looks.iter().any(|look| look.is_frozen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServiceName {
        "hog".parse().unwrap()
    }

    fn sample(cpu: Option<u64>, cpu_most: Option<u64>) -> Sample {
        Sample { cpu, cpu_most, memory: None, memory_most: None, is_frozen: false }
    }

    #[test]
    fn the_newest_looks_are_kept_and_older_ones_as_pieces() {
        let mut histories = Histories::default();
        for look in 0..(KEPT + PIECE) as u64 {
            // It does not run at every other look, and is capped in one of a hundred.
            let cpu = (look % 2 == 0).then_some(look);
            histories.note([(name(), sample(cpu, (look == 100).then_some(500)))].into(), 1);
        }
        let History { looks, pieces } = histories.of(&name(), Duration::from_millis(200)).unwrap();
        assert_eq!((looks.every_ms, looks.samples.len()), (200, KEPT));
        assert_eq!(looks.samples[0], sample(Some(PIECE as u64), None));
        assert_eq!(pieces.every_ms, 6000);
        let caps: Vec<_> = pieces.samples.iter().map(|piece| piece.cpu_most).collect();
        assert_eq!(caps, [None, None, None, Some(500), None]);
        assert_eq!(pieces.samples[1].cpu, Some(44), "of 30, 32 to 58");
        histories.note([(name(), sample(Some(7), None))].into(), 10);
        let looks = histories.of(&name(), Duration::ZERO).unwrap().looks.samples;
        assert_eq!(looks.iter().filter(|look| look.cpu == Some(7)).count(), 10);
        histories.note(BTreeMap::new(), 1);
        assert_eq!(histories.of(&name(), Duration::ZERO), None);
    }
}
