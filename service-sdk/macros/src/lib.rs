//! derive(Message), in the making.
