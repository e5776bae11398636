//! The borrower's side: which tokens are in use, and until when they may be. Pure: time is an argument.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Request;
use super::steps::Steps;

/// What a process has of one resource.
#[derive(Debug, Clone)]
pub struct Purse {
    resource: String,
    process: u64,
    wanted: u32,
    /// What it was told last that it may use, and until when.
    limit: u32,
    until: Duration,
    /// What may go on being used of what was told before.
    steps: Steps,
    /// Tokens in use, in the order in which they were taken. One that was revoked is not among them.
    used: BTreeSet<u64>,
    last_taken: u64,
    asked: Option<Asked>,
}

/// A request that has no answer yet.
#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    at: Duration,
    wanted: u32,
    held: u32,
}

impl Purse {
    /// An empty one.
    pub fn new(resource: String, process: u64, wanted: u32) -> Self {
        Self {
            resource,
            process,
            wanted,
            limit: 0,
            until: Duration::ZERO,
            steps: Steps::default(),
            used: BTreeSet::new(),
            last_taken: 0,
            asked: None,
        }
    }

    /// How many it would like to have.
    pub fn want(&mut self, tokens: u32) {
        self.wanted = tokens;
        self.limit = self.limit.min(tokens);
    }

    /// Takes a token, if it has one that is not in use.
    pub fn take(&mut self, now: Duration) -> Option<u64> {
        self.revoke(now);
        if self.in_use() >= self.limit(now) {
            return None;
        }
        self.last_taken += 1;
        self.used.insert(self.last_taken);
        Some(self.last_taken)
    }

    /// A use ended.
    pub fn give_back(&mut self, token: u64) {
        self.used.remove(&token);
    }

    /// Whether this token may still be used.
    pub fn is_valid(&mut self, token: u64, now: Duration) -> bool {
        self.revoke(now);
        self.used.contains(&token)
    }

    /// How many it may have in use.
    pub fn limit(&self, now: Duration) -> u32 {
        if now < self.until { self.limit } else { 0 }
    }

    /// How many it has in use.
    pub fn in_use(&self) -> u32 {
        u32::try_from(self.used.len()).unwrap_or(u32::MAX)
    }

    /// When something ends, if nothing is heard.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.steps.next(now)
    }

    /// Whether there is something to ask or to say: there always is a request on its way, and another one when what it
    /// says is no longer so.
    pub fn is_due(&mut self, now: Duration) -> bool {
        self.revoke(now);
        let held = self.held(now);
        self.asked.is_none_or(|asked| asked.wanted != self.wanted || held < asked.held)
    }

    /// Asks. An answer to any request before it counts no more. `number` is larger than any this process used.
    pub fn ask(&mut self, number: u64, now: Duration) -> Request {
        self.revoke(now);
        let held = self.held(now);
        self.steps.give_back(held);
        self.asked = Some(Asked { number, at: now, wanted: self.wanted, held });
        Request {
            resource: self.resource.clone(),
            process: self.process,
            number,
            wanted: self.wanted,
            limit: self.limit(now),
            held,
        }
    }

    /// So many may be used for so long from when they were asked for.
    pub fn answered(&mut self, number: u64, tokens: u32, lasts: Duration) {
        let Some(asked) = self.asked.take_if(|asked| asked.number == number) else { return };
        self.limit = tokens.min(self.wanted);
        self.until = asked.at + lasts;
        self.steps.grant(tokens, self.until);
    }

    /// This request gets no answer.
    pub fn failed(&mut self, number: u64) {
        self.asked.take_if(|asked| asked.number == number);
    }

    /// The most it may come to use without another answer.
    pub(super) fn held(&self, now: Duration) -> u32 {
        self.limit(now).max(self.in_use())
    }

    /// What was taken last is revoked first: what goes on for long is nearer to its end.
    fn revoke(&mut self, now: Duration) {
        let may = self.steps.at(now);
        while self.in_use() > may {
            self.used.pop_last();
        }
    }
}
