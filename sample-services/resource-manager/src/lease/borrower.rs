//! [`Borrower`]: tokens for a service.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use watchdog_service::{AskError, Context, Intercom, IntroduceError, Message, Settings, State};

use super::purse::Purse;
use super::{Answer, HOLD, since_boot};
use crate::ManagerMsg;

/// Who lends.
const LENDER: &str = "resource-manager";

/// What an answer takes at the most beyond what it is held back for: a new process of the lender is there by then.
const PATIENCE: Duration = HOLD.saturating_add(Duration::from_secs(4));

/// From a request that failed to the next.
const AGAIN: Duration = Duration::from_millis(100);

/// From a refusal to the next request: somebody may declare the resource again.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// A timer does not count while the machine is suspended: no wait is longer than this without a look at the clock.
const LOOK: Duration = Duration::from_secs(1);

/// The last number of a request of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Of what this process borrows. Two that say different things of one resource would each undo what the other said.
static BORROWED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Why there are no tokens.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BorrowError {
    /// This process borrows of it already, or has tokens left from when it did. One [`Borrower`] is for all its tasks.
    #[error("this process borrows of `{resource}` already")]
    Twice {
        /// Of what.
        resource: String,
    },
    /// The resource manager said no, and why: nobody declares the resource, say.
    #[error("`{resource}` can't be borrowed: {why}")]
    Refused {
        /// Of what.
        resource: String,
        /// By its word.
        why: String,
    },
    /// There is no resource manager, or this service may not talk to it.
    #[error("nobody lends: {0}")]
    NoLender(String),
}

impl From<IntroduceError> for BorrowError {
    fn from(error: IntroduceError) -> Self {
        Self::NoLender(error.to_string())
    }
}

/// Borrows tokens of one resource for a service.
///
/// ```no_run
/// # use resource_manager::lease::{BorrowError, Borrower};
/// # use watchdog_service::Context;
/// # async fn query() {}
/// # async fn example(ctx: Context<(), (), ()>) -> Result<(), BorrowError> {
/// let connections = Borrower::new(&ctx, "db-connections", 20).await?; // 20 at the most
/// let token = connections.take().await?;
/// tokio::select! {
///     () = query() => {}
///     () = token.revoked() => {} // its time is over: the connection is closed
/// }
/// drop(token); // and another task of this service may have it
/// # Ok(()) }
/// ```
/// It keeps what it was lent until it wants fewer: a token that is given back is the next `take`'s. Where another service is
/// to have some, it gives out fewer from then on; what is in use beyond that is valid to the end of its lease,
/// [`LEASE`](super::LEASE) at the most, and then is revoked, what was taken last first.
///
/// The lease is renewed by a task of its own. While the resource manager is away tokens stay valid until the lease ends, then
/// `take` waits. Dropped, it is not renewed any more; what it has is free at the end of the lease, or when this process is
/// gone. To give back at once: `want(0)`, and all tokens are dropped.
pub struct Borrower {
    shared: Arc<Shared>,
    /// Renews as long as there is a borrower.
    _renewing: JoinSet<()>,
}

/// The right to one use of the resource, until it is dropped or [revoked](Self::revoked).
#[must_use = "a token that is dropped is given back"]
pub struct Token {
    shared: Arc<Shared>,
    number: u64,
}

struct Shared {
    resource: String,
    purse: Mutex<Purse>,
    /// Something is to be said to the lender.
    said: Notify,
    /// There may be a token to take, or one less to use.
    news: Notify,
    /// Why there will never be any.
    end: Mutex<Option<BorrowError>>,
}

impl Borrower {
    /// Borrows of this resource from now on, `wanted` tokens at the most. Waits until the resource manager knows.
    ///
    /// Cancel safe: a dropped call borrows nothing.
    ///
    /// # Errors
    /// [`BorrowError`].
    pub async fn new<S: Settings, T: State, M: Message>(
        ctx: &Context<S, T, M>,
        resource: &str,
        wanted: u32,
    ) -> Result<Self, BorrowError> {
        let lender = ctx.intercom::<ManagerMsg>(LENDER).await?;
        let shared = Arc::new(Shared::new(resource, ctx.incarnation().get(), wanted)?);
        loop {
            match shared.ask(&lender).await {
                Asked::Answered => break,
                Asked::Refused(why) => {
                    return Err(BorrowError::Refused { resource: resource.to_owned(), why });
                }
                Asked::Failed => sleep(AGAIN).await,
                Asked::Over(why) => return Err(BorrowError::NoLender(why)),
            }
        }
        let mut renewing = JoinSet::new();
        renewing.spawn(renew(Arc::clone(&shared), lender));
        Ok(Self { shared, _renewing: renewing })
    }

    /// A token, as soon as there is one that is not in use.
    ///
    /// Cancel safe: a dropped call has taken none. Of several that wait, it is open which is the first.
    ///
    /// # Errors
    /// [`BorrowError::NoLender`]: there will never be one, since this service may not talk to the resource manager any more.
    pub async fn take(&self) -> Result<Token, BorrowError> {
        loop {
            let mut news = pin!(self.shared.news.notified());
            // What comes between the look and the wait counts.
            news.as_mut().enable();
            if let Some(token) = self.try_take() {
                return Ok(token);
            }
            if let Some(end) = lock(&self.shared.end).clone() {
                return Err(end);
            }
            news.await;
        }
    }

