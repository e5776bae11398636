//! A web server that is asked for one page.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How much of an answer is read: its head is all that counts.
const LONGEST_HEAD: usize = 16 * 1024;

/// Header lines an answer may have.
const MOST_HEADERS: usize = 64;

/// Whether `GET path` is answered with a code from 200 to 399. Redirects are not followed: whoever answers is up.
pub(super) async fn answers(host: &str, port: u16, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect((host, port)).await else { return false };
    let named = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {named}:{port}\r\nUser-Agent: watchdog\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    matches!(code(&mut stream).await, Some(200..400))
}

/// The code of an answer; `None` when it is none.
async fn code(stream: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let mut head = Vec::new();
    loop {
        let read = stream.take(1024).read_buf(&mut head).await.ok()?;
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) => return response.code,
            Ok(httparse::Status::Partial) if read > 0 && head.len() < LONGEST_HEAD => {}
            Ok(httparse::Status::Partial) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    /// Gives each of these answers to one request, and shows the requests' first lines.
    async fn asked(answers_: &[&'static str]) -> (Vec<bool>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        let given = answers_.to_vec();
        server.spawn(async move {
            let mut lines = Vec::new();
            for answer in given {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                lines.push(String::from_utf8(request).unwrap().lines().next().unwrap().to_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            lines
        });
        let mut seen = Vec::new();
        for _ in answers_ {
            seen.push(answers("127.0.0.1", port, "/healthy?now").await);
        }
        (seen, server.join_next().await.unwrap().unwrap())
    }

    #[tokio::test]
    async fn two_and_three_hundreds_are_answers_and_all_else_is_not() {
        let (seen, lines) = asked(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 503 Busy\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnot ended",
            "SSH-2.0-OpenSSH\r\n",
            "",
        ])
        .await;
        assert_eq!(seen, [true, true, false, false, false, false, false]);
        assert_eq!(lines[0], "GET /healthy?now HTTP/1.1");
    }

    #[tokio::test]
    async fn an_endless_head_is_no_answer() {
        let mut endless = tokio::io::repeat(b'x');
        assert_eq!(code(&mut endless).await, None);
    }

    #[tokio::test]
    async fn nobody_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(!answers("127.0.0.1", port, "/").await);
    }
}
