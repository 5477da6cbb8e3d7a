//! `/livez` and `/readyz`: several checks, all or one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use http::{Method, Response, StatusCode, Uri};
use mainstay_proto::etcdserverpb::AlarmType;

use super::probe::Probe;
use super::query::Query;
use super::responses::{PLAIN, answer, failure, not_found, only_get};
use super::router::Site;

/// What is asked for: whether to restart the process, or whether to send it clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Livez,
    Readyz,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Livez => "livez",
            Kind::Readyz => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Kind::Livez => &[Check::SerializableRead],
            Kind::Readyz => {
                &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner]
            }
        }
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, probe: &Probe) -> Result<(), String> {
        match self {
            Check::DataCorruption if (probe.alarms)().contains(&AlarmType::Corrupt) => {
                Err("alarm activated: CORRUPT".to_owned())
            }
            Check::NonLearner if (probe.is_learner)() => Err("not supported for learner".to_owned()),
            Check::DataCorruption | Check::NonLearner => Ok(()),
            Check::SerializableRead => (probe.serializable_read)().await,
            Check::LinearizableRead => (probe.linearizable_read)().await,
        }
    }
}

pub(super) async fn livez(State(site): State<Arc<Site>>, method: Method, uri: Uri) -> Response<Body> {
    all(&site, Kind::Livez, &method, &uri).await
}

pub(super) async fn readyz(State(site): State<Arc<Site>>, method: Method, uri: Uri) -> Response<Body> {
    all(&site, Kind::Readyz, &method, &uri).await
}

pub(super) async fn livez_check(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
) -> Response<Body> {
    one(&site, Kind::Livez, &name, &method, &uri).await
}

pub(super) async fn readyz_check(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
) -> Response<Body> {
    one(&site, Kind::Readyz, &name, &method, &uri).await
}

async fn all(site: &Site, kind: Kind, method: &Method, uri: &Uri) -> Response<Body> {
    let excluded = Query::of(uri).exclude;
    let known: BTreeSet<&str> = kind.checks().iter().map(|check| check.name()).collect();
    // Probes are written once for several versions, so an unknown name is no mistake. As in etcd.
    let unknown: Vec<&str> = excluded.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
    if !unknown.is_empty() {
        tracing::warn!("missing-health-checks" = ?unknown, "some health checks cannot be excluded");
    }
    let checks: Vec<Check> = kind.checks().iter().copied().filter(|check| !excluded.contains(check.name())).collect();
    run(site, kind, &checks, method, uri).await
}

async fn one(site: &Site, kind: Kind, name: &str, method: &Method, uri: &Uri) -> Response<Body> {
    match kind.checks().iter().find(|check| check.name() == name) {
        Some(check) => run(site, kind, &[*check], method, uri).await,
        None => not_found(),
    }
}

async fn run(site: &Site, kind: Kind, checks: &[Check], method: &Method, uri: &Uri) -> Response<Body> {
    if method != Method::GET {
        return only_get();
    }
    let mut report = String::new();
    let mut healthy = true;
    for check in checks {
        let name = check.name();
        let result = check.run(&site.probe).await;
        let _infallible = match &result {
            Ok(()) => writeln!(report, "[+]{name} ok"),
            Err(error) => writeln!(report, "[-]{name} failed: {error}"),
        };
        healthy &= result.is_ok();
        let status = if result.is_ok() { "success" } else { "error" };
        let server = &site.metrics.server;
        server.healthcheck.with_label_values(&[kind.name(), name]).set(i64::from(result.is_ok()));
        server.healthchecks_total.with_label_values(&[kind.name(), name, status]).inc();
    }
    if !healthy {
        tracing::warn!(path = uri.path(), reason = report, "status-code" = 503, "Health check error");
        return failure(StatusCode::SERVICE_UNAVAILABLE, &report);
    }
    let listed = if Query::of(uri).verbose { report.as_str() } else { "" };
    let mut response = answer(StatusCode::OK, PLAIN, format!("{listed}ok\n"));
    response.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, http::HeaderValue::from_static("nosniff"));
    response
}
