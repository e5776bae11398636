//! Secret settings: they reach the service, and are shown to nobody.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use watchdog_protocol::status::{PhaseStatus, VerdictStatus};
use watchdog_tests::discreet::sum;
use watchdog_tests::{Entry, Said, Seen, TestWatchdog, probe};

/// What all canaries begin with.
const CANARY: &str = "canary7Qf3";

#[test]
fn a_secret_is_found_in_nothing_that_a_whole_life_leaves_or_prints() {
    let mut life = Life::begin();
    life.change_and_see();
    life.fail_in_all_ways();
    life.die_and_go_on();
    life.reload();
    life.look_at_everything();
    life.end();
}

/// One life of a watchdog with a service that has secrets, and all that was printed in it.
struct Life {
    wd: TestWatchdog,
    said: Vec<Said>,
    /// Where the secrets come from.
    sources: PathBuf,
}

impl Life {
    fn begin() -> Self {
        let sources = tempfile::tempdir().expect("a folder").keep();
        let wd = TestWatchdog::run(&[discreet()]);
        wd.until("it is ready", Seen::all_ready);
        Self { wd, said: Vec::new(), sources }
    }

    fn cli(&mut self, args: &[&str]) -> Said {
        let said = self.wd.cli(args);
        self.said.push(said.clone());
        said
    }

    /// A file with a canary of this name in it, as an argument: `@FILE`.
    fn canary(&self, name: &str, around: [&str; 2]) -> String {
        let path = self.sources.join(name);
        fs::write(&path, format!("{}{CANARY}{name}{}\n", around[0], around[1])).expect("a source is written");
        format!("@{}", path.display())
    }

    fn plain(&self, name: &str) -> String {
        self.canary(name, ["", ""])
    }

    fn change_and_see(&mut self) {
        assert_eq!(sums(&self.wd)["token"], canary_sum("plain"), "what the file says reached it");
        let token = format!("token={}", self.plain("token"));
        let list = format!("list={}", self.canary("list", ["[\"", "\"]"]));
        let hosts = format!("by_host={}", self.canary("host", ["{\"db\": \"", "\"}"]));
        let database =
            format!("database={}", self.canary("database", ["{\"user\": \"me\", \"password\": \"", "\"}"]));
        let port = format!("by_port.8080={}", self.plain("port"));
        let said = self.cli(&["set", "a", &token, &list, &hosts, &port, &database]).ok();
        assert!(said.stdout.contains("changed token (secret), list (secret)"), "{said}");
        assert_eq!(said.stderr, "");
        let mut expected: BTreeMap<_, _> = [
            ("token", "token"),
            ("list.0", "list"),
            ("by_host.db", "host"),
            ("by_port.8080", "port"),
            ("me's password", "database"),
        ]
        .map(|(path, name)| (path.to_owned(), canary_sum(name)))
        .into();
        assert_eq!(sums(&self.wd), expected);

        let input = format!("{CANARY}input");
        let said = self.wd.operator().run_with_input(&["set", "a", "maybe=-"], &input).ok();
        self.said.push(said);
        expected.insert("maybe".to_owned(), sum(&input));
        assert_eq!(sums(&self.wd), expected);
        self.cli(&["set", "a", "number=5"]).ok();
        self.cli(&["unset", "a", "maybe"]).ok();
        self.cli(&["rollback", "a"]).ok();
        assert_eq!(sums(&self.wd), expected);
    }

