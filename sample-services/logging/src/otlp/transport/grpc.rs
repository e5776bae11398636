//! OTLP over gRPC. What is sent is encoded already, so that sending it again costs nothing: the codec copies bytes.

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http::uri::PathAndQuery;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use super::connector::{Connector, connector};
use super::{MAX_ANSWER, accepted, cause};
use crate::otlp::config::{Compression, Config, Signal};
use crate::otlp::verdict::{Verdict, of_grpc};

#[derive(Debug)]
pub(super) struct Client {
    grpc: Grpc<legacy::Client<Connector, Body>>,
    headers: HeaderMap,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let http = legacy::Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .build(connector(config)?);
        let grpc = Grpc::with_origin(http, config.endpoint.origin()).max_decoding_message_size(MAX_ANSWER);
        let grpc = match config.compression {
            Compression::None => grpc,
            Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
        };
        Ok(Self { grpc, headers: config.headers.clone() })
    }

    pub(super) async fn send(&mut self, signal: Signal, body: Bytes) -> Verdict {
        let path = PathAndQuery::from_static(match signal {
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        });
        let mut request = Request::new(body);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        if let Err(error) = self.grpc.ready().await {
            return Verdict::Retry { after: None, why: cause(&error) };
        }
        match self.grpc.unary(request, path, Raw).await {
            Ok(answer) => accepted(signal, answer.get_ref()),
            Err(status) => refused(&status),
        }
    }
}

/// A status of the server has no source; one that the client made of a failed connection has.
fn refused(status: &Status) -> Verdict {
    if let Some(error) = std::error::Error::source(status) {
        return Verdict::Retry { after: None, why: cause(error) };
    }
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    of_grpc(status.code(), delay, status.message())
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
