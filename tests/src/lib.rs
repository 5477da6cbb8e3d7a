//! What proves mainstay: clusters, workloads, faults and checkers.
