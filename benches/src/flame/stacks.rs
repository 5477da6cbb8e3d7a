//! The samples that `perf script` prints, added up: who was called by whom, and how often each was met.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

/// A function in all samples that came to it the same way; the outermost stands for all samples.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Samples that it was in.
    pub(super) count: u64,
    /// Whom it called.
    pub(super) callees: BTreeMap<String, Frame>,
}

/// Reads samples: a line with the thread's name, then its frames from the innermost on, then an empty line.
pub(super) fn read(script: impl BufRead) -> io::Result<Frame> {
    let mut all = Frame::default();
    let mut thread = None::<String>;
    let mut stack = Vec::new();
    // The last sample need not have its empty line.
    for line in script.split(b'\n').chain([Ok(Vec::new())]) {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim();
        if line.is_empty() {
            if let Some(thread) = thread.take() {
                stack.push(thread);
                all.add(stack.drain(..).rev());
            }
        } else if thread.is_none() {
            thread = Some(line.to_owned());
        } else {
            // An address, and what is there.
            let symbol = line.split_once(' ').map_or("[unknown]", |(_, symbol)| symbol.trim());
            stack.push(without_hash(symbol).to_owned());
        }
    }
    Ok(all)
}

impl Frame {
    /// Adds a sample, from the outermost frame on.
    fn add(&mut self, stack: impl Iterator<Item = String>) {
        self.count += 1;
        let mut frame = self;
        for name in stack {
            frame = frame.callees.entry(name).or_default();
            frame.count += 1;
        }
    }
}

/// The compiler tells functions of the same name apart by a hash that nobody reads.
fn without_hash(symbol: &str) -> &str {
    match symbol.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => symbol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
tokio-runtime-w
\t          55d0c0 mainstay_server::apply::apply::h0123456789abcdef
\t          55d0c1 <core::future::PollFn<F> as Future>::poll::hfedcba9876543210
\t          7f0001 start_thread

tokio-runtime-w
\t          55d0c9 mainstay_server::apply::apply::h0123456789abcdef
\t          55d0c1 <core::future::PollFn<F> as Future>::poll::hfedcba9876543210
\t          7f0001 start_thread

raft log
\tffffffff810001 [unknown]
\t          7f0001
\t          7f0002 start_thread
";

    fn names(frame: &Frame) -> Vec<(&str, u64)> {
        frame.callees.iter().map(|(name, callee)| (name.as_str(), callee.count)).collect()
    }

    #[test]
    fn samples_that_came_the_same_way_are_one_frame() {
        let all = read(SCRIPT.as_bytes()).unwrap();
        assert_eq!(all.count, 3);
        assert_eq!(names(&all), [("raft log", 1), ("tokio-runtime-w", 2)]);
        let thread = &all.callees["tokio-runtime-w"];
        assert_eq!(names(thread), [("start_thread", 2)]);
        let poll = &thread.callees["start_thread"];
        assert_eq!(names(poll), [("<core::future::PollFn<F> as Future>::poll", 2)]);
        let apply = &poll.callees["<core::future::PollFn<F> as Future>::poll"];
        assert_eq!(names(apply), [("mainstay_server::apply::apply", 2)]);
        let log = &all.callees["raft log"].callees["start_thread"];
        assert_eq!(names(log), [("[unknown]", 1)]);
        assert_eq!(names(&log.callees["[unknown]"]), [("[unknown]", 1)]);
    }

    #[test]
    fn nothing_is_no_sample() {
        assert_eq!(read(&b""[..]).unwrap().count, 0);
        assert_eq!(read(&b"\n\n"[..]).unwrap().count, 0);
    }

    #[test]
    fn only_hashes_are_cut_off() {
        for kept in ["std::hash::hasher", "a::h0123", "write", "a::h0123456789abcdeg"] {
            assert_eq!(without_hash(kept), kept);
        }
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
    }
}
