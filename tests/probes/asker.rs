//! Asks `echo` and measures: takes `SIZE COUNT` lines at the socket ASKER_AT, asks so often with so many bytes,
//! one after the other, and answers the nanoseconds all of them took.

use std::process::ExitCode;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use watchdog_service::{Context, Intercom, ServiceError};
use watchdog_tests::contract::EchoMsg;

fn main() -> ExitCode {
    watchdog_service::run(asker)
}

async fn asker(mut ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    let listener = UnixListener::bind(std::env::var("ASKER_AT")?)?;
    let echo = ctx.intercom::<EchoMsg>("echo").await?;
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
        let (size, count) = line.trim().split_once(' ').ok_or_else(|| ServiceError::new("SIZE COUNT"))?;
        let (size, count): (usize, u32) = (size.parse()?, count.parse()?);
        let begin = Instant::now();
        for _ in 0..count {
            let bytes = vec![7; size];
            let back = echo.ask(|reply| EchoMsg::Echo { bytes, reply }).await?;
            assert_eq!(back.len(), size, "an echo is as long as what it answers");
        }
        let took = begin.elapsed().as_nanos();
        stream.write_all(format!("{took}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
