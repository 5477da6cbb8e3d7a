//! A durable sequence of opaque records: a segmented write-ahead log with group commit.
