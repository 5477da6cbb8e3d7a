//! Distributed traces: spans as OpenTelemetry has them, sent to a collector as OTLP over gRPC.
//!
//! Spans that have ended wait in a queue, from which a thread sends them every five seconds, or when there are many;
//! where the collector does not take them, the newest are dropped. `OTEL_BSP_…` variables change that, as in etcd.
//! No request waits for a collector, and the end of the process no longer than [`LINGERS`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName};
use mainstay_server::api::{self, Attribute, Rpc};
use mainstay_server::config::Tracing;
use mainstay_server::env;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter, TracerProviderBuilder};
use tonic::transport::Endpoint;

/// How long it may take to connect to the collector.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// How long the collector may take for what it is sent, attempts to send it again included.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// How long the end of the process may wait for the last spans to be sent.
const LINGERS: Duration = Duration::from_secs(1);

/// Has spans made and sent. Dropping it sends what is left.
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Traces requests from now on, where that is asked for. Needs the runtime, on which the collector is talked to.
    pub(super) fn begin(options: &Tracing) -> anyhow::Result<Option<Self>> {
        if !options.enabled {
            return Ok(None);
        }
        // Without TLS, as in etcd. It connects when there is something to send.
        let collector = Endpoint::from_shared(format!("http://{}", options.address))
            .with_context(|| format!("--distributed-tracing-address={}", options.address))?
            .connect_timeout(CONNECTS_WITHIN)
            .timeout(TAKEN_WITHIN);
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(collector.connect_lazy())
            .with_timeout(TAKEN_WITHIN)
            .build()
            .context("cannot export traces")?;
        let exporter = Exporter { otlp, address: options.address.clone(), fails: AtomicBool::new(false) };
        tracing::info!(
            address = options.address,
            "service-name" = options.service_name,
            "service-instance-id" = options.instance_id,
            "sampling-rate" = options.sampling_rate_per_million,
            "distributed tracing enabled"
        );
        Ok(Some(Self { provider: provider(options).with_batch_exporter(exporter).build() }))
    }

    /// Makes the spans of requests.
    pub(super) fn tracer(&self) -> Arc<dyn api::Tracer> {
        Arc::new(Calls { tracer: self.provider.tracer("mainstay"), propagator: TraceContextPropagator::new() })
    }

    /// Sends what is left.
    pub(super) async fn stop(self) {
        env::blocking(move || drop(self)).await;
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LINGERS) {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }
}

/// Which requests are sampled, and who they say they are of.
fn provider(options: &Tracing) -> TracerProviderBuilder {
    let root = match options.sampling_rate_per_million {
        0 => Sampler::AlwaysOff,
        rate => Sampler::TraceIdRatioBased(rate as f64 / 1e6),
    };
    let mut resource = Resource::builder().with_service_name(options.service_name.clone());
    if !options.instance_id.is_empty() {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", options.instance_id.clone()));
    }
    // Whoever asks has decided already, where it traces, too.
    SdkTracerProvider::builder().with_sampler(Sampler::ParentBased(Box::new(root))).with_resource(resource.build())
}

/// Sends spans, and says when that begins to fail, and when it succeeds again.
#[derive(Debug)]
struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    address: String,
    fails: AtomicBool,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.otlp.export(batch).await;
        let failed = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed => {
                tracing::warn!(address = self.address, %error, spans = count, "cannot send traces; they are lost");
            }
            Ok(()) if failed => tracing::info!(address = self.address, "traces are sent again"),
            _ => {}
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// The spans of calls.
struct Calls {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl api::Tracer for Calls {
    fn begin(&self, rpc: &'static Rpc, metadata: &HeaderMap) -> Option<Arc<dyn api::Span>> {
        let parent = self.propagator.extract_with_context(&Context::new(), &Metadata(metadata));
        let name = format!("{}/{}", rpc.service, rpc.method);
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        let span = self.tracer.build_with_context(builder, &parent);
        if !span.is_recording() {
            return None;
        }
        Some(Arc::new(Span { tracer: self.tracer.clone(), context: parent.with_span(span) }))
    }
}

/// The metadata of a call, in which its caller may name a span.
struct Metadata<'a>(&'a HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct Span {
    tracer: SdkTracer,
    /// Holds the span.
    context: Context,
}

impl api::Span for Span {
    fn child(&self, name: &'static str) -> Box<dyn api::Span> {
        let child = self.tracer.build_with_context(self.tracer.span_builder(name), &self.context);
        Box::new(Span { tracer: self.tracer.clone(), context: self.context.with_span(child) })
    }

    fn set(&self, name: &'static str, value: Attribute<'_>) {
        let value = match value {
            Attribute::Bool(value) => Value::from(value),
            Attribute::Int(value) => Value::from(value),
            Attribute::Text(text) => Value::from(String::from_utf8_lossy(text).into_owned()),
        };
        self.context.span().set_attribute(KeyValue::new(name, value));
    }

