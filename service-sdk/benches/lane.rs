//! What a lane costs, between two real services whose watchdog is played here: the round trip of an `ask` against a
//! bare ping-pong of two processes, and how many messages a second `feed` and `tell` bring across.
//!
//! This program is the measurement and, with `SERVICE` set, the services it runs.
#![expect(clippy::unwrap_used, reason = "a measurement that fails says where")]

use std::io::{BufRead as _, BufReader, IoSlice, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use watchdog_protocol::limits::{DEFAULT_LANE_BYTES, DEFAULT_MAX_MESSAGE, MAX_PACKET};
use watchdog_protocol::session::{
    FromService, LaneIn, LaneOut, SESSION_VERSION, ToService, Welcome, decode, encode,
};
use watchdog_protocol::{Incarnation, LaneEpoch};
use watchdog_seqpacket::{Received, ReceiverPage, SenderPage, Seqpacket};
use watchdog_service::{Context, Event, Message, Reply, ServiceError};

const PATIENCE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 15;

#[derive(Message)]
enum EchoMsg {
    Echo(Vec<u8>, Reply<Vec<u8>>),
    Put(Vec<u8>),
}

fn main() -> ExitCode {
    match std::env::var("SERVICE").as_deref() {
        Ok("echo") => watchdog_service::run(echo),
        Ok("asker") => watchdog_service::run(asker),
        Ok("pong") => pong(),
        Ok(other) => panic!("no service {other}"),
        Err(_) => measure(),
    }
}

async fn echo(mut ctx: Context<(), (), EchoMsg>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    while let Some(event) = ctx.next().await? {
        match event {
            Event::Message(EchoMsg::Echo(bytes, reply)) => reply.send(bytes),
            Event::Message(EchoMsg::Put(_)) | Event::SettingsUpdated => {}
        }
    }
    Ok(())
}

/// Does a burst for each line on standard input: what, bytes, count; and prints its nanoseconds.
async fn asker(ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    let echo = ctx.intercom::<EchoMsg>("echo").await?;
    let commands = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut answers = commands.try_clone()?;
    for line in BufReader::new(commands).lines() {
        let line = line?;
        let mut words = line.split(' ');
        let (what, size, count) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let (bytes, count) = (vec![7_u8; size.parse()?], count.parse::<u32>()?);
        let begin = Instant::now();
        for _ in 0..count {
            match what {
                "ask" => {
                    let answer = echo.ask(|reply| EchoMsg::Echo(bytes.clone(), reply)).await?;
                    assert_eq!(answer.len(), bytes.len());
                }
                "feed" => echo.feed(EchoMsg::Put(bytes.clone())).await?,
                "tell" => echo.tell(EchoMsg::Put(bytes.clone())).await?,
                _ => unreachable!(),
            }
        }
        echo.flush().await?;
        // Behind all that was told: it has been handled.
        if what != "ask" {
            echo.ask(|reply| EchoMsg::Echo(vec![], reply)).await?;
        }
        writeln!(answers, "{}", begin.elapsed().as_nanos())?;
    }
    Ok(())
}

fn pong() -> ExitCode {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; std::env::var("SIZE").unwrap().parse().unwrap()];
    while socket.read_exact(&mut bytes).is_ok() && socket.write_all(&bytes).is_ok() {}
    ExitCode::SUCCESS
}

// ---- the watchdog's side ----

/// Measures what is named, or all.
fn measure() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let asks = [
        ("ask_64_one_core", 64, Cores::One, 4000),
        ("ask_60000_one_core", 60_000, Cores::One, 1000),
        ("ask_64k_one_core", 64 * 1024, Cores::One, 1000),
        ("ask_100k_one_core", 100 * 1024, Cores::One, 500),
        ("ask_64_two_cores", 64, Cores::All, 4000),
    ];
    for (key, size, cores, count) in asks.into_iter().filter(|(key, ..)| key.contains(&wanted)) {
        pin(cores);
        let (mut services, mut ping) = (Services::start(), Ping::start(size));
        let mut rounds: Vec<_> = (0..=ROUNDS)
            .map(|_| (services.burst("ask", size, count) / count, ping.burst(count) / count))
            // The first one warms caches.
            .skip(1)
            .map(|(product, floor)| (product.as_secs_f64() / floor.as_secs_f64(), product, floor))
            .collect();
        rounds.sort_by(|one, other| one.0.total_cmp(&other.0));
        let ((lowest, ..), (ratio, product, floor), (highest, ..)) =
            (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        println!(
            "ratio {key} {ratio:.2} (n={ROUNDS}, {lowest:.2}..{highest:.2}) {product:?} against {floor:?}"
        );
    }
    let told = [
        ("tell_64_one_core", "tell", Cores::One),
        ("feed_64_one_core", "feed", Cores::One),
        ("tell_64_two_cores", "tell", Cores::All),
        ("feed_64_two_cores", "feed", Cores::All),
    ];
    for (key, what, cores) in told.into_iter().filter(|(key, ..)| key.contains(&wanted)) {
        pin(cores);
        let mut services = Services::start();
        let count = 200_000;
        let mut rates: Vec<_> =
            (0..ROUNDS).map(|_| f64::from(count) / services.burst(what, 64, count).as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        let [lowest, rate, highest] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| rates[at] / 1e6);
        println!("rate {key} {rate:.2} M/s (n={ROUNDS}, {lowest:.2}..{highest:.2})");
    }
    ExitCode::SUCCESS
}

