//! A service against a played watchdog, each promise of the session by itself.

mod ending;
mod lanes;
mod requests;
mod settings;
mod state;

use watchdog_protocol::session::FromService;

use super::fake_core::*;
use super::*;

fn last_word_of(said: &[FromService]) -> &str {
    match said.last() {
        Some(FromService::LastWord { reason }) => reason,
        other => panic!("a last word is expected, not {other:?}"),
    }
}

/// Asks for events until there are none.
async fn idle<S: Settings, T: State>(mut ctx: Context<S, T, ()>) -> Result<(), ServiceError> {
    while ctx.next().await?.is_some() {}
    Ok(())
}
