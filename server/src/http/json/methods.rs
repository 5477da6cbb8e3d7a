//! Which path is which method.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// Paths below `/v3/`, and the methods behind them.
const PATHS: [(&str, &str, &str); 51] = [
    ("kv/range", "etcdserverpb.KV", "Range"),
    ("kv/put", "etcdserverpb.KV", "Put"),
    ("kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("kv/txn", "etcdserverpb.KV", "Txn"),
    ("kv/compaction", "etcdserverpb.KV", "Compact"),
    ("watch", "etcdserverpb.Watch", "Watch"),
    ("lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    ("maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("lock/lock", "v3lockpb.Lock", "Lock"),
    ("lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("election/campaign", "v3electionpb.Election", "Campaign"),
    ("election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("election/leader", "v3electionpb.Election", "Leader"),
    ("election/observe", "v3electionpb.Election", "Observe"),
    ("election/resign", "v3electionpb.Election", "Resign"),
];

/// The descriptors of all messages and methods. They are part of the program and never change.
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(mainstay_proto::DESCRIPTORS).expect("the build wrote them"));

/// The descriptors of all messages and methods.
pub(super) fn pool() -> &'static DescriptorPool {
    &POOL
}

/// The method behind a path below `/v3/`.
pub(super) fn find(path: &str) -> Option<MethodDescriptor> {
    let (_, service, method) = PATHS.iter().find(|(known, ..)| *known == path)?;
    pool().get_service_by_name(service)?.methods().find(|known| known.name() == *method)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_leads_to_a_method() {
        let paths: BTreeSet<&str> = PATHS.iter().map(|(path, ..)| *path).collect();
        assert_eq!(paths.len(), PATHS.len());
        for (path, service, method) in PATHS {
            let found = find(path).unwrap_or_else(|| panic!("{path} leads to {service}/{method}, which is not there"));
            assert_eq!((found.parent_service().full_name(), found.name()), (service, method));
        }
        assert!(find("kv/put/").is_none() && find("").is_none());
    }

    #[test]
    fn all_methods_have_a_path_but_those_that_etcd_leaves_out() {
        let reached: BTreeSet<(&str, &str)> = PATHS.iter().map(|(_, service, method)| (*service, *method)).collect();
        let left_out: Vec<String> = pool()
            .services()
            .filter(|service| !service.full_name().starts_with("mainstay."))
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| !reached.contains(&(method.parent_service().full_name(), method.name())))
            .map(|method| method.full_name().to_owned())
            .collect();
        let health = ["Check", "List", "Watch"].map(|method| format!("grpc.health.v1.Health.{method}"));
        assert_eq!(left_out, [&["etcdserverpb.KV.RangeStream".to_owned()], &health[..]].concat());
    }
}
