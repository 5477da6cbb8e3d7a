//! Members of two releases, of which the newer knows one more format.

use super::*;
use crate::engine::layout::NewerFormat;
use crate::raft::ReplaceError;
use mainstay_proto::mainstay::RaiseFormat;

/// A format that the present release does not know.
const NEXT: u32 = layout::FORMAT + 1;

/// What a member of the present release says where it meets that.
const REFUSAL: &str = "run the newer release that wrote it";

/// How long the members may take to raise the format, or to end.
const WITHIN: Duration = Duration::from_secs(10);

fn formats(members: &[Running]) -> Vec<u32> {
    members.iter().map(|member| member.services.gateway.format()).collect()
}

/// Starts a member with a release that knows formats up to this one.
async fn restart(machine: &mut Machine, newest_format: u32) -> Running {
    machine.kill();
    machine.newest_format = newest_format;
    machine.start().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Starts all members with the next release, and waits until they have raised the format.
async fn upgrade(machines: &mut [Machine], members: &mut [Running]) {
    sleep(Duration::from_secs(2)).await; // until all have published themselves
    for (machine, member) in machines.iter_mut().zip(members.iter_mut()) {
        *member = restart(machine, NEXT).await;
        assert!(put(machine, member, "on the way").await);
    }
    timeout(WITHIN, raised(members)).await.expect("the format is raised");
}

async fn raised(members: &[Running]) {
    while formats(members) != [NEXT; MEMBERS] {
        sleep(Duration::from_millis(100)).await;
    }
}

/// Starts a member that has to end; why it does.
async fn refused(machine: &Machine) -> String {
    match machine.start().await {
        Ok(running) => timeout(WITHIN, running.ended).await.expect("it ends").unwrap(),
        Err(error) => error.to_string(),
    }
}

/// Until then each of them may go back.
#[test]
fn the_format_is_raised_when_the_last_member_knows_it() {
    simulate(160, |mut machines, mut members| async move {
        for newer in 0..MEMBERS {
            sleep(WITHIN).await;
            assert!(put(&machines[newer], &members[newer], "before").await);
            assert_eq!(formats(&members), [layout::FORMAT; MEMBERS], "{newer} of them know a newer one");
            members[newer] = restart(&mut machines[newer], NEXT).await;
            if newer < MEMBERS - 1 {
                members[newer] = restart(&mut machines[newer], layout::FORMAT).await;
                assert!(put(&machines[newer], &members[newer], "and back").await);
                members[newer] = restart(&mut machines[newer], NEXT).await;
            }
        }
        timeout(WITHIN, raised(&members)).await.expect("the format is raised");
        for (machine, member) in machines.iter().zip(&members) {
            assert!(put(machine, member, "after").await);
        }
        sleep(Duration::from_secs(1)).await;
        let stored = |machine: &Machine| machine.store.open().unwrap().get(Family::Meta, meta::FORMAT).unwrap();
        for machine in &machines {
            assert_eq!(stored(machine).unwrap().as_ref(), NEXT.to_be_bytes());
        }
    });
}

/// One that cannot be asked may be of the older release.
#[test]
fn who_is_away_holds_the_format_up() {
    simulate(161, |mut machines, mut members| async move {
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        for index in 0..MEMBERS {
            members[index] = restart(&mut machines[index], if index == 0 { layout::FORMAT } else { NEXT }).await;
        }
        machines[0].kill();
        sleep(WITHIN).await;
        assert!(put(&machines[1], &members[1], "a").await);
        assert_eq!(formats(&members[1..]), [layout::FORMAT; MEMBERS - 1]);
        machines[0].newest_format = NEXT;
        members[0] = machines[0].start().await.unwrap();
        timeout(WITHIN, raised(&members)).await.expect("the format is raised");
    });
}

/// And nothing of its data is changed: with the newer release it goes on.
#[test]
fn who_goes_back_behind_the_format_is_refused() {
    simulate(162, |mut machines, mut members| async move {
        upgrade(&mut machines, &mut members).await;
        sleep(Duration::from_secs(1)).await; // until what was applied is written
        // The format is in the store of the first for good, and in the log alone of the second.
        machines[0].store.open().unwrap().flush().unwrap();
        for index in [0, 1] {
            machines[index].kill();
            machines[index].newest_format = layout::FORMAT;
            let why = refused(&machines[index]).await;
            assert!(why.contains(REFUSAL), "{index}: {why}");
            assert!(why.contains(&format!("format {NEXT}")) && why.contains(&format!("knows {} ", layout::FORMAT)));
            members[index] = restart(&mut machines[index], NEXT).await;
            assert!(put(&machines[index], &members[index], "again").await);
        }
        machines[0].kill();
        machines[0].newest_format = layout::FORMAT;
        let expected = NewerFormat { found: NEXT, newest: layout::FORMAT };
        match machines[0].start().await {
            Err(StartError::NewerFormat { newer, folder }) => assert_eq!((newer, folder.is_empty()), (expected, false)),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it starts"),
        }
    });
}

/// It was away while the others raised the format, and what it missed is no more in their logs.
#[test]
fn who_cannot_take_over_a_state_ends_and_keeps_its_own() {
    simulate(163, |mut machines, mut members| async move {
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let away = MEMBERS - 1;
        for index in 0..away {
            members[index] = restart(&mut machines[index], NEXT).await;
        }
        machines[away].kill();
        sleep(WITHIN).await; // it may have led
        // Not asked for, as they would not do it.
        let raise = Kind::RaiseFormat(RaiseFormat { format: NEXT });
        assert!(propose(&machines[0], &members[0], raise).await);
        for _ in 0..300 {
            let request = PutRequest { key: "a".into(), value: vec![0; 1024].into(), ..PutRequest::default() };
            assert!(propose(&machines[0], &members[0], Kind::Put(request)).await);
        }
        let why = refused(&machines[away]).await;
        assert!(why.contains("the leader sends a state") && why.contains(REFUSAL), "{why}");
        assert_eq!(machines[away].restored.load(Ordering::Relaxed), 0);
        members[away] = restart(&mut machines[away], NEXT).await;
        assert!(put(&machines[away], &members[away], "b").await);
        assert!(machines[away].restored.load(Ordering::Relaxed) > 0, "it needed a state");
        assert_eq!(formats(&members), [NEXT; MEMBERS]);
    });
}

#[test]
fn who_joins_or_is_rebuilt_is_told_of_a_format_that_it_does_not_know() {
    simulate(164, |mut machines, mut members| async move {
        upgrade(&mut machines, &mut members).await;
        sleep(Duration::from_secs(2)).await; // until all were heard lately
        let peer_urls = vec![format!("http://{}:2380", address(MEMBERS))];
        let add = MemberChange::Add { id: 7, peer_urls, learner: false };
        let gateway = members[0].services.gateway.clone();
        machines[0].node().spawn(async move { gateway.change_members(add).await }).await.unwrap().unwrap().unwrap();
        let mut joins = Machine::new(MEMBERS);
        let others = [format!("http://{}:2380", address(0))];
        let place = vec![format!("http://{}:2380", address(1))];
        let rebuilt =
            async move { raft::take_place(8, place, &others, &transport::Dialer, Duration::from_secs(5)).await };
        let rebuilt = joins.node().spawn(rebuilt).await.unwrap();
        assert!(matches!(rebuilt, Err(ReplaceError::NewerFormat(_))), "{rebuilt:?}");
        assert_eq!(members[0].services.gateway.members().len(), MEMBERS + 1, "nobody was replaced");
        match joins.start_with(config_of_joiner()).await {
            Err(StartError::NewerCluster(newer)) => {
                assert_eq!(newer, NewerFormat { found: NEXT, newest: layout::FORMAT });
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it joins"),
        }
        joins.newest_format = NEXT;
        let joined = joins.start_with(config_of_joiner()).await;
        let joined = joined.unwrap_or_else(|error| panic!("{error}"));
        assert!(put(&joins, &joined, "c").await);
        assert_eq!(joined.services.gateway.format(), NEXT);
    });
}