    fn fail_in_all_ways(&mut self) {
        let token = format!("token={}", self.plain("refused"));
        let said = self.cli(&["set", "a", "number=13", &token]).with_code(78);
        assert!(said.stderr.contains("not thirteen"), "{said}");
        assert_eq!(sums(&self.wd)["token"], canary_sum("token"));
        let source = self.plain("wrong");
        for wrong in
            ["list", "list.0", "by_host", "by_port", "by_port.x", "database", "database.password.x", "tokn"]
        {
            let said = self.cli(&["set", "a", &format!("{wrong}={source}")]).with_code(78);
            assert!(said.stderr.contains(wrong.split('.').next().expect("a key")), "{said}");
        }
        let typed = format!("database={{\"password\":[\"{CANARY}typed\"]}}");
        let said = self.wd.cli(&["set", "a", &typed]).with_code(78);
        assert!(said.stderr.contains("`database` is secret, and others see"), "{said}");
        // The shell's own history apart, the command line is its source.
        self.said.push(Said { command: String::new(), ..said });

        // What a file says that does not fit, or is no file of ours at all.
        for settings in [
            format!("token = [\"{CANARY}\"]"),
            format!("token = \"x\"\nlist = \"{CANARY}\""),
            format!("token = \"x\"\nby_port = {{ 80 = [\"{CANARY}\"] }}"),
            format!("token = \"x\"\ndatabase = {{ user = 1, password = \"{CANARY}\" }}"),
            format!("token = {CANARY}"),
            format!("token = \"{CANARY}\"\ntoken = \"{CANARY}\""),
            format!("tokn = \"{CANARY}\""),
        ] {
            let text =
                discreet().settings(&settings).render(self.wd.folder()).replace("[service.a", "[service.b");
            let late = self.sources.join("late.toml");
            fs::write(&late, text).expect("a configuration is written");
            let late = late.display().to_string();
            self.cli(&["check", "--config", &late]).with_code(78);
            self.cli(&["register", &late]).with_code(78);
        }
    }

    fn die_and_go_on(&mut self) {
        let before = sums(&self.wd);
        let killed = self.wd.kill("a", Signal::SIGKILL);
        self.wd.until("the next one is ready", |seen| seen.of("a").is_ready_after(killed));
        self.wd.kill_core();
        self.wd.until("it is ready", Seen::all_ready);
        self.cli(&["restart", "a"]).ok();
        self.cli(&["upgrade"]).ok();
        assert_eq!(sums(&self.wd), before);
        self.cli(&["stop", "a"]).ok();
        let token = format!("token={}", self.plain("later"));
        let said = self.cli(&["set", "a", &token]).ok();
        assert!(said.stdout.contains("pending") && said.stdout.contains("token (secret)"), "{said}");
        assert!(self.wd.status().of("a").settings_are(VerdictStatus::Pending));
        self.look_at_everything();
        self.cli(&["start", "a"]).ok();
        self.wd.until("it is ready", |seen| seen.of("a").is(PhaseStatus::Ready));
        assert_eq!(sums(&self.wd)["token"], canary_sum("later"));
    }

    /// The file says another one.
    fn reload(&mut self) {
        let file = self.wd.path("watchdog.toml");
        let text = fs::read_to_string(&file).expect("the configuration is read");
        fs::write(&file, text.replace("plain", "other")).expect("the configuration is written");
        for verb in [&["diff"][..], &["reload", "--dry-run"], &["reload"]] {
            self.cli(&[verb, &["--json"]].concat());
            let said = self.cli(verb);
            assert!(verb == ["reload"] || said.stdout.contains("settings.token"), "{said}");
        }
        self.cli(&["unset", "a", "token"]).ok();
        assert_eq!(sums(&self.wd)["token"], canary_sum("other"));
    }

