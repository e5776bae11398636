//! Whose turn it is: the lanes that may have something, in the order they came to it.
//!
//! A lane that waits costs nothing: its waker is with the runtime, and puts it in here when its socket has
//! something.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};

use watchdog_protocol::LaneEpoch;

/// The lanes in line, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    queue: VecDeque<Arc<Turn>>,
    waiter: Option<Waker>,
}

/// One lane's place in the line: it has at most one.
#[derive(Debug)]
pub(super) struct Turn {
    lane: LaneEpoch,
    is_queued: AtomicBool,
    turns: Arc<Turns>,
}

impl Turns {
    /// The place of a new lane, not in line yet.
    pub(super) fn place(self: &Arc<Self>, lane: LaneEpoch) -> Arc<Turn> {
        Arc::new(Turn { lane, is_queued: AtomicBool::new(false), turns: Arc::clone(self) })
    }

    /// Takes the first lane out of the line.
    pub(super) fn first(&self) -> Option<LaneEpoch> {
        self.line().take()
    }

    /// As [`first`](Self::first), when `last` has gone to the end of the line.
    pub(super) fn first_before(&self, last: &Arc<Turn>) -> LaneEpoch {
        let mut line = self.line();
        if line.queue.is_empty() {
            return last.lane;
        }
        if !last.is_queued.swap(true, Ordering::AcqRel) {
            line.queue.push_back(Arc::clone(last));
        }
        line.take().expect("it is not empty")
    }

    /// As [`first`](Self::first). `None`: `waiter` is woken when there is one.
    pub(super) fn next(&self, waiter: &Waker) -> Option<LaneEpoch> {
        let mut line = self.line();
        let first = line.take();
        if first.is_none() {
            match &mut line.waiter {
                Some(waiting) => waiting.clone_from(waiter),
                None => line.waiter = Some(waiter.clone()),
            }
        }
        first
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Line {
    fn take(&mut self) -> Option<LaneEpoch> {
        let turn = self.queue.pop_front()?;
        turn.is_queued.store(false, Ordering::Release);
        Some(turn.lane)
    }
}

impl Turn {
    /// Goes to the end of the line, unless it is in it.
    pub(super) fn queue(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut line = self.turns.line();
        line.queue.push_back(Arc::clone(self));
        // Once: who is at work finds the line by itself, and a wake it does not need costs it a look around.
        if let Some(waiter) = line.waiter.take() {
            drop(line);
            waiter.wake();
        }
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.queue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_come_in_the_order_they_came_to_the_line_each_once() {
        let turns = Arc::<Turns>::default();
        let lanes: Vec<_> = (0..3).map(|bits| turns.place(LaneEpoch::from_stored(bits))).collect();
        for at in [2, 0, 2, 1, 0] {
            lanes[at].queue();
        }
        let next = || turns.next(Waker::noop()).map(LaneEpoch::get);
        assert_eq!((next(), next()), (Some(2), Some(0)));
        lanes[2].queue();
        assert_eq!((next(), next(), next()), (Some(1), Some(2), None));
    }

    #[test]
    fn who_found_nobody_in_line_is_woken_by_the_first() {
        struct Bell(AtomicBool);
        impl Wake for Bell {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Release);
            }
        }
        let turns = Arc::<Turns>::default();
        let bell = Arc::new(Bell(AtomicBool::new(false)));
        let lane = turns.place(LaneEpoch::from_stored(1));
        assert_eq!(turns.next(&Arc::clone(&bell).into()), None);
        lane.queue();
        assert!(bell.0.load(Ordering::Acquire));
    }
}
