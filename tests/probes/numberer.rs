//! A sender of the proof: tells 1, 2, 3 and so on, and notes each number once the lane has it. A process that
//! follows a killed one counts from 1 anew, and goes on until all of them together have told enough. It tells no more than the gate is open to.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use watchdog_service::{Context, ServiceError, TellError};
use watchdog_tests::contract::ProofMsg;
use watchdog_tests::proof::{gate, notes, stored};

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
    let mut open_to = 0;
    while told_before + n <= count {
        if told_before + n > open_to {
            open_to = stored(&gate(&folder));
            if told_before + n > open_to {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            continue;
        }
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
    (1..incarnation).map(|before| stored(&notes(folder, service, before))).sum()
}
