//! What a service does as a process: what it prints, takes from its environment and ends with.
//!
//! This program is the tests and, with `SERVICE` set, the service that they run.
#![expect(clippy::unwrap_used, reason = "a test, though no #[test]")]

use std::collections::BTreeMap;
use std::io::{IoSlice, Write as _};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use watchdog_protocol::Incarnation;
use watchdog_protocol::manifest::Manifest;
use watchdog_protocol::session::{FromService, Hello, SESSION_VERSION, ToService, Welcome, decode, encode};
use watchdog_seqpacket::{Received, Seqpacket};
use watchdog_service::{Context, Event, Message, MigrateError, Reply, ServiceError, State, decode_state};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match std::env::var("SERVICE").as_deref() {
        Ok("full") => watchdog_service::run(full),
        Ok("grown") => watchdog_service::run(grown),
        Ok("plain") => watchdog_service::run(plain),
        Ok("panics") => watchdog_service::run(panics),
        Ok("deaf") => watchdog_service::run(deaf),
        Ok(other) => panic!("no service {other}"),
        Err(_) => tests(),
    }
}

// ---- services ----

/// What the operator sets.
#[derive(Deserialize, JsonSchema)]
struct Settings {
    /// How much one is worth.
    #[schemars(range(min = 1))]
    #[expect(dead_code, reason = "described, not read")]
    step: u64,
}

#[derive(Serialize, Deserialize)]
struct Total(u64);

impl Default for Total {
    fn default() -> Self {
        Self(300)
    }
}

impl State for Total {
    const VERSION: u32 = 4;
}

#[derive(Message)]
enum FullMsg {
    Add,
    Total { reply: Reply<u64> },
}

async fn full(mut ctx: Context<Settings, Total, FullMsg>) -> Result<(), ServiceError> {
    while let Some(event) = ctx.next().await? {
        match event {
            Event::Message(FullMsg::Add) | Event::SettingsUpdated => {}
            Event::Message(FullMsg::Total { reply }) => reply.send(ctx.state().read(|total| total.0)),
        }
    }
    Ok(())
}

/// The next release of [`Total`].
#[derive(Default, Serialize, Deserialize)]
struct GrownTotal {
    total: u64,
    scores: BTreeMap<(u8, u8), u8>,
}

impl State for GrownTotal {
    const VERSION: u32 = 5;

    fn migrate(from: u32, old: &[u8]) -> Result<Self, MigrateError> {
        match from {
            4 => Ok(Self { total: decode_state(old)?, scores: BTreeMap::new() }),
            _ => Err(MigrateError::new("no release has written it")),
        }
    }
}

async fn grown(_: Context<(), GrownTotal, ()>) -> Result<(), ServiceError> {
    panic!("a program that shows its state does nothing else");
}

async fn plain(mut ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    assert!(std::env::var_os("WATCHDOG_SESSION").is_none(), "the variable is removed");
    tracing::info!(answer = 42, "shown");
    tracing::debug!("hidden");
    ctx.ready().await?;
    // A program started from here must not have the session.
    let kept = Command::new("ls").args(["-l", "/proc/self/fd"]).output()?;
    let sockets =
        String::from_utf8_lossy(&kept.stdout).lines().filter(|line| line.contains("socket:")).count();
    tracing::info!(sockets);
    while ctx.next().await?.is_some() {}
    Ok(())
}

async fn panics(ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    panic!("as a bug does");
}

async fn deaf(ctx: Context<(), (), ()>) -> Result<(), ServiceError> {
    ctx.ready().await?;
    std::future::pending().await
}

// ---- the watchdog's side ----

