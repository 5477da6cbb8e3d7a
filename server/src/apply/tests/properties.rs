//! Random commands: against the model, and against themselves cut into other runs.

use mainstay_proto::KeyRange;
use mainstay_proto::etcdserverpb::compare::TargetUnion;
use mainstay_proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use mainstay_proto::mainstay::MemberAttributes;
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::model::Model;
use super::*;
use crate::apply::read_txn::{ReadTxnError, is_read_only, read_txn};
use crate::apply::{Committed, range_response};
use crate::command::Refusal;
use crate::command::command::Kind;
use crate::lease::LeaseChange;
use crate::mvcc::{RangeOptions, ReadError};

/// A command, and whether the run ends after it.
type Step = (Kind, bool);

/// Few keys, so that commands meet; one is a prefix of others, and one is empty, which none may be.
fn key() -> impl Strategy<Value = Bytes> {
    let keys = vec!["", "a", "a\0", "aa", "b", "c", "d", "\u{ff}"];
    prop_oneof![1 => Just("".into()), 40 => prop::sample::select(keys).prop_map(Bytes::from)]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => Just("".into()),
        1 => Just("\0".into()),
        2 => key(),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "x", "y", "zz"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![-7, 0, 1, 2, 3])
}

/// Mostly revisions that exist; histories here are short.
fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 4 => 1..40i64, 1 => -3..0i64]
}

fn put_request() -> impl Strategy<Value = PutRequest> {
    let lease = prop_oneof![Just(0), lease()];
    (key(), value(), lease, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(
        |(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete_request() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 1 => 1..20i64]
}

fn range_request() -> impl Strategy<Value = RangeRequest> {
    let what = (key(), range_end(), revision(), -1..5i64);
    let order = (0..3i32, 0..5i32, prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (what, order, (bound(), bound(), bound(), bound())).prop_map(|(what, order, bounds)| {
        let (key, range_end, revision, limit) = what;
        let (sort_order, sort_target, keys_only, count_only) = order;
        let (min_mod_revision, max_mod_revision, min_create_revision, max_create_revision) = bounds;
        RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            serializable: false,
            keys_only,
            count_only,
            min_mod_revision,
            max_mod_revision,
            min_create_revision,
            max_create_revision,
        }
    })
}

/// Enums run one over what exists, and operands need not fit their target.
fn compare() -> impl Strategy<Value = Compare> {
    let number = 0..20i64;
    let operand = prop_oneof![
        number.clone().prop_map(TargetUnion::Version),
        number.clone().prop_map(TargetUnion::CreateRevision),
        number.prop_map(TargetUnion::ModRevision),
        value().prop_map(TargetUnion::Value),
        lease().prop_map(TargetUnion::Lease),
    ];
    (0..5i32, 0..6i32, key(), range_end(), weighted(0.9, operand)).prop_map(
        |(result, target, key, range_end, target_union)| Compare { result, target, key, range_end, target_union },
    )
}

fn operation() -> impl Strategy<Value = RequestOp> {
    let leaf = prop_oneof![
        30 => put_request().prop_map(request_op::Request::RequestPut),
        20 => delete_request().prop_map(request_op::Request::RequestDeleteRange),
        30 => range_request().prop_map(request_op::Request::RequestRange),
    ];
    let leaf = weighted(0.97, leaf).prop_map(|request| RequestOp { request });
    leaf.prop_recursive(3, 12, 4, |operation| {
        (vec(compare(), 0..2), vec(operation.clone(), 0..4), vec(operation, 0..4)).prop_map(
            |(compare, success, failure)| {
                let nested = TxnRequest { compare, success, failure };
                RequestOp { request: Some(request_op::Request::RequestTxn(nested)) }
            },
        )
    })
}

fn txn_request() -> impl Strategy<Value = TxnRequest> {
    (vec(compare(), 0..3), vec(operation(), 0..5), vec(operation(), 0..5))
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

fn read_only_txn() -> impl Strategy<Value = TxnRequest> {
    let range =
        || range_request().prop_map(|range| RequestOp { request: Some(request_op::Request::RequestRange(range)) });
    (vec(compare(), 0..3), vec(range(), 0..4), vec(range(), 0..4)).prop_map(|(compare, success, failure)| TxnRequest {
        compare,
        success,
        failure,
    })
}

fn command() -> impl Strategy<Value = Kind> {
    let checkpoints = vec((lease(), -1..100i64), 0..3).prop_map(|checkpoints| {
        let checkpoints = checkpoints.into_iter().map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl });
        Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: checkpoints.collect() })
    });
    // Alarms are mostly lifted, or little else would happen.
    let alarm = (prop_oneof![2 => 0..2i32, 4 => Just(2), 1 => Just(3)], 1..3u64, 0..4i32)
        .prop_map(|(action, member_id, alarm)| Kind::Alarm(AlarmRequest { action, member_id, alarm }));
    let member = (1..4u64, vec("http://[a-c]:2379", 0..3)).prop_map(|(id, client_urls)| {
        Kind::MemberAttributes(MemberAttributes { id, name: format!("m{id}"), client_urls, removed: false })
    });
    prop_oneof![
        30 => put_request().prop_map(Kind::Put),
        12 => delete_request().prop_map(Kind::DeleteRange),
        40 => txn_request().prop_map(Kind::Txn),
        4 => revision().prop_map(|revision| Kind::Compaction(CompactionRequest { revision, physical: false })),
        10 => (lease(), 1..100i64).prop_map(|(id, ttl)| Kind::LeaseGrant(LeaseGrantRequest { id, ttl })),
        6 => lease().prop_map(|id| Kind::LeaseRevoke(LeaseRevokeRequest { id })),
        3 => checkpoints,
        4 => alarm,
        2 => member,
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((command(), prop::bool::weighted(0.3)), 1..60)
}

