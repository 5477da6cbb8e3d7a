//! The other pages: version, metrics, variables, and where there is none.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::header::LOCATION;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;

use super::responses::{JSON, answer, not_found, only_get};
use super::router::Site;
use crate::config::version::ETCD_VERSION;
use crate::metrics::Metrics;

#[derive(Serialize)]
struct Versions {
    etcdserver: &'static str,
    etcdcluster: String,
    storage: String,
}

pub(super) async fn version(State(site): State<Arc<Site>>, method: Method) -> Response<Body> {
    if method != Method::GET {
        return only_get();
    }
    let versions = match (site.probe.cluster_version)() {
        Some(etcdcluster) => Versions { etcdserver: ETCD_VERSION, storage: etcdcluster.clone(), etcdcluster },
        None => {
            Versions { etcdserver: ETCD_VERSION, etcdcluster: "not_decided".to_owned(), storage: "unknown".to_owned() }
        }
    };
    let body = serde_json::to_string(&versions).expect("three texts can be written as JSON");
    answer(StatusCode::OK, JSON, body)
}

pub(super) async fn metrics(State(site): State<Arc<Site>>) -> Response<Body> {
    let server = &site.metrics.server;
    server.scrapes_in_flight.inc();
    (site.before_scrape)();
    let text = site.metrics.text();
    server.scrapes_in_flight.dec();
    server.scrapes_total.with_label_values(&["200"]).inc();
    answer(StatusCode::OK, HeaderValue::from_static(Metrics::CONTENT_TYPE), text)
}

/// What Go programs publish of themselves; dashboards only need an object.
#[derive(Serialize)]
struct Variables<'a> {
    cmdline: &'a [String],
    memstats: serde_json::Map<String, serde_json::Value>,
    version: &'static str,
}

pub(super) async fn variables(State(site): State<Arc<Site>>, method: Method) -> Response<Body> {
    if method != Method::GET {
        return only_get();
    }
    let variables = Variables { cmdline: &site.command_line, memstats: serde_json::Map::new(), version: ETCD_VERSION };
    let body = serde_json::to_string(&variables).expect("texts can be written as JSON");
    answer(StatusCode::OK, HeaderValue::from_static("application/json; charset=utf-8"), body)
}

/// Every other path: those of the JSON gateway, and where there is nothing.
pub(super) async fn other(State(site): State<Arc<Site>>, request: Request<Body>) -> Response<Body> {
    let Some(gateway) = &site.gateway else { return not_found() };
    let path = request.uri().path();
    if path == "/v3" {
        // Go's router, which knows a folder, sends its name there.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/v3/"));
        return response;
    }
    let Some(path) = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/")) else { return not_found() };
    let path = path.to_owned();
    gateway.clone().respond(&path, request).await
}
