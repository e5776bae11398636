//! [`Event`]: what `next()` yields.

/// What happened. There is no stop among them: `next()` yields `None` then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<M> {
    /// A message is to be handled. It is done when the next event is asked for; a process that dies before has
    /// it delivered again to the next one, unless it was an ask.
    Message(M),
    /// [`SettingsReader::current`](crate::SettingsReader::current) has another value now. Asking for the next
    /// event accepts it, [`refuse`](crate::SettingsReader::refuse) before that does not.
    SettingsUpdated,
}
