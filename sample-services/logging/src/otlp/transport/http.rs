//! OTLP over HTTP/1.1 with protobuf.

use std::io::{self, Write as _};
use std::time::SystemTime;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use super::connector::{Connector, connector};
use super::{MAX_ANSWER, accepted, cause};
use crate::otlp::config::{Compression, Config, Endpoint, Signal};
use crate::otlp::verdict::{Verdict, of_http};

const PROTOBUF: &str = "application/x-protobuf";

#[derive(Debug)]
pub(super) struct Client {
    http: legacy::Client<Connector, Full<Bytes>>,
    endpoint: Endpoint,
    headers: HeaderMap,
    compression: Compression,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let http = legacy::Client::builder(TokioExecutor::new()).build(connector(config)?);
        let mut headers = config.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static("watchdog-logging"));
        if config.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(Self { http, endpoint: config.endpoint.clone(), headers, compression: config.compression })
    }

    pub(super) async fn send(&self, signal: Signal, body: Bytes) -> Verdict {
        let body = match self.compression {
            Compression::None => body,
            Compression::Gzip => gzip(&body).expect("a buffer takes all that is written"),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.join(match signal {
            Signal::Logs => "/v1/logs",
            Signal::Traces => "/v1/traces",
            Signal::Metrics => "/v1/metrics",
        });
        *request.headers_mut() = self.headers.clone();
        match self.http.request(request).await {
            Ok(answer) => judged(signal, answer).await,
            Err(error) => Verdict::Retry { after: None, why: cause(&error) },
        }
    }
}

async fn judged(signal: Signal, answer: Response<Incoming>) -> Verdict {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    if head.status.is_success() {
        return match body {
            Ok(body) => accepted(signal, &body.to_bytes()),
            // Cut off before it said whether all were taken.
            Err(error) => Verdict::Retry { after: None, why: cause(error.as_ref()) },
        };
    }
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    of_http(head.status, &head.headers, &message(&head.headers, &body), SystemTime::now())
}

/// What a collector says of why, where it is text for people.
fn message(headers: &HeaderMap, body: &[u8]) -> String {
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if kind.starts_with(PROTOBUF.as_bytes()) {
        tonic_types::Status::decode(body).map(|status| status.message).unwrap_or_default()
    } else if kind.starts_with(b"text/plain") {
        String::from_utf8_lossy(body).into_owned()
    } else {
        String::new()
    }
}

fn gzip(bytes: &[u8]) -> io::Result<Bytes> {
    let mut out = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes)?;
    Ok(out.finish()?.into())
}
