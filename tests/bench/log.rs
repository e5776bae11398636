//! What an event costs its service, and the way of records to a file, against `tracing-subscriber`'s own layer that
//! writes to a file; and what asks cost beside it, also when its collector takes nothing.

use std::env;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use watchdog_tests::events::{disabled, enabled};

use crate::asker::{Askers, answered};
use crate::ratio::Rounds;

const ROUNDS: usize = 21;

/// Events of one burst: all of them find room to wait in.
const EVENTS: u32 = 5_000;

/// Asks of one burst, and how many bursts: each ask is followed by a rest.
const ASKS: u32 = 1_000;
const BURSTS: usize = 15;

/// While a burst is looked for in the file.
const LOOK: Duration = Duration::from_micros(200);

pub(crate) fn run() {
    // One file for the whole run: whoever reads along need not follow it through rotations.
    let mut askers = Askers::logged("outputs.file.max_size = \"64GiB\"");
    let mut records = Records::open(askers.path(".watchdog/logs/records/asker-0.jsonl"));
    let mut scribe = Scribe::start();
    // The first burst of each warms its caches and is not counted.
    let _warm = askers.each("log", 0, EVENTS);
    records.until(EVENTS);
    scribe.burst("log", EVENTS);

    let quiet = || askers.each("quiet", 0, 1_000_000)[0];
    Rounds::measure("log_disabled", ROUNDS, quiet, || scribe.burst("quiet", 1_000_000)).report();
    let log = || {
        let took = askers.each("log", 0, EVENTS)[0];
        records.until(EVENTS);
        took
    };
    Rounds::measure("log_enabled", ROUNDS, log, || scribe.burst("log", EVENTS)).report();
    let end_to_end = || {
        let begin = Instant::now();
        askers.each("log", 0, EVENTS);
        records.until(EVENTS);
        begin.elapsed()
    };
    Rounds::measure("log_end_to_end", ROUNDS, end_to_end, || scribe.burst("log", EVENTS)).report();
    drop(scribe);

    let mut plain = Askers::start(1);
    compare(["log_ask_p50", "log_ask_p99"], &mut askers, &mut plain);
    drop(askers);
    let collectors = [
        (["log_gone_p50", "log_gone_p99"], Collector::gone()),
        (["log_silent_p50", "log_silent_p99"], Collector::silent()),
        (["log_killed_p50", "log_killed_p99"], Collector::killed()),
    ];
    for (keys, Collector { at, .. }) in &collectors {
        let output = format!("outputs.collector = {{ kind = \"otlp\", endpoint = \"http://{at}\" }}");
        compare(*keys, &mut Askers::logged(&output), &mut plain);
    }
}

/// Asks beside a logging service, against those where there is none.
fn compare([p50, p99]: [&'static str; 2], logged: &mut Askers, plain: &mut Askers) {
    let mut pairs = (Vec::new(), Vec::new());
    for round in 0..=BURSTS {
        let (with, without) = (logged.each("times", 64, ASKS), plain.each("times", 64, ASKS));
        // The first of each warms its caches and is not counted.
        if round > 0 {
            pairs.0.push((at(&with, 0.5), at(&without, 0.5)));
            pairs.1.push((at(&with, 0.99), at(&without, 0.99)));
        }
    }
    Rounds::of(p50, pairs.0).report();
    Rounds::of(p99, pairs.1).report();
}

/// A collector that takes nothing.
struct Collector {
    at: SocketAddr,
    _silent: Option<TcpListener>,
}

impl Collector {
    /// Nobody is there.
    fn gone() -> Self {
        Self { _silent: None, ..Self::silent() }
    }

    /// It takes connections, as far as the kernel does, and no byte.
    fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { at: listener.local_addr().expect("its address"), _silent: Some(listener) }
    }

    /// It breaks each connection in the middle of a request.
    fn killed() -> Self {
        let Self { at, _silent: listener } = Self::silent();
        let listener = listener.expect("it was just made");
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut some = [0; 256];
                // Whatever comes of it: it is broken.
                let _ = connection.and_then(|mut connection| connection.read(&mut some));
            }
        });
        Self { at, _silent: None }
    }
}

/// The time that this part of them did not take longer than.
fn at(times: &[Duration], part: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

/// The file of records, read from where it was read to.
struct Records {
    path: PathBuf,
    read: u64,
}

impl Records {
    fn open(path: PathBuf) -> Self {
        Self { path, read: 0 }
    }

    /// Waits until so many more events are written.
    fn until(&mut self, count: u32) {
        let mut found = 0;
        while found < count {
            thread::sleep(LOOK);
            let Ok(mut file) = File::open(&self.path) else { continue };
            file.seek(SeekFrom::Start(self.read)).expect("a place in it");
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("it can be read");
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            self.read += whole as u64;
            let is_event = |line: &&[u8]| line.windows(14).any(|part| part == b"\"kind\":\"event\"");
            let events = bytes[..whole].split(|byte| *byte == b'\n').filter(is_event).count();
            found += u32::try_from(events).expect("a burst");
        }
    }
}

/// The floor: a process whose events go into a file by the layer of `tracing-subscriber`.
struct Scribe {
    process: Child,
    answers: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Scribe {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut process = Command::new(env::current_exe().expect("the path of this program"))
            .arg("scribe")
            .arg(folder.path().join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, answers, _folder: folder }
    }

    fn burst(&mut self, what: &str, count: u32) -> Duration {
        let stdin = self.process.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{what} {count}").expect("it reads");
        answered(&mut self.answers)[0]
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _reaped = self.process.wait();
    }
}

/// The other side: does what it is told at standard input.
pub(crate) fn scribe(path: &str) {
    let file = File::create(path).expect("a file");
    tracing_subscriber::fmt().with_writer(file).with_ansi(false).init();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let (what, count) = line.split_once(' ').expect("what and how often");
        let count = count.parse().expect("how often");
        let took = if what == "log" { enabled(count) } else { disabled(count) };
        println!("{}", took.as_nanos());
    }
}
