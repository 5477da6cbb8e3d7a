//! A leader that gets nothing done while nothing else happens: its heartbeats could keep the others from asking for the
//! lead, so it has to lose that, and soon.
//!
//! Among the faults of a storm that cannot be judged: whoever could take over may be away.

use std::time::Duration;

use mainstay_tests::history::{Step, Txn};
use tokio::time::Instant;

use crate::plan::Hindrance;
use crate::trace;
use crate::world::World;

/// How long a disk hangs: longer than anybody may take.
const HANGS: Duration = Duration::from_secs(6);
/// What it takes all members to be as before.
const REST: Duration = Duration::from_secs(3);
/// How often it is looked who leads.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes that still arrive where what is larger is lost: of a heartbeat, and not of what is written meanwhile.
const ARRIVES: usize = 128;
/// The number of what is lost, among the faults.
const FAULT: usize = usize::MAX;

/// Hinders the leader in each way that is planned, where everybody is there; says so where it goes on to lead.
pub(crate) async fn is_survived(id: usize, world: &World) -> Result<(), String> {
    for hindrance in &world.plan.hindrances {
        if !all_serve(world).await {
            return Ok(());
        }
        if let Some((leader, term)) = leads(world) {
            hinder(id, world, *hindrance, leader, term).await?;
        }
    }
    Ok(())
}

async fn hinder(id: usize, world: &World, hindrance: Hindrance, leader: usize, term: u64) -> Result<(), String> {
    let name = world.members[leader].name();
    trace::note(format_args!("{name} leads, and {hindrance:?}"));
    world.comes_about(hindrance.name());
    let log = world.members[leader].disks().log;
    let election = 10 * world.plan.heartbeat;
    // Who is asked to write, how long it may take until the others may vote, and how long it lasts at least.
    let (through, noticed, lasts) = match hindrance {
        Hindrance::DiskHangs => {
            log.stall_next_sync(HANGS);
            // The others commit it, and the leader's log waits for its disk from then on. It is answered unless the lead
            // is lost.
            ((leader + 1) % world.members.len(), election.mul_f64(0.7), HANGS)
        }
        Hindrance::LargeLost => {
            world.lose_the_large(FAULT, leader, ARRIVES);
            // Entries are sent twice, and the others hear heartbeats until that. Two that ask for votes at once, which slow
            // messages make likely, have to ask again; after two such rounds the leader asks, too, and has the longest log,
            // so that all begins anew.
            (leader, 28 * election, Duration::ZERO)
        }
    };
    let began = Instant::now();
    let writes = world.clone();
    let write = tokio::task::spawn(async move {
        let client = writes.client(0).only(through);
        let step = Step::put(format!("hindered/{hindrance:?}"), format!("{id}{}", "-".repeat(ARRIVES)));
        writes.recorder.call_unheard(id, &client, Txn::of(step)).await;
    });
    // And then two elections.
    let within = noticed + 2 * election;
    let is_followed = || leads(world).is_some_and(|(other, later)| other != leader && later > term);
    while !is_followed() && began.elapsed() < within {
        tokio::time::sleep(LOOK).await;
    }
    let followed = is_followed();
    trace::note(format_args!("followed: {followed}, after {:?}", began.elapsed()));
    let others = (0..world.members.len()).filter(|other| *other != leader);
    let outcome = if !followed {
        Err(format!("{name} led term {term} for {within:?} and longer, with all others there, though {hindrance:?}"))
    } else if let Some(deaf) = who_serves_not(world, others).await {
        Err(format!("{name} was followed, as {hindrance:?}, and {deaf} served nothing"))
    } else {
        Ok(())
    };
    tokio::time::sleep_until(began + lasts).await;
    world.lose_nothing(FAULT);
    tokio::time::sleep(REST).await;
    log.fail_no_more();
    write.await.expect("a client does not panic");
    outcome
}

/// Whether every place has a member that takes part. What has to come back is judged later.
async fn all_serve(world: &World) -> bool {
    world.survivors().len() == world.members.len() && who_serves_not(world, 0..world.members.len()).await.is_none()
}

/// One of these members that answers no linearizable read, for which somebody has to lead who commits.
async fn who_serves_not(world: &World, places: impl Iterator<Item = usize>) -> Option<String> {
    for place in places {
        if world.client(0).only(place).get("nothing").await.is_err() {
            return Some(world.members[place].name());
        }
    }
    None
}

/// Who leads in the last term that anybody leads in.
fn leads(world: &World) -> Option<(usize, u64)> {
    let views = world.members.iter().filter_map(|member| Some((member.index, member.life()?.leadership.view())));
    views.filter(|(_, view)| view.leads).map(|(index, view)| (index, view.term)).max_by_key(|(_, term)| *term)
}
