//! [`Delivery`]: what is known of a message beside its content.

use std::time::Duration;

use watchdog_protocol::{MessageId, ServiceName};

/// How a message came to this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub(crate) sender: ServiceName,
    pub(crate) id: MessageId,
    pub(crate) redelivered: bool,
    pub(crate) waited: Duration,
}

impl Delivery {
    /// Who sent it. By the lane it came through, which the sender can't choose.
    pub fn sender(&self) -> &ServiceName {
        &self.sender
    }

    /// Its name for ever: the same id is the same message again. Numbers of one sender only grow, so the last one
    /// handled is enough to know a message that comes again.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// An earlier process of this service had it in hand and died: its effects may be there already.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// From when its sender accepted it until it was handed over here, waiting included.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}