    /// Every verb that shows something, as text and as JSON.
    fn look_at_everything(&mut self) {
        let bundle = self.wd.path("report.tar").display().to_string();
        let build = watchdog_tests::binary("probe-discreet").display().to_string();
        for verb in [
            &["status"][..],
            &["status", "a"],
            &["get", "a"],
            &["get", "a", "--origin"],
            &["get", "a", "token"],
            &["get", "a", "database"],
            &["get", "a", "by_port"],
            &["history", "a"],
            &["why", "a"],
            &["events"],
            &["audit"],
            &["logs", "a"],
            &["intercoms"],
            &["dead", "ls"],
            &["state", "show", "a"],
            &["doctor"],
            &["check"],
            &["check", &build, "--service", "a"],
            &["diff"],
            &["graph"],
            &["bundle", "a", &bundle, "--force"],
        ] {
            self.cli(verb);
            self.cli(&[verb, &["--json"]].concat());
        }
        let shown = |verb: &[&str]| self.wd.cli(verb).ok().stdout;
        assert_eq!(shown(&["get", "a", "token"]), "(secret)\n");
        assert!(shown(&["get", "a"]).contains("token = (secret)"));
        assert!(shown(&["get", "a"]).contains(r#"list = ["(secret)"]"#));
        assert!(shown(&["history", "a"]).contains("token: changed (secret)"));
        assert!(shown(&["check", &build, "--service", "a"]).contains("the values in force fit"));
        assert!(shown(&["logs", "a"]).contains("token: (secret)"), "the service logs its settings");
        for process in self.wd.processes() {
            for told in ["cmdline", "environ"] {
                let Ok(bytes) = fs::read(format!("/proc/{}/{told}", process.pid)) else { continue };
                assert!(!has_canary(&bytes), "the {told} of pid {} has a secret in it", process.pid);
            }
        }
    }

    fn end(self) {
        let Self { mut wd, said, sources } = self;
        wd.stop();
        for said in &said {
            let text = format!("{}{}", said.stdout, said.stderr);
            assert!(!has_canary(text.as_bytes()), "`{}` shows a secret:\n{text}", said.command);
        }
        assert!(said.iter().any(|said| said.stdout.contains("(secret)")));
        let with_canary: Vec<_> = files(wd.folder())
            .into_iter()
            .filter(|file| has_canary(&fs::read(file).expect("it is read")))
            .collect();
        let state = wd.path(".watchdog/state");
        let kept = |file: &&PathBuf| {
            let is_record = file.starts_with(state.join("settings"))
                || file.parent() == Some(&state) && name(file).starts_with("journal-");
            // What is written in the configuration is in it, and in the copy that is in force.
            let is_source =
                **file == wd.path("watchdog.toml") || **file == wd.path(".watchdog/run/watchdog.toml");
            is_record || is_source
        };
        let (kept, found): (Vec<_>, Vec<_>) = with_canary.iter().partition(kept);
        assert!(found.is_empty(), "a secret is in {found:?}");
        assert!(!kept.is_empty(), "what was set is kept");
        for file in kept {
            // The configuration is the operator's, and so is its mode.
            let mode = fs::metadata(file).expect("it is there").permissions().mode() & 0o777;
            assert!(
                *file == wd.path("watchdog.toml") || mode == 0o600,
                "{} has mode {mode:o}",
                file.display()
            );
        }
        fs::remove_dir_all(sources).expect("the sources go");
    }
}

#[test]
fn a_secret_on_the_command_line_is_taken_and_warned_of_and_other_texts_may_begin_with_the_sign() {
    let wd = TestWatchdog::run(&[discreet()]);
    wd.until("it is ready", Seen::all_ready);
    let said = wd.cli(&["set", "a", "by_port.80=typed"]).ok();
    assert!(said.stderr.starts_with("warning: `by_port.80` is secret"), "{said}");
    let said = wd.cli(&["set", "a", "token=typed", "number=4"]).ok();
    assert!(said.stderr.starts_with("warning: `token` is secret, and others see the command line"), "{said}");
    assert!(said.stderr.contains("watchdog set a token=@FILE") && !said.stderr.contains("number"), "{said}");
    assert_eq!(sums(&wd)["token"], sum("typed"));
    wd.cli(&["set", "a", r#"token="@home""#]).ok();
    assert_eq!(sums(&wd)["token"], sum("@home"));
    let said = wd.cli(&["set", "a", "token=@nowhere"]).with_code(1);
    assert!(said.stderr.contains("cannot read nowhere"), "{said}");
    let said = wd.cli(&["set", "a", "token=-", "maybe=-"]).with_code(2);
    assert!(said.stderr.contains("`token` and `maybe` can't both be read from standard input"), "{said}");
}

#[test]
fn a_secret_in_a_file_is_read_at_each_start_and_lies_nowhere_else() {
    let sources = tempfile::tempdir().expect("a folder");
    let file = sources.path().join("token");
    let write = |content: &str, mode: u32| {
        fs::write(&file, content).expect("a source is written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let entry = probe("a", "discreet", &[]).with_session();
    let mut wd = TestWatchdog::idle();
    wd.configure("", &[entry.settings(&format!("token = {{ file = {file:?} }}"))]);
    let said = wd.cli(&["check"]).with_code(78);
    assert!(said.stderr.contains("a: token: cannot read") && said.stderr.contains("No such file"), "{said}");
    write(&format!("{CANARY}first\n"), 0o644);
    let said = wd.cli(&["check"]).ok();
    assert!(said.stderr.starts_with("warning: ") && said.stderr.contains("hint: chmod o-r"), "{said}");
    write(&format!("{CANARY}first\n"), 0o600);
    assert_eq!(wd.cli(&["check"]).ok().stderr, "");
    wd.run_again();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(sums(&wd)["token"], canary_sum("first"));
    assert!(wd.cli(&["get", "a", "--origin"]).ok().stdout.contains("token = (secret)  # file "));

    write(&format!("{CANARY}second"), 0o600);
    wd.cli(&["restart", "a"]).ok();
    assert_eq!(sums(&wd)["token"], canary_sum("second"));
    write(&format!("{CANARY}third"), 0o600);
    wd.cli(&["set", "a", "number=3"]).ok();
    assert_eq!(sums(&wd)["token"], canary_sum("third"), "and whenever it is given its settings");

    fs::remove_file(&file).expect("it was there");
    let said = wd.cli(&["set", "a", "number=4"]).with_code(78);
    assert!(said.stderr.contains("token: cannot read") && said.stderr.contains("stays in force"), "{said}");
    let process = wd.status().of("a").process();
    wd.kill_core();
    wd.until("it is ready", Seen::all_ready);
    assert_eq!(wd.status().of("a").process(), process, "who runs has it");
    wd.cli(&["restart", "a", "--no-wait"]).ok();
    let seen = wd.until("it is failed", |seen| seen.of("a").is(PhaseStatus::Failed));
    assert_eq!(seen.of("a").cause(), "settings");
    assert!(seen.of("a").why().contains("token: cannot read"), "{}", seen.of("a").why());
    write(&format!("{CANARY}fourth"), 0o600);
    wd.cli(&["start", "a"]).ok();
    assert_eq!(sums(&wd)["token"], canary_sum("fourth"));

    let said = wd.cli(&["set", "a", r#"list=[{"file":"/etc/hostname"}]"#]).with_code(78);
    assert!(said.stderr.contains("only the configuration can name a file for `list`"), "{said}");
    let token = format!("token=@{}", file.display());
    wd.cli(&["set", "a", &token]).ok();
    wd.cli(&["rollback", "a"]).ok();
    write(&format!("{CANARY}fifth"), 0o600);
    wd.cli(&["restart", "a"]).ok();
    assert_eq!(sums(&wd)["token"], canary_sum("fifth"), "what came back is the file, not what was in it");
    wd.cli(&["bundle", "a"]).ok();
    wd.stop();
    let record = wd.path(".watchdog/state/settings");
    let journal = |path: &Path| name(path).starts_with("journal-");
    for path in files(wd.folder()) {
        // What was set is kept.
        if !path.starts_with(&record) && !journal(&path) {
            assert!(!has_canary(&fs::read(&path).expect("it is read")), "a secret is in {path:?}");
        }
    }
}

#[test]
fn a_secret_that_was_only_ever_in_a_file_is_not_in_the_settings_record() {
    let source = tempfile::NamedTempFile::new().expect("a file");
    fs::write(source.path(), format!("{CANARY}here")).expect("a source is written");
    let settings = format!("token = {{ file = {:?} }}", source.path());
    let mut wd = TestWatchdog::run(&[probe("a", "discreet", &[]).with_session().settings(&settings)]);
    wd.until("it is ready", Seen::all_ready);
    wd.cli(&["set", "a", "number=2"]).ok();
    wd.cli(&["rollback", "a"]).ok();
    assert_eq!(sums(&wd)["token"], canary_sum("here"));
    wd.stop();
    for path in files(wd.folder()) {
        assert!(!has_canary(&fs::read(&path).expect("it is read")), "a secret is in {path:?}");
    }
}

fn discreet() -> Entry {
    probe("a", "discreet", &[]).with_session().settings(&format!("token = \"{CANARY}plain\""))
}

/// The sum of each secret the service has.
fn sums(wd: &TestWatchdog) -> BTreeMap<String, u64> {
    let shown: serde_json::Value = wd.cli(&["state", "show", "a", "--json"]).ok().json();
    serde_json::from_value(shown["value"].clone()).expect("a table of sums")
}

fn canary_sum(name: &str) -> u64 {
    sum(&format!("{CANARY}{name}"))
}

fn has_canary(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
}

fn name(file: &Path) -> &str {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// All in the folder and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder is read");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .filter(|path| path.is_file())
        .collect()
}
