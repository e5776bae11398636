//! Against a collector that others have written.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use watchdog_service::log::{Event, Field, Span, Value};

use super::*;
use crate::otlp::config::Compression;
use crate::otlp::samples::context;
use crate::otlp::tests::collector::config;

/// As `tests/install` has it.
const ROTEL: &str = "rotel-0.0.1a15";

/// It prints what it gets.
struct Rotel {
    process: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
    ports: [u16; 2],
}

impl Rotel {
    fn start() -> Self {
        let target = std::env::current_exe().unwrap().ancestors().nth(3).map(PathBuf::from).unwrap();
        let program = target.join("tools").join(ROTEL).join("rotel/rotel-agent");
        assert!(program.is_file(), "{} is not there: run tests/install", program.display());
        // Free a moment ago. Two at once, so that they are two.
        let ports = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = ports.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let mut process = Command::new(program)
            .args(["start", "--exporter", "blackhole", "--debug-log", "logs", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports[0])])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports[1])])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = mpsc::channel();
        let out = BufReader::new(process.stdout.take().unwrap());
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        Self { process, lines, printed: Vec::new(), ports }
    }

    /// Waits until so many lines have these words.
    fn until(&mut self, count: usize, words: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.printed.iter().filter(|line| line.contains(words)).count() < count {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.printed.push(line),
                Err(error) => panic!("{words:?} not {count} times, {error}:\n{}", self.printed.join("\n")),
            }
        }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
async fn a_real_collector_reads_what_is_sent_over_either_protocol() {
    let mut rotel = Rotel::start();
    for (protocol, compression, port, name) in [
        (Protocol::Grpc, Compression::None, rotel.ports[0], "grpc"),
        (Protocol::Http, Compression::Gzip, rotel.ports[1], "http"),
    ] {
        let mut config = config(protocol, &format!("http://127.0.0.1:{port}"));
        config.compression = compression;
        let exporter = Told::start(config);
        let (Record::Event(event), Record::Span(span)) = (event(&format!("late by {name}")), span(name))
        else {
            unreachable!("they are")
        };
        let within = context(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        let field = Field { key: "peer".to_owned(), value: Value::Text(format!("of {name}")) };
        let event = Record::Event(Event { within: Some(within), fields: vec![field], ..event });
        let span = Record::Span(Span { context: within, ..span });
        exporter.push(&records(&format!("counter-{name}"), vec![event, span]));
        let report = exporter.end().await;
        assert_eq!((report.tally.accepted, report.tally.lost(), report.trouble), (2, 0, None));
        for words in ["service.name: Str(counter-", "Body: Str(late by ", "peer: Str(of "] {
            rotel.until(1, &format!("{words}{name})"));
        }
    }
    // Of two events and two spans.
    for words in ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "process.pid: Int(4711)"] {
        rotel.until(4, words);
    }
}
