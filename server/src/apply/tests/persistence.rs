//! The state over restarts, crashes and received snapshots.

use mainstay_proto::etcdserverpb::alarm_request::AlarmAction;
use mainstay_proto::etcdserverpb::{AlarmType, AuthRoleAddRequest, DowngradeInfo};
use mainstay_proto::mainstay::{MemberAttributes, RaiseFormat};

use super::commands::*;
use super::*;
use crate::command::command::Kind;
use crate::engine::layout::NewerFormat;
use crate::engine::{Batch, Checksum, Engine, Family};
use crate::lease::LeaseTerm;
use crate::mvcc::RangeOptions;

fn attributes(id: u64, name: &str) -> MemberAttributes {
    MemberAttributes { id, name: name.into(), client_urls: vec![format!("http://{name}:2379")], removed: false }
}

fn downgrade() -> DowngradeInfo {
    DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() }
}

/// One of everything.
fn fill(fixture: &mut Fixture, applied: &'static [u8]) {
    for command in [
        grant(7, 60),
        grant(-8, 3_600),
        put_leased("a", "1", 7),
        put_leased("b", "2", -8),
        put_leased("c", "3", 7),
        checkpoint(-8, 90),
        Kind::MemberAttributes(attributes(1, "one")),
        Kind::MemberAttributes(attributes(2, "two")),
        alarm(AlarmAction::Activate, 2, AlarmType::Corrupt),
        alarm(AlarmAction::Activate, 1, AlarmType::Nospace),
        alarm(AlarmAction::Deactivate, 2, AlarmType::Corrupt),
        Kind::Downgrade(downgrade()),
        Kind::AuthRoleAdd(AuthRoleAddRequest { name: "some".to_owned() }),
    ] {
        fixture.apply(&command);
    }
    fixture.state.commit(Bytes::from_static(applied)).unwrap();
}

#[track_caller]
fn check_filled(state: &State, applied: &str) {
    assert_eq!(state.applied(), applied);
    assert_eq!(state.store().revision(), 4);
    let leases = state.leases();
    let long = LeaseTerm { id: -8, ttl: 3_600, remaining: 90 };
    assert_eq!(leases.terms(), [long, LeaseTerm { id: 7, ttl: 60, remaining: 0 }]);
    assert_eq!(leases.keys(7), ["a", "c"]);
    assert_eq!(leases.keys(-8), ["b"]);
    assert_eq!((leases.count(), leases.granted_ttl(7), leases.granted_ttl(9)), (2, Some(60), None));
    assert!(state.alarms().is_raised(AlarmType::Nospace) && !state.alarms().is_raised(AlarmType::Corrupt));
    assert_eq!(state.downgrade().info(), downgrade());
    assert_eq!(state.members().get(2), Some(attributes(2, "two")));
    assert_eq!(state.members().all().len(), 2);
    assert_eq!((state.auth().load().role_names(), state.auth().revision()), (vec!["some".to_owned()], 2));
}

#[test]
fn a_new_state_is_empty() {
    let state = Fixture::new().state;
    assert_eq!(state.applied(), "");
    assert_eq!(state.store().revision(), 1);
    assert_eq!((state.leases().count(), state.alarms().all().len(), state.members().all().len()), (0, 0, 0));
}

#[test]
fn everything_is_found_again() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, b"at 11");
    check_filled(&fixture.state, "at 11");
    let home = fixture.home.clone();
    drop(fixture);
    check_filled(&open(&home), "at 11");
}

#[test]
fn a_crash_takes_whole_runs() {
    let mut fixture = Fixture::new();
    fill(&mut fixture, b"at 11");
    fixture.state.store.maybe_flush(true).unwrap();
    fixture.apply(&revoke(7));
    fixture.apply(&alarm(AlarmAction::Deactivate, 1, AlarmType::Nospace));
    fixture.apply(&Kind::MemberAttributes(attributes(3, "three")));
    fixture.state.commit(Bytes::from_static(b"at 14")).unwrap();
    assert_eq!((fixture.state.store().revision(), fixture.state.leases().count()), (5, 1));
    fixture.home.crash();
    let home = fixture.home.clone();
    drop(fixture);
    check_filled(&open(&home), "at 11");
}

#[test]
fn a_run_without_changes_still_moves_the_applied_position() {
    let mut fixture = Fixture::new();
    assert!(fixture.state.commit(Bytes::from_static(b"one")).unwrap().events.is_empty());
    fixture.state.commit(Bytes::from_static(b"two")).unwrap();
    let home = fixture.home.clone();
    drop(fixture);
    assert_eq!(open(&home).applied(), "two");
}

