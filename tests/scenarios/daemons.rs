//! Daemons as a distribution ships them: supervised as they are, while their own clients load them.
//!
//! `tests/install` brings them. A test whose daemon is missing fails: nothing would be known then.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tempfile::TempDir;
use watchdog_protocol::status::PhaseStatus;
use watchdog_tests::until::until;
use watchdog_tests::{Seen, TestWatchdog, program};

/// Who a database runs as when the tests run as root: it refuses to be root.
const NOBODY: u32 = 65534;

/// A program of a package.
fn tool(name: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    // Debian keeps one folder for each version of this one.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    let found = versions.into_iter().rev().chain(folders).map(|folder| folder.join(name));
    found
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no {name}: tests/install brings it"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// One that nobody listens at.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(tool(program));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A client that is ended, however the test ends.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        // An error is that it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client under load, to its end: whether it was served all it asked for.
fn served(client: &mut Child) -> bool {
    until("the end of a client", String::new, || client.try_wait().expect("a child of ours")).success()
}

/// Whether the program printed this. Asked by what it says: under load, a number of last lines is no time.
fn printed(wd: &TestWatchdog, name: &str, says: &str) -> bool {
    wd.cli(&["logs", name, "-n", "1", "--grep", says]).ok().stdout.contains(says)
}

/// Stops it, which it takes as its own word for a good end.
fn stops_well(wd: &TestWatchdog, name: &str) {
    wd.cli(&["stop", name]).ok();
    let seen = wd.until("it is stopped", |seen| seen.of(name).is(PhaseStatus::Stopped));
    assert_eq!(seen.of(name).cause(), "operator");
    let ended = wd.events().into_iter().rfind(|event| event.what == "ended").expect("its end");
    assert!(ended.text.contains("ended in time (exit code 0)"), "{ended:?}");
}

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

#[test]
fn nginx_is_reloaded_without_an_error_of_its_clients_and_comes_back_when_it_is_killed() {
    let port = port();
    let mut wd = TestWatchdog::idle();
    let folder = wd.folder().display().to_string();
    let config = format!("{folder}/nginx.conf");
    let configure = |says: &str| {
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths: String = paths.iter().map(|name| format!("{name}_temp_path {folder}/{name};\n")).collect();
        let text = format!(
            "daemon off;\npid {folder}/nginx.pid;\nerror_log stderr notice;\nworker_processes 2;\nevents {{}}\n\
             http {{\naccess_log /dev/stdout;\n{paths}\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 {says}; }} }}\n}}\n"
        );
        fs::write(&config, text).expect("it is written");
    };
    configure("one");
    let nginx = tool("nginx");
    let ready = format!("ready = {{ http = \"http://127.0.0.1:{port}/\" }}");
    let entry = program("nginx", &[text(&nginx), "-e", "stderr", "-c", &config])
        .key(&ready)
        .key("stop_signal = \"QUIT\"");
    wd.configure("", &[entry]);
    wd.run_again();
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("nginx").incarnation;

    let (over, failed, last) = (AtomicBool::new(false), Mutex::new(Vec::new()), Mutex::new(String::new()));
    thread::scope(|threads| {
        let load = || {
            while !over.load(Ordering::Relaxed) {
                match get(port) {
                    Ok(body) => *last.lock().expect("whole") = body,
                    Err(err) => failed.lock().expect("whole").push(err.to_string()),
                }
            }
        };
        let clients = [threads.spawn(load), threads.spawn(load)];
        wd.until_some("the clients are served", || (*last.lock().expect("whole") == "one").then_some(()));
        configure("two");
        wd.cli(&["kill", "--signal", "HUP", "nginx"]).ok();
        wd.kill_core();
        wd.until_some("the new configuration", || (*last.lock().expect("whole") == "two").then_some(()));
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client ends");
        }
    });
    assert_eq!(*failed.lock().expect("whole"), Vec::<String>::new());
    assert_eq!(wd.status().of("nginx").starts, 1);
    wd.until_some("what it printed", || {
        let both = ["reconfiguring", "\"GET / HTTP/1.0\" 200"].iter().all(|says| printed(&wd, "nginx", says));
        both.then_some(())
    });

    // Its workers hold the port: as long as one of them lives there is no next process.
    wd.kill("nginx", Signal::SIGKILL);
    wd.until("the next one is ready", |seen| seen.of("nginx").is_ready_after(first));
    assert_eq!(get(port).expect("it serves"), "two");
    stops_well(&wd, "nginx");
    assert!(get(port).is_err(), "something still serves");
}

