use http::Extensions;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::admission::Hold;

/// Who asks: what is done on the way to an answer is done with this identity.
#[derive(Clone)]
pub(super) struct Caller {
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    /// Takes a request apart.
    pub(super) fn of<T>(request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { metadata, extensions }, message)
    }

    /// A request of the same caller.
    pub(super) fn asks<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }

    /// What the caller's request holds.
    pub(super) fn hold(&self) -> Hold {
        Hold::of(&self.extensions)
    }
}

/// What another service of this member answered, with its errors as etcd's recipes pass them on: they
/// come out of a client inside the server, which keeps the text and not the code.
pub(super) fn answered<T>(result: Result<Response<T>, Status>) -> Result<T, Status> {
    result.map(Response::into_inner).map_err(|status| Status::unknown(status.message()))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::api::status::ApiError;

    #[test]
    fn a_request_is_made_in_the_callers_name() {
        let mut request = Request::new("lock");
        request.metadata_mut().insert("token", "secret.1".parse().unwrap());
        request.extensions_mut().insert(7_u8);
        let (caller, message) = Caller::of(request);
        assert_eq!(message, "lock");
        let asked = caller.asks("put");
        assert_eq!(asked.metadata().get("token").unwrap(), "secret.1");
        assert_eq!(asked.extensions().get::<u8>(), Some(&7));
    }

    #[test]
    fn errors_keep_their_text_only() {
        let status = answered::<()>(Err(ApiError::LeaseNotFound.into())).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: requested lease not found"));
    }
}
