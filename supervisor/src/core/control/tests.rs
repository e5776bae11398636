//! Client and door over a real socket, with a small event loop behind it.

mod hostile;

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use watchdog_protocol::control::{Change, Outcome, Request, SetOutcome};
use watchdog_protocol::status::{EventRecord, STATUS_VERSION, Status, VerdictStatus, WatchdogStatus};
use watchdog_protocol::{RequestId, Revision};
use watchdog_query::{Changed, ControlSocket, QueryError, WatchdogQuery};

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

fn status() -> Status {
    let watchdog = WatchdogStatus {
        keeper_pid: 1,
        core_pid: 2,
        cores: 1,
        up_ms: 5,
        config: "/w/watchdog.toml".into(),
        state: "/w/state".into(),
        runtime: "/w/run".into(),
        logs: "/w/logs".into(),
        stopping: false,
        notes: vec![],
    };
    Status { version: STATUS_VERSION, watchdog, services: vec![], groups: vec![] }
}

fn event(number: u64) -> EventRecord {
    EventRecord {
        number,
        at_us: 0,
        service: None,
        incarnation: None,
        what: "started".into(),
        cause: None,
        text: String::new(),
        revision: None,
        sequence: None,
        evidence: None,
    }
}

/// A door with a loop that answers `calls` as the test says.
struct Fixture {
    folder: tempfile::TempDir,
    calls: mpsc::Receiver<ControlCall>,
    hours: watch::Sender<Hours>,
    tasks: JoinSet<()>,
}

impl Fixture {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut fixture = Self {
            folder,
            calls: mpsc::channel(1).1,
            hours: watch::Sender::new(Hours::Open),
            tasks: JoinSet::new(),
        };
        fixture.open();
        fixture
    }

    /// As a new core does, over what the old one left.
    fn open(&mut self) {
        self.open_below(u32::MAX, |_| None);
    }

    fn open_below(
        &mut self,
        keeper: u32,
        service_of: impl Fn(&[Identity]) -> Option<ServiceName> + Send + Sync + 'static,
    ) {
        let (sender, calls) = mpsc::channel(64);
        let (hours, until) = watch::channel(Hours::Open);
        let door = ControlDoor::open(&self.runtime(), keeper, service_of).unwrap();
        self.tasks.spawn(door.serve(sender, until));
        (self.calls, self.hours) = (calls, hours);
    }

    /// As SIGKILL does: no word, and the socket file stays.
    async fn kill(&mut self) {
        self.tasks.shutdown().await;
        self.calls.close();
    }

    fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn socket(&self) -> PathBuf {
        self.runtime().join(SOCKET)
    }

    fn query(&self) -> WatchdogQuery {
        WatchdogQuery::at(&self.socket())
    }

    async fn call(&mut self) -> ControlCall {
        timeout(LONG, self.calls.recv()).await.expect("a call in time").expect("an open door")
    }

    async fn raw(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Past the greeting.
    async fn greeted(&self) -> UnixStream {
        let mut stream = self.raw().await;
        stream.write_all(&frame(&Greeting::ours())).await.unwrap();
        let body = Frames::new(&mut stream).next().await.unwrap().unwrap();
        assert_eq!(decode::<Greeting>(&body).unwrap(), Greeting::ours());
        stream
    }

    /// The door still serves.
    async fn assert_open(&mut self) {
        let query = self.query();
        let (answer, ()) = tokio::join!(query.status(&[]), async {
            let call = self.call().await;
            call.replies.send(Reply::End(Ok(Outcome::Status(Box::new(status()))))).await.unwrap();
        });
        assert_eq!(answer.unwrap(), status());
    }
}

