//! Announcing that the cluster is to run an older version.
//!
//! Nothing here runs at an older version: while a downgrade is announced, the cluster's version and that of
//! the stored format are told as the older ones, as operators of etcd expect. A downgrade ends by a request only.
//!
//! etcd changes these versions some seconds after the request, and judges later requests by the new one. Here
//! they change at once, and requests are judged as in those first seconds.

use mainstay_proto::etcdserverpb::downgrade_request::DowngradeAction;
use mainstay_proto::etcdserverpb::{DowngradeInfo, DowngradeRequest, DowngradeResponse};
use tonic::Status;

use super::Services;
use super::access::Credentials;
use super::status::ApiError;
use crate::command::command::Kind;

/// The version of the cluster, as far as downgrades count it.
const CLUSTER: (i64, i64) = (3, 7);

impl Services {
    /// Checks, announces or ends a downgrade.
    pub(super) async fn downgraded(
        &self,
        credentials: &Credentials,
        request: DowngradeRequest,
    ) -> Result<DowngradeResponse, Status> {
        let version = version_text(&self.downgrade.info());
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => {
                self.checked(&request.version).await?;
            }
            Ok(DowngradeAction::Enable) => {
                let target_version = self.checked(&request.version).await?;
                let downgrade = DowngradeInfo { enabled: true, target_version };
                self.propose(credentials, Kind::Downgrade(downgrade)).await?;
            }
            Ok(DowngradeAction::Cancel) => {
                self.gateway.read_index().await?;
                // As in etcd there may be nothing to end.
                if self.downgrade.info().enabled {
                    self.propose(credentials, Kind::Downgrade(DowngradeInfo::default())).await?;
                }
            }
            Err(_) => return Err(ApiError::UnknownMethod.into()),
        }
        Ok(DowngradeResponse { header: Some(self.header_now()), version })
    }

    /// Whether a downgrade to a version may begin; the version in full.
    async fn checked(&self, version: &str) -> Result<String, Status> {
        let (major, minor) = parsed(version).ok_or(ApiError::WrongDowngradeVersionFormat)?;
        self.gateway.read_index().await?;
        if (major, minor + 1) != CLUSTER {
            return Err(ApiError::InvalidDowngradeTargetVersion.into());
        }
        if self.downgrade.info().enabled {
            return Err(ApiError::DowngradeInProcess.into());
        }
        Ok(format!("{major}.{minor}.0"))
    }
}

/// The cluster's version in two parts, as answers have it.
fn version_text(downgrade: &DowngradeInfo) -> String {
    let (major, minor) = if downgrade.enabled { (CLUSTER.0, CLUSTER.1 - 1) } else { CLUSTER };
    format!("{major}.{minor}")
}

/// The first two of a version's numbers. It may lack the third.
fn parsed(version: &str) -> Option<(i64, i64)> {
    semantic(version).or_else(|| semantic(&format!("{version}.0")))
}

fn semantic(version: &str) -> Option<(i64, i64)> {
    let (version, metadata) = version.split_once('+').unwrap_or((version, ""));
    let (version, pre_release) = version.split_once('-').unwrap_or((version, ""));
    let is_identifier = |text: &str| {
        text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
    };
    if ![metadata, pre_release].into_iter().all(|text| text.is_empty() || is_identifier(text)) {
        return None;
    }
    let numbers: Vec<i64> = version.splitn(3, '.').map(str::parse).collect::<Result<_, _>>().ok()?;
    match numbers[..] {
        [major, minor, _] => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_or_three_numbers() {
        for (text, version) in [
            ("3.6", Some((3, 6))),
            ("3.6.99", Some((3, 6))),
            ("3.6.0-rc.1+abc", Some((3, 6))),
            ("03.6", Some((3, 6))),
            ("3", None),
            ("3.6.", None),
            ("3.6.0.0", None),
            ("3.6.0-", Some((3, 6))),
            ("3.6.0-a..b", None),
            ("v3.6.0", None),
            ("", None),
            ("3.6 ", None),
        ] {
            assert_eq!(parsed(text), version, "{text:?}");
        }
    }

    #[test]
    fn an_announced_downgrade_is_told_as_the_clusters_version() {
        assert_eq!(version_text(&DowngradeInfo::default()), "3.7");
        assert_eq!(version_text(&DowngradeInfo { enabled: true, target_version: "3.6.0".to_owned() }), "3.6");
    }
}
