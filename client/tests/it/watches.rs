use mainstay_client::{ClientOptions, Code, Error, Reason, Status, Update, Watch, Watcher};

use crate::client;
use crate::fake::{Fake, Network};

/// The revisions of the next events.
async fn revisions(watcher: &mut Watcher) -> Vec<i64> {
    match watcher.next().await.unwrap() {
        Update::Events { events, .. } => events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect(),
        Update::Progress { .. } => panic!("progress where events were expected"),
    }
}

#[tokio::test]
async fn a_created_watch_sees_what_follows() {
    let fake = Fake::new();
    fake.write("k", "before");
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    assert_eq!(watcher.created_revision(), 2);
    fake.write("other", "");
    fake.write("k", "after");
    assert_eq!(revisions(&mut watcher).await, [4]);
}

#[tokio::test]
async fn it_goes_on_elsewhere_after_a_broken_connection() {
    let fake = Fake::new();
    let mut watcher = client(&fake).watch(Watch::prefix("").start_revision(1)).await.unwrap();
    assert_eq!(watcher.endpoint(), Some("a"));
    fake.write("k", "1");
    assert_eq!(revisions(&mut watcher).await, [2]);
    fake.set("b", Network::Down);
    fake.cut();
    fake.write("k", "2");
    fake.write("k", "3");
    assert_eq!(revisions(&mut watcher).await, [3, 4]);
    assert_eq!((watcher.endpoint(), watcher.resume_count()), (Some("c"), 1));
    fake.write("k", "4");
    assert_eq!(revisions(&mut watcher).await, [5]);
}

#[tokio::test]
async fn it_goes_on_after_a_member_stopped_or_lost_its_leader() {
    let fake = Fake::new();
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    for (count, end) in [None, Some(Status::unavailable("etcdserver: no leader")), Some(Status::internal("closed"))]
        .into_iter()
        .enumerate()
    {
        fake.end_watches(end);
        let written = fake.write("k", "");
        assert_eq!(revisions(&mut watcher).await, [written]);
        assert_eq!(watcher.resume_count(), count as u64 + 1);
    }
}

#[tokio::test]
async fn a_watch_from_now_on_misses_nothing_while_it_is_broken() {
    let fake = Fake::new();
    fake.write("k", "before");
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    fake.cut();
    fake.write("k", "meanwhile");
    assert_eq!(revisions(&mut watcher).await, [3]);
}

#[tokio::test]
async fn progress_moves_the_point_of_resumption() {
    let fake = Fake::new();
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    for _ in 0..3 {
        fake.write("other", "");
    }
    fake.notify_progress();
    assert_eq!(watcher.next().await.unwrap(), Update::Progress { revision: 4 });
    fake.write("other", "");
    watcher.request_progress().await;
    assert_eq!(watcher.next().await.unwrap(), Update::Progress { revision: 5 });
    // Compacted up to what was seen: going on is possible only from there.
    fake.compact(5);
    fake.cut();
    fake.write("k", "");
    assert_eq!(revisions(&mut watcher).await, [6]);
}

#[tokio::test]
async fn compaction_ends_it() {
    let fake = Fake::new();
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    for _ in 0..5 {
        fake.write("k", "");
    }
    fake.cut();
    fake.compact(5);
    // What had reached this side before the cut may still come.
    let error = loop {
        match watcher.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::WatchCompacted { compact_revision: 5 }), "{error}");
    assert_eq!(error.reason(), Some(Reason::Compacted));
    assert!(watcher.next().await.is_err(), "the end is final");
}

#[tokio::test]
async fn a_refused_watch_is_an_error_at_once() {
    let fake = Fake::new();
    fake.refuse_watches("rpc error: code = PermissionDenied desc = etcdserver: permission denied");
    let error = client(&fake).watch(Watch::key("k")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PermissionDenied));
    fake.refuse_watches("mvcc: watcher range is empty");
    let error = client(&fake).watch(Watch::key("k")).await.unwrap_err();
    assert!(matches!(error, Error::WatchCancelled { reason: None, text } if text == "mvcc: watcher range is empty"));
    fake.set("a", Network::Answers(Status::unauthenticated("etcdserver: invalid auth token")));
    let error = client(&fake).watch(Watch::key("k")).await.unwrap_err();
    assert_eq!(error.code(), Some(Code::Unauthenticated));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_cluster_is_an_error_in_time() {
    let fake = Fake::new();
    for (endpoint, network) in [("a", Network::Down), ("b", Network::Down), ("c", Network::Silent)] {
        fake.set(endpoint, network);
    }
    let start = tokio::time::Instant::now();
    client(&fake).watch(Watch::key("k")).await.unwrap_err();
    assert!(start.elapsed() <= ClientOptions::default().request_timeout);
}

#[tokio::test]
async fn it_can_be_cancelled() {
    let fake = Fake::new();
    let watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    fake.write("k", "");
    watcher.cancel().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_was_given_up_loses_nothing() {
    let fake = Fake::new();
    let mut watcher = client(&fake).watch(Watch::key("k")).await.unwrap();
    for endpoint in ["a", "b", "c"] {
        fake.set(endpoint, Network::Silent);
    }
    fake.cut();
    let written = fake.write("k", "");
    for _ in 0..10 {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(1), watcher.next());
        assert!(wait.await.is_err());
    }
    for endpoint in ["a", "b", "c"] {
        fake.set(endpoint, Network::Up);
    }
    assert_eq!(revisions(&mut watcher).await, [written]);
}

/// Whatever the moment of the cuts, each revision is delivered once and in order.
#[tokio::test]
async fn cuts_at_any_moment_make_neither_gap_nor_repeat() {
    for seed in 0..50_u64 {
        let fake = Fake::new();
        let mut watcher = client(&fake).watch(Watch::all().start_revision(2)).await.unwrap();
        let mut seen = Vec::new();
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..40 {
            // xorshift: enough to vary the order of writes, cuts and reads.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 4 {
                0 | 1 => drop(fake.write("k", "")),
                2 => fake.cut(),
                _ if (seen.len() as i64) < fake.revision() - 1 => seen.extend(revisions(&mut watcher).await),
                _ => {}
            }
        }
        while (seen.len() as i64) < fake.revision() - 1 {
            seen.extend(revisions(&mut watcher).await);
        }
        assert_eq!(seen, (2..=fake.revision()).collect::<Vec<_>>(), "seed {seed}");
    }
}
