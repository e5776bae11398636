//! The latch in every order its loads and stores may take, the weak ones included.
#![expect(clippy::unwrap_used, reason = "a test that fails here should say so here")]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}
#[path = "../src/latch.rs"]
mod latch;

use latch::Latch;
use loom::sync::Arc;
use loom::thread;

fn write_twice_and_read(check: impl Fn(&Latch<2>) + Send + Sync + Clone + 'static) {
    loom::model(move || {
        let latch = Arc::new(Latch::default());
        let writer = thread::spawn({
            let latch = Arc::clone(&latch);
            move || {
                latch.write([1, 10]);
                latch.write([2, 20]);
            }
        });
        check(&latch);
        writer.join().unwrap();
        assert_eq!(latch.read(), [2, 20]);
    });
}

#[test]
fn a_reader_beside_a_writer_sees_the_words_of_one_write() {
    write_twice_and_read(|latch| {
        let [number, ten] = latch.read();
        assert_eq!(ten, number * 10);
    });
}

#[test]
fn a_later_read_is_not_older() {
    write_twice_and_read(|latch| {
        let [first, _] = latch.read();
        let [second, _] = latch.read();
        assert!(first <= second);
    });
}

#[test]
fn what_was_stored_before_a_write_is_read_after_its_words() {
    loom::model(|| {
        let shared = Arc::new((Latch::<1>::default(), atomic::AtomicU64::new(0)));
        let writer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for number in 1..=2 {
                    shared.0.write([number]);
                    shared.1.store(number, atomic::Ordering::Release);
                }
            }
        });
        let [announced] = shared.0.read();
        let counted = shared.1.load(atomic::Ordering::Relaxed);
        assert!(counted + 1 >= announced, "{counted} counted, {announced} announced");
        writer.join().unwrap();
    });
}
