//! Who changed what, or tried to: every changing call, with what came of it.
//!
//! ```text
//! call ─► Draft (who, what) ─► … ─► end ─► record ─┬─► journal ─► on disk ─► the caller is answered
//!                                                  └─► `audit.jsonl` beside the log files, to be read
//! ```
//! A call is recorded once, with its end; one whose caller went away before that, when it is let go. What a core that was
//! killed had in hand is repeated by its caller under the same request id, and recorded by the next core. What the journal
//! has, and the file lacks, the next core adds ([`Trail`], [`AuditFile`]). A safe core has no journal: it syncs the file.

mod call;
mod trail;
mod view;

use std::collections::VecDeque;
use std::future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as queue;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use watchdog_lifecycle::Moment;
use watchdog_protocol::audit::{AuditRecord, Auditee};
use watchdog_protocol::control::{Reply, Request};
use watchdog_protocol::{Incarnation, RequestId, Sequence};

use super::{chain, now};
use crate::store::audit::{self as file, AuditFile};
use crate::store::envelope::{self, Envelope, Kind};
use crate::store::journal::{self, JournalError};
use crate::store::kept::{LoadError, SetAside};
use crate::store::writer::{ChangeNumber, Done, Writer};
use crate::store::{lines, record};
use call::{Answer, Ended};
use trail::{Copy, Held, Trail, Way};

pub(super) use call::Replies;
pub(crate) use view::read;
pub(super) use view::{View, serve};

/// Of what the journal has: lines as the file has them.
const VERSION: u32 = 1;

/// How long a caller waits for the disk.
const DISK: Duration = Duration::from_secs(30);

/// The record, and where calls hand in theirs.
#[derive(Debug)]
pub(super) struct Audit {
    logs: PathBuf,
    /// The record file that the journal has the newest lines as.
    recent: PathBuf,
    /// This core may write to it.
    has_journal: bool,
    trail: Trail<Answer, Key>,
    /// What the journal was given, up to which record each.
    puts: VecDeque<(ChangeNumber, u64)>,
    /// The journal has lines, as far as this core knows.
    is_in_journal: bool,
    /// `None` while a thread has it.
    file: Option<AuditFile>,
    copying: JoinSet<Copied>,
    ended: queue::Receiver<Ended>,
    pen: queue::Sender<Ended>,
}

/// What a call and its end were: its record without number and time.
type Key = AuditRecord;

/// What a thread did with the file.
#[derive(Debug)]
struct Copied {
    file: AuditFile,
    way: Way,
    up_to: u64,
    outcome: Result<(), String>,
}

/// What is to be told of the record that the journal has the newest lines as.
#[derive(Debug, Default)]
pub(super) struct Opening {
    set_aside: Vec<SetAside>,
    unread: Option<LoadError>,
}

impl Opening {
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        let set_aside = self.set_aside.iter().map(|aside| {
            let now = aside.now.display();
            format!(
                "the newest calls may be missing: what was kept of them is damaged, it was set aside as {now}"
            )
        });
        let unread = self.unread.iter().map(|err| {
            format!("the newest calls may be missing, and the journal is not used: {}", chain(err))
        });
        set_aside.chain(unread)
    }
}

/// The lines that the journal of this folder has.
fn in_journal(state: &Path) -> Result<Vec<u8>, JournalError> {
    let found = journal::newest(state, &recent(state))?;
    // One that is damaged is as good as none: it is told by who opens the journal.
    Ok(found
        .and_then(|bytes| Some(envelope::decode(Kind::Record, &bytes).ok()?.1.to_vec()))
        .unwrap_or_default())
}

fn key(record: &AuditRecord) -> Key {
    AuditRecord { number: 0, at_us: 0, ..record.clone() }
}

fn recent(state: &Path) -> PathBuf {
    record::path(state, "audit")
}

impl Audit {
    /// Goes on where an older core was.
    ///
    /// # Errors
    /// The file can't be read.
    pub(super) fn open(logs: &Path, state: &Path, writer: &mut Writer) -> io::Result<(Self, Opening)> {
        let mut opening = Opening::default();
        let found = match writer.load(Kind::Record, &recent(state), VERSION) {
            Ok(found) => found,
            Err(err) => {
                // Nothing may be put in its place.
                opening.unread = Some(err);
                return Ok((Self::new(logs, state, &[], Trail::without_journal)?, opening));
            }
        };
        opening.set_aside = found.loaded.set_aside().to_vec();
        let held = found.loaded.content().map(|(_, content)| content).unwrap_or_default();
        let as_it_is = |trail| trail;
        let of = if found.is_durable { as_it_is } else { Trail::with_doubtful_journal };
        Ok((Self { has_journal: true, ..Self::new(logs, state, &held, of)? }, opening))
    }

    /// The same where the journal is only read, by a core that leaves it to the next one.
    ///
    /// # Errors
    /// The file can't be read. Why the journal can't is said beside: what it has is added by another core.
    pub(super) fn beside(logs: &Path, state: &Path) -> io::Result<(Self, Option<JournalError>)> {
        let (held, err) = match in_journal(state) {
            Ok(held) => (held, None),
            Err(err) => (Vec::new(), Some(err)),
        };
        Ok((Self::new(logs, state, &held, Trail::without_journal)?, err))
    }