#[tokio::test]
async fn a_call_reaches_the_loop_as_sent_and_its_replies_the_client() {
    let mut fixture = Fixture::start();
    let (lines, mut shown) = mpsc::channel(8);
    let query = fixture.query().on_progress(move |line| lines.try_send(line.to_owned()).unwrap());
    let services = [name("counter")];
    let (answer, ()) = tokio::join!(query.start(&services, Some(Duration::from_secs(3))), async {
        let ControlCall { call, caller, replies } = fixture.call().await;
        assert_eq!(call.request, Request::Start { services: vec![name("counter")] });
        assert_eq!(call.wait_ms, Some(3000));
        assert_eq!((caller.uid, caller.pid), (nix::unistd::geteuid().as_raw(), std::process::id()));
        assert!(!caller.program.is_empty());
        replies.send(Reply::Progress("waits for `db`".into())).await.unwrap();
        replies.send(Reply::End(Ok(Outcome::Status(Box::new(status()))))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), Changed::Status(Box::new(status())));
    assert_eq!(shown.recv().await.unwrap(), "waits for `db`");
}

#[tokio::test]
async fn a_refusal_comes_back_with_kind_text_and_hint() {
    let mut fixture = Fixture::start();
    let (query, service) = (fixture.query(), name("a"));
    let failure = Failure::new(FailureKind::NotRunning, "`a` is not running").hint("watchdog start a");
    let (answer, ()) = tokio::join!(query.get(&service), async {
        let call = fixture.call().await;
        call.replies.send(Reply::End(Err(failure.clone()))).await.unwrap();
    });
    assert!(matches!(answer, Err(QueryError::Refused(refused)) if refused == failure));
}

#[tokio::test]
async fn calls_of_one_client_do_not_wait_for_each_other() {
    let mut fixture = Fixture::start();
    let (query, service) = (fixture.query(), name("counter"));
    let slow = query.stop(&[], Some(LONG));
    tokio::pin!(slow);
    let first = tokio::select! {
        _ = &mut slow => panic!("nobody answered it"),
        first = fixture.call() => first,
    };
    let (quick, ()) = tokio::join!(query.state_export(&service), async {
        let second = fixture.call().await;
        second.replies.send(Reply::End(Ok(Outcome::Snapshot(vec![7])))).await.unwrap();
    });
    assert_eq!(quick.unwrap(), [7]);
    first.replies.send(Reply::End(Ok(Outcome::Done("stopped".into())))).await.unwrap();
    assert_eq!(slow.await.unwrap(), Changed::Accepted("stopped".into()));
}

#[tokio::test]
async fn a_client_that_goes_away_closes_the_reply_channel() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let call = tokio::select! {
        _ = query.start(&[], None) => panic!("nobody answered it"),
        call = fixture.call() => call,
    };
    timeout(LONG, call.replies.closed()).await.expect("the loop learns that nobody waits");
}

#[tokio::test]
async fn a_large_frame_passes_both_ways() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let snapshot = vec![7; 20 * 1024 * 1024];
    let service = name("counter");
    let (answer, ()) = tokio::join!(query.state_import(&service, snapshot.clone()), async {
        let call = fixture.call().await;
        assert!(matches!(call.call.request, Request::StateImport { snapshot: came, .. } if came == snapshot));
        call.replies.send(Reply::End(Ok(Outcome::Done("imported".into())))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), "imported");
    let (answer, ()) = tokio::join!(query.state_export(&service), async {
        let call = fixture.call().await;
        call.replies.send(Reply::End(Ok(Outcome::Snapshot(snapshot.clone())))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), snapshot);
}

#[tokio::test]
async fn a_call_outlives_the_core_it_was_made_to_under_its_id() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let service = name("counter");
    let change = Change { path: "step".into(), value: Some("2".into()) };
    let call = query.set(&service, vec![change], None, Some(LONG));
    let (answer, ()) = tokio::join!(call, async {
        let first: RequestId = fixture.call().await.call.id;
        fixture.kill().await;
        fixture.open();
        let again = fixture.call().await;
        assert_eq!(again.call.id, first);
        let (revision, verdict) = (Revision::FIRST, VerdictStatus::Accepted);
        let outcome = SetOutcome { revision, verdict, refused: None, back_to: None };
        again.replies.send(Reply::End(Ok(Outcome::Set(outcome)))).await.unwrap();
    });
    assert_eq!(answer.unwrap().verdict, VerdictStatus::Accepted);
}

