//! Talks to ECHO (`echo` unless set) and measures. Takes lines at the socket ASKER_AT and answers each with
//! nanoseconds:
//!
//! ```text
//! ask SIZE COUNT      asks so often with so many bytes, one after the other         all of them
//! feed SIZE COUNT     feeds so many and asks whether all are handled                all of them
//! rest SIZE COUNT     asks so often, resting for 5 ms before each                   each of them
//! times SIZE COUNT    asks so often, one after the other                            each of them
//! log SIZE COUNT      makes so many events that are recorded                        all of them
//! quiet SIZE COUNT    makes so many that the filter leaves out                      all of them
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use watchdog_service::{Context, Intercom, ServiceError};
use watchdog_tests::contract::EchoMsg;
use watchdog_tests::events;

const REST: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    watchdog_service::run(asker)
}

async fn asker(mut ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    let listener = UnixListener::bind(std::env::var("ASKER_AT")?)?;
    let echo = std::env::var("ECHO").unwrap_or_else(|_| "echo".to_owned());
    let echo = ctx.intercom::<EchoMsg>(echo).await?;
    ctx.ready().await?;
    tokio::select! {
        event = ctx.next() => { event?; }
        served = serve(&listener, &echo) => served?,
    }
    Ok(())
}

async fn serve(listener: &UnixListener, echo: &Intercom<EchoMsg>) -> Result<(), ServiceError> {
    let (stream, _) = listener.accept().await?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, size, count] = words[..] else { return Err(ServiceError::new("WHAT SIZE COUNT")) };
        let (size, count): (usize, u64) = (size.parse()?, count.parse()?);
        let times = match what {
            "ask" => ask(echo, size, count).await?,
            "feed" => feed(echo, size, count).await?,
            "rest" => rest(echo, size, count, REST).await?,
            "times" => rest(echo, size, count, Duration::ZERO).await?,
            "log" => vec![events::enabled(u32::try_from(count)?)],
            "quiet" => vec![events::disabled(u32::try_from(count)?)],
            _ => return Err(ServiceError::new("ask, feed, rest, times, log or quiet")),
        };
        let times: Vec<String> = times.iter().map(|time| time.as_nanos().to_string()).collect();
        stream.write_all(format!("{}\n", times.join(" ")).as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

async fn ask(echo: &Intercom<EchoMsg>, size: usize, count: u64) -> Result<Vec<Duration>, ServiceError> {
    let begin = Instant::now();
    for _ in 0..count {
        once(echo, size).await?;
    }
    Ok(vec![begin.elapsed()])
}

async fn once(echo: &Intercom<EchoMsg>, size: usize) -> Result<(), ServiceError> {
    let bytes = vec![7; size];
    let back = echo.ask(|reply| EchoMsg::Echo { bytes, reply }).await?;
    assert_eq!(back.len(), size, "an echo is as long as what it answers");
    Ok(())
}

async fn feed(echo: &Intercom<EchoMsg>, size: usize, count: u64) -> Result<Vec<Duration>, ServiceError> {
    let before = echo.ask(|reply| EchoMsg::Taken { reply }).await?;
    let begin = Instant::now();
    for _ in 0..count {
        echo.feed(EchoMsg::Take { bytes: vec![7; size] }).await?;
    }
    echo.flush().await?;
    // Behind all that was fed.
    let taken = echo.ask(|reply| EchoMsg::Taken { reply }).await? - before;
    let took = begin.elapsed();
    assert_eq!(taken, count, "each is handled once");
    Ok(vec![took])
}

async fn rest(
    echo: &Intercom<EchoMsg>,
    size: usize,
    count: u64,
    between: Duration,
) -> Result<Vec<Duration>, ServiceError> {
    let mut times = Vec::new();
    for _ in 0..count {
        tokio::time::sleep(between).await;
        let begin = Instant::now();
        once(echo, size).await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}
