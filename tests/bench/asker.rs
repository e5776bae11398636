//! Services under a watchdog that do something when told to, and say how long it took.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use watchdog_tests::{Entry, Seen, TestWatchdog, logging_service, probe};

/// Those that are told.
pub(crate) struct Askers {
    askers: Vec<BufReader<UnixStream>>,
    watchdog: TestWatchdog,
}

impl Askers {
    /// Starts so many pairs: one of each answers, the other asks.
    pub(crate) fn start(pairs: usize) -> Self {
        Self::of(pairs, |pair| {
            let echo = format!("echo-{pair}");
            let asker = probe(&format!("asker-{pair}"), "asker", &[]).env("ECHO", &echo);
            (asker, vec![probe(&echo, "echo", &[]).with_session()])
        })
    }

    /// Starts one pair beside a logging service of these settings.
    pub(crate) fn logged(settings: &str) -> Self {
        Self::of(1, |_| {
            let logging = logging_service().settings(settings);
            let others = vec![probe("echo", "echo", &[]).with_session(), logging];
            (probe("asker-0", "asker", &[]), others)
        })
    }

    /// A path in the folder of the watchdog.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.watchdog.path(name)
    }

    /// Starts so many services that save.
    pub(crate) fn savers(count: usize) -> Self {
        Self::of(count, |number| (probe(&format!("saver-{number}"), "saver", &[]), Vec::new()))
    }

    /// Each with those it works with.
    fn of(count: usize, entries: impl Fn(usize) -> (Entry, Vec<Entry>)) -> Self {
        let mut watchdog = TestWatchdog::idle();
        let sockets: Vec<_> = (0..count).map(|number| watchdog.path(&format!("{number}.sock"))).collect();
        let with_socket = |(number, socket): (usize, &PathBuf)| {
            let (told, mut entries) = entries(number);
            entries.push(told.with_session().env("ASKER_AT", socket.display().to_string()));
            entries
        };
        let entries: Vec<Entry> = sockets.iter().enumerate().flat_map(with_socket).collect();
        watchdog.configure("", &entries);
        watchdog.run_again();
        watchdog.until("all are ready", Seen::all_ready);
        let connect = |socket| {
            let stream = UnixStream::connect(socket).expect("it listens before it is ready");
            fs::remove_file(socket).expect("one connection is enough");
            BufReader::new(stream)
        };
        Self { askers: sockets.iter().map(connect).collect(), watchdog }
    }

    /// Has each do `what` with `size` bytes `count` times, all at once, and gives the times they answer.
    pub(crate) fn each(&mut self, what: &str, size: usize, count: u32) -> Vec<Duration> {
        // One write each: a line in pieces would wake an asker for every piece.
        let line = format!("{what} {size} {count}\n");
        for asker in &mut self.askers {
            asker.get_mut().write_all(line.as_bytes()).expect("the asker reads");
        }
        let mut times = Vec::new();
        for asker in &mut self.askers {
            times.extend(answered(asker));
        }
        times
    }
}

/// The nanoseconds of a line.
pub(crate) fn answered(from: &mut impl BufRead) -> Vec<Duration> {
    let mut line = String::new();
    from.read_line(&mut line).expect("an answer");
    let nanos = |word: &str| Duration::from_nanos(word.parse().expect("nanoseconds"));
    line.split_whitespace().map(nanos).collect()
}
