//! `mainstay rebuild`: a member whose data is spoilt or lost begins anew, in its place.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use mainstay_raft_log::disk::real::RealDisk;
use mainstay_server::config::{Config, Url, identity};
use mainstay_server::engine::{self, rocks::RocksHome};
use mainstay_server::env::transport::Dialer;
use mainstay_server::node;
use mainstay_server::raft;

use super::{data_dir, security};

/// How long one member may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Has the cluster replace this member by a new one with the same peer URLs, puts its data aside, and prepares an empty
/// data directory, from which it is started as before. What was done, for the operator.
pub(crate) async fn rebuild(config: &Config) -> anyhow::Result<String> {
    let texts = |urls: &[Url]| urls.iter().map(|url| url.as_str().to_owned()).collect::<Vec<_>>();
    let others = config.initial_cluster.iter().filter(|(name, _)| **name != config.name);
    let others: Vec<String> = others.flat_map(|(_, urls)| texts(urls)).collect();
    ensure!(!others.is_empty(), "--initial-cluster names no other member from which this one could be rebuilt");
    data_dir::prepare(config)?;
    let folders = folders(config)?;
    for folder in &folders {
        let aside = aside(folder);
        ensure!(!aside.exists(), "{} holds what an earlier rebuild put aside: remove it first", aside.display());
    }
    // Nobody else may have it open, nor open it meanwhile.
    let held = RealDisk::open(&config.log_dir()).context("the member must not run while it is rebuilt")?;
    let peer_urls = texts(&config.initial_advertise_peer_urls);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let id = identity::member_id_at(&peer_urls, now.as_secs());
    let dialer = Dialer::with_tls(security::with_peers(config)?);
    // The members are changed last of all that may fail: as long as they are not, nothing has happened.
    put_aside(&folders)?;
    let place = match raft::take_place(id, peer_urls, &others, &dialer, LIMIT).await {
        Ok(place) => place,
        Err(error) => {
            for folder in &folders {
                put_back(folder)?;
            }
            return Err(error.into());
        }
    };
    drop(held);
    data_dir::prepare(config)?;
    node::prepare(&RocksHome::new(engine::directory(&config.data_dir)), place.cluster_id, place.id)?;
    let former = place.former.map_or_else(|| "nobody".to_owned(), |former| format!("{former:x}"));
    let kept: Vec<String> = folders.iter().map(|folder| aside(folder).display().to_string()).collect();
    Ok(format!(
        "member {:x} takes the place of {former} in cluster {:x}\nstart it as before; it gets its data from the others\n\
         remove {} when it serves again\n",
        place.id,
        place.cluster_id,
        kept.join(" and ")
    ))
}

/// The folders that hold the member's data, as the system names them.
fn folders(config: &Config) -> anyhow::Result<Vec<PathBuf>> {
    let real = |folder: PathBuf| folder.canonicalize().with_context(|| format!("looking at {}", folder.display()));
    let (member, log) = (real(config.member_dir())?, real(config.log_dir())?);
    Ok(if log.starts_with(&member) { vec![member] } else { vec![member, log] })
}

/// Renames all of the folders, or none.
fn put_aside(folders: &[PathBuf]) -> anyhow::Result<()> {
    for (done, folder) in folders.iter().enumerate() {
        if let Err(error) = std::fs::rename(folder, aside(folder)) {
            for folder in &folders[..done] {
                put_back(folder)?;
            }
            return Err(error).with_context(|| format!("putting {} aside", folder.display()));
        }
    }
    Ok(())
}

fn put_back(folder: &Path) -> anyhow::Result<()> {
    let aside = aside(folder);
    std::fs::rename(&aside, folder).with_context(|| format!("putting {} back", aside.display()))
}

/// Where a folder's content is kept, on the same file system.
fn aside(folder: &Path) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".old");
    folder.with_file_name(name)
}