#[tokio::test]
async fn followed_events_go_on_behind_the_last_one_when_the_core_is_replaced() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let mut events = query.events(0, 10, true);
    let (first, old) = tokio::join!(events.next(), async {
        let call = fixture.call().await;
        assert_eq!(call.call.request, Request::Events { after: 0, last: 10, follow: true });
        call.replies.send(Reply::Event(event(5))).await.unwrap();
        call
    });
    assert_eq!(first.unwrap().unwrap().number, 5);
    drop(old);
    fixture.kill().await;
    fixture.open();
    let (next, ()) = tokio::join!(events.next(), async {
        let call = fixture.call().await;
        assert_eq!(call.call.request, Request::Events { after: 5, last: u64::MAX, follow: true });
        call.replies.send(Reply::Event(event(6))).await.unwrap();
    });
    assert_eq!(next.unwrap().unwrap().number, 6);
}

#[tokio::test]
async fn following_from_now_on_misses_nothing_while_the_core_is_replaced() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let mut events = query.events(0, 0, true);
    let served = async {
        let call = fixture.call().await;
        assert_eq!(call.call.request, Request::Events { after: 0, last: 1, follow: true });
        call.replies.send(Reply::Event(event(5))).await.unwrap();
        // The client has it once its queue is empty and read.
        while call.replies.capacity() < REPLIES {
            tokio::task::yield_now().await;
        }
        call
    };
    let old = tokio::select! {
        shown = events.next() => panic!("{shown:?} was there before"),
        old = served => old,
    };
    drop(old);
    fixture.kill().await;
    fixture.open();
    let (next, ()) = tokio::join!(events.next(), async {
        let call = fixture.call().await;
        assert_eq!(call.call.request, Request::Events { after: 5, last: u64::MAX, follow: true });
        call.replies.send(Reply::Event(event(6))).await.unwrap();
    });
    assert_eq!(next.unwrap().unwrap().number, 6);
}

#[tokio::test(start_paused = true)]
async fn a_follower_stays_through_any_number_of_cores() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let mut events = query.events(7, 10, true);
    let cores = async {
        for _ in 0..5 {
            drop(fixture.call().await);
            sleep(Duration::from_secs(60)).await;
        }
        fixture.call().await.replies.send(Reply::Event(event(8))).await.unwrap();
    };
    let (next, ()) = tokio::join!(events.next(), cores);
    assert_eq!(next.unwrap().unwrap().number, 8);
}

#[tokio::test]
async fn where_no_watchdog_is_the_client_says_so_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET);
    let error = WatchdogQuery::at(&socket).status(&[]).await.unwrap_err();
    assert!(matches!(error, QueryError::NotReachable { path, .. } if path == socket));
}

#[tokio::test(start_paused = true)]
async fn a_socket_nobody_listens_at_is_tried_for_10_s_unless_the_watchdog_is_known_to_be_gone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let begin = tokio::time::Instant::now();
    let error = WatchdogQuery::at(&socket).status(&[]).await.unwrap_err();
    assert!(matches!(error, QueryError::NotReachable { .. }));
    assert!(begin.elapsed() >= Duration::from_secs(10), "{:?}", begin.elapsed());
    let begin = tokio::time::Instant::now();
    let query = WatchdogQuery::over(ControlSocket::at(&socket).while_alive(|| false));
    assert!(matches!(query.status(&[]).await, Err(QueryError::NotReachable { .. })));
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_missing_socket_of_a_watchdog_that_lives_is_waited_for() {
    let mut fixture = Fixture::start();
    fixture.kill().await;
    fs::remove_file(fixture.socket()).unwrap();
    let (asked, mut was_asked) = mpsc::channel(1);
    let lives = move || asked.try_send(()).is_ok() || asked.capacity() == 0;
    let query = WatchdogQuery::over(ControlSocket::at(fixture.socket()).while_alive(lives));
    let (answer, ()) = tokio::join!(query.status(&[]), async {
        was_asked.recv().await.unwrap();
        fixture.open();
        let call = fixture.call().await;
        call.replies.send(Reply::End(Ok(Outcome::Status(Box::new(status()))))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), status());
}

#[tokio::test]
async fn what_listens_and_is_no_watchdog_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join(SOCKET);
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let stranger = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&frame(&"HTTP/1.1 400 Bad Request")).await.unwrap();
        stream
    };
    let query = WatchdogQuery::at(&socket);
    let (answer, _stream) = tokio::join!(query.status(&[]), stranger);
    assert!(matches!(answer, Err(QueryError::Stranger { .. })), "{answer:?}");
}

