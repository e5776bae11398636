//! A counter of many processes, which does not lose what a process counted when that ends.
//!
//! The kernel adds what a process used to the parent that waits for it. So what grows in a living process may have been
//! counted before, as its child's: that is set against it. What nobody waits for is in no process any more, and stays
//! counted here.

/// One process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// As last read: its own, and of the children it has waited for.
    last: u64,
    /// Of children that are gone, counted before, and not seen in `last`.
    heard: u64,
    /// The same of the reading before: a child may go between the look at its parent and the look at itself.
    before: u64,
}

impl Account {
    /// What is new in a reading of it.
    pub(super) fn read(&mut self, now: u64) -> u64 {
        let grown = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let known = (self.heard + self.before).min(grown);
        // What is left after two readings was never added to the parent: it does not wait for its children.
        self.before = self.heard.min(self.heard + self.before - known);
        self.heard = 0;
        grown - known
    }

    /// A child is gone.
    pub(super) fn inherit(&mut self, child: Self) {
        self.heard += child.last + child.heard + child.before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_waited_for_counts_once() {
        let (mut parent, mut child) = (Account::default(), Account::default());
        let mut total = parent.read(10) + child.read(100);
        parent.inherit(child);
        // It used 20 more before its end, and the parent 5.
        total += parent.read(10 + 120 + 5);
        assert_eq!(total, 135);
        assert_eq!(parent.read(140), 5);
    }

    #[test]
    fn a_child_that_goes_between_the_two_looks_counts_once() {
        let (mut parent, mut child) = (Account::default(), Account::default());
        let mut total = parent.read(10) + child.read(100);
        // The parent had not waited for it when it was looked at.
        parent.inherit(child);
        total += parent.read(10);
        total += parent.read(110);
        assert_eq!(total, 110);
    }

    #[test]
    fn a_child_that_nobody_waits_for_hides_nothing_for_long() {
        let (mut parent, mut child) = (Account::default(), Account::default());
        let mut total = parent.read(10) + child.read(100);
        parent.inherit(child);
        total += parent.read(10);
        total += parent.read(10);
        total += parent.read(60);
        assert_eq!(total, 160);
    }

    #[test]
    fn a_grandchild_counts_once() {
        let [mut root, mut child, mut grandchild] = [Account::default(); 3];
        let mut total = root.read(1) + child.read(10) + grandchild.read(100);
        child.inherit(grandchild);
        total += child.read(110);
        root.inherit(child);
        total += root.read(111);
        assert_eq!(total, 111);
    }

    #[test]
    fn a_counter_that_falls_takes_nothing_away() {
        let mut odd = Account::default();
        assert_eq!((odd.read(10), odd.read(4), odd.read(12)), (10, 0, 2));
    }
}
