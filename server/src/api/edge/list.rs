//! The answer to a plain list, which is encoded while it leaves: neither is there a copy of it beside the records, nor
//! are the records taken apart.
//!
//! The generated service cannot answer so. It gives an empty message, with the [`ListAnswer`] among the extensions of
//! the response, and the edge puts the body of that in the place of the other.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use mainstay_proto::etcdserverpb::{RangeResponse, ResponseHeader};
use prost::Message;
use tonic::Status;
use tonic::body::Body;

use super::bodies::trailers;
use crate::apply::EncodedRange;
use crate::mvcc::EncodedKvs;

/// What stands before a message: whether it is compressed, and its length.
const FRAME_HEADER_BYTES: usize = 5;

/// An answer up to this size leaves as one piece.
const ONE_PIECE_BYTES: u64 = 64 * 1024;

/// Among the extensions of a request: its answer may be a [`ListAnswer`].
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct TakesPieces;

/// A `RangeResponse` in gRPC's framing, to be encoded as it leaves.
#[derive(Clone, Debug)]
pub(in crate::api) struct ListAnswer {
    /// The framing, and what comes before the key values.
    front: Bytes,
    kvs: EncodedKvs,
    /// What comes behind them.
    back: Bytes,
}

impl ListAnswer {
    /// The answer that a range is, below this header.
    ///
    /// # Errors
    /// When it is larger than a message can be; in tonic's words.
    pub(in crate::api) fn new(header: ResponseHeader, range: EncodedRange) -> Result<Self, Status> {
        let EncodedRange { kvs, more, count, revision: _ } = range;
        // The fields are in the order of their numbers, between the first and the last two those of the key values.
        let header = RangeResponse { header: Some(header), ..RangeResponse::default() };
        let back = RangeResponse { more, count, ..RangeResponse::default() }.encode_to_vec();
        let len = header.encoded_len() as u64 + kvs.encoded_len() + back.len() as u64;
        let frame_len = frame_len(len)?;
        let mut front = BytesMut::with_capacity(FRAME_HEADER_BYTES + header.encoded_len());
        front.put_u8(0);
        front.put_u32(frame_len);
        header.encode_raw(&mut front);
        Ok(Self { front: front.freeze(), kvs, back: back.into() })
    }

    /// The body of the response.
    pub(super) fn into_body(self) -> Body {
        Body::new(ListBody { answer: self, part: Part::Front })
    }

    /// All of it at once, where it is small.
    fn whole(&mut self) -> Bytes {
        let len = self.front.len() + self.back.len();
        let mut whole = BytesMut::with_capacity(len + usize::try_from(self.kvs.encoded_len()).unwrap_or(0));
        whole.extend_from_slice(&mem::take(&mut self.front));
        while let Some(piece) = self.kvs.next_piece() {
            whole.extend_from_slice(&piece);
        }
        whole.extend_from_slice(&mem::take(&mut self.back));
        whole.freeze()
    }
}

/// The length of a message, as it stands before it.
fn frame_len(len: u64) -> Result<u32, Status> {
    let too_long = |_| format!("Cannot return body with more than 4GB of data but got {len} bytes");
    u32::try_from(len).map_err(too_long).map_err(Status::resource_exhausted)
}

/// What comes next of an answer.
#[derive(Clone, Copy)]
enum Part {
    Front,
    Kvs,
    Trailers,
    Nothing,
}

struct ListBody {
    answer: ListAnswer,
    part: Part,
}

impl ListBody {
    /// The next piece of the message; `None` behind it.
    fn next_piece(&mut self) -> Option<Bytes> {
        match self.part {
            Part::Front if self.answer.kvs.encoded_len() <= ONE_PIECE_BYTES => {
                self.part = Part::Trailers;
                Some(self.answer.whole())
            }
            Part::Front => {
                self.part = Part::Kvs;
                Some(mem::take(&mut self.answer.front))
            }
            Part::Kvs => {
                let piece = self.answer.kvs.next_piece().or_else(|| {
                    self.part = Part::Trailers;
                    Some(mem::take(&mut self.answer.back))
                });
                piece.filter(|piece| !piece.is_empty())
            }
            Part::Trailers | Part::Nothing => None,
        }
    }
}

