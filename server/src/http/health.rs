//! `/health`: one verdict with its reason.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{Method, Response, StatusCode, Uri};
use mainstay_proto::etcdserverpb::AlarmType;
use serde::Serialize;

use super::probe::Probe;
use super::query::Query;
use super::responses::{PLAIN, answer, failure, only_get};
use super::router::Site;

#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: String,
}

pub(super) async fn health(State(site): State<Arc<Site>>, method: Method, uri: Uri) -> Response<Body> {
    if method != Method::GET {
        return only_get();
    }
    let verdict = examine(&site.probe, &Query::of(&uri)).await;
    let (health, reason) = match verdict {
        Ok(()) => ("true", String::new()),
        Err(reason) => ("false", reason),
    };
    let body = serde_json::to_string(&Health { health, reason }).expect("two texts can be written as JSON");
    if health == "true" {
        site.metrics.server.health_success.inc();
        return answer(StatusCode::OK, PLAIN, body);
    }
    site.metrics.server.health_failures.inc();
    tracing::warn!(output = body, "status-code" = 503, "/health error");
    failure(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// The first reason why all is not well, in etcd's order: alarms, leader, a read.
async fn examine(probe: &Probe, query: &Query) -> Result<(), String> {
    let alarm = (probe.alarms)().into_iter().find(|alarm| !query.exclude.contains(alarm.as_str_name()));
    if let Some(alarm) = alarm {
        return Err(match alarm {
            AlarmType::Nospace => "ALARM NOSPACE".to_owned(),
            AlarmType::Corrupt => "ALARM CORRUPT".to_owned(),
            AlarmType::None => "ALARM UNKNOWN".to_owned(),
        });
    }
    if !query.serializable && !(probe.has_leader)() {
        return Err("RAFT NO LEADER".to_owned());
    }
    let read = if query.serializable { &probe.serializable_read } else { &probe.linearizable_read };
    read().await.map_err(|error| format!("RANGE ERROR:{error}"))
}
