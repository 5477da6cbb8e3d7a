//! What every request passes on its way to its service, whichever transport brought it: the
//! rules that hold for all methods (metadata, learners and those that join, message sizes), what it takes of the memory,
//! counting and tracing.
//!
//! It stands directly around the generated services and adds neither a task nor a boxed body to
//! a unary request. A port for clients calls [`Edge::serve`] with bodies as they come from the socket; a router, which
//! boxes them, is for the JSON gateway and for simulations.

mod bodies;
mod list;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body as HttpBody;
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower_service::Service;

use super::access::Credentials;
use super::metadata::Metadata;
use super::rpc::{self, Rpc, RpcObserver};
use super::spans::CallSpan;
use super::status::{self, ApiError};
use super::{Access, RpcAccess, Services, admission, stopping};
use crate::admission::{Entering, Hold, Origin};
use crate::env::RequestBytes;
use crate::raft;

pub(super) use self::bodies::RequestBody;
pub use self::bodies::ResponseBody;
pub(super) use self::list::{ListAnswer, TakesPieces};

const GRPC_STATUS: &str = "grpc-status";

/// The method whose answer may be a [`ListAnswer`].
const RANGE: &str = "Range";

/// What a generated service is.
pub(super) trait Generated:
    Service<
        Request<RequestBody>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    > + Clone
    + Send
    + 'static
{
}

impl<S> Generated for S where
    S: Service<
            Request<RequestBody>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + Clone
        + Send
        + 'static
{
}

/// A generated service behind the rules for all.
#[derive(Clone)]
pub(super) struct Edge<S> {
    service: S,
    services: Arc<Services>,
    methods: &'static [Rpc],
}

impl<S: NamedService> Edge<S> {
    pub(super) fn new(service: S, services: &Arc<Services>) -> Self {
        Self { service, services: Arc::clone(services), methods: rpc::methods_of(S::NAME) }
    }
}

impl<S> Edge<S> {
    /// The method of this service that a path names.
    fn method(&self, path: &str) -> Option<&'static Rpc> {
        let (service, method) = rpc::split(path)?;
        let is_this = self.methods.first().is_some_and(|rpc| rpc.service == service);
        self.methods.iter().find(|rpc| is_this && rpc.method == method)
    }
}

/// By a router, which knows where a request comes from by its extensions alone.
impl<S: Generated> Service<Request<HttpBody>> for Edge<S> {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<HttpBody>) -> EdgeFuture {
        let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
        self.serve(request.map(RequestBytes::from), &origin)
    }
}

impl<S: Generated> Edge<S> {
    /// Serves a request that comes from there. The generated services are always ready.
    pub(super) fn serve(&self, request: Request<RequestBytes>, origin: &Origin) -> EdgeFuture {
        let Some(rpc) = self.method(request.uri().path()) else {
            return EdgeFuture::refused(unknown(request.uri().path()));
        };
        let services = &self.services;
        let span = CallSpan::begin(services.tracer.as_deref(), rpc, request.headers());
        let call = Call::begin(&services.observer, rpc, span);
        let is_out_of_service = services.out_of_service.refuses(rpc);
        let (role, knows_leader) = (services.gateway.role(), || services.gateway.leader().is_some());
        let admitted = admit(rpc, request.headers(), role, knows_leader, is_out_of_service, &*services.observer);
        let entered = admitted.and_then(|requires_leader| {
            let origin = admission::origin(&services.access, request.headers(), origin);
            let (hold, entering) = admission::enter(&services.admission, rpc, &origin)?;
            Ok((requires_leader, hold, entering))
        });
        let (requires_leader, hold, entering) = match entered {
            Ok(entered) => entered,
            Err(error) => {
                call.end(error.code(), || error.message().to_owned());
                return EdgeFuture::refused(error.into());
            }
        };
        let limit = self.services.limits.max_message_bytes();
        let observer = Arc::clone(&self.services.observer);
        let mut request = request.map(|body| RequestBody::new(body, limit, rpc, observer, hold.clone()));
        call.span.accompany(&mut request);
        if hold.counts() {
            request.extensions_mut().insert(hold.clone());
        }
        if rpc.method == RANGE && request.extensions().get::<Origin>().is_none_or(|origin| !origin.is_json) {
            request.extensions_mut().insert(TakesPieces);
        }
        let ending = ending(&self.services, rpc, requires_leader);
        let is_open = rpc.access == RpcAccess::ByRequest || !self.services.access.is_enabled();
        let response = if is_open && entering.is_none() {
            self.service.clone().call(request)
        } else {
            let access = self.services.access.clone();
            Box::pin(once_admitted(entering, access, rpc.access, self.service.clone(), request))
        };
        EdgeFuture(Progress::Serving { response, call: Some(call), ending, hold })
    }
}