/// Where both sides of a figure run.
#[derive(Clone, Copy)]
enum Cores {
    One,
    All,
}

/// Moves this process, and all it starts from now on.
fn pin(cores: Cores) {
    let cores = match cores {
        Cores::One => "1",
        Cores::All => "0-1023",
    };
    let this = std::process::id().to_string();
    let moved =
        Command::new("taskset").args(["-p", "-c", cores, &this]).stdout(Stdio::null()).status().unwrap();
    assert!(moved.success());
}

struct Ping {
    socket: UnixStream,
    bytes: Vec<u8>,
    child: Child,
}

impl Ping {
    fn start(size: usize) -> Self {
        let (socket, other) = UnixStream::pair().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .env("SERVICE", "pong")
            .env("SIZE", size.to_string())
            .stdin(OwnedFd::from(other))
            .spawn()
            .unwrap();
        Self { socket, bytes: vec![7; size], child }
    }

    fn burst(&mut self, count: u32) -> Duration {
        let begin = Instant::now();
        for _ in 0..count {
            self.socket.write_all(&self.bytes).unwrap();
            self.socket.read_exact(&mut self.bytes).unwrap();
        }
        begin.elapsed()
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two services and a lane between them.
struct Services {
    commands: UnixStream,
    answers: BufReader<UnixStream>,
    sessions: Vec<Seqpacket>,
    children: Vec<Child>,
}

impl Services {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (echo, child) = start("echo", Stdio::null());
        let mut children = vec![child];
        let (asker, child) = start("asker", OwnedFd::from(theirs).into());
        children.push(child);

        let (sender_end, receiver_end) = Seqpacket::pair().unwrap();
        for end in [&sender_end, &receiver_end] {
            end.set_send_bound(DEFAULT_LANE_BYTES).unwrap();
        }
        let (sender_page, receiver_page) = (SenderPage::create().unwrap(), ReceiverPage::create().unwrap());
        let lane = LaneEpoch::from_stored(7);
        let arrives = ToService::LaneIn(LaneIn { lane, sender: "asker".parse().unwrap() });
        say(&echo, &arrives, &[receiver_end.as_fd(), receiver_page.as_fd(), sender_page.as_fd()]);
        let request = loop {
            if let FromService::Introduce { request, .. } = hear(&asker) {
                break request;
            }
        };
        let out = LaneOut { lane, receiver: "echo".parse().unwrap(), mismatch: None };
        let introduced = ToService::Introduced { request, outcome: Ok(out) };
        say(&asker, &introduced, &[sender_end.as_fd(), sender_page.as_fd(), receiver_page.as_fd()]);
        let answers = BufReader::new(ours.try_clone().unwrap());
        Self { commands: ours, answers, sessions: vec![echo, asker], children }
    }

    fn burst(&mut self, what: &str, size: usize, count: u32) -> Duration {
        writeln!(self.commands, "{what} {size} {count}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        Duration::from_nanos(line.trim().parse().unwrap())
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.sessions.clear();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(service: &str, stdin: Stdio) -> (Seqpacket, Child) {
    let (socket, other) = Seqpacket::pair().unwrap();
    let welcome = Welcome {
        version: SESSION_VERSION,
        service: service.parse().unwrap(),
        incarnation: Incarnation::FIRST,
        stop_timeout_ms: 10_000,
        max_message: DEFAULT_MAX_MESSAGE as u64,
        lane_bytes: DEFAULT_LANE_BYTES as u64,
        heartbeat_ms: None,
        settings: None,
        state: None,
        grant: vec![],
    };
    say(&socket, &ToService::Welcome(welcome), &[]);
    // A shell hands the socket on: standard output becomes number 7, which closes with no exec.
    let child = Command::new("sh")
        .args(["-c", "exec \"$0\" 7<&1 1<&2"])
        .arg(std::env::current_exe().unwrap())
        .env("SERVICE", service)
        .env("WATCHDOG_SESSION", "7")
        .stdin(stdin)
        .stdout(OwnedFd::from(other))
        .spawn()
        .unwrap();
    (socket, child)
}

fn say(session: &Seqpacket, message: &ToService, beside: &[std::os::fd::BorrowedFd<'_>]) {
    session.send_by(&[IoSlice::new(&encode(message))], beside, Instant::now() + PATIENCE).unwrap();
}

fn hear(session: &Seqpacket) -> FromService {
    let mut buffer = vec![0; MAX_PACKET];
    match session.recv_by(&mut buffer, 1, Instant::now() + PATIENCE).unwrap() {
        Received::Packet(packet) => decode(&buffer[..packet.length]).unwrap(),
        other => panic!("a packet is expected, not {other:?}"),
    }
}