    fn event(&self, name: &'static str) {
        self.context.span().add_event(name, Vec::new());
    }

    fn fail(&self, why: String) {
        self.context.span().set_status(Status::error(why));
    }

    fn end(&self) {
        self.context.span().end();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use mainstay_server::api::RPCS;
    use opentelemetry::Key;
    use parking_lot::Mutex;

    use super::*;

    /// Keeps what it is to send.
    #[derive(Clone, Debug, Default)]
    struct Kept {
        spans: Arc<Mutex<Vec<SpanData>>>,
        resource: Arc<Mutex<Option<Resource>>>,
    }

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.spans.lock().extend(batch);
            Ok(())
        }

        fn set_resource(&mut self, resource: &Resource) {
            *self.resource.lock() = Some(resource.clone());
        }
    }

    fn options(rate: i64) -> Tracing {
        Tracing {
            enabled: true,
            address: "127.0.0.1:1".to_owned(),
            service_name: "store".to_owned(),
            instance_id: "one".to_owned(),
            sampling_rate_per_million: rate,
        }
    }

    fn traced(rate: i64) -> (Traces, Kept) {
        let kept = Kept::default();
        (Traces { provider: provider(&options(rate)).with_simple_exporter(kept.clone()).build() }, kept)
    }

    /// The metadata of a caller that samples its own span, or not.
    fn called_by(sampled: bool) -> HeaderMap {
        let flags = if sampled { "01" } else { "00" };
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::try_from(parent).unwrap())])
    }

    #[test]
    fn a_caller_decides_for_itself_and_the_rate_for_the_others() {
        for rate in [0, 1_000_000] {
            let (traces, _) = traced(rate);
            let begins = |metadata: &HeaderMap| traces.tracer().begin(&RPCS[0], metadata).is_some();
            assert!(begins(&called_by(true)), "rate {rate}");
            assert!(!begins(&called_by(false)), "rate {rate}");
            assert_eq!(begins(&HeaderMap::new()), rate > 0);
            let nonsense =
                HeaderMap::from_iter([(HeaderName::from_static("traceparent"), HeaderValue::from_static("x"))]);
            assert_eq!(begins(&nonsense), rate > 0);
        }
    }

    #[test]
    fn spans_say_what_they_were_told() {
        let (traces, kept) = traced(0);
        let call = traces.tracer().begin(&RPCS[0], &called_by(true)).unwrap();
        call.set("text", Attribute::Text(b"a\xff"));
        call.set("number", Attribute::Int(-1));
        let part = call.child("part");
        part.set("yes", Attribute::Bool(true));
        part.event("now");
        part.end();
        call.fail("why".to_owned());
        call.end();
        call.set("late", Attribute::Int(1));
        call.end();

        let spans = kept.spans.lock();
        let [part, call] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((call.name.as_ref(), &call.span_kind), ("etcdserverpb.KV/Range", &SpanKind::Server));
        assert_eq!(call.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(call.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(call.attributes, [KeyValue::new("text", "a\u{fffd}"), KeyValue::new("number", -1_i64)]);
        assert_eq!(call.status, Status::error("why"));
        assert_eq!((part.name.as_ref(), &part.span_kind), ("part", &SpanKind::Internal));
        assert_eq!(part.span_context.trace_id(), call.span_context.trace_id());
        assert_eq!(part.parent_span_id, call.span_context.span_id());
        assert_eq!(part.attributes, [KeyValue::new("yes", true)]);
        assert_eq!(part.events.iter().map(|event| event.name.as_ref()).collect::<Vec<_>>(), ["now"]);
        let resource = kept.resource.lock().clone().unwrap();
        let said = |name: &'static str| resource.get(&Key::from_static_str(name)).unwrap().to_string();
        assert_eq!([said("service.name"), said("service.instance.id")], ["store", "one"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_never_answers_is_not_waited_for() {
        // It takes connections, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let traces = Traces::begin(&Tracing { address, ..options(1_000_000) }).unwrap().unwrap();
        let call = traces.tracer().begin(&RPCS[0], &HeaderMap::new()).unwrap();
        call.end();
        let began = std::time::Instant::now();
        traces.stop().await;
        assert!(began.elapsed() < 5 * LINGERS, "{:?}", began.elapsed());
        // Whoever is late is told nothing, and waits for nothing.
        call.end();
        drop(call);
        assert!(began.elapsed() < 5 * LINGERS, "{:?}", began.elapsed());
    }

    #[test]
    fn nothing_is_traced_unasked() {
        assert!(Traces::begin(&Tracing { enabled: false, ..options(7) }).unwrap().is_none());
    }
}
