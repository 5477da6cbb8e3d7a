//! How soon a member with much data serves again.

use std::time::{Duration, Instant};

use mainstay_client::{ClientOptions, Range};
use mainstay_tests::workload::fill;
use mainstay_tests::{Cluster, ProcessCluster, wait_until_serving};

const KEYS: usize = 1_000_000;
const VALUE_BYTES: usize = 256;
/// Generous, for a loaded machine; the figure itself is printed.
const SERVES_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys() {
    let mut cluster = ProcessCluster::start_all(1).await.unwrap();
    let client = cluster.client(0, ClientOptions::default()).with_timeout(Duration::from_secs(60));
    let begun = Instant::now();
    fill(&client, "million/", KEYS, VALUE_BYTES).await.unwrap();
    let filled = begun.elapsed();
    client.put("last", "word").await.unwrap();

    cluster.kill(0).await.unwrap();
    let begun = Instant::now();
    cluster.start(0).await.unwrap();
    wait_until_serving(&cluster, [0]).await.unwrap();
    let served = begun.elapsed();

    assert_eq!(client.get("last").await.unwrap().unwrap().value, "word");
    assert_eq!(client.range(Range::prefix("million/").count_only()).await.unwrap().count, 1_000_000);
    eprintln!(
        "{KEYS} keys of {VALUE_BYTES} bytes written in {filled:.1?}; first linearizable read {served:.2?} after kill -9"
    );
    assert!(served < SERVES_WITHIN, "{served:?} from kill -9 to the first linearizable read");
}
