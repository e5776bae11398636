//! Saves and measures. Takes lines at the socket ASKER_AT and answers each with nanoseconds:
//!
//! ```text
//! save SIZE COUNT     changes its state to so many bytes and saves it, so often       all of them
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
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
    // Between two saves it waits outside of the runtime: nothing else is to be done.
    let (stream, _) = listener.accept()?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    // Whoever drives it is gone before the watchdog stops it, or kills it.
    while wait_for_line(stream.get_ref())? && stream.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["save", size, count] = words[..] else { return Err(ServiceError::new("save SIZE COUNT")) };
        let took = save(&mut ctx, size.parse()?, count.parse()?).await?;
        let answer = format!("{}\n", took.as_nanos());
        stream.get_mut().write_all(answer.as_bytes())?;
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

/// Sleeps until there is something to read, and for that alone: who waits in a read, or watches for room to write as tokio's
/// streams do, is woken once more when its answer is read, amid the saves of the others.
fn wait_for_line(stream: &UnixStream) -> nix::Result<bool> {
    let mut watched = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::NONE).map(|ready| ready > 0)
}