#[tokio::test]
async fn another_version_is_named_by_both_sides() {
    let mut fixture = Fixture::start();
    let mut stream = fixture.raw().await;
    stream.write_all(&frame(&Greeting { version: 9, ..Greeting::ours() })).await.unwrap();
    let body = Frames::new(&mut stream).next().await.unwrap().unwrap();
    let refused = decode::<Greeting>(&body).unwrap().refused.unwrap();
    assert!(refused.message.contains("version 1") && refused.message.contains("version 9"), "{refused}");
    fixture.assert_open().await;
}

#[tokio::test]
async fn a_process_of_a_service_is_refused_and_sent_to_its_session() {
    let mut fixture = Fixture::start();
    fixture.kill().await;
    let me = Identity::of_self().unwrap();
    fixture.open_below(std::os::unix::process::parent_id(), move |line| {
        line.contains(&me).then(|| name("counter"))
    });
    let Err(QueryError::Refused(failure)) = fixture.query().status(&[]).await else {
        panic!("it has to be refused");
    };
    assert_eq!(failure.kind, FailureKind::NotPermitted);
    assert!(failure.message.contains("`counter`; services call over their session"), "{failure}");
    assert!(fixture.calls.try_recv().is_err());
}

#[tokio::test]
async fn folder_and_socket_are_the_owners_alone() {
    let mut fixture = Fixture::start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&fixture.runtime()), 0o700);
    assert_eq!(mode(&fixture.socket()), 0o600);
    fixture.kill().await;
    fs::set_permissions(fixture.runtime(), fs::Permissions::from_mode(0o755)).unwrap();
    fixture.open();
    assert_eq!(mode(&fixture.runtime()), 0o700);
}

#[tokio::test]
async fn a_runtime_folder_of_another_user_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
    let error = ControlDoor::open(folder.path(), 1, |_| None).unwrap_err();
    assert!(matches!(error, DoorError::Owner { owner: 65534, .. }), "{error}");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_address_works_on_both_sides() {
    let root = tempfile::tempdir().unwrap();
    let runtime = root.path().join("long".repeat(50));
    let door = ControlDoor::open(&runtime, u32::MAX, |_| None).unwrap();
    let (sender, mut calls) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    let (_hours, until) = watch::channel(Hours::Open);
    tasks.spawn(door.serve(sender, until));
    let query = WatchdogQuery::at(&runtime.join(SOCKET));
    let (answer, ()) = tokio::join!(query.status(&[]), async {
        let call = calls.recv().await.unwrap();
        call.replies.send(Reply::End(Ok(Outcome::Status(Box::new(status()))))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), status());
}

#[tokio::test]
async fn a_deleted_socket_is_back_and_live_connections_stay() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let call = query.start(&[], None);
    tokio::pin!(call);
    let live = tokio::select! {
        _ = &mut call => panic!("nobody answered it"),
        live = fixture.call() => live,
    };
    fs::remove_file(fixture.socket()).unwrap();
    let begin = Instant::now();
    while !fixture.socket().exists() {
        assert!(begin.elapsed() < LONG, "the socket is not back");
        sleep(Duration::from_millis(20)).await;
    }
    fixture.assert_open().await;
    live.replies.send(Reply::End(Ok(Outcome::Done("started".into())))).await.unwrap();
    assert_eq!(call.await.unwrap(), Changed::Accepted("started".into()));
}

#[tokio::test]
async fn an_orderly_end_lets_the_last_answer_out_and_leaves_no_socket() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let (answer, ()) = tokio::join!(query.shutdown(Some(LONG)), async {
        let call = fixture.call().await;
        fixture.hours.send_replace(Hours::Closed);
        while fixture.socket().exists() {
            tokio::task::yield_now().await;
        }
        call.replies.send(Reply::End(Ok(Outcome::Done("2 services ended".into())))).await.unwrap();
    });
    assert_eq!(answer.unwrap(), "2 services ended");
    fixture.tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_shutdown_whose_answer_was_lost_has_still_ended_the_watchdog() {
    let mut fixture = Fixture::start();
    let query = fixture.query();
    let (answer, ()) = tokio::join!(query.shutdown(Some(LONG)), async {
        drop(fixture.call().await);
        fixture.hours.send_replace(Hours::Closed);
    });
    assert_eq!(answer.unwrap(), "the watchdog has ended");
}
