//! Every bound in one place, with its reason. Lengths are bytes.

/// Characters of a service name: a name is part of file and cgroup names, and of `sun_path`.
pub const MAX_NAME: usize = 63;

/// The most instances of one service: three digits of its name. Each is a process, with a log and an inbox.
pub const MAX_INSTANCES: u32 = 999;

/// One packet of a session or lane. Above it a payload goes as a sealed memfd beside its header.
///
/// The kernel copies a packet into one buffer; 64 KiB is what it allocates without trouble and still holds a
/// thousand small messages.
pub const MAX_PACKET: usize = 64 * 1024;

/// A payload longer than this goes as a memfd: header and envelope must fit in the packet too.
pub const MAX_INLINE: usize = 60 * 1024;

/// The largest message, state or reply unless `max_message` says otherwise.
pub const DEFAULT_MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// What one lane holds, as the kernel charges it, unless configured.
pub const DEFAULT_LANE_BYTES: usize = 1024 * 1024;

/// The least that one lane may hold: some ten small messages. The kernel's own bound is half of it.
pub const MIN_LANE_BYTES: usize = 8 * 1024;

/// The most: it is kernel memory of each sender.
pub const MAX_LANE_BYTES: usize = 64 * 1024 * 1024;

/// What the kernel charges for a packet beside its payload.
pub const PACKET_OVERHEAD: usize = 768;

/// Unanswered asks of one lane: each holds a waiter on both sides.
pub const MAX_OPEN_ASKS: usize = 1024;

/// Deliveries of one lane that its receiver keeps open beside the one in hand. Beyond it the lane waits: all of them
/// come again after a death.
pub const MAX_DEFERRED: usize = 256;

/// Dead letters of one service. Each has ended three processes: so many of them are a fault to be looked at, not a
/// store. Beyond it the next one stays in its lane.
pub const MAX_DEAD_LETTERS: usize = 256;

/// What they take on disk: a few of the largest messages.
pub const MAX_DEAD_LETTER_BYTES: u64 = 64 * 1024 * 1024;

/// Messages in one packet: the header counts them in 16 bits, and a turn of the receiver stays short.
pub const MAX_BATCH: usize = 4096;

/// One frame of the control socket: a status of 2,000 services with room to spare, and the export of the largest state,
/// which is 64 MiB and its header.
pub const MAX_FRAME: usize = 65 * 1024 * 1024;

/// A line of text a service sends to be shown: a reason, a progress text. Longer ones are cut.
pub const MAX_TEXT: usize = 1024;

/// Lines of standard error an entry of the event log keeps. The status has more of the last end; thousands of entries
/// are held in memory, and a crash loop must not fill it.
pub const MAX_EVIDENCE_LINES: usize = 10;

/// Characters of each of them.
pub const MAX_EVIDENCE_LINE: usize = 256;

/// Settings as JSON text.
pub const MAX_SETTINGS: usize = 1024 * 1024;

/// A manifest as JSON text: a schema of hundreds of fields is some 100 KiB.
pub const MAX_MANIFEST: usize = 1024 * 1024;

/// The layout of one message as text. People wrote these types: what is longer comes of one that holds others many times
/// over.
pub const MAX_LAYOUT: usize = 64 * 1024;

/// Types of a layout within each other: a tree that is walked by calls.
pub const MAX_LAYOUT_DEPTH: usize = 64;

/// The layouts of one manifest together: room for a hundred large messages, and left for a settings schema.
pub const MAX_LAYOUTS: usize = 256 * 1024;

/// A message as JSON text: four digits and commas a byte of the largest message there is by default.
pub const MAX_MESSAGE_TEXT: usize = 64 * 1024 * 1024;

/// A state as JSON text: an answer of the control socket, with room for what else is known of the state.
pub const MAX_STATE_TEXT: usize = 64 * 1024 * 1024;

/// Variants of one contract.
pub const MAX_CONTRACT: usize = 1024;

/// A text of a record, be it a message, a target or the value of a field. Longer ones are cut.
pub const MAX_RECORD_TEXT: usize = 8 * 1024;

/// The fields of one record together: with its texts it goes in a packet.
pub const MAX_RECORD_FIELDS: usize = 24 * 1024;

/// Records that wait in a process for room in the lane to the logging service. Beyond it they are dropped, and counted.
pub const MAX_WAITING_RECORDS: usize = 1024 * 1024;
