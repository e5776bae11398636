use std::net::Ipv4Addr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::metrics::{Gathering, Unanswered, families, sample, text};

const LONG: Duration = Duration::from_secs(60);

/// Metrics at a port that was free a moment ago, of a watchdog that answers the same each time.
struct Served {
    scraped: Scraped,
    board: Arc<Board>,
    address: SocketAddr,
    _watchdog: JoinSet<()>,
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Served {
    fn start(answer: Result<Gathering, Unanswered>) -> Self {
        Self::at(free(), LIMITS, answer)
    }

    fn at(address: SocketAddr, limits: Limits, answer: Result<Gathering, Unanswered>) -> Self {
        let (source, mut asked) = Source::by_hand();
        let mut watchdog = JoinSet::new();
        let answer = answer.map(Arc::new);
        watchdog.spawn(async move {
            while let Some(reply) = asked.recv().await {
                // Who asked may be gone.
                let _ = reply.send(answer.clone());
            }
        });
        let board = Arc::new(Board::default());
        let scraped = Scraped::start_within(limits, address, &board, &source).unwrap();
        Self { scraped, board, address, _watchdog: watchdog }
    }

    async fn until(&self, what: &str, is_so: impl Fn(Option<&str>) -> bool) {
        let so = async {
            while !is_so(self.scraped.trouble().as_deref()) {
                self.board.changed().await;
            }
        };
        assert!(timeout(LONG, so).await.is_ok(), "{what}: {:?}", self.scraped.trouble());
    }

    /// Connects when it can.
    async fn connect(&self, address: SocketAddr) -> TcpStream {
        let until = Instant::now() + LONG;
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Head and body of what is answered.
    async fn ask(&self, head: &str) -> (String, String) {
        self.ask_at(self.address, head).await
    }

    async fn ask_at(&self, address: SocketAddr, head: &str) -> (String, String) {
        let mut stream = self.connect(address).await;
        stream.write_all(format!("{head} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LONG, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

#[tokio::test]
async fn metrics_are_at_their_place_and_everything_else_says_where_that_is() {
    let served = Served::start(Ok(sample::gathering()));
    let (head, body) = served.ask("GET /metrics").await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert_eq!(body, text(&families(&sample::gathering())));
    let length = format!("content-length: {}", body.len());
    assert!(head.contains(&length), "{head}");
    let (head, body) = served.ask("HEAD /metrics").await;
    assert!(head.starts_with("http/1.1 200") && head.contains(&length) && body.is_empty(), "{head}");
    let (head, body) = served.ask("GET /").await;
    assert!(head.starts_with("http/1.1 404") && body.contains("/metrics"), "{head} {body}");
    let (head, _) = served.ask("POST /metrics").await;
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{head}");
}

#[tokio::test]
async fn a_watchdog_that_does_not_answer_is_said_to_whoever_asks() {
    let served = Served::start(Err(Unanswered::Silent));
    let (head, body) = served.ask("GET /metrics").await;
    assert!(head.starts_with("http/1.1 503") && body.contains("did not answer within 5 s"), "{head} {body}");
    assert_eq!(served.scraped.trouble(), None);
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_tried_again() {
    let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let served = Served::at(address, LIMITS, Ok(sample::gathering()));
    let words = format!("cannot listen at {address}: address in use");
    served.until("it is said", |trouble| trouble == Some(&words)).await;
    drop(taken);
    served.until("all is well", |trouble| trouble.is_none()).await;
    assert!(served.ask("GET /metrics").await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn another_address_is_taken_in_the_place_of_the_first() {
    let served = Served::start(Ok(sample::gathering()));
    served.ask("GET /metrics").await;
    let other = free();
    served.scraped.configure(other);
    assert!(served.ask_at(other, "GET /metrics").await.0.starts_with("http/1.1 200"));
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn who_connects_and_says_nothing_keeps_nobody_else_out() {
    let limits = Limits { head: Duration::from_millis(50), ..LIMITS };
    let served = Served::at(free(), limits, Ok(sample::gathering()));
    let mut silent = Vec::new();
    for _ in 0..3 * limits.connections {
        silent.push(served.connect(served.address).await);
    }
    assert!(served.ask("GET /metrics").await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn who_asks_drop_by_drop_is_let_go() {
    let limits = Limits { connections: 1, head: LONG, all: Duration::from_millis(50) };
    let served = Served::at(free(), limits, Ok(sample::gathering()));
    let mut slow = served.connect(served.address).await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    assert!(served.ask("GET /metrics").await.0.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn what_the_grant_lacks_is_known_before_anybody_asks() {
    let mut found = sample::gathering();
    found.set_missing(vec!["status"]);
    let served = Served::start(Ok(found));
    served
        .until("it is said", |trouble| trouble.is_some_and(|words| words.contains("control = [\"status\"]")))
        .await;
}

#[tokio::test]
async fn a_stop_waits_for_no_client() {
    let served = Served::start(Ok(sample::gathering()));
    let _silent = served.connect(served.address).await;
    served.scraped.stop();
    let ended = tokio::task::spawn_blocking(move || served.scraped.thread.join().unwrap());
    timeout(LONG, ended).await.expect("it ends").unwrap();
}
