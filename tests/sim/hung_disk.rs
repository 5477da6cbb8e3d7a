//! A leader whose disk hangs while nothing else happens: its heartbeats keep the others from asking for the lead, so it has
//! to give that up by itself, and soon.
//!
//! Among the faults of a storm that cannot be judged: whoever could take over may be away.

use std::time::Duration;

use mainstay_tests::history::{Step, Txn};
use tokio::time::Instant;

use crate::trace;
use crate::world::World;

/// How long the disk hangs: longer than anybody may take.
const HANGS: Duration = Duration::from_secs(6);
/// What it takes all members to be as before.
const REST: Duration = Duration::from_secs(3);
/// How often it is looked who leads.
const LOOK: Duration = Duration::from_millis(10);

/// Lets the leader's disk hang, in worlds where that is planned and everybody is there; says so where it goes on to lead.
pub(crate) async fn is_survived(id: usize, world: &World) -> Result<(), String> {
    if !world.plan.disk_hangs || !all_serve(world).await {
        return Ok(());
    }
    let Some((leader, term)) = leads(world) else { return Ok(()) };
    let log = world.members[leader].disks().log;
    trace::note(format_args!("the disk of {} hangs", world.members[leader].name()));
    log.stall_next_sync(HANGS);
    let began = Instant::now();
    // The others commit it, and the leader's log waits for its disk from then on. It is answered unless the lead is lost.
    let (writes, through) = (world.clone(), (leader + 1) % world.members.len());
    let write = tokio::task::spawn(async move {
        let client = writes.client(0).only(through);
        let step = Step::put("hung/disk".to_owned(), id.to_string());
        writes.recorder.call_unheard(id, &client, Txn::of(step)).await;
    });
    // So long it takes to say that the disk hangs, and then two elections.
    let election = 10 * world.plan.heartbeat;
    let within = election.mul_f64(0.7) + 2 * election;
    let is_followed = || leads(world).is_some_and(|(other, later)| other != leader && later > term);
    while !is_followed() && began.elapsed() < within {
        tokio::time::sleep(LOOK).await;
    }
    let followed = is_followed();
    trace::note(format_args!("followed: {followed}, after {:?}", began.elapsed()));
    tokio::time::sleep_until(began + HANGS + REST).await;
    log.fail_no_more();
    write.await.expect("a client does not panic");
    if followed {
        return Ok(());
    }
    let name = world.members[leader].name();
    Err(format!("{name} led term {term} for {within:?} and longer, with a disk that hung and all others there"))
}

/// Whether every place has a member that takes part. What has to come back is judged later.
async fn all_serve(world: &World) -> bool {
    if world.survivors().len() < world.members.len() {
        return false;
    }
    for place in 0..world.members.len() {
        if world.client(0).only(place).get("nothing").await.is_err() {
            return false;
        }
    }
    true
}

/// Who leads in the last term that anybody leads in.
fn leads(world: &World) -> Option<(usize, u64)> {
    let views = world.members.iter().filter_map(|member| Some((member.index, member.life()?.leadership.view())));
    views.filter(|(_, view)| view.leads).map(|(index, view)| (index, view.term)).max_by_key(|(_, term)| *term)
}
