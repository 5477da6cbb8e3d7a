//! The health service of gRPC: the server as a whole, under the empty name, is serving.

use std::future;

use futures_util::{StreamExt, stream};
use mainstay_proto::health::health_check_response::ServingStatus;
use mainstay_proto::health::health_server::Health;
use mainstay_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::Services;
use super::status::ApiError;

/// The name that stands for every service.
const ALL: &str = "";

#[tonic::async_trait]
impl Health for Services {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.into_inner().service != ALL {
            return Err(ApiError::UnknownHealthService.into());
        }
        Ok(Response::new(told(ServingStatus::Serving)))
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(ALL.to_owned(), told(ServingStatus::Serving))].into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = BoxStream<HealthCheckResponse>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service == ALL;
        let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        // Neither ever changes; the stream stays open, as the protocol has it.
        let first = stream::once(future::ready(Ok(told(status))));
        Ok(Response::new(Box::pin(first.chain(stream::pending()))))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