    /// A token, if there is one that is not in use.
    pub fn try_take(&self) -> Option<Token> {
        let number = self.shared.purse().take(since_boot())?;
        Some(Token { shared: Arc::clone(&self.shared), number })
    }

    /// How many tokens it would like to have from now on. Fewer: what is not in use is given back at once, the others when
    /// they are dropped.
    pub fn want(&self, tokens: u32) {
        self.shared.purse().want(tokens);
        self.shared.said.notify_one();
    }

    /// How many it may have in use at present.
    pub fn tokens(&self) -> u32 {
        self.shared.purse().limit(since_boot())
    }

    /// How many are in use.
    pub fn in_use(&self) -> u32 {
        self.shared.purse().in_use()
    }
}

impl Token {
    /// Whether it may still be used. Once it may not, it never may again.
    pub fn is_valid(&self) -> bool {
        self.shared.purse().is_valid(self.number, since_boot())
    }

    /// Waits until it may not be used any more: its lease ended, since others are to have it, or nobody renewed it. Within a
    /// second after the machine was suspended.
    ///
    /// Cancel safe.
    pub async fn revoked(&self) {
        loop {
            let mut news = pin!(self.shared.news.notified());
            news.as_mut().enable();
            let now = since_boot();
            let next = {
                let mut purse = self.shared.purse();
                if !purse.is_valid(self.number, now) {
                    return;
                }
                purse.next(now).map_or(LOOK, |next| next.saturating_sub(now))
            };
            // Either way there is another look.
            let _ = timeout(next.min(LOOK), news).await;
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let is_due = {
            let mut purse = self.shared.purse();
            purse.give_back(self.number);
            purse.is_due(since_boot())
        };
        if is_due {
            self.shared.said.notify_one();
        }
        self.shared.news.notify_waiters();
    }
}

/// What came of a request.
enum Asked {
    Answered,
    Refused(String),
    /// It may be asked again.
    Failed,
    Over(String),
}

/// Always has a request on its way, or its answer in force.
async fn renew(shared: Arc<Shared>, lender: Intercom<ManagerMsg>) {
    loop {
        match shared.ask(&lender).await {
            Asked::Answered => {}
            Asked::Refused(why) => {
                tracing::warn!(resource = shared.resource, "no tokens: {why}");
                sleep(AFTER_REFUSAL).await;
            }
            Asked::Failed => sleep(AGAIN).await,
            Asked::Over(why) => {
                *lock(&shared.end) = Some(BorrowError::NoLender(why));
                return shared.news.notify_waiters();
            }
        }
    }
}

impl Shared {
    fn new(resource: &str, process: u64, wanted: u32) -> Result<Self, BorrowError> {
        if !lock(&BORROWED).insert(resource.to_owned()) {
            return Err(BorrowError::Twice { resource: resource.to_owned() });
        }
        Ok(Self {
            resource: resource.to_owned(),
            purse: Mutex::new(Purse::new(resource.to_owned(), process, wanted)),
            said: Notify::new(),
            news: Notify::new(),
            end: Mutex::new(None),
        })
    }

    fn purse(&self) -> MutexGuard<'_, Purse> {
        lock(&self.purse)
    }

    /// Asks, anew whenever what it says is not so any more, until one request has an answer.
    async fn ask(&self, lender: &Intercom<ManagerMsg>) -> Asked {
        loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
            let request = self.purse().ask(number, since_boot());
            let mut answer = pin!(lender.ask_within(PATIENCE, |reply| ManagerMsg::Lease { request, reply }));
            let answer = loop {
                tokio::select! {
                    answer = &mut answer => break Some(answer),
                    () = self.said.notified() => {
                        if self.purse().is_due(since_boot()) {
                            break None;
                        }
                    }
                }
            };
            let Some(answer) = answer else { continue };
            match answer {
                Ok(Answer::Lent { tokens, for_ms }) => {
                    self.purse().answered(number, tokens, Duration::from_millis(for_ms));
                    self.news.notify_waiters();
                    return Asked::Answered;
                }
                Ok(Answer::Refused { why }) => {
                    self.purse().failed(number);
                    return Asked::Refused(why);
                }
                Err(
                    error @ (AskError::NoSuchService { .. }
                    | AskError::Denied { .. }
                    | AskError::ContractMismatch { .. }),
                ) => return Asked::Over(error.to_string()),
                Err(error) => {
                    tracing::debug!(resource = self.resource, %error, "the lease is asked for again");
                    self.purse().failed(number);
                    return Asked::Failed;
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&BORROWED).remove(&self.resource);
    }
}

/// Nothing panics that holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl fmt::Debug for Borrower {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Borrower").field("resource", &self.shared.resource).finish_non_exhaustive()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shared, number } = self;
        out.debug_struct("Token")
            .field("resource", &shared.resource)
            .field("number", number)
            .finish_non_exhaustive()
    }
}
