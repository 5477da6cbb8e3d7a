//! What a member finds out about itself before it answers a client.

use mainstay_proto::etcdserverpb::RangeRequest;
use mainstay_proto::etcdserverpb::kv_client::KvClient;

use super::*;
use crate::api;

/// Makes a member that is down hold something else than the others, as after a fault that no checksum notices: its digest
/// is not theirs.
pub(super) fn make_differ(machine: &Machine) {
    let engine = machine.store.open().unwrap();
    // Nothing may have been flushed by then.
    let stored = engine.get(Family::Meta, meta::DIGEST).unwrap();
    let mut digest = stored.map_or_else(StateDigest::default, |stored| StateDigest::decode(stored).unwrap());
    digest.value = Some(digest.value.unwrap_or_default().wrapping_add(1));
    let mut batch = Batch::default();
    batch.put(Family::Meta, meta::DIGEST, digest.encode_to_vec());
    engine.write(batch).unwrap();
    engine.flush().unwrap();
}

/// Writes so much that some of it is in the stores for good.
async fn fill(machine: &Machine, member: &Running) {
    for number in 0..60 {
        assert!(put(machine, member, &format!("{number:0600}")).await);
    }
    sleep(Duration::from_secs(2)).await;
}

/// Has a member's clients answered, at its address.
fn serve_clients(machine: &Machine, member: &Running) {
    let (address, routes) = (SocketAddr::new(address(machine.index), 2379), api::routes(&member.services));
    drop(machine.node().spawn(async move { transport::serve(address, routes).await }));
}

/// Reads what a member has by itself, as a client on another machine.
async fn read(machines: &[Machine], at: usize) -> Result<(), String> {
    let url = format!("http://{}:2379", address(at));
    let asked = async move {
        let channel = transport::connect(&url, Duration::from_secs(1)).unwrap();
        let request = RangeRequest { key: "a".into(), serializable: true, ..RangeRequest::default() };
        KvClient::new(channel).range(request).await.map(drop).map_err(|status| status.message().to_owned())
    };
    machines[(at + 1) % MEMBERS].node().spawn(asked).await.unwrap()
}

fn alarms(member: &Running) -> Vec<AlarmMember> {
    member.services.alarms.all()
}

/// The others have gone on meanwhile, or not.
#[test]
fn a_member_that_differs_gives_no_answer_after_its_restart() {
    for seed in 400..406 {
        simulate(seed, |machines, mut members| async move {
            fill(&machines[0], &members[0]).await;
            let leads = leader(&members).await;
            let (other, third) = ((leads + 1 + seed as usize % 2) % MEMBERS, (leads + 2 - seed as usize % 2) % MEMBERS);
            machines[other].kill();
            {
                let engine = machines[other].store.open().unwrap();
                assert!(raft::applied_index(&*engine).unwrap().is_some_and(|applied| applied > 0), "seed {seed}");
            }
            make_differ(&machines[other]);
            if seed % 3 > 0 {
                for number in 0..30 {
                    assert!(put(&machines[third], &members[third], &number.to_string()).await);
                }
            }
            members[other] = machines[other].start().await.unwrap();
            assert_eq!(alarms(&members[other]), [], "seed {seed}: nobody has named it yet");
            serve_clients(&machines[other], &members[other]);
            sleep(Duration::from_millis(1)).await;
            let named = [AlarmMember { member_id: members[other].id(), alarm: AlarmType::Corrupt.into() }];
            let began = clock::now();
            let mut took = None;
            for _ in 0..200 {
                let told = read(&machines, other).await;
                assert_eq!(told, Err("etcdserver: corrupt cluster".to_owned()), "seed {seed}");
                if took.is_none() && alarms(&members[third]) == named && alarms(&members[other]) == named {
                    took = Some(clock::now() - began);
                }
                sleep(Duration::from_millis(25)).await;
            }
            // It has itself named, which takes no longer than to find the leader.
            let took = took.expect("it is named");
            assert!(took < Duration::from_secs(3), "seed {seed}: named after {took:?}");
            assert!(put(&machines[third], &members[third], "b").await, "seed {seed}: the others serve");
        });
    }
}

#[test]
fn a_member_that_has_what_the_others_have_serves_as_ever() {
    for seed in 410..414 {
        simulate(seed, |machines, mut members| async move {
            fill(&machines[0], &members[0]).await;
            for (machine, member) in machines.iter().zip(members.iter_mut()) {
                machine.kill();
                let began = clock::now();
                *member = machine.start().await.unwrap();
                let took = clock::now() - began;
                assert!(took < Duration::from_millis(500), "seed {seed}: two others answer, and it took {took:?}");
                serve_clients(machine, member);
                sleep(Duration::from_millis(1)).await;
                assert_eq!(read(&machines, machine.index).await, Ok(()), "seed {seed}");
                sleep(Duration::from_secs(3)).await;
            }
            // All at once: whoever is first finds nobody.
            machines.iter().for_each(Machine::kill);
            let starts = machines.iter().map(Machine::start);
            let members: Vec<Running> =
                futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect();
            assert!(put(&machines[0], &members[0], "b").await, "seed {seed}");
            sleep(Duration::from_secs(12)).await; // two comparisons of the leader's
            members.iter().for_each(|member| assert_eq!(alarms(member), [], "seed {seed}"));
        });
    }
}

/// Nobody listens where the others were, or nothing comes through to them.
#[test]
fn who_starts_alone_waits_no_longer_than_an_election_takes() {
    for (seed, is_cut_off) in [(420, false), (421, true)] {
        simulate(seed, |machines, members| async move {
            fill(&machines[0], &members[0]).await;
            let one = leader(&members).await;
            if is_cut_off {
                machines[one].kill();
                cut_off_from_others(&machines, one, true);
            } else {
                machines.iter().for_each(Machine::kill);
            }
            let began = clock::now();
            let alone = machines[one].start().await.unwrap();
            let took = clock::now() - began;
            assert!(took <= ELECTION_TIMEOUT + Duration::from_millis(100), "cut off: {is_cut_off}; {took:?}");
            serve_clients(&machines[one], &alone);
            sleep(Duration::from_millis(1)).await;
            assert_eq!(alarms(&alone), []);
            if !is_cut_off {
                assert_eq!(read(&machines, one).await, Ok(()), "as in etcd");
            }
        });
    }
}

/// With one of the two others away, nobody can say which of those that are left is right: it is not this member that
/// gives in, but the leader who waits for the third.
#[test]
fn what_the_leader_would_leave_open_keeps_nobody_from_starting() {
    simulate(430, |machines, mut members| async move {
        fill(&machines[0], &members[0]).await;
        let leads = leader(&members).await;
        let (other, away) = ((leads + 1) % MEMBERS, (leads + 2) % MEMBERS);
        machines[away].kill();
        machines[other].kill();
        make_differ(&machines[other]);
        members[other] = machines[other].start().await.unwrap();
        serve_clients(&machines[other], &members[other]);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(read(&machines, other).await, Ok(()));
        members[away] = machines[away].start().await.unwrap();
        let named = [AlarmMember { member_id: members[other].id(), alarm: AlarmType::Corrupt.into() }];
        for _ in 0..60 {
            if alarms(&members[leads]) == named && alarms(&members[other]) == named {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        assert_eq!((alarms(&members[leads]), alarms(&members[other])), (named.to_vec(), named.to_vec()));
        assert_eq!(read(&machines, other).await, Err("etcdserver: corrupt cluster".to_owned()));
    });
}
