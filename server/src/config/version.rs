//! What the binary says of itself.

use std::fmt::Write as _;

/// The version of etcd whose behaviour this release has; etcd's tools choose their flags by it.
pub const ETCD_VERSION: &str = "3.7.1";

/// The cluster version that such members agree on.
pub const CLUSTER_VERSION: &str = "3.7.0";

/// The version of etcd's storage format that `/version` names.
pub const STORAGE_VERSION: &str = "3.7.0";

/// The Go release that etcd is built with; dashboards show it.
pub const GO_VERSION: &str = "go1.26.8";

/// The oldest cluster version that can join.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";

/// mainstay's own version.
pub const MAINSTAY_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that was built, where the build says it.
pub fn git_sha() -> &'static str {
    option_env!("MAINSTAY_GIT_SHA").unwrap_or("unknown")
}

/// The answer to `--version`: etcd's four lines, which tools parse, then our own.
pub fn version_text() -> String {
    let mut text = String::new();
    for (name, value) in [
        ("etcd Version", ETCD_VERSION),
        ("Git SHA", git_sha()),
        ("Go Version", GO_VERSION),
        ("Go OS/Arch", GO_OS_ARCH),
        ("mainstay Version", MAINSTAY_VERSION),
    ] {
        let _infallible = writeln!(text, "{name}: {value}");
    }
    text
}

#[cfg(target_arch = "aarch64")]
const GO_OS_ARCH: &str = "linux/arm64";
#[cfg(not(target_arch = "aarch64"))]
const GO_OS_ARCH: &str = "linux/amd64";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_are_etcds() {
        let text = version_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "etcd Version: 3.7.1");
        assert!(lines[1].starts_with("Git SHA: "));
        assert_eq!(lines[2], "Go Version: go1.26.8");
        assert!(lines[3].starts_with("Go OS/Arch: linux/"));
        assert_eq!(lines[4], format!("mainstay Version: {}", env!("CARGO_PKG_VERSION")));
    }
}
