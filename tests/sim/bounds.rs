//! What members hold for those who watch and ask has a bound, at every moment.

use std::time::Duration;

use mainstay_server::limits;
use mainstay_server::watch::Bounds;

use crate::world::World;

/// How often members are looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// Streams that have just ended count no more while what waited for them still does.
const ENDING: u64 = 2;
/// Watches of waiters for locks and elections, which are not in the history.
const WAITERS_MAX: u64 = 20;
/// More calls than are under way at a quiet member besides watches: of locks, of elections, to keep leases alive.
const CALLS_MAX: u64 = 20;
/// More than a watcher of these workloads takes, with its keys.
const WATCHER_BYTES_MAX: u64 = 2 * limits::WATCHER_BYTES;

/// Looks at all members for as long as it runs, and says where more waits for watchers than there is room for, or more
/// is under way than the server lets in.
pub(crate) async fn look_on(world: World) {
    let bounds = if world.plan.small_watches { Bounds::SMALL } else { Bounds::STANDARD };
    let room = bounds.mailbox_messages() as u64;
    loop {
        tokio::time::sleep(INTERVAL).await;
        for member in world.members.iter() {
            let Some(life) = member.life() else { continue };
            let occupancy = (life.occupancy)();
            if occupancy.pending_messages > (occupancy.watch_streams + ENDING) * room {
                let name = member.name();
                return world.surprise(format!("{name} has room for {room} messages in a mailbox, and {occupancy:?}"));
            }
            let (proposals, bytes) = (limits::PROPOSALS_MAX as u64, limits::ADMISSION_POOL_BYTES);
            if occupancy.proposals > proposals || occupancy.admitted_bytes > bytes {
                let name = member.name();
                return world.surprise(format!("{name} lets in {proposals} proposals, {bytes} bytes: {occupancy:?}"));
            }
        }
    }
}

/// Whether the watches that members have when all is quiet are those that somebody asked for.
pub(crate) fn watches(world: &World) -> Result<(), String> {
    let lives = world.survivors().into_iter().filter_map(|index| world.members[index].life());
    let open: Vec<_> = lives.map(|life| (life.occupancy)()).collect();
    let wanted = world.recorder.with(|history| history.watches.len()) as u64;
    let found: u64 = open.iter().map(|occupancy| occupancy.watchers).sum();
    if found > wanted + WAITERS_MAX {
        return Err(format!("{wanted} watches were asked for, and there are {found}: {open:?}"));
    }
    Ok(())
}

/// Whether requests hold no more of the memory of any member, when all is quiet, than those may that still go on.
pub(crate) fn requests(world: &World) -> Result<(), String> {
    for index in world.survivors() {
        let Some(life) = world.members[index].life() else { continue };
        let occupancy = (life.occupancy)();
        let streams = (occupancy.watch_streams + CALLS_MAX) * limits::STREAM_BYTES;
        let allowed = streams + occupancy.watchers * WATCHER_BYTES_MAX;
        if occupancy.admitted_bytes > allowed || occupancy.waiting_requests > 0 {
            let name = world.members[index].name();
            return Err(format!(
                "requests of a quiet {name} may hold {allowed} bytes, and wait for none: {occupancy:?}"
            ));
        }
    }
    Ok(())
}
