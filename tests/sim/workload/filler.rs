//! A quota that is used up: who fills the store, and who makes room in it again.

use std::time::Duration;

use madsim::rand::prelude::*;
use mainstay_client::Client;
use mainstay_proto::etcdserverpb::AlarmType;
use mainstay_tests::history::{Call, Outcome, Span, Step, Txn};
use mainstay_tests::model::NO_SPACE;

use super::{PATIENCE, Worker};
use crate::trace;

/// What the keys begin with that may be deleted to make room.
pub(crate) const FILLER: &str = "filler/";

const KEYS: u32 = 24;
/// How many of them are written in a row at most, so that the store fills at any pace.
const TOGETHER: u32 = 4;
/// Bytes that a value is filled up with. An entry stays below `ENTRY_BYTES` of the judge.
const FILLING: std::ops::Range<usize> = 1500..3500;
/// How long who found no space lets others have what there is.
const REST: std::ops::Range<u64> = 100..3000;
/// How long who makes room waits until the next time.
const PAUSE: std::ops::Range<u64> = 300..4000;
/// What the observer needs to hear of a deletion.
const HEARD: std::ops::Range<u64> = 100..1000;

pub(super) async fn run(mut worker: Worker) {
    while worker.goes_on().await {
        for _ in 0..thread_rng().gen_range(1..=TOGETHER) {
            let value = worker.fresh() + &"x".repeat(thread_rng().gen_range(FILLING));
            if is_for_space(&put(&worker, value).await) {
                do_with_less(&mut worker).await;
                break;
            }
        }
    }
}

/// Does what takes no space, and rests.
async fn do_with_less(worker: &mut Worker) {
    match thread_rng().gen_range(0..4u32) {
        0 => {
            let span = Span::key(any_key());
            worker.ask(Call::Txn(Txn::of(Step::Delete { span, prev_kv: false }))).await;
        }
        // Mostly much shorter than what is there.
        1 | 2 => {
            let value = worker.fresh();
            put(worker, value).await;
        }
        _ => {}
    }
    let rest = Duration::from_millis(thread_rng().gen_range(REST));
    tokio::time::sleep(rest).await;
}

async fn put(worker: &Worker, value: String) -> Outcome {
    worker.ask(Call::Txn(Txn::of(Step::put(any_key(), value)))).await
}

fn any_key() -> String {
    key(thread_rng().gen_range(0..KEYS))
}

fn key(number: u32) -> String {
    format!("{FILLER}{number:02}")
}

/// Makes room from time to time, or disarms the alarm, or both. An alarm that is disarmed without room is raised anew.
pub(super) async fn relieve(worker: Worker) {
    while worker.goes_on().await {
        let pause = Duration::from_millis(thread_rng().gen_range(PAUSE));
        tokio::time::sleep(pause).await;
        if thread_rng().gen_bool(0.7) {
            make_room(&worker).await;
        }
        if thread_rng().gen_bool(0.6) {
            let member = thread_rng().gen_range(0..worker.client.endpoints().len());
            disarm_all(&worker.client.only(member).with_timeout(PATIENCE)).await;
        }
    }
}

/// Deletes all that fills, or half of it, and compacts.
async fn make_room(worker: &Worker) {
    let half = Span { from: key(0), to: Some(key(KEYS / 2)) };
    let span = if thread_rng().gen_bool(0.5) { Span::prefix(FILLER) } else { half };
    worker.ask(Call::Txn(Txn::of(Step::Delete { span, prev_kv: false }))).await;
    let heard = Duration::from_millis(thread_rng().gen_range(HEARD));
    tokio::time::sleep(heard).await;
    // Not ahead of the observer, whose record must be whole.
    let revision = worker.observed.revision();
    if revision > 1 {
        let physical = thread_rng().gen_bool(0.3);
        worker.ask(Call::Compact { revision, physical }).await;
    }
}

/// Disarms the alarms for space that are told of. Whether that succeeds is of no matter.
pub(crate) async fn disarm_all(client: &Client) {
    match client.alarms().await {
        Ok(alarms) => {
            for alarm in alarms.into_iter().filter(|alarm| alarm.alarm == i32::from(AlarmType::Nospace)) {
                disarm(client, alarm.member_id).await;
            }
        }
        Err(error) => trace::note(format_args!("nobody tells of alarms: {error}")),
    }
}

/// Disarms the alarm for space of one member. Whether that succeeds is of no matter.
pub(crate) async fn disarm(client: &Client, member: u64) {
    let outcome = client.alarm_deactivate(member, AlarmType::Nospace).await;
    trace::note(format_args!("the alarm of {member:x} is to be disarmed: {:?}", outcome.map(|done| done.alarms)));
}

/// Whether a call was refused because there is no space.
pub(crate) fn is_for_space(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(why) if why == NO_SPACE)
}
