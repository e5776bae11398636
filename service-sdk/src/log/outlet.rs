//! Where the records of this process go: into the lane to the logging service by a thread of its own, or to standard
//! error at once.
//!
//! ```text
//!            ┌ open: not known yet ──┐                  ┌▶ lane
//!  push ─────┼ lane ─────────────────┴▶ queue ─▶ thread ┤
//!            └ standard error: written by the caller    └ full: later; refused: counted
//! ```
//! A thread, for a service whose one thread is busy or hangs must still tell what it does. It sleeps while there is
//! nothing to send; what happens within a moment goes in one packet, and wakes it once.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use watchdog_protocol::record::write::BatchHead;
use watchdog_protocol::record::{Record, Sampling};

use super::queue::Queue;
use super::sampler::Sampler;
use super::{layer, readable, trace};

/// After a packet went, before the next one is looked for: what happens until then goes together.
const MOMENT: Duration = Duration::from_millis(1);

/// Between two tries while the lane is full: at first, as a busy reader makes room, and at last, as one that is down
/// does not.
const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(320));

/// Which process makes the records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker {
    pub(super) incarnation: u64,
    pub(super) pid: u32,
}

/// The way to the logging service.
pub(super) trait Way: Send + 'static {
    /// Puts a message into the lane, if there is room.
    fn try_send(&self, payload: Vec<u8>) -> Sent;
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Gone,
    /// There is no room now.
    Full,
    /// It will never go.
    Refused,
    /// There is no such way any more.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Route {
    /// It is not known yet.
    Open,
    Lane,
    StandardError,
}

/// All that makers of records and the thread that sends them share.
pub(super) struct Outlet {
    /// A [`Route`]; changed under the lock.
    route: AtomicU8,
    waiting: Mutex<Waiting>,
    /// There is something to send, or an end.
    news: Condvar,
    /// Nothing waits, and nothing is on its way.
    dry: Condvar,
    sampler: Mutex<Sampler>,
}

struct Waiting {
    queue: Queue,
    /// The thread sleeps until it is told that there is more.
    is_idle: bool,
    /// A chunk is in its hands.
    is_sending: bool,
    is_closing: bool,
}

/// The thread that sends, while it does.
pub(super) struct Sender(JoinHandle<()>);

impl Sender {
    /// Waits for its end, which comes when there is no way: it waits for nothing else.
    pub(super) fn join(self) {
        // A panic of it was told when it happened.
        let _ = self.0.join();
    }
}

impl Outlet {
    /// `is_expected`: there is a logging service, and a lane to it soon.
    pub(super) fn new(is_expected: bool) -> Arc<Self> {
        let route = if is_expected { Route::Open } else { Route::StandardError };
        Arc::new(Self {
            route: AtomicU8::new(route as u8),
            waiting: Mutex::new(Waiting {
                queue: Queue::new(),
                is_idle: false,
                is_sending: false,
                is_closing: false,
            }),
            news: Condvar::new(),
            dry: Condvar::new(),
            sampler: Mutex::new(Sampler::new(Sampling::default(), Instant::now())),
        })
    }

    fn route(&self) -> Route {
        let route = self.route.load(Ordering::Acquire);
        let all = [Route::Open, Route::Lane, Route::StandardError];
        all.into_iter().find(|known| *known as u8 == route).expect("nothing else is stored")
    }

    /// A panic while it is held leaves no step half done.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody reads spans.
    pub(super) fn takes_spans(&self) -> bool {
        self.route() != Route::StandardError
    }

    pub(super) fn is_on_lane(&self) -> bool {
        self.route() == Route::Lane
    }

    /// Whether a trace that begins now is recorded.
    pub(super) fn is_sampled(&self) -> bool {
        let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
        sampler.is_sampled(Instant::now(), trace::chance())
    }