impl http_body::Body for ListBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        Poll::Ready(match mem::replace(&mut self.part, Part::Nothing) {
            Part::Nothing => None,
            Part::Front | Part::Kvs | Part::Trailers => Some(trailers(&Status::ok("")).map(Frame::trailers)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.part, Part::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use mainstay_proto::KeyRange;
    use mainstay_proto::etcdserverpb::RangeRequest;
    use proptest::prelude::*;

    use super::*;
    use crate::api::edge::GRPC_STATUS;
    use crate::apply::{encoded_range, range_response};
    use crate::engine::EngineHome;
    use crate::engine::mem::MemHome;
    use crate::mvcc::{RangeOptions, Store, Writer};

    const HEADER: ResponseHeader = ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 7, raft_term: 3 };

    /// A store with these keys, the lengths of their values, and their leases.
    fn store(values: &[(Vec<u8>, usize, i64)]) -> Store {
        let mut writer = Writer::open(MemHome::new().open().unwrap(), 1 << 20).unwrap();
        let mut txn = writer.begin();
        for (key, len, lease) in values {
            txn.put(key.clone().into(), vec![7; *len].into(), *lease).unwrap();
        }
        txn.end();
        writer.commit().unwrap();
        writer.store()
    }

    fn everything() -> RangeRequest {
        RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
    }

    fn answer(store: &Store, request: &RangeRequest) -> ListAnswer {
        let read = |range: &KeyRange, options: &RangeOptions| store.encoded_within(range, options, &|_| true);
        ListAnswer::new(HEADER, encoded_range(request, read).unwrap()).unwrap()
    }

    /// The frames of a body: the lengths of those with data, all that is in them, and the status at the end.
    async fn sent(mut body: Body) -> (Vec<usize>, Vec<u8>, String) {
        let (mut lengths, mut data, mut status) = (Vec::new(), Vec::new(), String::new());
        while let Some(frame) = body.frame().await {
            assert!(status.is_empty(), "nothing follows the end");
            match frame.unwrap().into_data() {
                Ok(piece) => {
                    lengths.push(piece.len());
                    data.extend_from_slice(&piece);
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().ok().unwrap();
                    status = trailers[GRPC_STATUS].to_str().unwrap().to_owned();
                }
            }
        }
        (lengths, data, status)
    }

    /// What tonic sends for a message.
    fn framed(message: &RangeResponse) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
        message.encode_raw(&mut frame);
        frame
    }

    #[tokio::test]
    async fn a_long_list_leaves_in_bounded_pieces_and_a_short_one_at_once() {
        let values: Vec<_> = (0..3000).map(|key| (format!("k{key:04}").into_bytes(), 200, 0)).collect();
        let store = store(&values);
        let (lengths, data, status) = sent(answer(&store, &everything()).into_body()).await;
        assert!(lengths.len() >= 10 && lengths.iter().all(|len| (1..=64 * 1024).contains(len)), "{lengths:?}");
        assert_eq!((data.len(), status.as_str()), (lengths.iter().sum::<usize>(), "0"));
        let short = RangeRequest { limit: 100, ..everything() };
        let (lengths, data, status) = sent(answer(&store, &short).into_body()).await;
        assert_eq!((lengths.as_slice(), status.as_str()), (&[data.len()][..], "0"));
    }

    #[test]
    fn what_is_too_long_for_a_message_is_refused() {
        assert_eq!(frame_len(u64::from(u32::MAX)).unwrap(), u32::MAX);
        let status = frame_len(u64::from(u32::MAX) + 1).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.message(), "Cannot return body with more than 4GB of data but got 4294967296 bytes");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_bytes_are_those_that_the_message_would_have(
            values in prop::collection::vec((prop::collection::vec(b'a'..b'e', 1..4), 0usize..30_000, 0i64..3), 0..40),
            limit in -1i64..40, keys_only: bool,
        ) {
            let store = store(&values);
            let request = RangeRequest { limit, keys_only, ..everything() };
            let mut expected = range_response(&request, |range, options| store.range(range, options)).unwrap();
            expected.header = Some(HEADER);
            let (_, data, status) = sent(answer(&store, &request).into_body()).now_or_never().unwrap();
            prop_assert_eq!(status, "0");
            prop_assert!(data == framed(&expected));
        }
    }
}
