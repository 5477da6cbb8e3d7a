//! What a member passes on to the leader: over one stream, each command once at most.

use std::cell::Cell;

use futures_util::future::join_all;
use mainstay_proto::mainstay::forward_batch::Proposal;
use mainstay_proto::mainstay::{ForwardAnswers, ForwardBatch};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::env::probe;

/// A put as it is in the log.
fn entry_of(key: &str) -> Vec<u8> {
    let key = bytes::Bytes::copy_from_slice(key.as_bytes());
    let put = Kind::Put(PutRequest { key, ..PutRequest::default() });
    command::encode(&Command { kind: Some(put), caller: None }).to_vec()
}

/// How often a put was applied at a member.
fn times_applied(machine: &Machine, key: &str) -> usize {
    let entry = entry_of(key);
    machine.applied.lock().unwrap().values().filter(|(_, payload)| *payload == entry).count()
}

/// The same, at whichever member saw it most often: one that got a snapshot was not shown what is in it.
fn times_applied_at_most(machines: &[Machine], key: &str) -> usize {
    machines.iter().map(|machine| times_applied(machine, key)).max().unwrap()
}

/// Proposes puts at a member at the same time; what its clients are told.
async fn puts(machine: &Machine, member: &Running, keys: &[String]) -> Vec<Result<(), Unavailable>> {
    let asked = keys.iter().map(|key| {
        let (gateway, key) = (member.services.gateway.clone(), bytes::Bytes::copy_from_slice(key.as_bytes()));
        let put = Kind::Put(PutRequest { key, ..PutRequest::default() });
        machine.node().spawn(async move { gateway.propose(None, put).await.map(drop) })
    });
    join_all(asked.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
}

fn keys(of: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{of}/{number}")).collect()
}

/// Who is asked in this way does not know the call.
fn without(path: &'static str, routes: Routes) -> Routes {
    let refuse = || async { tonic::Status::unimplemented("").into_http::<axum::body::Body>() };
    routes.into_axum_router().route(path, axum::routing::post(refuse)).into()
}

fn without_single_calls(routes: Routes) -> Routes {
    without("/mainstay.Peer/Forward", routes)
}

fn without_streams(routes: Routes) -> Routes {
    without("/mainstay.Peer/ForwardMany", routes)
}

/// Starts every member anew, one after the other, with other routes for its peers.
async fn restart_all(machines: &[Machine], members: &mut [Running], routes: fn(Routes) -> Routes) {
    for (machine, member) in machines.iter().zip(members.iter_mut()) {
        sleep(Duration::from_secs(2)).await; // until the one before has caught up
        machine.kill();
        *member = machine.start_serving(config(machine.index), routes).await.unwrap_or_else(|error| panic!("{error}"));
    }
    sleep(Duration::from_secs(5)).await;
}

#[test]
fn what_is_passed_on_goes_over_a_stream_and_is_answered() {
    simulate(180, |machines, mut members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        restart_all(&machines, &mut members, without_single_calls).await;
        for round in 0..3 {
            let (leads, keys) = (leader(&members).await, keys(&format!("round {round}"), 200));
            let follows = (leads + 1) % MEMBERS;
            let told = puts(&machines[follows], &members[follows], &keys).await;
            assert!(told.iter().all(Result::is_ok), "round {round}: {told:?}");
            for key in &keys {
                // Whoever wrote through this member finds it here.
                assert_eq!(times_applied(&machines[follows], key), 1, "{key}");
            }
            // With nothing under way the next one waits for nobody.
            let began = clock::now();
            assert!(put(&machines[follows], &members[follows], "alone").await);
            assert!(clock::now() - began < Duration::from_millis(200));
            // To the next leader there is another stream.
            let (leadership, to) = (members[leads].leadership.clone(), members[follows].id());
            machines[leads].node().spawn(async move { leadership.transfer(to).await }).await.unwrap().unwrap();
            wait_until("the handing over", || members[follows].leadership.view().leads).await;
        }
    });
}

