//! `mainstay dump-requests`: what is in a member's log, whether it runs or not.

use std::io::{self, Write};
use std::path::Path;

use mainstay_raft_log::LogView;
use mainstay_raft_log::disk::real::LookedAt;
use mainstay_server::raft;

/// Writes the requests in the log of a data directory.
pub(crate) fn dump(data_dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let log = LogView::open(&LookedAt::new(&data_dir.join("member").join("wal")))?;
    let mut out = io::BufWriter::new(out);
    raft::write_requests(&log, &mut out)?;
    out.flush()?;
    Ok(())
}
