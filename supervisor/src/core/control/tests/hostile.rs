//! Clients that mean no good, or do not know better: each ends its own connection, and the door stays open.

use super::*;

/// All that comes until the other side closes.
async fn rest(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the door closes it");
    assert!(read.is_ok() || read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset));
    bytes
}

#[tokio::test]
async fn garbage_closes_its_own_connection() {
    let mut fixture = Fixture::start();
    let mut stream = fixture.raw().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: watchdog\r\n\r\n").await.unwrap();
    assert_eq!(rest(stream).await, b"");

    let mut stream = fixture.greeted().await;
    stream.write_all(&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
    let answer: Reply = decode(&rest(stream).await[4..]).unwrap();
    assert!(matches!(answer, Reply::End(Err(Failure { kind: FailureKind::Usage, .. }))));
    fixture.assert_open().await;
}

#[tokio::test]
async fn an_announced_length_of_4_gib_closes_its_own_connection() {
    let mut fixture = Fixture::start();
    let mut stream = fixture.raw().await;
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert_eq!(rest(stream).await, b"");

    let mut stream = fixture.greeted().await;
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let answer: Reply = decode(&rest(stream).await[4..]).unwrap();
    assert!(matches!(answer, Reply::End(Err(failure)) if failure.message.contains("4294967295")));
    fixture.assert_open().await;
}

#[tokio::test]
async fn bytes_behind_a_call_close_its_own_connection() {
    let mut fixture = Fixture::start();
    let call = Call { id: RequestId::from_bits(1), wait_ms: None, request: Request::Shutdown };

    // Inside the frame: it is no call.
    let mut stream = fixture.greeted().await;
    let mut bytes = frame(&call);
    bytes.push(0);
    bytes[0] += 1;
    stream.write_all(&bytes).await.unwrap();
    let answer: Reply = decode(&rest(stream).await[4..]).unwrap();
    assert!(matches!(answer, Reply::End(Err(Failure { kind: FailureKind::Usage, .. }))));
    assert!(fixture.calls.try_recv().is_err());

    // Behind it: a second call on one connection.
    let mut stream = fixture.greeted().await;
    stream.write_all(&frame(&call)).await.unwrap();
    let first = fixture.call().await;
    stream.write_all(&frame(&call)).await.unwrap();
    timeout(LONG, first.replies.closed()).await.expect("the connection was closed");
    assert_eq!(rest(stream).await, b"");
    fixture.assert_open().await;
}

#[tokio::test(start_paused = true)]
async fn silence_and_half_frames_end_at_their_deadline() {
    let mut fixture = Fixture::start();
    let begin = tokio::time::Instant::now();
    let silent = fixture.raw().await;
    let mut half = fixture.raw().await;
    half.write_all(&[9, 0]).await.unwrap();
    assert_eq!(rest(silent).await, b"");
    assert_eq!(rest(half).await, b"");
    let mut half = fixture.greeted().await;
    half.write_all(&[9, 0, 0, 0, 1]).await.unwrap();
    assert_eq!(rest(half).await, b"");
    assert!(begin.elapsed() >= FRAME, "{:?}", begin.elapsed());
    fixture.assert_open().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_cut_after_30_s() {
    let mut fixture = Fixture::start();
    let mut stream = fixture.greeted().await;
    let request = Request::Events { after: 0, last: 1, follow: true };
    let call = Call { id: RequestId::from_bits(1), wait_ms: None, request };
    stream.write_all(&frame(&call)).await.unwrap();
    let begin = tokio::time::Instant::now();
    let replies = fixture.call().await.replies;
    let line = "x".repeat(64 * 1024);
    // Fills the socket, then the queue; the sender learns of it without waiting, then by the close.
    while replies.try_send(Reply::Progress(line.clone())).is_ok() {
        tokio::task::yield_now().await;
    }
    timeout(Duration::from_secs(60), replies.closed()).await.expect("the client was cut");
    assert!(begin.elapsed() >= SLOW, "{:?}", begin.elapsed());
    fixture.assert_open().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_try_again_and_the_others_stay() {
    let mut fixture = Fixture::start();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(fixture.greeted().await);
    }
    let Err(QueryError::Refused(failure)) = fixture.query().status(&[]).await else {
        panic!("it has to be refused");
    };
    assert_eq!(failure.kind, FailureKind::TryAgain);
    assert!(failure.message.contains("64 control connections"), "{failure}");

    // One that goes makes room.
    drop(held.pop());
    let begin = Instant::now();
    loop {
        let query = fixture.query();
        let asked = tokio::select! {
            refused = query.status(&[]) => { assert!(refused.is_err()); None }
            call = fixture.call() => Some(call),
        };
        if asked.is_some() {
            break;
        }
        assert!(begin.elapsed() < LONG, "no room was made");
    }
}
