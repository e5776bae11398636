//! Where in a value.

use std::fmt;

/// The way from a message to a value in it: `Add.points[2].x`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<Step>);

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a field, variant or key.
    Name(String),
    /// To an element, from 0.
    Index(usize),
    /// To all elements.
    Each,
}

impl Path {
    /// The same value, seen from one step further out. A path is made from its end, as an error finds its way out.
    pub(super) fn push_front(&mut self, step: Step) {
        // Turned round when it is shown.
        self.0.push(step);
    }

    /// The value itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().rev().enumerate() {
            match step {
                Step::Name(name) if at == 0 => write!(out, "{name}")?,
                Step::Name(name) => write!(out, ".{name}")?,
                Step::Index(index) => write!(out, "[{index}]")?,
                Step::Each => write!(out, "[]")?,
            }
        }
        Ok(())
    }
}
