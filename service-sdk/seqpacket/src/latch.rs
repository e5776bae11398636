//! A few words that one process writes and others read, always whole, even when the writer is killed half way.
//!
//! ```text
//!   turn even: copy 0 is valid, copy 1 is being written      write: fill the invalid copy, then turn + 1
//!   turn odd:  copy 1 is valid, copy 0 is being written      read:  turn, the valid copy, turn again: the same?
//! ```
//! A lock word left odd by a dead writer would have to be broken by somebody; here there is nothing to repair,
//! for the valid copy is never touched. Readers only load, so that read-only memory will do.

use super::atomic::{AtomicU64, Ordering, fence};

/// A reader that meets a write begins again. An honest writer lets it through at the second or third time; one
/// that never does may have torn words for an answer: it could have written them as well.
const TRIES: usize = 64;

#[repr(C)]
#[derive(Debug)]
pub(crate) struct Latch<const N: usize> {
    turn: AtomicU64,
    copies: [[AtomicU64; N]; 2],
}

impl<const N: usize> Latch<N> {
    /// Replaces all words at once. There is one writer.
    pub(crate) fn write(&self, words: [u64; N]) {
        let turn = self.turn.load(Ordering::Relaxed);
        let next = turn.wrapping_add(1);
        // The turn before this one is out before its old copy changes: who reads a new word sees a new turn.
        fence(Ordering::Release);
        for (cell, word) in self.copies[index(next)].iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        self.turn.store(next, Ordering::Release);
    }

    /// The words of one write.
    pub(crate) fn read(&self) -> [u64; N] {
        let mut tries = 0;
        loop {
            let turn = self.turn.load(Ordering::Relaxed);
            // In the place of an acquire load, which is not promised to work on read-only memory.
            fence(Ordering::Acquire);
            let words = std::array::from_fn(|word| self.copies[index(turn)][word].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            tries += 1;
            if self.turn.load(Ordering::Relaxed) == turn || tries == TRIES {
                return words;
            }
        }
    }
}

fn index(turn: u64) -> usize {
    (turn & 1) as usize
}

impl<const N: usize> Default for Latch<N> {
    fn default() -> Self {
        let copy = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { turn: AtomicU64::new(0), copies: [copy(), copy()] }
    }
}
