//! Watches.

use mainstay_proto::etcdserverpb::watch_request::RequestUnion;
use mainstay_proto::etcdserverpb::{WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest};

use super::Planner;
use crate::step::Step;

/// Ids that scripts choose, and those that servers give out first.
const IDS: i64 = 6;

impl Planner {
    pub(super) fn watch(&mut self, client: usize) -> Step {
        let (key, range_end) = self.keys.range(&mut self.dice);
        let start_revision = if self.dice.chance(50) { 0 } else { self.revision() };
        let filters = (0..self.dice.below(3)).filter(|_| self.dice.chance(25)).collect::<Vec<_>>();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision,
            progress_notify: self.dice.chance(10),
            filters: filters.iter().map(|_| self.enum_number(2)).collect(),
            prev_kv: self.dice.chance(50),
            watch_id: match self.dice.below(10) {
                0..=6 => 0,
                7 | 8 => self.dice.between(1, IDS),
                _ => *self.dice.pick(&[-1, -7, i64::MAX, 1 << 40]),
            },
            fragment: self.dice.chance(20),
        };
        watch_request(client, Some(RequestUnion::CreateRequest(create)))
    }

    pub(super) fn cancel(&mut self, client: usize) -> Step {
        let watch_id = self.dice.between(-1, IDS);
        watch_request(client, Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })))
    }

    pub(super) fn progress(&mut self, client: usize) -> Step {
        watch_request(client, Some(RequestUnion::ProgressRequest(WatchProgressRequest {})))
    }

    pub(super) fn empty_watch_request(&mut self, client: usize) -> Step {
        watch_request(client, None)
    }

    pub(super) fn hang_up(&mut self, client: usize) -> Step {
        let half = self.dice.chance(40);
        Step::special(client, "Hangup", &format!("half: {half}")).expect("the message has this field")
    }
}

fn watch_request(client: usize, request_union: Option<RequestUnion>) -> Step {
    Step::call(client, "Watch.Watch", &WatchRequest { request_union })
}
