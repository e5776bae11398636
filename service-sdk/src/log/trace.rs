//! The trace context in force on this thread, and the ids of new ones.

use std::cell::{Cell, RefCell};

use watchdog_protocol::trace::{SpanId, TraceContext, TraceId};

thread_local! {
    /// Of the spans that are entered, innermost last.
    static ENTERED: RefCell<Vec<TraceContext>> = const { RefCell::new(Vec::new()) };
    /// What came with the message in hand: in force where no span is.
    static INHERITED: Cell<Option<TraceContext>> = const { Cell::new(None) };
    /// How the span that is being made begins.
    static ORIGIN: Cell<Option<Origin>> = const { Cell::new(None) };
    static IDS: RefCell<fastrand::Rng> = RefCell::new(seeded());
}

/// How a span begins that is no ordinary child of what surrounds it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// It is the child of a span of another process.
    Child(TraceContext),
    /// It begins a trace, which is recorded; a message that another span told led to it.
    Root { told_by: Option<TraceContext> },
}

/// The system's chance, and not the time: two processes that start at once must not make the same ids.
fn seeded() -> fastrand::Rng {
    let seed = getrandom::u64().unwrap_or_else(|_| {
        // No chance to be had: then what nobody else has.
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id())
    });
    fastrand::Rng::with_seed(seed)
}

pub(super) fn new_trace() -> TraceId {
    IDS.with_borrow_mut(|ids| {
        loop {
            if let Some(id) = TraceId::new(ids.u128(..)) {
                break id;
            }
        }
    })
}

pub(super) fn new_span() -> SpanId {
    IDS.with_borrow_mut(|ids| {
        loop {
            if let Some(id) = SpanId::new(ids.u64(..)) {
                break id;
            }
        }
    })
}

/// From 0 up to 1.
pub(super) fn chance() -> f64 {
    IDS.with_borrow_mut(fastrand::Rng::f64)
}

/// What a message that is sent now belongs to.
pub(crate) fn current() -> Option<TraceContext> {
    ENTERED.with_borrow(|entered| entered.last().copied()).or_else(|| INHERITED.get())
}

/// What the message in hand belongs to.
pub(super) fn inherit(context: Option<TraceContext>) {
    INHERITED.set(context);
}

pub(super) fn inherited() -> Option<TraceContext> {
    INHERITED.get()
}

pub(super) fn enter(context: TraceContext) {
    ENTERED.with_borrow_mut(|entered| entered.push(context));
}

/// Spans are left in any order.
pub(super) fn leave(context: TraceContext) {
    ENTERED.with_borrow_mut(|entered| {
        if let Some(at) = entered.iter().rposition(|one| *one == context) {
            entered.remove(at);
        }
    });
}

/// Makes a span that begins so.
pub(super) fn beginning<T>(origin: Origin, make: impl FnOnce() -> T) -> T {
    ORIGIN.set(Some(origin));
    let made = make();
    // One that the filter does not want took nothing.
    ORIGIN.set(None);
    made
}

pub(super) fn take_origin() -> Option<Origin> {
    ORIGIN.take()
}
