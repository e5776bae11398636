//! What is answered to a request.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::metrics::{CONTENT_TYPE as METRICS, Gathering, Source, families, text};

const PATH: &str = "/metrics";

/// The metrics, or why not; `look` sees what was gathered.
pub(super) async fn to<B>(
    request: Request<B>,
    source: &Source,
    look: impl FnOnce(&Gathering),
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != PATH {
        return Ok(says(StatusCode::NOT_FOUND, format!("there is nothing here but {PATH}\n")));
    }
    // hyper leaves the body of an answer to HEAD away.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut answer = says(StatusCode::METHOD_NOT_ALLOWED, format!("{PATH} is there to be read: GET\n"));
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(answer);
    }
    Ok(match source.gather().await {
        Ok(found) => {
            look(&found);
            let mut answer = Response::new(Full::new(text(&families(&found)).into()));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(METRICS));
            answer
        }
        Err(error) => says(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    })
}

fn says(status: StatusCode, words: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(words.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
