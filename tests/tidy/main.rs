//! Rules of the tree that neither the compiler nor a lint knows, each with its reason.

#![cfg(not(madsim))] // they read files
#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_tests::checker::history::CHECKERS;

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `folder` with this extension, as its path from the root and its text.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|actual| actual == extension) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<(String, String)> {
    ["proto", "raft-log", "server", "client", "tests", "benches"]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .collect()
}

/// Fails with all that was found, not just the first.
#[track_caller]
fn expect_none(rule: &str, found: &[String]) {
    let mut text = String::new();
    for line in found {
        writeln!(text, "  {line}").unwrap();
    }
    assert!(found.is_empty(), "{rule}\n{text}");
}

/// The lines of a file that are code, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Where each room of the server stands; a room may use those of a higher number only.
const ROOMS: [(&str, u8); 14] = [
    ("api", 0),
    ("http", 0),
    ("leader", 0),
    ("discovery", 0),
    ("space", 1),
    ("raft", 2),
    ("backup", 2),
    ("watch", 3),
    ("apply", 3),
    ("lease", 4),
    ("auth", 4),
    ("mvcc", 4),
    ("engine", 5),
    ("admission", 5),
];

/// The rooms named right after `crate::`: one, or a group in braces.
fn first_segments(path: &str) -> impl Iterator<Item = &str> {
    let (list, entries) = path.strip_prefix('{').map_or((path, 1), |group| (group, usize::MAX));
    list.split(',')
        .take(entries)
        .filter_map(|entry| entry.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

/// Replies and events flow back through channels that were handed down, so a room needs to know
/// only what stands to its right; that is what makes each testable without the ones to its left.
#[test]
fn rooms_import_to_the_right() {
    let place = |room: &str| ROOMS.iter().find(|(name, _)| *name == room).map(|(_, place)| *place);
    let mut found = Vec::new();
    for (path, text) in files("server/src", "rs") {
        let room = path.trim_start_matches("server/src/").split(['/', '.']).next().unwrap().to_owned();
        let Some(here) = place(&room) else { continue };
        for (number, line) in code(&text) {
            for (at, _) in line.match_indices("crate::") {
                for other in first_segments(&line[at + 7..]) {
                    if other != room && place(other).is_some_and(|there| there <= here) {
                        found.push(format!("{path}:{number}: {room} uses {other}"));
                    }
                }
            }
        }
    }
    expect_none(
        "rooms import in one direction: api, http, leader, discovery → raft, backup → watch, apply → lease, auth, mvcc → engine, admission",
        &found,
    );
}

/// What differs in a simulation is behind a few doors; everywhere else it is the same code.
#[test]
fn only_the_doors_know_the_simulation() {
    let doors = [
        "raft-log/src/disk/",
        "raft-log/src/probe.rs",
        "raft-log/tests/",
        "server/src/env/",
        "server/src/engine/",
        "server/src/lib.rs",
        "tests/",
        "benches/",
    ];
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        // Tests may say which world they are for.
        if doors.iter().any(|door| path.starts_with(door)) || path.contains("/tests/") || path.ends_with("/tests.rs") {
            continue;
        }
        for (number, line) in code(&text) {
            if line.contains("madsim") && line.contains("cfg") {
                found.push(format!("{path}:{number}"));
            }
        }
    }
    expect_none("cfg(madsim) belongs into raft-log/src/disk, server/src/env, server/src/engine and tests", &found);
}

/// A simulation gives each member a clock of its own, which runs fast or slow and jumps. Whatever decides
/// by time has to ask that one; the process's own would be one clock for all.
#[test]
fn time_comes_from_the_member_clock() {
    // These measure what a log line or a metric says, or belong to a real process.
    let measures = ["server/src/env/", "server/src/process/", "server/src/logging.rs", "server/src/api/edge.rs"];
    let asks = ["tokio::time", "std::time::Instant", ".elapsed()", "Instant::now"];
    let mut found = Vec::new();
    for (path, text) in files("server/src", "rs") {
        // RocksDB is not there in simulation.
        let exempt = measures.iter().any(|place| path.starts_with(place)) || path == "server/src/engine/rocks.rs";
        if exempt || path.contains("/tests/") || path.ends_with("/tests.rs") {
            continue;
        }
        let tested = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        for (number, line) in code(&text[..tested]) {
            if asks.iter().any(|ask| line.contains(ask)) {
                found.push(format!("{path}:{number}: {}", line.trim()));
            }
        }
    }
    expect_none("the server takes its time from crate::env::clock", &found);
}

/// Without `biased` a select takes its branches in random order, which no simulation repeats.
#[test]
fn selects_are_biased() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        let lines: Vec<(usize, &str)> = code(&text).collect();
        for (place, (number, line)) in lines.iter().enumerate() {
            let Some((_, rest)) = line.split_once("select! {") else { continue };
            if path.starts_with("tests/tidy") {
                continue;
            }
            let next = lines.get(place + 1).map_or("", |(_, next)| next.trim());
            if !rest.trim().starts_with("biased;") && !next.starts_with("biased;") {
                found.push(format!("{path}:{number}"));
            }
        }
    }
    expect_none("select! begins with `biased;`, and a comment explains the order of its branches", &found);
}