/// What the views show must be what the model holds.
fn check_state(state: &State, model: &Model) {
    let store = state.store();
    assert_eq!(store.revision(), model.revision);
    assert_eq!(store.compact_revision(), model.compacted);
    for revision in model.compacted.max(1)..=model.revision {
        let found = store.range(&KeyRange::all(), &RangeOptions { revision, ..RangeOptions::default() }).unwrap();
        assert_eq!(found.kvs, model.at(revision).into_values().collect::<Vec<_>>(), "at {revision}");
    }
    let leases = state.leases();
    let terms: Vec<_> = leases.terms().iter().map(|term| (term.id, (term.ttl, term.remaining))).collect();
    assert_eq!(terms, model.leases.clone().into_iter().collect::<Vec<_>>());
    for id in model.leases.keys() {
        assert_eq!(leases.keys(*id), model.attached(*id), "keys of lease {id}");
    }
    let alarms: Vec<_> = state.alarms().all().iter().map(|alarm| (alarm.alarm, alarm.member_id)).collect();
    assert_eq!(alarms, model.alarms.iter().copied().collect::<Vec<_>>());
    assert_eq!(state.members().all(), model.members.values().cloned().collect::<Vec<_>>());
}

/// The events of a run must be what the model wrote since.
fn check_events(committed: &Committed, model: &Model, from: i64) {
    let told: Vec<_> = committed.events.iter().map(|revision| revision.revision).collect();
    assert_eq!(told, (from + 1..=model.revision).collect::<Vec<_>>());
    for revision in &committed.events {
        let events = revision.events.iter().map(|event| {
            let kv = event.kv.clone().unwrap();
            (kv.key, event.r#type == 0)
        });
        assert_eq!(events.collect::<Vec<_>>(), model.events(revision.revision));
    }
}

/// The changes of a run must lead from the leases before it to those after it.
fn check_lease_changes(committed: &Committed, mut before: Model, after: &Model) {
    for change in &committed.lease_changes {
        match *change {
            LeaseChange::Granted { id, ttl } => {
                before.leases.insert(id, (ttl, 0));
            }
            LeaseChange::Revoked { id } => {
                before.leases.remove(&id);
            }
            LeaseChange::Checkpointed { id, remaining } => {
                before.leases.get_mut(&id).unwrap().1 = remaining;
            }
        }
    }
    assert_eq!(before.leases, after.leases);
}

fn read_refusal(error: ReadError) -> Refusal {
    match error {
        ReadError::Compacted => Refusal::Compacted,
        ReadError::FutureRevision => Refusal::FutureRevision,
        error => panic!("{error}"),
    }
}

/// The same cases in every run; others with `PROPTEST_RNG_SEED=…`, more with `PROPTEST_CASES=…`.
fn config() -> ProptestConfig {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(1),
        RngSeed::Fixed(seed) => RngSeed::Fixed(seed),
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { 48 };
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 20_000, ..given }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_model_agrees(steps in steps()) {
        let mut fixture = Fixture::new();
        let mut model = Model::new();
        let mut committed = model.clone();
        for (command, ends_run) in &steps {
            let before = model.revision;
            let expected = model.apply(command);
            let outcome = fixture.apply(command);
            prop_assert_eq!(&outcome, &expected, "{:?}", command);
            prop_assert!(model.revision - before <= 1);
            if *ends_run {
                let run = fixture.state.commit(Bytes::from_static(b"there")).unwrap();
                check_events(&run, &model, committed.revision);
                check_lease_changes(&run, committed, &model);
                check_state(&fixture.state, &model);
                committed = model.clone();
            }
        }
        fixture.state.commit(Bytes::from_static(b"end")).unwrap();
        check_state(&fixture.state, &model);
        // Nothing lives in memory only.
        let home = fixture.home.clone();
        drop(fixture);
        let state = open(&home);
        prop_assert_eq!(state.applied(), Bytes::from_static(b"end"));
        check_state(&state, &model);
    }

    #[test]
    fn runs_do_not_matter(steps in steps(), cuts in vec(prop::bool::weighted(0.5), 60)) {
        let mut one = Fixture::new();
        let mut other = Fixture::new();
        for ((command, cut), other_cut) in steps.iter().zip(cuts) {
            prop_assert_eq!(one.apply(command), other.apply(command));
            for (fixture, cut) in [(&mut one, *cut), (&mut other, other_cut)] {
                if cut {
                    fixture.state.commit(Bytes::new()).unwrap();
                    // Removing history is not part of the state either.
                    while cut && fixture.state.store.compact_slice().unwrap() {}
                }
            }
        }
        // One more revision, as the hash of a compacted one depends on how far its removal has come.
        for fixture in [&mut one, &mut other] {
            for alarm in fixture.state.alarms().all() {
                let lift = AlarmRequest { action: 2, member_id: alarm.member_id, alarm: alarm.alarm };
                fixture.apply(&Kind::Alarm(lift));
            }
            fixture.run(&super::commands::put("last", ""));
        }
        let revision = one.state.store.revision();
        let hash = |fixture: &Fixture| fixture.state.store().hash_kv(revision).unwrap();
        prop_assert_eq!(hash(&one), hash(&other));
        let digest = |fixture: &Fixture| fixture.state.digest().since(0).pop();
        prop_assert!(digest(&one).is_some());
        prop_assert_eq!(digest(&one), digest(&other));
        prop_assert_eq!(one.state.leases().terms(), other.state.leases().terms());
    }

    #[test]
    fn reads_agree_with_the_model(steps in steps(), ranges in vec(range_request(), 1..20), txns in vec(read_only_txn(), 1..20)) {
        let mut fixture = Fixture::new();
        let mut model = Model::new();
        for (command, _) in &steps {
            model.apply(command);
            fixture.apply(command);
        }
        fixture.state.commit(Bytes::new()).unwrap();
        let store = fixture.state.store();
        for range in &ranges {
            let found = range_response(range, |range, options| store.range(range, options)).map_err(read_refusal);
            prop_assert_eq!(found, model.range(range), "{:?}", range);
        }
        // Without the command that lifts them, alarms would refuse what a read does not ask about.
        model.alarms.clear();
        for txn in &txns {
            prop_assert!(is_read_only(txn));
            let revision = model.revision;
            let expected = model.apply(&Kind::Txn(txn.clone()));
            prop_assert_eq!(model.revision, revision);
            match read_txn(&store, txn, &|_| true) {
                Ok((response, at)) => {
                    prop_assert_eq!(at, revision);
                    prop_assert_eq!(Some(outcome::Reply::Txn(response)), expected.reply, "{:?}", txn);
                }
                Err(ReadTxnError::Refused(refusal)) => prop_assert_eq!(refusal, expected.refusal(), "{:?}", txn),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
