//! A collector in the test's own process, on a thread of its own, that does as it is told.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Request as HttpRequest, Response as HttpResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::otlp::config::{Config, Protocol};
use crate::otlp::keep_quiet;

/// What the collector does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Take,
    /// Takes it but for so many of its records.
    Partial(i64),
    /// For good.
    Refuse,
    /// For now.
    Busy,
    /// Reads it and never answers.
    Stall,
    /// Reads it and ends before it answers.
    Die,
}

/// What was taken: what the collector said it has.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) requests: usize,
    pub(super) logs: Vec<ExportLogsServiceRequest>,
    pub(super) traces: Vec<ExportTraceServiceRequest>,
    pub(super) metrics: Vec<ExportMetricsServiceRequest>,
    pub(super) headers: Vec<HeaderMap>,
    pub(super) rejected: u64,
}

#[derive(Debug)]
struct Shared {
    mode: Mutex<Mode>,
    received: watch::Sender<Received>,
    /// Ends the life it has now; a word said twice must not end the next one.
    die: Mutex<Arc<Notify>>,
}

#[derive(Debug)]
pub(super) struct Collector {
    pub(super) address: SocketAddr,
    protocol: Protocol,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the collector makes of a request.
enum Answer {
    Taken { rejected: i64 },
    Refused,
    Busy,
}

impl Received {
    /// The bodies of the log records, in the order they came.
    pub(super) fn bodies(&self) -> Vec<String> {
        let records = self
            .logs
            .iter()
            .flat_map(|request| &request.resource_logs)
            .flat_map(|found| &found.scope_logs)
            .flat_map(|found| &found.log_records);
        records
            .map(|record| match record.body.clone().and_then(|body| body.value) {
                Some(opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(text)) => text,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    pub(super) fn spans(&self) -> usize {
        let scopes = self
            .traces
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|found| &found.scope_spans);
        scopes.map(|found| found.spans.len()).sum()
    }

    /// All records it said it has.
    pub(super) fn taken(&self) -> u64 {
        (self.bodies().len() + self.spans()) as u64 - self.rejected
    }
}

impl Collector {
    pub(super) fn start(protocol: Protocol, mode: Mode) -> Self {
        Self::at(protocol, mode, "127.0.0.1:0".parse().unwrap(), None)
    }

    pub(super) fn with_tls(tls: TlsAcceptor) -> Self {
        Self::at(Protocol::Http, Mode::Take, "127.0.0.1:0".parse().unwrap(), Some(tls))
    }

    fn at(protocol: Protocol, mode: Mode, address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let shared = Shared {
            mode: Mutex::new(mode),
            received: watch::Sender::new(Received::default()),
            die: Mutex::default(),
        };
        let mut collector = Self { address, protocol, shared: Arc::new(shared), thread: None };
        collector.rise(tls);
        collector
    }

    /// Starts it where it was.
    pub(super) fn rise(&mut self, tls: Option<TlsAcceptor>) {
        assert!(self.thread.is_none());
        let (shared, protocol, die) = (self.shared.clone(), self.protocol, Arc::new(Notify::new()));
        *self.shared.die.lock().unwrap() = die.clone();
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        self.thread = Some(thread::spawn(move || {
            keep_quiet();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(protocol, listener, shared, tls) => {}
                    () = die.notified() => {}
                }
            });
            // With the runtime go its connections.
        }));
    }

    /// Ends it, as a kill would.
    pub(super) fn kill(&mut self) {
        self.shared.end();
        self.await_end();
    }

    /// Waits until it has ended.
    pub(super) fn await_end(&mut self) {
        self.thread.take().expect("it runs").join().unwrap();
    }

    pub(super) fn mode(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    pub(super) fn received(&self) -> Received {
        self.shared.received.borrow().clone()
    }

    pub(super) async fn until(&self, what: &str, done: impl FnMut(&Received) -> bool) -> Received {
        let mut received = self.shared.received.subscribe();
        match timeout(Duration::from_secs(60), received.wait_for(done)).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("waited in vain until {what}: {:?}", self.received()),
        }
    }

