//! Addresses of members that lead to other members: nobody answers for another.

use std::pin::pin;

use super::*;

/// So many that one of them could stand for a quorum.
const MANY: usize = 5;

fn config_of_many(index: usize) -> Config {
    config_with(index, MANY, &[])
}

/// Has the address of one member lead to another one, or to itself.
fn leads(from: usize, to: usize) {
    let peers = |index| SocketAddr::new(address(index), 2380);
    transport::set_detour(peers(from), (from != to).then(|| peers(to)));
}

/// Whether a member finds that it has everything that was acknowledged.
async fn reads(machine: &Machine, member: &Running) -> bool {
    let gateway = member.services.gateway.clone();
    machine.node().spawn(async move { gateway.read_index().await.is_ok() }).await.unwrap()
}

/// Of five members three are down, and their addresses lead to those that are there. Each of these counts once, for what
/// is written, for what is read, and in an election.
#[test]
fn who_is_at_the_address_of_another_does_not_count_for_it() {
    for seed in 300..303 {
        simulate_many(seed, MANY, config_of_many, |machines, mut members| async move {
            assert!(put(&machines[0], &members[0], "a").await);
            sleep(Duration::from_secs(2)).await; // until all have published themselves
            let leader = leader(&members).await;
            let other = (leader + 1) % MANY;
            let away = [2, 3, 4].map(|step| (leader + step) % MANY);
            away.iter().for_each(|index| machines[*index].kill());
            leads(away[0], other);
            leads(away[1], other);
            // To the leader itself.
            leads(away[2], leader);
            let revision = members[other].services.store.revision();
            assert!(!put(&machines[leader], &members[leader], "b").await, "seed {seed}");
            assert!(!reads(&machines[leader], &members[leader]).await, "seed {seed}");
            assert!(!put(&machines[other], &members[other], "c").await, "seed {seed}");
            assert_eq!(members[other].services.store.revision(), revision, "seed {seed}: something was committed");

            machines[leader].kill();
            leads(away[2], other);
            sleep(Duration::from_secs(20)).await;
            assert!(!members[other].leadership.view().leads, "seed {seed}: it elected itself");

            (0..MANY).for_each(|index| leads(index, index));
            for index in away.into_iter().chain([leader]) {
                let started = machines[index].start_with(config_of_many(index)).await;
                members[index] = started.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            super::leader(&members).await;
            for index in 0..MANY {
                assert!(put(&machines[index], &members[index], &index.to_string()).await, "seed {seed}");
            }
            sleep(Duration::from_secs(2)).await;
            let last = |machine: &Machine| machine.applied.lock().unwrap().keys().next_back().copied();
            let states: Vec<_> = machines.iter().map(last).collect();
            assert!(states.iter().all(|state| *state == states[0]), "seed {seed}: {states:?}");
        });
    }
}

/// A member whose address leads to another one is not taken to have what that one has: when the address leads to it
/// again, it gets what it lacks.
#[test]
fn who_was_not_reached_gets_what_it_lacks() {
    simulate(310, |machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let leading = leader(&members).await;
        let (missed, third) = ((leading + 1) % MEMBERS, (leading + 2) % MEMBERS);
        machines[missed].kill();
        leads(missed, third);
        for number in 0..5 {
            assert!(put(&machines[leading], &members[leading], &number.to_string()).await, "two are a quorum");
        }
        let revision = members[leading].services.store.revision();
        leads(missed, missed);
        let back = machines[missed].start().await.unwrap_or_else(|error| panic!("{error}"));
        assert!(reads(&machines[missed], &back).await);
        assert_eq!(back.services.store.revision(), revision);
    });
}

/// Who has lost its data asks the others whether they know it. One whose address leads back to it knows nothing, and is
/// nobody else.
#[test]
fn who_asks_itself_has_not_asked_the_others() {
    simulate(320, |mut machines, members| async move {
        assert!(put(&machines[0], &members[0], "a").await);
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let id = members[0].id();
        machines.iter().for_each(Machine::kill);
        machines[0].log = SimMedium::new(9);
        machines[0].store = MemHome::new();
        leads(1, 0);
        let mut starting = pin!(machines[0].start());
        assert!(timeout(Duration::from_secs(20), &mut starting).await.is_err(), "nobody was there to say anything");
        leads(1, 1);
        let others = futures_util::future::join_all(machines[1..].iter().map(Machine::start));
        let (started, others) = futures_util::future::join(starting, others).await;
        match started {
            Err(StartError::AlreadyBootstrapped(known)) => assert_eq!(known, id),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it came back as itself"),
        }
        assert!(others.iter().all(Result::is_ok));
    });
}