fn service(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env_clear()
        .env("SERVICE", name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

struct Core {
    socket: Seqpacket,
    child: Child,
}

impl Core {
    fn start(name: &str, welcome: &Welcome, more: &[(&str, &str)]) -> Self {
        let (socket, other) = Seqpacket::pair().unwrap();
        socket.send(&[IoSlice::new(&encode(&ToService::Welcome(welcome.clone())))], &[]).unwrap();
        // A shell hands the socket on: standard input becomes number 7, which closes with no exec.
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" 7<&0 0</dev/null"])
            .arg(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("SERVICE", name)
            .env("WATCHDOG_SESSION", "7")
            .envs(more.iter().copied())
            .stdin(std::os::fd::OwnedFd::from(other))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let core = Self { socket, child };
        match core.hear() {
            Some(FromService::Hello(Hello { version: SESSION_VERSION, pid, .. })) => {
                assert_eq!(pid, core.child.id());
            }
            other => panic!("a hello is expected, not {other:?}"),
        }
        core
    }

    /// The next message; `None` at the session's end.
    fn hear(&self) -> Option<FromService> {
        let mut buffer = vec![0; 65536];
        match self.socket.recv_by(&mut buffer, 0, Instant::now() + PATIENCE).unwrap() {
            Received::Packet(packet) => Some(decode(&buffer[..packet.length]).unwrap()),
            Received::End => None,
            other => panic!("{other:?}"),
        }
    }

    fn say(&self, message: &ToService) {
        self.socket.send(&[IoSlice::new(&encode(message))], &[]).unwrap();
    }

    /// Goes away, and waits for the service to end.
    fn go(self) -> Output {
        drop(self.socket);
        self.child.wait_with_output().unwrap()
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: SESSION_VERSION,
        service: "tested".parse().unwrap(),
        incarnation: Incarnation::FIRST,
        stop_timeout_ms: 60_000,
        max_message: 1 << 20,
        lane_bytes: 1 << 20,
        heartbeat_ms: None,
        settings: None,
        state: None,
        grant: vec![],
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

// ---- tests ----

fn a_described_service_prints_its_manifest_and_does_nothing_else() {
    let output = service("full").env("WATCHDOG_DESCRIBE", "1").output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let manifest = Manifest::parse(&output.stdout).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&manifest.settings.unwrap()).unwrap();
    assert_eq!(schema["properties"]["step"]["minimum"], 1);
    assert_eq!(schema["required"], serde_json::json!(["step"]));
    let state = manifest.state.unwrap();
    assert_eq!((state.version, state.initial), (4, vec![0xac, 0x02]));
    let names: Vec<_> = manifest.contract.0.iter().map(|shape| shape.name.as_str()).collect();
    assert_eq!(names, ["Add", "Total"]);
}

fn a_service_without_settings_state_and_messages_describes_none() {
    let output = service("plain").env("WATCHDOG_DESCRIBE", "1").output().unwrap();
    let manifest = Manifest::parse(&output.stdout).unwrap();
    assert_eq!((manifest.settings, manifest.state, manifest.contract.0), (None, None, vec![]));
}

/// What a service of this name shows of a stored state, or says against it, and its exit code.
fn shows(name: &str, version: &str, stored: &[u8]) -> (Option<i32>, String, String) {
    let mut command = service(name);
    command.env("WATCHDOG_SHOW_STATE", version).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that looks at nothing may be gone.
    let _ = child.stdin.take().unwrap().write_all(stored);
    let output = child.wait_with_output().unwrap();
    (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

fn a_stored_state_is_shown_as_json() {
    assert_eq!(shows("full", "4", &[0xac, 0x02]), (Some(0), "300\n".to_owned(), String::new()));
    let (code, shown, _) = shows("grown", "5", &[7, 0]);
    assert_eq!((code, shown.as_str()), (Some(0), "{\n  \"total\": 7,\n  \"scores\": {}\n}\n"));
}

fn an_older_state_is_shown_as_it_would_be_migrated() {
    let (code, shown, said) = shows("grown", "4", &[0xac, 0x02]);
    assert_eq!(
        (code, shown.as_str(), said.as_str()),
        (Some(0), "{\n  \"total\": 300,\n  \"scores\": {}\n}\n", "")
    );
}

fn a_state_that_can_not_be_read_is_exit_code_65_and_shows_nothing() {
    for (name, version, stored, part) in [
        ("full", "5", &[7, 0][..], "the stored state has version 5, this program reads up to 4"),
        ("full", "4", &[], "the stored state can't be read as version 4"),
        ("full", "4", &[1, 1], "1 bytes are behind the stored state"),
        ("grown", "3", &[1], "no release has written it"),
    ] {
        let (code, shown, said) = shows(name, version, stored);
        assert_eq!((code, shown.as_str()), (Some(65), ""), "{said}");
        assert!(said.contains(part), "{said}");
    }
}

fn what_can_not_be_shown_says_why_and_shows_nothing() {
    let (code, shown, said) = shows("grown", "5", &[7, 1, 1, 2, 3]);
    assert_eq!((code, shown.as_str()), (Some(1), ""));
    assert!(said.contains("because of `scores`: key must be a string"), "{said}");
    let (code, _, said) = shows("plain", "1", &[]);
    assert_eq!((code, said.as_str()), (Some(78), "error: this program has no state\n"));
    let (code, _, said) = shows("full", "one", &[]);
    assert_eq!(
        (code, said.as_str()),
        (Some(78), "error: WATCHDOG_SHOW_STATE=one is no version of a state\n")
    );
}

fn a_service_started_by_hand_says_how_to_start_it_and_is_exit_code_78() {
    let output = service("plain").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    for part in ["was not started by one", "watchdog run", "WATCHDOG_DESCRIBE=1"] {
        assert!(said.contains(part), "{said}");
    }
}

fn a_session_that_is_no_socket_is_exit_code_76() {
    let output = service("plain").env("WATCHDOG_SESSION", "2000").output().unwrap();
    assert_eq!(output.status.code(), Some(76));
    assert!(text(&output.stderr).contains("WATCHDOG_SESSION names no socket"), "{}", text(&output.stderr));
}

fn a_service_keeps_its_session_to_itself_and_logs_without_time_stamps() {
    let core = Core::start("plain", &welcome(), &[]);
    assert_eq!(core.hear(), Some(FromService::Ready));
    core.say(&ToService::Stop);
    assert_eq!(core.hear(), None);
    let output = core.go();
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(lines, [" INFO process: shown answer=42", " INFO process: sockets=0"]);
}

fn the_log_filter_is_told_by_the_environment() {
    let core = Core::start("plain", &welcome(), &[("WATCHDOG_LOG", "process=debug")]);
    core.say(&ToService::Stop);
    while core.hear().is_some() {}
    assert!(text(&core.go().stderr).contains("DEBUG process: hidden"));
    let core = Core::start("plain", &welcome(), &[("WATCHDOG_LOG", "a=b=c")]);
    core.say(&ToService::Stop);
    while core.hear().is_some() {}
    let output = core.go();
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: WATCHDOG_LOG=\"a=b=c\" is no filter") && said.contains("shown"),
        "{said}"
    );
}

fn a_panic_is_exit_code_101() {
    let core = Core::start("panics", &welcome(), &[]);
    assert_eq!(core.hear(), Some(FromService::Ready));
    assert_eq!(core.hear(), None);
    let output = core.go();
    assert_eq!(output.status.code(), Some(101));
    assert!(text(&output.stderr).contains("as a bug does"));
}

fn a_service_that_does_not_end_when_the_watchdog_is_gone_is_aborted() {
    use std::os::unix::process::ExitStatusExt;
    let core = Core::start("deaf", &Welcome { stop_timeout_ms: 1, ..welcome() }, &[]);
    assert_eq!(core.hear(), Some(FromService::Ready));
    let output = core.go();
    assert_eq!(output.status.signal(), Some(6));
    assert!(text(&output.stderr).contains("did not end within its stop timeout"));
}

/// As the usual harness prints and filters, so that a test is found and run by its name.
fn tests() -> ExitCode {
    macro_rules! named {
        ($($test:ident),* $(,)?) => { [$((stringify!($test), $test as fn())),*] };
    }
    let tests = named![
        a_described_service_prints_its_manifest_and_does_nothing_else,
        a_service_without_settings_state_and_messages_describes_none,
        a_stored_state_is_shown_as_json,
        an_older_state_is_shown_as_it_would_be_migrated,
        a_state_that_can_not_be_read_is_exit_code_65_and_shows_nothing,
        what_can_not_be_shown_says_why_and_shows_nothing,
        a_service_started_by_hand_says_how_to_start_it_and_is_exit_code_78,
        a_session_that_is_no_socket_is_exit_code_76,
        a_service_keeps_its_session_to_itself_and_logs_without_time_stamps,
        the_log_filter_is_told_by_the_environment,
        a_panic_is_exit_code_101,
        a_service_that_does_not_end_when_the_watchdog_is_gone_is_aborted,
    ];
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let verdict = if std::panic::catch_unwind(test).is_ok() {
            passed += 1;
            "ok"
        } else {
            failed += 1;
            "FAILED"
        };
        println!("test {name} ... {verdict}");
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
