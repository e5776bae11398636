//! A sender of the proof: tells 1, 2, 3 and so on, and notes each number once the lane has it. A process that
//! follows a killed one counts from 1 anew, and goes on until all of them together have told enough.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use watchdog_service::{Context, ServiceError, TellError};
use watchdog_tests::contract::ProofMsg;
use watchdog_tests::proof::notes;

fn main() -> ExitCode {
    watchdog_service::run(numberer)
}

async fn numberer(mut ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    let folder = PathBuf::from(std::env::var("NOTES")?);
    let count: u64 = std::env::var("COUNT")?.parse()?;
    let incarnation = ctx.incarnation().get();
    let told_before = told(&folder, ctx.service().as_str(), incarnation);
    let file = File::create_new(notes(&folder, ctx.service().as_str(), incarnation))?;
    ctx.ready().await?;
    let recorder = ctx.intercom::<ProofMsg>("recorder").await?;
    let mut n = 1;
    while told_before + n <= count {
        match recorder.tell(ProofMsg::Number { incarnation, n }).await {
            Ok(()) => {
                file.write_all_at(&n.to_le_bytes(), 0)?;
                n += 1;
            }
            // It was never in the lane: the same number again.
            Err(TellError::Full(_)) => {}
            Err(err) => return Err(err.into()),
        }
    }
    // Enough is told; what is left is to be asked to stop.
    while ctx.next().await?.is_some() {}
    Ok(())
}

/// What the processes before this one had told for sure.
fn told(folder: &Path, service: &str, incarnation: u64) -> u64 {
    let last = |before| {
        let bytes = fs::read(notes(folder, service, before)).unwrap_or_default();
        <[u8; 8]>::try_from(&bytes[..]).map_or(0, u64::from_le_bytes)
    };
    (1..incarnation).map(last).sum()
}