#[test]
fn a_received_snapshot_is_seen_by_views_that_were_there_before() {
    let mut sender = Fixture::new();
    fill(&mut sender, b"at 11");
    let checkpoint = sender.home.open().unwrap().checkpoint().unwrap();

    let mut receiver = Fixture::new();
    receiver.run(&grant(5, 10));
    receiver.run(&put_leased("x", "", 5));
    receiver.run(&Kind::MemberAttributes(attributes(9, "nine")));
    let (store, leases) = (receiver.state.store(), receiver.state.leases());
    let (alarms, members) = (receiver.state.alarms(), receiver.state.members());
    receiver.run(&Kind::Downgrade(DowngradeInfo::default()));
    let auth = receiver.state.auth();
    let mut staging = receiver.home.stage().unwrap();
    for (file, size) in checkpoint.files() {
        let content = checkpoint.read(&file, 0, size as usize).unwrap();
        staging.write(&file, 0, &content).unwrap();
        staging.finish(&file, Checksum::of(&content)).unwrap();
    }
    receiver.state.release();
    let engine = staging.commit(Batch::default()).unwrap();
    receiver.state.reopen(engine).unwrap();

    check_filled(&receiver.state, "at 11");
    assert_eq!(leases.all(), [-8, 7]);
    assert_eq!((alarms.all().len(), members.get(9)), (1, None));
    assert_eq!(auth.load().role_names(), ["some"]);
    let found = store.range(&mainstay_proto::KeyRange::all(), &RangeOptions::default()).unwrap();
    assert_eq!(show_kvs(&found.kvs), " a=1@2/2/1~7 b=2@3/3/1~-8 c=3@4/4/1~7");
    receiver.run(&revoke(7));
    assert_eq!(leases.all(), [-8]);
}

#[test]
fn damage_is_refused() {
    fn opened_with(family: Family, key: &'static [u8], value: &'static [u8]) -> OpenError {
        let fixture = Fixture::new();
        let engine: Arc<dyn Engine> = fixture.home.open().unwrap();
        let mut batch = Batch::default();
        batch.put(family, key, value);
        engine.write(batch).unwrap();
        drop(fixture.state);
        State::open(engine, StateOptions { cache_bytes: 0, newest_format: layout::FORMAT }).err().unwrap()
    }
    assert!(matches!(opened_with(Family::Leases, b"short", &[0; 16]), OpenError::Lease(_)));
    assert!(matches!(opened_with(Family::Leases, &[0; 8], &[0; 15]), OpenError::Lease(_)));
    assert!(matches!(opened_with(Family::Auth, b"what", b""), OpenError::Auth(_)));
    assert!(matches!(opened_with(Family::Members, &[0; 8], b"\xff"), OpenError::Member(_)));
    assert!(matches!(opened_with(Family::Meta, b"alarms", b"\xff"), OpenError::Alarms(_)));
    assert!(matches!(opened_with(Family::Meta, b"downgrade", b"\xff"), OpenError::Downgrade(_)));
    assert!(matches!(opened_with(Family::Meta, b"format", b"\x01"), OpenError::Format(_)));
}

fn raise(format: u32) -> Kind {
    Kind::RaiseFormat(RaiseFormat { format })
}

#[test]
fn the_format_is_raised_and_stays_so() {
    let home = MemHome::new();
    let mut state = open_knowing(&home, 3).unwrap();
    let format = state.format();
    assert_eq!(format.now(), layout::FIRST_FORMAT, "whatever its release knows");
    for (to, now) in [(2, 2), (1, 2), (2, 2), (3, 3)] {
        assert_eq!(state.check_known(&raise(to)), Ok(()));
        assert_eq!(apply(&mut state, &Origin::default(), &raise(to)).unwrap().refusal, 0);
        assert_eq!(format.now(), now);
    }
    let unknown = NewerFormat { found: 4, newest: 3 };
    assert_eq!((state.check_known(&raise(4)), state.check_known(&put("a", ""))), (Err(unknown), Ok(())));
    state.commit(Bytes::from_static(b"at 4")).unwrap();
    drop(state);
    assert_eq!(open_knowing(&home, 3).unwrap().format().now(), 3);
    let refused = open_knowing(&home, 2).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat(NewerFormat { found: 3, newest: 2 })), "{refused}");
    assert_eq!(open_knowing(&home, 4).unwrap().format().now(), 3, "a newer release takes it as it is");
}

#[test]
fn a_received_state_brings_its_format_along() {
    let sender = MemHome::new();
    let mut state = open_knowing(&sender, 2).unwrap();
    apply(&mut state, &Origin::default(), &raise(2)).unwrap();
    state.commit(Bytes::from_static(b"at 1")).unwrap();
    let checkpoint = sender.open().unwrap().checkpoint().unwrap();
    let received = |newest_format| {
        let home = MemHome::new();
        let mut state = open_knowing(&home, newest_format).unwrap();
        let mut staging = home.stage().unwrap();
        for (file, size) in checkpoint.files() {
            let content = checkpoint.read(&file, 0, size as usize).unwrap();
            staging.write(&file, 0, &content).unwrap();
            staging.finish(&file, Checksum::of(&content)).unwrap();
        }
        state.release();
        let reopened = state.reopen(staging.commit(Batch::default()).unwrap());
        reopened.map(|()| state.format().now())
    };
    assert_eq!(received(2).unwrap(), 2);
    assert!(matches!(received(1), Err(OpenError::NewerFormat(NewerFormat { found: 2, newest: 1 }))));
}