    /// Settings of an exporter that tries again at once.
    pub(super) fn config(&self) -> Config {
        config(self.protocol, &format!("http://{}", self.address))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.end();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

pub(super) fn config(protocol: Protocol, endpoint: &str) -> Config {
    Config {
        batch_interval: Duration::from_millis(5),
        retry_min: Duration::from_millis(1),
        retry_max: Duration::from_millis(20),
        ..Config::to(endpoint.parse().unwrap(), protocol)
    }
}

async fn serve(protocol: Protocol, listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    match protocol {
        Protocol::Grpc => {
            let logs =
                LogsServiceServer::from_arc(shared.clone()).accept_compressed(CompressionEncoding::Gzip);
            let traces =
                TraceServiceServer::from_arc(shared.clone()).accept_compressed(CompressionEncoding::Gzip);
            let metrics = MetricsServiceServer::from_arc(shared).accept_compressed(CompressionEncoding::Gzip);
            let server = tonic::transport::Server::builder()
                .add_service(logs)
                .add_service(traces)
                .add_service(metrics);
            server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        }
        Protocol::Http => {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (shared.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, shared).await;
                            }
                        }
                        None => connection(stream, shared).await,
                    }
                });
            }
        }
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(http(&shared, request).await) }
    });
    // The other end may go at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn http(shared: &Shared, request: HttpRequest<Incoming>) -> HttpResponse<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes();
    if head.headers.get(CONTENT_ENCODING).is_some_and(|found| found == "gzip") {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        body = plain.into();
    }
    let path = head.uri.path();
    let answer = match path {
        "/v1/logs" => {
            let request = ExportLogsServiceRequest::decode(body).unwrap();
            shared.judge(head.headers, |received| received.logs.push(request)).await
        }
        "/v1/traces" => {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            shared.judge(head.headers, |received| received.traces.push(request)).await
        }
        "/v1/metrics" => {
            let request = ExportMetricsServiceRequest::decode(body).unwrap();
            shared.judge(head.headers, |received| received.metrics.push(request)).await
        }
        other => panic!("{other}"),
    };
    let (status, body) = match answer {
        Answer::Taken { rejected } => match path {
            "/v1/logs" => (200, logs_answer(rejected).encode_to_vec()),
            "/v1/traces" => (200, traces_answer(rejected).encode_to_vec()),
            _ => (200, metrics_answer(rejected).encode_to_vec()),
        },
        Answer::Refused => {
            let status =
                tonic_types::Status { code: 3, message: "not like this".to_owned(), details: Vec::new() };
            (400, status.encode_to_vec())
        }
        Answer::Busy => (503, Vec::new()),
    };
    HttpResponse::builder()
        .status(status)
        .header("content-type", "application/x-protobuf")
        .header(RETRY_AFTER, "0")
        .body(Full::new(body.into()))
        .unwrap()
}

impl Shared {
    fn end(&self) {
        self.die.lock().unwrap().notify_one();
    }

    async fn judge(&self, headers: HeaderMap, keep: impl FnOnce(&mut Received)) -> Answer {
        let mode = *self.mode.lock().unwrap();
        self.received.send_modify(|received| {
            received.requests += 1;
            if let Mode::Take | Mode::Partial(_) = mode {
                keep(received);
                received.headers.push(headers);
            }
            if let Mode::Partial(rejected) = mode {
                received.rejected += rejected as u64;
            }
        });
        match mode {
            Mode::Take => Answer::Taken { rejected: 0 },
            Mode::Partial(rejected) => Answer::Taken { rejected },
            Mode::Refuse => Answer::Refused,
            Mode::Busy => Answer::Busy,
            Mode::Stall => std::future::pending().await,
            Mode::Die => {
                self.end();
                std::future::pending().await
            }
        }
    }
}

fn logs_answer(rejected: i64) -> ExportLogsServiceResponse {
    let partial =
        ExportLogsPartialSuccess { rejected_log_records: rejected, error_message: "too old".to_owned() };
    ExportLogsServiceResponse { partial_success: (rejected > 0).then_some(partial) }
}

fn traces_answer(rejected: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: "too old".to_owned() };
    ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) }
}

fn metrics_answer(rejected: i64) -> ExportMetricsServiceResponse {
    let partial =
        ExportMetricsPartialSuccess { rejected_data_points: rejected, error_message: "too old".to_owned() };
    ExportMetricsServiceResponse { partial_success: (rejected > 0).then_some(partial) }
}

fn grpc<T>(answer: &Answer, taken: impl FnOnce(i64) -> T) -> Result<Response<T>, Status> {
    match answer {
        Answer::Taken { rejected } => Ok(Response::new(taken(*rejected))),
        Answer::Refused => Err(Status::invalid_argument("not like this")),
        Answer::Busy => {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1)));
            Err(Status::with_error_details(Code::ResourceExhausted, "busy", details))
        }
    }
}

#[tonic::async_trait]
impl LogsService for Shared {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        grpc(&self.judge(headers, |received| received.logs.push(request)).await, logs_answer)
    }
}

#[tonic::async_trait]
impl TraceService for Shared {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        grpc(&self.judge(headers, |received| received.traces.push(request)).await, traces_answer)
    }
}

#[tonic::async_trait]
impl MetricsService for Shared {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        grpc(&self.judge(headers, |received| received.metrics.push(request)).await, metrics_answer)
    }
}