/// A name that says nothing collects everything.
#[test]
fn modules_are_named_by_what_they_own() {
    let mut found = Vec::new();
    for (path, _) in rust_files() {
        for part in path.trim_end_matches(".rs").split('/') {
            if ["common", "util", "utils", "helper", "helpers", "misc", "types", "manager"].contains(&part) {
                found.push(path.clone());
            }
        }
    }
    expect_none("no module is named common, utils, helpers, types or manager", &found);
}

/// A map that shows roads which do not exist is worse than none.
#[test]
fn documents_name_files_that_exist() {
    let mut found = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "tests/KNOWN_BUGS.md"] {
        let Ok(text) = fs::read_to_string(root().join(document)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for quoted in line.split('`').skip(1).step_by(2) {
                let is_path = quoted.contains('/') && quoted.ends_with(".rs")
                    || quoted.ends_with('/') && !quoted.starts_with('/');
                if is_path && !root().join(quoted).exists() && !root().join("server/src").join(quoted).exists() {
                    found.push(format!("{document}:{}: {quoted}", number + 1));
                }
            }
        }
    }
    expect_none("documents name files that exist", &found);
}

#[path = "../sim/mutants.rs"]
#[allow(dead_code)] // how soon a bug is found is for the driver
mod mutants;
#[path = "../sim/places.rs"]
mod places;

/// What stands in the table and not at exactly one place of the code, and the other way round.
fn probes_that_differ(call: &str, table: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut used: Vec<String> = Vec::new();
    for folder in ["raft-log/src", "server/src"] {
        for (path, text) in files(folder, "rs") {
            for (number, line) in code(&text) {
                for (at, _) in line.match_indices(&format!("probe::{call}(")) {
                    let argument = &line[at + "probe::".len() + call.len() + 1..];
                    let name = argument.strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
                    let is_kebab = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
                    match name.filter(|name| is_kebab(name)) {
                        None => found.push(format!("{path}:{number}: the name is no literal in kebab-case")),
                        Some(name) if !table.contains(&name) => {
                            found.push(format!("{path}:{number}: {name} is not in the table"));
                        }
                        Some(name) if used.iter().any(|used| used == name) => {
                            found.push(format!("{path}:{number}: {name} stands at another place, too"));
                        }
                        Some(name) => used.push(name.to_owned()),
                    }
                }
            }
        }
    }
    for (place, name) in table.iter().enumerate() {
        if !used.iter().any(|used| used == name) {
            found.push(format!("{name} is in the table, but nowhere in the code"));
        }
        if table[..place].contains(name) {
            found.push(format!("{name} is in the table twice"));
        }
    }
    found
}

