//! The receiver of the proof: notes each number, who told it and whether it was delivered before, and only then
//! asks for the next.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use watchdog_service::{Context, Event, ServiceError};
use watchdog_tests::contract::ProofMsg;
use watchdog_tests::proof::{line, notes};

fn main() -> ExitCode {
    watchdog_service::run(recorder)
}

async fn recorder(mut ctx: Context<(), (), ProofMsg>) -> Result<(), ServiceError> {
    let folder = PathBuf::from(std::env::var("NOTES")?);
    let path = notes(&folder, ctx.service().as_str(), ctx.incarnation().get());
    let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        if let Event::Message(ProofMsg::Number { incarnation, n }) = event {
            let delivery = ctx.delivery();
            let sender = delivery.sender().as_str().chars().next_back().unwrap_or('?');
            // One write: a kill leaves the whole line or, between two pages of the file, its beginning.
            file.write_all(line(sender, incarnation, n, delivery.redelivered()).as_bytes())?;
        }
    }
    Ok(())
}
