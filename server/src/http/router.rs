use std::sync::Arc;

use axum::Router;
use axum::routing::any;

use super::access::{self, Access};
use super::json::JsonGateway;
use super::probe::Probe;
use super::{checks, health, pages};
use crate::metrics::Metrics;

/// What the pages show.
pub struct Site {
    /// Looks at the node.
    pub probe: Probe,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Brings metrics that follow a state up to date; called at each scrape.
    pub before_scrape: Box<dyn Fn() + Send + Sync>,
    /// The process's arguments, for `/debug/vars`.
    pub command_line: Vec<String>,
    /// Answers paths below `/v3/`, unless it is switched off.
    pub gateway: Option<JsonGateway>,
}

/// The pages of the client port.
pub fn client_router(site: Arc<Site>, access: Access) -> Router {
    let pages = watched(Router::new())
        .route("/version", any(pages::version))
        .route("/debug/vars", any(pages::variables))
        .fallback(pages::other)
        .with_state(site);
    pages.layer(axum::middleware::from_fn_with_state(Arc::new(access), access::control))
}

/// The pages of `--listen-metrics-urls`.
pub fn metrics_router(site: Arc<Site>) -> Router {
    watched(Router::new()).fallback(async || super::responses::not_found()).with_state(site)
}

/// What monitoring asks for. Methods are the pages' own matter: Go's answer to a wrong one differs from axum's.
fn watched(router: Router<Arc<Site>>) -> Router<Arc<Site>> {
    router
        .route("/health", any(health::health))
        .route("/livez", any(checks::livez))
        .route("/livez/{check}", any(checks::livez_check))
        .route("/readyz", any(checks::readyz))
        .route("/readyz/{check}", any(checks::readyz_check))
        .route("/metrics", any(pages::metrics))
}
