//! Saves and measures. Takes lines at the socket ASKER_AT and answers each with nanoseconds:
//!
//! ```text
//! save SIZE COUNT     changes its state to so many bytes and saves it, so often       all of them
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use watchdog_service::{Context, ServiceError, State};

/// What is saved. A text: its bytes are encoded as one run.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    text: String,
}

impl State for Saved {
    const VERSION: u32 = 1;
}

fn main() -> ExitCode {
    watchdog_service::run(saver)
}

async fn saver(mut ctx: Context<(), Saved, ()>) -> Result<(), ServiceError> {
    let listener = UnixListener::bind(std::env::var("ASKER_AT")?)?;
    ctx.ready().await?;
    let (stream, _) = listener.accept().await?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // Whoever drives it is gone before the watchdog stops it, or kills it.
    while stream.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["save", size, count] = words[..] else { return Err(ServiceError::new("save SIZE COUNT")) };
        let took = save(&mut ctx, size.parse()?, count.parse()?).await?;
        stream.write_all(format!("{}\n", took.as_nanos()).as_bytes()).await?;
        line.clear();
    }
    while ctx.next().await?.is_some() {}
    Ok(())
}

async fn save(ctx: &mut Context<(), Saved, ()>, size: usize, count: u32) -> Result<Duration, ServiceError> {
    let begin = Instant::now();
    for number in 0..count {
        let text = (number % 10).to_string().repeat(size);
        ctx.state().update(|saved| saved.text = text);
        ctx.state().save().await?;
    }
    Ok(begin.elapsed())
}
