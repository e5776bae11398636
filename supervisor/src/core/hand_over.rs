//! What a new core is told by the keeper before anything else.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use watchdog_keeper::protocol::{CoreEnd, FromKeeper, Hello, ToKeeper};

use super::CoreError;
use super::keeper_link::{KeeperLink, LinkError};
use super::stored;
use super::takeover::starting;
use super::upgrade::Told;
use crate::capture::Hand;

/// Everything the keeper hands over.
pub(super) struct HandOver {
    pub(super) hello: Hello,
    pub(super) stored: HashMap<Vec<u8>, Vec<OwnedFd>>,
    pub(super) upgrade: Option<Told>,
    /// Why this core is to be content with little.
    pub(super) safe: Option<(u32, CoreEnd)>,
    /// Ends nobody acknowledged, and spawns, in the order in which they were told.
    pub(super) told: Vec<FromKeeper>,
}

pub(super) async fn hand_over(keeper: &mut KeeperLink) -> Result<HandOver, CoreError> {
    let mut hello = None;
    let (mut upgrade, mut safe) = (None, None);
    let mut stored = HashMap::new();
    let mut told = Vec::new();
    loop {
        let (message, beside) = keeper.recv().await.map_err(CoreError::Keeper)?;
        match message {
            FromKeeper::Hello(said) => hello = Some(said),
            FromKeeper::Descriptors(names) => {
                let mut beside = beside.into_iter();
                for name in names {
                    let fds = beside.by_ref().take(name.count as usize).collect();
                    stored.insert(name.name, fds);
                }
            }
            FromKeeper::HandedOver => break,
            replaced @ FromKeeper::Replaced { .. } => upgrade = Told::read(replaced),
            FromKeeper::Safe { ends, last } => safe = Some((ends, last)),
            other => told.push(other),
        }
    }
    let hello = hello
        .ok_or_else(|| CoreError::Keeper(LinkError::Nonsense("a hand-over without a hello".to_owned())))?;
    Ok(HandOver { hello, stored, upgrade, safe, told })
}

/// What a killed core had in hand of somebody's output, or a new one.
pub(super) async fn hand(keeper: &KeeperLink, fds: Option<Vec<OwnedFd>>) -> Result<Hand, CoreError> {
    if let Some(fds) = fds.and_then(|fds| <[OwnedFd; 3]>::try_from(fds).ok()) {
        return Ok(Hand::from_stored(fds));
    }
    let hand = Hand::new().map_err(starting("make the hand of the log capture"))?;
    let message = ToKeeper::Store { name: stored::HAND.to_vec() };
    keeper.send(&message, &hand.descriptors()).await.map_err(CoreError::Keeper)?;
    Ok(hand)
}