/// Applies the rules for all methods, in etcd's order; returns whether the request requires a leader.
fn admit(
    rpc: &'static Rpc,
    headers: &HeaderMap,
    role: raft::Role,
    knows_leader: impl FnOnce() -> bool,
    is_out_of_service: bool,
    observer: &dyn RpcObserver,
) -> Result<bool, ApiError> {
    // Whether it may serve this depends on what kind of member it is, and what it holds may be of no member's.
    if role.is_outside && !rpc.tells_of_itself() {
        return Err(ApiError::NoLeader);
    }
    if role.is_learner && !rpc.on_learner {
        return Err(ApiError::NotSupportedForLearner);
    }
    let metadata = Metadata::parse(headers)?;
    observer.client_request(rpc.kind, metadata.client_api_version);
    if metadata.requires_leader && !knows_leader() {
        return Err(ApiError::NoLeader);
    }
    if is_out_of_service {
        return Err(ApiError::Corrupt);
    }
    Ok(metadata.requires_leader)
}

/// Serves a request once there is room for it, if who sends it is allowed to call the method.
async fn once_admitted<S>(
    entering: Option<Entering>,
    access: Access,
    rule: RpcAccess,
    mut service: S,
    request: Request<RequestBody>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<RequestBody>, Response = Response<Body>, Error = Infallible>,
{
    if let Some(entering) = entering
        && let Err(refused) = entering.await
    {
        return Ok(Status::from(ApiError::from(refused)).into_http());
    }
    let credentials = Credentials::read(request.headers(), request.extensions());
    match access.admit(rule, &credentials).await {
        Ok(()) => service.call(request).await,
        Err(error) => Ok(Status::from(error).into_http()),
    }
}

/// The answer to a path that no method has.
pub(super) fn unknown(path: &str) -> Status {
    let Some((service, method)) = rpc::split(path) else {
        return status::malformed_method(path);
    };
    if rpc::methods_of(service).is_empty() {
        status::unknown_service(service)
    } else {
        status::unknown_method(method, service)
    }
}

/// Why a request is to end before it would.
type Ending = Pin<Box<dyn Future<Output = ApiError> + Send>>;

/// What may end a request before its time; nothing for most.
fn ending(services: &Services, rpc: &'static Rpc, requires_leader: bool) -> Option<Ending> {
    let is_endless = stopping::is_endless(rpc);
    let begun = is_endless.then(|| services.stopping.begun());
    let lost = (requires_leader && rpc.kind.is_stream()).then(|| services.leader_loss.lost());
    let out = is_endless.then(|| services.out_of_service.begun(rpc));
    match (begun, lost, out) {
        (None, None, None) => None,
        (begun, lost, out) => Some(Box::pin(async move {
            tokio::select! {
                biased;
                () = some(begun) => ApiError::Stopped,
                // Whoever waits in a queue has left something there: it is not as if nothing had been done.
                () = some(out) => if rpc.kind.is_stream() { ApiError::Corrupt } else { ApiError::Stopped },
                () = some(lost) => ApiError::NoLeader,
            }
        })),
    }
}

/// Waits for what there is; where there is nothing, for ever.
async fn some(what: Option<impl Future<Output = ()>>) {
    match what {
        Some(what) => what.await,
        None => std::future::pending().await,
    }
}

/// The response of a method, under way.
pub struct EdgeFuture(Progress);

enum Progress {
    Answered(Option<Box<Response<ResponseBody>>>),
    Serving {
        response: BoxFuture<Response<Body>, Infallible>,
        call: Option<Call>,
        ending: Option<Ending>,
        /// What the request holds until its answer has left.
        hold: Hold,
    },
}

impl EdgeFuture {
    pub(super) fn refused(status: Status) -> Self {
        Self::answered(status.into_http())
    }

    /// Is ready at once.
    pub(super) fn answered(response: Response<ResponseBody>) -> Self {
        Self(Progress::Answered(Some(Box::new(response))))
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response<ResponseBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Progress::Answered(response) => {
                let response = response.take().expect("a future is not polled after it is ready");
                Poll::Ready(Ok(*response))
            }
            Progress::Serving { response, call, ending, hold } => {
                let Poll::Ready(Ok(response)) = response.as_mut().poll(context) else {
                    // What waits in a queue has not begun to answer when it is to end.
                    let Some(ending) = ending else { return Poll::Pending };
                    let error = ready!(ending.as_mut().poll(context));
                    if let Some(call) = call.take() {
                        call.end(error.code(), || error.message().to_owned());
                    }
                    return Poll::Ready(Ok(Status::from(error).into_http()));
                };
                let Some(call) = call.take() else { return Poll::Ready(Ok(response.map(ResponseBody::uncounted))) };
                Poll::Ready(Ok(finish(response, call, ending.take(), std::mem::take(hold))))
            }
        }
    }
}

