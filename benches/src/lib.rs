//! Workloads against any etcd endpoint, side by side.