/// A bug that nobody can switch on proves nothing, nor does one that is switched on somewhere else as well.
#[test]
fn deliberate_bugs_are_listed() {
    let names: Vec<&str> = mutants::MUTANTS.iter().map(|mutant| mutant.name).collect();
    let mut found = probes_that_differ("broken", &names);
    let vague = mutants::MUTANTS.iter().filter(|mutant| !mutant.what.ends_with('.') || mutant.what.len() < 20);
    found.extend(vague.map(|mutant| format!("{} does not say what is wrong", mutant.name)));
    expect_none("every probe::broken is in tests/sim/mutants.rs, once, and every mutant is in the code", &found);
}

/// What stands in the table of deliberate bugs where nothing finds one.
const OPEN: [&str; 3] = ["not run yet", "NOT FOUND", "NOT REACHED"];

/// What ends a run beside the checkers.
const BESIDE_CHECKERS: [&str; 2] = ["panic", "hang"];

fn the_judge() -> String {
    fs::read_to_string(root().join("tests/sim/judge.rs")).expect("the judge is there")
}

/// What the judge looks at, by the names of violations.
fn judged(judge: &str) -> BTreeSet<&str> {
    judge.split("violation(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

/// The table of who finds them is made by running them all, which is done now and then: it must not forget one.
#[test]
fn the_table_of_mutants_has_them_all() {
    let table = fs::read_to_string(root().join("tests/sim/MUTANTS.md")).expect("the table is there");
    let rows = rows(&table);
    let told: Vec<&str> = rows.iter().map(|(name, _)| *name).collect();
    let names: Vec<&str> = mutants::MUTANTS.iter().map(|mutant| mutant.name).collect();
    let missing = names.iter().filter(|name| !told.contains(name)).map(|name| format!("{name} has no row"));
    let gone = told.iter().filter(|name| !names.contains(name)).map(|name| format!("{name} is no mutant any more"));
    let is_open = |row: &&(&str, &str)| OPEN.iter().any(|word| row.1.contains(word));
    let open = rows.iter().filter(is_open).map(|(name, _)| format!("nobody is known to find {name}"));
    let judge = the_judge();
    let finders: Vec<&str> =
        CHECKERS.iter().map(|(name, _)| *name).chain(judged(&judge)).chain(BESIDE_CHECKERS).collect();
    let by_nobody = rows.iter().filter_map(|(name, row)| {
        let finder = row.split('|').nth(2)?.trim();
        (!finders.contains(&finder)).then(|| format!("{name} is found by {finder}, which is no checker"))
    });
    let found: Vec<String> = missing.chain(gone).chain(open).chain(by_nobody).collect();
    expect_none("tests/sim/MUTANTS.md says of each mutant who finds it", &found);
}

/// The page says what every checker is for, and in which order those of the history run.
#[test]
fn the_page_of_the_simulation_has_every_checker() {
    let page = fs::read_to_string(root().join("tests/sim/README.md")).expect("the page is there");
    let judge = the_judge();
    let (_, told) = page.split_once("By `judge.rs`").expect("what the judge looks at");
    let (by_the_judge, of_the_history) =
        told.split_once("By `tests/src/checker/history/`").expect("what the history shows");
    let (of_the_history, _) = of_the_history.split_once("\n## ").unwrap_or((of_the_history, ""));
    let in_order: Vec<&str> = rows(of_the_history).into_iter().map(|(name, _)| name).collect();
    assert_eq!(in_order, CHECKERS.map(|(name, _)| name), "the table of the history's checkers");
    let named: BTreeSet<&str> = rows(by_the_judge).into_iter().map(|(name, _)| name).collect();
    assert_eq!(named, judged(&judge), "the table of what the judge looks at");
}

/// The rows of a table by the names in their first column, with what follows.
fn rows(text: &str) -> Vec<(&str, &str)> {
    text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect()
}

/// A place that no run comes to is a gap in the simulation, which is seen only if the place is listed.
#[test]
fn marked_places_are_listed() {
    let listed = [places::REACHABLE, places::RARE, places::BEYOND].concat();
    let found = probes_that_differ("reached", &listed);
    expect_none("every probe::reached is in tests/sim/places.rs, once, and every place is in the code", &found);
}