/// Ends the count of a unary request; that of a stream ends with its body.
fn finish(mut response: Response<Body>, call: Call, ending: Option<Ending>, hold: Hold) -> Response<ResponseBody> {
    if let Some(code) = response.headers().get(GRPC_STATUS) {
        call.end(Code::from_bytes(code.as_bytes()), || message_in(response.headers()));
        return response.map(ResponseBody::uncounted);
    }
    if call.rpc.kind.is_stream() {
        return response.map(|body| ResponseBody::stream(body, call, ending, hold));
    }
    let (observer, rpc) = (Arc::clone(&call.observer), call.rpc);
    call.end(Code::Ok, String::new);
    let list = response.extensions_mut().remove::<ListAnswer>();
    response.map(|body| ResponseBody::unary(list.map_or(body, ListAnswer::into_body), rpc, observer, hold))
}

/// What headers or trailers say besides the code.
fn message_in(headers: &HeaderMap) -> String {
    Status::from_header_map(headers).map_or_else(String::new, |status| status.message().to_owned())
}

/// A request that was begun; counted as cancelled where it is dropped before its end.
struct Call {
    observer: Arc<dyn RpcObserver>,
    span: CallSpan,
    rpc: &'static Rpc,
    began: Instant,
    ended: bool,
}

impl Call {
    fn begin(observer: &Arc<dyn RpcObserver>, rpc: &'static Rpc, span: CallSpan) -> Self {
        observer.started(rpc);
        Self { observer: Arc::clone(observer), span, rpc, began: Instant::now(), ended: false }
    }

    /// The message is asked for where the request is traced and failed.
    fn end(mut self, code: Code, message: impl FnOnce() -> String) {
        self.ended = true;
        self.observer.handled(self.rpc, code, self.began.elapsed());
        self.span.end(code, message);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.observer.handled(self.rpc, Code::Cancelled, self.began.elapsed());
            self.span.end(Code::Cancelled, String::new);
        }
    }
}

#[cfg(test)]
mod tests;
