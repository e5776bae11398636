//! The way to a collector: a connection that is made when the first request goes, and one request at a time.

mod connector;
mod grpc;
mod http;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::config::{Config, Protocol, Signal};
use super::verdict::{Verdict, one_line};

/// The most that is read of an answer: it says hardly more than a number and a sentence.
const MAX_ANSWER: usize = 64 << 10;

/// To one collector, for one signal.
#[derive(Debug)]
pub(super) struct Transport {
    config: Arc<Config>,
    client: Option<Client>,
}

#[derive(Debug)]
enum Client {
    Grpc(grpc::Client),
    Http(http::Client),
}

impl Transport {
    pub(super) fn to(config: Arc<Config>) -> Self {
        Self { config, client: None }
    }

    /// What is set now; a connection to somewhere else, or of other terms, is left.
    pub(super) fn follow(&mut self, config: &Arc<Config>) {
        if *self.config != **config {
            self.client = None;
        }
        self.config = config.clone();
    }

    /// Leaves a connection on which nobody answered: the host behind it may be gone without a word.
    pub(super) fn renew(&mut self) {
        self.client = None;
    }

    /// Sends it and waits for the answer. Dropped halfway, the collector may have it or not.
    pub(super) async fn send(&mut self, signal: Signal, body: Bytes) -> Verdict {
        let client = match &mut self.client {
            Some(client) => client,
            none => match Client::new(&self.config) {
                Ok(client) => none.insert(client),
                Err(why) => return Verdict::Retry { after: None, why },
            },
        };
        match client {
            Client::Grpc(client) => client.send(signal, body).await,
            Client::Http(client) => client.send(signal, body).await,
        }
    }
}

impl Client {
    fn new(config: &Config) -> Result<Self, String> {
        Ok(match config.protocol {
            Protocol::Grpc => Self::Grpc(grpc::Client::new(config)?),
            Protocol::Http => Self::Http(http::Client::new(config)?),
        })
    }
}

/// What a collector says that has taken a request.
fn accepted(signal: Signal, answer: &[u8]) -> Verdict {
    let partial = match signal {
        Signal::Logs => ExportLogsServiceResponse::decode(answer).map(|answer| {
            answer.partial_success.map(|found| (found.rejected_log_records, found.error_message))
        }),
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .map(|answer| answer.partial_success.map(|found| (found.rejected_spans, found.error_message))),
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer).map(|answer| {
            answer.partial_success.map(|found| (found.rejected_data_points, found.error_message))
        }),
    };
    match partial {
        Ok(partial) => {
            let (rejected, why) = partial.unwrap_or_default();
            Verdict::Accepted { rejected: rejected.try_into().unwrap_or(0), why: one_line(&why) }
        }
        Err(_) => Verdict::Refused { why: "what answers there is no collector".to_owned() },
    }
}

/// The innermost cause of an error, which says what happened; those around it say where in the client.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    one_line(&first.into_iter().chain(letters).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_failure_is_told_by_its_innermost_cause() {
        let refused = io::Error::other(io::Error::from_raw_os_error(111));
        assert_eq!(cause(&io::Error::other(refused)), "connection refused");
    }

    #[test]
    fn an_empty_answer_is_full_success_and_a_web_page_none() {
        for signal in Signal::ALL {
            assert_eq!(accepted(signal, b""), Verdict::Accepted { rejected: 0, why: String::new() });
            assert!(matches!(accepted(signal, b"<html></html>"), Verdict::Refused { .. }));
        }
    }
}
