//! The thread of one output: takes, writes, tries again.

use super::backoff::Backoff;
use super::queue::{Next, Queue};
use super::{Load, Sink};

/// Until the queue ends.
pub(super) fn run(queue: &Queue, sink: &mut dyn Sink) {
    let mut load = Load::new();
    let mut backoff = Backoff::default();
    loop {
        match queue.next(&mut load) {
            Next::Write => {}
            Next::Configure(settings) => {
                sink.configure(&settings);
                backoff.reset();
                continue;
            }
            Next::End => break,
        }
        let result = sink.write(&mut load);
        queue.finish(load.iter().filter(|item| item.is_done));
        load.retain(|item| !item.is_done);
        match result {
            Ok(()) => {
                backoff.reset();
                queue.works();
            }
            Err(error) => queue.fails(error.to_string(), backoff.pause()),
        }
    }
    queue.abandon(&mut load);
}