    fn new(
        logs: &Path,
        state: &Path,
        held: &[u8],
        of: fn(Trail<Answer, Key>) -> Trail<Answer, Key>,
    ) -> io::Result<Self> {
        let number = |record: AuditRecord| record.number;
        let in_file = lines::read(&file::path(logs), usize::MAX)?.into_iter().map(number).max();
        let newest = in_file.max(lines::parsed(held).map(number).max()).unwrap_or(0);
        let of_line = |line: &[u8]| Held {
            // One that can't be read is of another release, and is kept as long as any.
            number: serde_json::from_slice(line).map_or(newest, number),
            line: [line, b"\n"].concat(),
        };
        let unsure = lines::parsed(held).map(|record: AuditRecord| (record.number, key(&record))).collect();
        let (pen, ended) = queue::channel();
        Ok(Self {
            logs: logs.to_owned(),
            recent: recent(state),
            has_journal: false,
            trail: of(Trail::found(file::lines(held).map(of_line).collect(), unsure, newest)),
            puts: VecDeque::new(),
            is_in_journal: !held.is_empty(),
            file: Some(AuditFile::of(logs)),
            copying: JoinSet::new(),
            ended,
            pen,
        })
    }

    /// Where this call is answered: recorded first, if it changes anything.
    pub(super) fn replies(
        &self,
        id: RequestId,
        by: Auditee,
        request: &Request,
        to: mpsc::Sender<Reply>,
    ) -> Replies {
        Replies::recorded(id, by, request, to, &self.pen)
    }

    /// Takes in what ended. What the journal is to be given then, to be told by [`was_put`](Self::was_put).
    pub(super) fn take_in(&mut self) -> Option<Envelope> {
        let newest = self.trail.newest();
        let until = now().after(DISK);
        for Ended { mut record, answer } in self.ended.try_iter() {
            let key = key(&record);
            let line = |number| {
                record.number = number;
                let mut line = serde_json::to_vec(&record).expect("records are plain data with text keys");
                line.push(b'\n');
                line
            };
            if let Err((answer, lost)) = self.trail.record(&key, line, answer, until) {
                tracing::warn!(target: "watchdog", "a call is not in the audit: {}", lost.why());
                answer.into_iter().for_each(|answer| answer.give(Err(lost.clone())));
            }
        }
        (self.has_journal && self.trail.newest() > newest).then(|| self.content())
    }

    /// Where the journal is given it.
    pub(super) fn recent(&self) -> &Path {
        &self.recent
    }

    pub(super) fn was_put(&mut self, number: ChangeNumber) {
        self.puts.push_back((number, self.trail.newest()));
        self.is_in_journal = true;
    }

    fn content(&self) -> Envelope {
        Envelope {
            kind: Kind::Record,
            version: VERSION,
            incarnation: Incarnation::NONE,
            sequence: Sequence::NONE,
            content: Arc::new(self.trail.content()),
        }
    }

    /// A write of the store ended. Whether it was one of these.
    pub(super) fn stored(&mut self, done: &Done) -> bool {
        if done.path != self.recent {
            return false;
        }
        let ended = self.puts.iter().take_while(|(number, _)| *number <= done.up_to).count();
        for (_, up_to) in self.puts.drain(..ended) {
            self.trail.journal_ended(up_to, done.outcome.as_ref().map(drop).map_err(|err| chain(&**err)));
        }
        true
    }

    /// Answers whose record is on disk, and has the file given what it lacks.
    pub(super) fn go_on(&mut self) {
        for (answer, fate) in self.trail.answers(now()) {
            answer.give(fate);
        }
        if let Some(copy) = self.trail.next_copy() {
            let file = self.file.take().expect("one copy at a time");
            self.copying.spawn_blocking(move || Copied::make(file, copy));
        }
    }

    /// The file was given something, or could not: then why. Waits for ever while nothing is on its way. Cancel safe.
    pub(super) async fn copied(&mut self) -> Option<String> {
        let Copied { file, way, up_to, outcome } = match self.copying.join_next().await {
            None => return future::pending().await,
            Some(Ok(copied)) => copied,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => unreachable!("no write is ever cancelled: {error}"),
            },
        };
        self.file = Some(file);
        let failed = outcome.as_ref().err().cloned();
        self.trail.copied(way, up_to, outcome);
        failed
    }

    /// When somebody has waited too long for the disk.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.trail.next_due()
    }

    /// What is held goes to the file, and is synced there.
    pub(super) fn close(&mut self) {
        self.trail.close();
    }

    /// Everybody is answered, and the file has everything or can't. Of one that [closes](Self::close).
    pub(super) fn is_settled(&self) -> bool {
        self.trail.is_settled() && self.puts.is_empty()
    }

    /// What the journal is to be given when the file has everything, so that no core looks for it there.
    pub(super) fn last_content(&mut self) -> Option<Envelope> {
        let is_over = self.has_journal && self.is_in_journal && self.trail.content().is_empty();
        let content = is_over.then(|| self.content());
        self.is_in_journal &= content.is_none();
        content
    }

    /// What there is to be read.
    pub(super) fn view(&self) -> View {
        View { logs: self.logs.clone(), held: self.trail.content() }
    }
}

impl Copied {
    /// On a thread.
    fn make(mut file: AuditFile, Copy { way, lines, up_to }: Copy) -> Self {
        let outcome = match way {
            Way::Append => file.append(&lines),
            Way::Sync => file.append(&lines).and_then(|()| file.sync()),
            Way::Anew => file.anew(&lines),
        };
        Self { file, way, up_to, outcome: outcome.map_err(|err| chain(&err)) }
    }
}
