//! What waits of one kind of records. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::slice::{RecordKind, Slice};

/// Collectors take 4 MiB a request unless they are told otherwise; a larger one they refuse whole.
const MAX_REQUEST: usize = 2 << 20;

/// What waits of one kind, the oldest first, and how much is on its way.
#[derive(Debug)]
pub(super) struct Queue {
    kind: RecordKind,
    waiting: VecDeque<(Instant, Slice)>,
    records: usize,
    bytes: usize,
    away_records: usize,
    away_bytes: usize,
}

/// When the next request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// There is nothing to send.
    Never,
    /// When nothing more comes, then.
    At(Instant),
    /// At once.
    Now,
}

/// The records of one request.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) slices: Vec<Slice>,
    pub(super) records: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(kind: RecordKind) -> Self {
        Self { kind, waiting: VecDeque::new(), records: 0, bytes: 0, away_records: 0, away_bytes: 0 }
    }

    /// Records that are not with the collector: those that wait and those on their way.
    pub(super) fn records(&self) -> usize {
        self.records + self.away_records
    }

    /// Takes it in, unless more than `limit` bytes would be held then.
    pub(super) fn push(&mut self, slice: Slice, limit: usize, now: Instant) -> Result<(), Slice> {
        if self.bytes + self.away_bytes + slice.bytes > limit {
            return Err(slice);
        }
        self.records += slice.count;
        self.bytes += slice.bytes;
        self.waiting.push_back((now, slice));
        Ok(())
    }

    /// When a request of so many records goes that waits no longer than `interval`.
    pub(super) fn ready(&self, batch: usize, interval: Duration) -> Ready {
        match self.waiting.front() {
            None => Ready::Never,
            Some(_) if self.records >= batch || self.bytes >= MAX_REQUEST => Ready::Now,
            Some((since, _)) => Ready::At(*since + interval),
        }
    }

    /// The oldest records, at most `batch` of them. They count as held until they are [done](Self::done).
    pub(super) fn take(&mut self, batch: usize) -> Taken {
        let mut taken = Taken { slices: Vec::new(), records: 0, bytes: 0 };
        while let Some((_, front)) = self.waiting.front_mut()
            && taken.records < batch.max(1)
            && (taken.records == 0 || taken.bytes < MAX_REQUEST)
        {
            let room = MAX_REQUEST.saturating_sub(taken.bytes);
            let slice = front.split(self.kind, batch.max(1) - taken.records, room);
            taken.records += slice.count;
            taken.bytes += slice.bytes;
            taken.slices.push(slice);
            if front.count == 0 {
                self.waiting.pop_front();
            }
        }
        self.records -= taken.records;
        self.bytes -= taken.bytes;
        self.away_records += taken.records;
        self.away_bytes += taken.bytes;
        taken
    }

    /// They are sent or given up.
    pub(super) fn done(&mut self, taken: &Taken) {
        self.away_records -= taken.records;
        self.away_bytes -= taken.bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::otlp::samples;
    use watchdog_service::log::Record;

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<Record>),
        Take(usize),
        Done,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => vec(samples::records(), 1..20).prop_map(Step::Push),
            2 => (1usize..30).prop_map(Step::Take),
            1 => Just(Step::Done),
        ];
        vec(step, 0..40)
    }

    proptest! {
        /// Nothing is lost, doubled or out of order, and the bound holds, whatever is pushed and taken.
        #[test]
        fn what_is_taken_is_what_was_let_in(steps in steps(), limit in 1_000usize..20_000, logs: bool) {
            let kind = if logs { RecordKind::Events } else { RecordKind::Spans };
            let (mut queue, start) = (Queue::new(kind), Instant::now());
            let (mut first, mut expected, mut got, mut away) = (1, Vec::new(), Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push(records) => {
                        let length = records.len() as u64;
                        let numbers: Vec<_> = (first..)
                            .zip(&records)
                            .filter_map(|(number, record)| kind.takes(record).then_some(number))
                            .collect();
                        let told = samples::parcel("a", 1, first, records);
                        if let Some(slice) = Slice::whole(&told, kind)
                            && queue.push(slice, limit, start).is_ok()
                        {
                            expected.extend(numbers);
                        }
                        first += length;
                    }
                    Step::Take(batch) => {
                        let taken = queue.take(batch);
                        prop_assert!(taken.records <= batch);
                        let numbers = taken.slices.iter().flat_map(|slice| slice.records(kind)).map(|(number, _)| number);
                        let before = got.len();
                        got.extend(numbers);
                        prop_assert_eq!(got.len() - before, taken.records);
                        away.push(taken);
                    }
                    Step::Done => away.drain(..).for_each(|taken| queue.done(&taken)),
                }
                prop_assert!(queue.bytes + queue.away_bytes <= limit);
                let away: usize = away.iter().map(|taken| taken.records).sum();
                prop_assert_eq!(queue.records(), expected.len() - got.len() + away);
                prop_assert_eq!(queue.ready(usize::MAX, Duration::ZERO) == Ready::Never, expected.len() == got.len());
            }
            let rest = queue.take(usize::MAX);
            got.extend(rest.slices.iter().flat_map(|slice| slice.records(kind)).map(|(number, _)| number));
            prop_assert_eq!(got, expected);
            away.push(rest);
            away.iter().for_each(|taken| queue.done(taken));
            prop_assert_eq!((queue.records(), queue.bytes, queue.away_bytes), (0, 0, 0));
        }
    }

    #[test]
    fn a_request_goes_when_it_is_full_or_its_first_record_has_waited() {
        let (mut queue, start) = (Queue::new(RecordKind::Events), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(queue.ready(3, second), Ready::Never);
        let push = |queue: &mut Queue, later| {
            let told = samples::parcel("a", 1, 1, vec![samples::event("a")]);
            queue.push(Slice::whole(&told, RecordKind::Events).unwrap(), 1 << 20, start + later).unwrap();
        };
        push(&mut queue, Duration::ZERO);
        push(&mut queue, second / 2);
        assert_eq!(queue.ready(3, second), Ready::At(start + second));
        push(&mut queue, second / 2);
        assert_eq!(queue.ready(3, second), Ready::Now);
        queue.take(1);
        assert_eq!(queue.ready(3, second), Ready::At(start + second + second / 2));
    }

    #[test]
    fn a_request_of_long_records_goes_earlier() {
        let mut queue = Queue::new(RecordKind::Events);
        let long = "a".repeat(60_000);
        let told = samples::parcel("a", 1, 1, vec![samples::event(&long); 100]);
        let slice = Slice::whole(&told, RecordKind::Events).unwrap();
        queue.push(slice, 100 << 20, Instant::now()).unwrap();
        assert_eq!(queue.ready(512, Duration::from_secs(1)), Ready::Now);
        let taken = queue.take(512);
        assert!((30..=35).contains(&taken.records), "{}", taken.records);
    }
}