/// Connections break in the midst, and bits turn over: what a client is told to be written is there once, what it is
/// told nothing of at most once.
#[test]
fn what_was_on_a_stream_that_broke_is_not_passed_on_again() {
    let open = &Cell::new(0);
    for seed in 181..189 {
        simulate(seed, |machines, members| async move {
            assert!(put(&machines[0], &members[0], "a").await);
            sleep(Duration::from_secs(2)).await; // until all have published themselves
            let leads = leader(&members).await;
            let follows = (leads + 1) % MEMBERS;
            let bad = || LinkConditions { reset: 0.02, flip: 0.02, ..LinkConditions::default() };
            transport::set_link(machines[follows].node, machines[leads].node, bad());
            transport::set_link(machines[leads].node, machines[follows].node, bad());
            let (mut written, mut others) = (Vec::new(), Vec::new());
            for round in 0..60 {
                let keys = keys(&round.to_string(), 10);
                let told = puts(&machines[follows], &members[follows], &keys).await;
                for (key, told) in keys.into_iter().zip(told) {
                    if told.is_ok() { written.push(key) } else { others.push(key) }
                }
            }
            transport::clear_links();
            sleep(Duration::from_secs(5)).await;
            assert!(put(&machines[leads], &members[leads], "z").await);
            sleep(Duration::from_secs(2)).await;
            for key in &written {
                assert_eq!(times_applied_at_most(&machines, key), 1, "seed {seed}: {key} was acknowledged");
            }
            for key in &others {
                assert!(times_applied_at_most(&machines, key) <= 1, "seed {seed}: {key} was written twice");
            }
            assert!(written.len() > 100, "seed {seed}: {} of 600", written.len());
            open.set(open.get() + others.len());
        });
    }
    assert!(open.get() > 0, "no stream broke with something on it");
    let reached = probe::all_reached();
    assert!(reached.contains_key("forward-stream-broken") && reached.contains_key("forward-never-sent"));
}

/// What was sent to it stays open, of which clients are told as soon as another one leads; what comes later goes there.
#[test]
fn a_stream_to_a_leader_that_hangs_is_given_up_with_its_term() {
    simulate(189, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let leads = leader(&members).await;
        let follows = (leads + 1) % MEMBERS;
        assert!(put(&machines[follows], &members[follows], "b").await);
        Handle::current().pause(machines[leads].node);
        let before = keys("before", 20);
        let began = clock::now();
        let told = puts(&machines[follows], &members[follows], &before).await;
        for told in &told {
            assert!(matches!(told, Ok(()) | Err(Unavailable::TimeoutLeaderFailure)), "{told:?}");
        }
        assert!(clock::now() - began < 4 * ELECTION_TIMEOUT, "as soon as another one leads");
        let later = keys("later", 20);
        let told = puts(&machines[follows], &members[follows], &later).await;
        assert!(told.iter().all(Result::is_ok), "{told:?}");
        Handle::current().resume(machines[leads].node);
        sleep(Duration::from_secs(5)).await;
        for key in before.iter().chain(&later) {
            assert!(times_applied_at_most(&machines, key) <= 1, "{key} was written twice");
        }
    });
}

#[test]
fn a_leader_of_an_older_release_is_sent_commands_one_by_one() {
    simulate(190, |machines, mut members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        restart_all(&machines, &mut members, without_streams).await;
        let follows = (leader(&members).await + 1) % MEMBERS;
        for round in 0..2 {
            let keys = keys(&format!("round {round}"), 50);
            let told = puts(&machines[follows], &members[follows], &keys).await;
            assert!(told.iter().all(Result::is_ok), "{told:?}");
            for key in &keys {
                assert_eq!(times_applied(&machines[follows], key), 1, "{key}");
            }
            // Until it is asked again.
            sleep(Duration::from_secs(40)).await;
        }
        assert!(probe::all_reached().get("forwarded-one-by-one").is_some_and(|times| *times >= 2));
    });
}

