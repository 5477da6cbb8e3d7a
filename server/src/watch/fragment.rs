//! Splitting a large response (pure).

use mainstay_proto::etcdserverpb::WatchResponse;
use prost::Message;

use super::spliced::SplicedResponse;

/// Splits a response of at least `limit` bytes into pieces below it, as etcd does: each has at
/// least one event however large, and all but the last are marked as fragments.
pub(super) fn split(response: SplicedResponse, limit: usize) -> Vec<SplicedResponse> {
    if response.events().len() < 2 || response.encoded_len() < limit {
        return vec![response];
    }
    let (head, events) = response.into_parts();
    let fragment = WatchResponse { fragment: true, ..head.clone() };
    let empty_bytes = fragment.encoded_len();

    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut bytes = empty_bytes;
    for event in events {
        if !piece.is_empty() && bytes + event.len() >= limit {
            pieces.push(SplicedResponse::new(fragment.clone(), std::mem::take(&mut piece)));
            bytes = empty_bytes;
        }
        bytes += event.len();
        piece.push(event);
    }
    pieces.push(SplicedResponse::new(WatchResponse { fragment: false, ..head }, piece));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{Event, KeyValue};

    fn response(sizes: &[usize]) -> WatchResponse {
        let event = |size: &usize| Event {
            kv: Some(KeyValue { key: "k".into(), value: vec![0; *size].into(), ..KeyValue::default() }),
            ..Event::default()
        };
        WatchResponse { watch_id: 7, events: sizes.iter().map(event).collect(), ..WatchResponse::default() }
    }

    #[track_caller]
    fn check(sizes: &[usize], limit: usize, pieces: &[usize]) {
        let split = split(response(sizes).into(), limit);
        let split: Vec<WatchResponse> = split.into_iter().map(SplicedResponse::into_response).collect();
        assert_eq!(split.iter().map(|piece| piece.events.len()).collect::<Vec<_>>(), pieces);
        for (place, piece) in split.iter().enumerate() {
            assert_eq!(piece.fragment, place + 1 < pieces.len());
            assert_eq!(piece.watch_id, 7);
            assert!(piece.events.len() <= 1 || piece.encoded_len() < limit);
        }
        let events: Vec<Event> = split.into_iter().flat_map(|piece| piece.events).collect();
        assert_eq!(events, response(sizes).events);
    }

    #[test]
    fn pieces_stay_below_the_limit() {
        check(&[10, 10, 10], 1_000, &[3]);
        check(&[400, 400, 400, 400], 1_000, &[2, 2]);
        check(&[400, 400, 150, 400], 1_000, &[3, 1]);
        check(&[2_000, 1, 2_000], 1_000, &[1, 1, 1]);
        check(&[2_000], 1_000, &[1]);
        check(&[], 1, &[0]);
    }

    /// 4 × 1 MiB and 10 × 512 KiB, as etcd 3.7.1 was seen to split them at its default of 2 MiB.
    #[test]
    fn etcd_splits_alike() {
        check(&[1 << 20; 4], 2 << 20, &[1, 1, 1, 1]);
        check(&[512 << 10; 10], 2 << 20, &[3, 3, 3, 1]);
    }

    #[test]
    fn the_limit_itself_is_too_much() {
        let exact = response(&[100, 100]).encoded_len();
        assert_eq!(split(response(&[100, 100]).into(), exact).len(), 2);
        assert_eq!(split(response(&[100, 100]).into(), exact + 1).len(), 1);
    }
}