fn redis(port: u16, says: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(format!("{says}\r\nQUIT\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn redis_keeps_what_it_acknowledged_and_its_load_does_not_notice_the_death_of_the_core() {
    let (port, server) = (port(), tool("redis-server"));
    let number = port.to_string();
    let mut wd = TestWatchdog::idle();
    let folder = wd.folder().display().to_string();
    let entry = program(
        "redis",
        &[
            text(&server),
            "--port",
            &number,
            "--bind",
            "127.0.0.1",
            "--dir",
            &folder,
            "--save",
            "",
            "--appendonly",
            "yes",
        ],
    );
    wd.configure("", &[entry.key("ready = { log = \"Ready to accept connections\" }")]);
    wd.run_again();
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("redis").incarnation;
    assert!(redis(port, "SET kept yes").expect("it serves").starts_with("+OK"));

    let load = |count: &str| {
        command("redis-benchmark", &["-p", &number, "-n", count, "-t", "set,get", "-q"])
            .spawn()
            .expect("it runs")
    };
    let mut client = load("20000");
    wd.kill_core();
    assert!(served(&mut client), "a client was cut off");
    assert_eq!(wd.status().of("redis").starts, 1);

    // Without an end of its own. What it does when its server dies is its own affair: it may as well try for ever.
    let mut client = Load(load("1000000000"));
    wd.until_some("it is loaded", || {
        redis(port, "INFO stats").ok().filter(|stats| !stats.contains("instantaneous_ops_per_sec:0\r"))
    });
    wd.kill("redis", Signal::SIGKILL);
    let ended = client.0.try_wait().expect("a child of ours");
    assert!(ended.is_none_or(|status| !status.success()), "a client was served by a dead server");
    drop(client);
    wd.until("the next one is ready", |seen| seen.of("redis").is_ready_after(first));
    assert!(redis(port, "GET kept").expect("it serves").starts_with("$3\r\nyes"));
    stops_well(&wd, "redis");
    assert!(printed(&wd, "redis", "bye bye"));
}

/// A cluster of its own, in a folder that its user may use.
struct Database {
    folder: TempDir,
    port: u16,
    user: Option<u32>,
}

impl Database {
    fn make() -> Self {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().expect("a fresh folder");
        let user = Uid::effective().is_root().then_some(NOBODY);
        if let Some(user) = user {
            chown(folder.path(), Some(user), Some(user)).expect("root may");
        }
        let this = Self { folder, port: port(), user };
        let made =
            this.command("initdb", &["-D", &this.data(), "-U", "me", "-A", "trust", "--no-sync"]).status();
        assert!(made.expect("initdb runs").success(), "no cluster was made");
        this.set("listen_addresses = ''");
        this
    }

    fn data(&self) -> String {
        format!("{}/data", self.folder.path().display())
    }

    fn set(&self, line: &str) {
        let path = format!("{}/postgresql.conf", self.data());
        let mut file = fs::OpenOptions::new().append(true).open(path).expect("its configuration");
        writeln!(file, "{line}").expect("it is written");
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = command(name, args);
        command.current_dir(self.folder.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// A client, with where to connect to.
    fn client(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.command(name, args);
        let port = self.port.to_string();
        command
            .env("PGHOST", self.folder.path())
            .env("PGPORT", port)
            .env("PGUSER", "me")
            .env("PGDATABASE", "postgres");
        command
    }

    fn sql(&self, statement: &str) -> Option<String> {
        let said =
            self.client("psql", &["-tAc", statement]).stdout(Stdio::piped()).output().expect("psql runs");
        said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }
}

#[test]
fn postgresql_is_reloaded_under_load_and_after_a_kill_its_commits_are_there() {
    let database = Database::make();
    let (server, asks) = (tool("postgres"), tool("pg_isready"));
    let (folder, data, port) =
        (database.folder.path().display().to_string(), database.data(), database.port.to_string());
    let ready = format!("ready = {{ exec = [{asks:?}, \"-h\", {folder:?}, \"-p\", \"{port}\"] }}");
    let mut entry = program("postgres", &[text(&server), "-D", &data, "-k", &folder, "-p", &port])
        .key(&ready)
        .key(&format!("dir = {folder:?}"))
        .key("stop_signal = \"INT\"");
    if let Some(user) = database.user {
        entry = entry.key(&format!("user = \"{user}\""));
    }
    let wd = TestWatchdog::run(&[entry]);
    let seen = wd.until("it is ready", Seen::all_ready);
    let first = seen.of("postgres").incarnation;
    assert!(database.client("pgbench", &["-i", "-q"]).status().expect("pgbench runs").success());
    assert!(database.sql("create table kept as select 42 as n").is_some());

    let load =
        |count: &str| database.client("pgbench", &["-c", "2", "-t", count]).spawn().expect("pgbench runs");
    let mut client = load("200");
    database.set("work_mem = '9MB'");
    wd.cli(&["kill", "--signal", "HUP", "postgres"]).ok();
    wd.kill_core();
    wd.until_some("the new configuration", || database.sql("show work_mem").filter(|shown| shown == "9MB"));
    assert!(served(&mut client), "a client was cut off");
    assert_eq!(wd.status().of("postgres").starts, 1);
    assert!(printed(&wd, "postgres", "received SIGHUP"));

    let mut client = load("1000000000");
    let busy = "select count(*) from pg_stat_activity where application_name = 'pgbench'";
    wd.until_some("it is loaded", || database.sql(busy).filter(|count| count == "2"));
    wd.kill("postgres", Signal::SIGKILL);
    assert!(!served(&mut client), "a client was served by a dead server");
    // Its children outlive it for a moment, and hold what the next one needs.
    wd.until("the next one is ready", |seen| seen.of("postgres").is_ready_after(first));
    assert_eq!(database.sql("select n from kept").as_deref(), Some("42"));
    assert!(printed(&wd, "postgres", "was not properly shut down"));
    stops_well(&wd, "postgres");
    assert!(printed(&wd, "postgres", "database system is shut down"));
}