/// A batch as it is sent, with its checksum as `raft::checksum` makes it.
fn batch_of(cluster_id: u64, member_id: u64, batch: u64, keys: &[&str]) -> ForwardBatch {
    let numbered = keys.iter().zip(batch * 10..);
    let proposals: Vec<Proposal> =
        numbered.map(|(key, number)| Proposal { number, command: entry_of(key).into() }).collect();
    let mut bytes = Vec::new();
    for number in [cluster_id, member_id, batch, proposals.len() as u64] {
        bytes.extend(number.to_le_bytes());
    }
    for proposal in &proposals {
        bytes.extend(proposal.number.to_le_bytes());
        bytes.extend((proposal.command.len() as u64).to_le_bytes());
        bytes.extend(&proposal.command);
    }
    ForwardBatch { cluster_id, member_id, batch, proposals, crc32: crc32fast::hash(&bytes) }
}

/// Sends batches over a stream of its own; all that is answered, until the other end ends it or says nothing more.
async fn send(asker: &NodeHandle, to: usize, batches: Vec<ForwardBatch>) -> Vec<ForwardAnswers> {
    let url = format!("http://{}:2380", address(to));
    let asked = async move {
        let channel = transport::connect(&url, Duration::from_secs(1)).unwrap();
        let (sender, outgoing) = mpsc::channel(16);
        let accepted = PeerClient::new(channel).forward_many(ReceiverStream::new(outgoing)).await;
        let mut incoming = accepted.unwrap().into_inner();
        for batch in batches {
            // It may be refused already.
            sender.send(batch).await.ok();
        }
        let mut answers = Vec::new();
        while let Ok(Some(Ok(message))) = timeout(Duration::from_secs(2), incoming.next()).await {
            answers.push(message);
        }
        answers
    };
    asker.spawn(asked).await.unwrap()
}

/// The numbers and the codes of all answers, in order of the numbers.
fn codes(messages: &[ForwardAnswers]) -> Vec<(u64, u32)> {
    let answers = messages.iter().flat_map(|message| &message.answers);
    let mut codes: Vec<_> = answers.map(|answer| (answer.number, answer.code)).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn a_batch_that_changed_on_its_way_is_refused_with_all_behind_it() {
    simulate(191, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let leads = leader(&members).await;
        let follows = (leads + 1) % MEMBERS;
        let status = members[leads].services.gateway.status();
        let asker = Handle::current().create_node().name("forwards").ip(address(MEMBERS)).build();
        let batch = |number: u64, keys: &[&str]| batch_of(status.cluster_id, status.member_id, number, keys);
        let applied = |keys: &[&str]| keys.iter().map(|key| times_applied(&machines[leads], key)).sum::<usize>();

        let mut damaged = batch(2, &["c"]);
        damaged.proposals[0].number += 1;
        let told = send(&asker, leads, vec![batch(1, &["a1", "a2"]), damaged, batch(3, &["d"])]).await;
        assert_eq!(codes(&told), [(10, 0), (11, 0)], "what came before is answered");
        assert_eq!(told.iter().map(|message| message.refused_from).max(), Some(2));
        assert_eq!((applied(&["a1", "a2"]), applied(&["c", "d"])), (2, 0));

        // The one before it did not arrive.
        let told = send(&asker, leads, vec![batch(2, &["e"])]).await;
        assert_eq!(told.iter().map(|message| message.refused_from).collect::<Vec<_>>(), [1]);
        assert_eq!(members[leads].services.metrics.network.checksum_failures.get(), 2);

        let strange = batch_of(status.cluster_id + 1, status.member_id, 1, &["f"]);
        assert_eq!(send(&asker, leads, vec![strange]).await, [], "of another cluster");
        assert_eq!(applied(&["e", "f"]), 0);

        let told = send(&asker, follows, vec![batch(1, &["g", "h"])]).await;
        let refused = tonic::Code::FailedPrecondition as u32;
        assert_eq!(codes(&told), [(10, refused), (11, refused)], "who does not lead says so for each");
        assert_eq!(send(&asker, leads, vec![batch(1, &["g"])]).await.len(), 1);
        assert_eq!(applied(&["g", "h"]), 1);
    });
}