    pub(super) fn sample(&self, sampling: Sampling) {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner).set(sampling);
    }

    /// Takes in one record. Never waits for anybody who reads.
    pub(super) fn push(&self, record: &[u8]) {
        if self.route() != Route::StandardError {
            let mut waiting = self.waiting();
            // It may have changed meanwhile: nobody would send what is queued then.
            if self.route() != Route::StandardError {
                waiting.queue.push(record);
                if std::mem::take(&mut waiting.is_idle) {
                    self.news.notify_one();
                }
                return;
            }
        }
        print(record);
    }

    /// Sends what there is and comes by this way, on a thread. `None`: no thread is to be had, and all goes to standard
    /// error.
    pub(super) fn open(self: &Arc<Self>, maker: Maker, way: impl Way) -> Option<Sender> {
        // Before the thread: one that finds another route has nothing to do, and ends.
        let waiting = self.waiting();
        self.route.store(Route::Lane as u8, Ordering::Release);
        drop(waiting);
        let outlet = Arc::clone(self);
        let sending = move || outlet.send(maker, &way);
        match std::thread::Builder::new().name("watchdog-log".into()).spawn(sending) {
            Ok(thread) => Some(Sender(thread)),
            Err(error) => {
                self.to_standard_error();
                tracing::error!(%error, "no thread sends the records of this process: they go to standard error");
                None
            }
        }
    }

    /// From now on, and what waits too.
    pub(super) fn to_standard_error(&self) {
        let mut waiting = self.waiting();
        self.route.store(Route::StandardError as u8, Ordering::Release);
        while let Some(chunk) = waiting.queue.take().filter(|chunk| chunk.count > 0) {
            print(&chunk.bytes);
        }
        self.news.notify_one();
    }

    /// Waits until all records so far are in the lane, but not for ever. Whether they are.
    pub(super) fn flush(&self, within: Duration) -> bool {
        if layer::is_mute() {
            // The thread that sends can't wait for itself.
            return false;
        }
        let deadline = Instant::now() + within;
        let mut waiting = self.waiting();
        while self.is_on_lane() && (waiting.is_sending || !waiting.queue.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            waiting.is_idle = false;
            self.news.notify_one();
            waiting = self.dry.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The process ends: what does not go within this time goes to standard error, and all that comes after it.
    pub(super) fn close(&self, sender: Option<Sender>, within: Duration) {
        self.flush(within);
        self.waiting().is_closing = true;
        self.to_standard_error();
        if let Some(sender) = sender {
            sender.join();
        }
    }

    /// The thread: sends until there is no way, or the end.
    fn send(&self, maker: Maker, way: &impl Way) {
        layer::mute();
        let mut retry = RETRY.0;
        let mut waiting = self.waiting();
        loop {
            if waiting.is_closing || self.route() == Route::StandardError {
                return;
            }
            let Some(chunk) = waiting.queue.take() else {
                waiting.is_idle = true;
                self.dry.notify_all();
                waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.is_sending = true;
            let dropped = waiting.queue.dropped();
            drop(waiting);
            let head = BatchHead {
                incarnation: maker.incarnation,
                pid: maker.pid,
                first: chunk.first,
                dropped: &dropped,
            };
            let sent = way.try_send(super::records(&head, &chunk));
            waiting = self.waiting();
            waiting.is_sending = false;
            let pause = match sent {
                Sent::Gone => {
                    waiting.queue.told(&dropped);
                    retry = RETRY.0;
                    MOMENT
                }
                Sent::Full => {
                    waiting.queue.put_back(chunk);
                    let longer = RETRY.1.min(2 * retry);
                    std::mem::replace(&mut retry, longer)
                }
                Sent::Refused => {
                    waiting.queue.refuse(&chunk);
                    RETRY.0
                }
                Sent::Closed => {
                    waiting.queue.put_back(chunk);
                    // Whoever opened the way learns of it too, and says where records go from now on.
                    return;
                }
            };
            if waiting.queue.is_empty() {
                self.dry.notify_all();
            }
            // Busy is not idle: nobody wakes it for each record. Whoever ends it, or waits for it, does.
            waiting = self.news.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Records to standard error, as lines.
fn print(mut records: &[u8]) {
    let mut lines = String::new();
    while !records.is_empty() {
        let (record, rest) = postcard::take_from_bytes(records).expect("it was written here");
        records = rest;
        match record {
            Record::Event(event) => lines.push_str(&readable::line(&event)),
            // Of no use without those around it.
            Record::Span(_) => {}
        }
    }
    // There is no other place to tell.
    let _ = io::stderr().write_all(lines.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use watchdog_protocol::record::write::{Event, Fields};
    use watchdog_protocol::record::{Batch, DropReason, Level};

    use super::*;

    const MAKER: Maker = Maker { incarnation: 3, pid: 7 };
    const LONG: Duration = Duration::from_secs(30);

    /// A lane that does what it is told.
    struct Lane {
        sent: mpsc::Sender<Batch>,
        says: mpsc::Receiver<Sent>,
    }

    impl Way for Lane {
        fn try_send(&self, payload: Vec<u8>) -> Sent {
            // Who says nothing more takes all.
            let says = self.says.try_recv().unwrap_or(Sent::Gone);
            if says == Sent::Gone {
                let batch = postcard::from_bytes(&payload[1..]).unwrap();
                let _ = self.sent.send(batch);
            }
            says
        }
    }

    fn lane(says: &[Sent]) -> (Lane, mpsc::Receiver<Batch>) {
        let (sent, batches) = mpsc::channel();
        let (say, said) = mpsc::channel();
        says.iter().for_each(|one| say.send(*one).unwrap());
        (Lane { sent, says: said }, batches)
    }

    fn record(message: &str) -> Vec<u8> {
        let fields = &Fields::default();
        let (at, level, target, within, scope) = (1, Level::Info, "t", None, "");
        let mut out = Vec::new();
        Event { at, level, target, message, fields, within, scope }.append(&mut out);
        out
    }

    fn messages(batches: &mpsc::Receiver<Batch>) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        for Batch { first, records, .. } in batches.try_iter() {
            for (number, record) in (first..).zip(records) {
                let Record::Event(event) = record else { panic!("only events were pushed") };
                found.push((number, event.message));
            }
        }
        found
    }

    #[test]
    fn what_waited_for_the_lane_goes_first_and_in_order() {
        let outlet = Outlet::new(true);
        outlet.push(&record("a"));
        outlet.push(&record("b"));
        let (lane, batches) = lane(&[Sent::Full, Sent::Full]);
        let sender = outlet.open(MAKER, lane);
        outlet.push(&record("c"));
        outlet.close(sender, LONG);
        let expected = [(1, "a"), (2, "b"), (3, "c")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(messages(&batches), expected);
    }

    #[test]
    fn what_is_refused_is_told_as_a_count() {
        let outlet = Outlet::new(true);
        outlet.push(&record("a"));
        let (lane, batches) = lane(&[Sent::Refused]);
        let sender = outlet.open(MAKER, lane);
        assert!(outlet.flush(LONG));
        outlet.push(&record("b"));
        outlet.close(sender, LONG);
        let batches: Vec<_> = batches.try_iter().collect();
        assert!(batches.iter().all(|batch| (batch.incarnation, batch.pid) == (3, 7)));
        let told = &batches.last().unwrap().dropped;
        assert_eq!(
            told.iter().map(|told| (told.reason, told.count)).collect::<Vec<_>>(),
            [(DropReason::Refused, 1)]
        );
        assert_eq!(batches.iter().map(|batch| batch.records.len()).sum::<usize>(), 1);
    }

    #[test]
    fn a_full_lane_stops_nobody_and_an_end_waits_no_longer_than_it_may() {
        let outlet = Outlet::new(true);
        let (lane, batches) = lane(&[Sent::Full; 1_000_000]);
        let sender = outlet.open(MAKER, lane);
        outlet.push(&record("to standard error, at the end"));
        assert!(!outlet.flush(Duration::ZERO));
        outlet.close(sender, Duration::ZERO);
        assert_eq!(messages(&batches), []);
    }

    #[test]
    fn a_way_that_opens_after_standard_error_is_used_at_once() {
        // The thread may begin at any moment.
        for _ in 0..500 {
            let outlet = Outlet::new(false);
            let (lane, batches) = lane(&[]);
            let sender = outlet.open(MAKER, lane);
            outlet.push(&record("a"));
            outlet.close(sender, LONG);
            assert_eq!(messages(&batches), [(1, "a".to_owned())]);
        }
    }

    #[test]
    fn where_the_way_closes_what_waits_stays_until_it_is_known_where_it_goes() {
        let outlet = Outlet::new(true);
        let (closed, _batches) = lane(&[Sent::Closed]);
        outlet.push(&record("a"));
        let Sender(thread) = outlet.open(MAKER, closed).unwrap();
        thread.join().unwrap();
        outlet.push(&record("b"));
        let (lane, batches) = lane(&[]);
        let sender = outlet.open(MAKER, lane);
        outlet.close(sender, LONG);
        assert_eq!(messages(&batches), [(1, "a".to_owned()), (2, "b".to_owned())]);
    }
}
