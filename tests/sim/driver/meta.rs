//! Whether a seed is one run: everything twice, and every line the same.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::child::Children;
use super::totals::verdict;
use super::{pool, say};
use crate::report::Report;
use crate::run::Run;

/// Seeds that differ are told; the first of them say what there is to say.
const TOLD: usize = 5;

/// Runs each seed twice and returns whether no two runs differ.
pub(crate) fn run(children: &Children, seeds: &[u64], template: &Run) -> io::Result<bool> {
    let folder = std::env::temp_dir().join(format!("mainstay-sim-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (mut compared, mut lines, mut failing) = (0, 0, 0);
    let mut differ: Vec<(u64, String)> = Vec::new();
    let mut broken = None;
    let compare = |seed: &u64| twice(children, &folder, &Run { seed: *seed, ..template.clone() });
    pool::each(seeds, compare, |place, result| match result {
        Ok(Twice { difference, lines: more, report }) => {
            compared += 1;
            lines += more;
            failing += usize::from(report.violation.is_some());
            differ.extend(difference.map(|text| (seeds[place], text)));
            ControlFlow::Continue(())
        }
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    });
    fs::remove_dir_all(&folder)?;
    if let Some(error) = broken {
        return Err(error);
    }
    differ.sort();
    for (seed, text) in differ.iter().take(TOLD) {
        say(&format!("seed {seed} is not one run: {text}"));
    }
    // That a seed fails is another test's to judge, as long as it fails twice alike.
    say(&format!(
        "meta: {compared} seeds twice, {lines} lines each time, {} differ ({failing} seeds have a violation)",
        differ.len()
    ));
    Ok(differ.is_empty())
}

/// What two runs of one seed amount to.
struct Twice {
    difference: Option<String>,
    lines: usize,
    report: Report,
}

fn twice(children: &Children, folder: &Path, run: &Run) -> io::Result<Twice> {
    let files: [PathBuf; 2] = std::array::from_fn(|time| folder.join(format!("{}-{time}", run.seed)));
    let [first, second] = files.each_ref().map(|file| children.run(&Run { trace: Some(file.clone()), ..run.clone() }));
    let [one, two] = [fs::read_to_string(&files[0])?, fs::read_to_string(&files[1])?];
    files.iter().try_for_each(fs::remove_file)?;
    let difference = first_line(&one, &two).or_else(|| {
        (first != second).then(|| format!("the traces are the same, the reports are not:\n{first:?}\n{second:?}"))
    });
    let difference = difference.map(|text| format!("{text}\n  {}\n  {}", verdict(&first), verdict(&second)));
    Ok(Twice { difference, lines: one.lines().count(), report: first })
}

/// The first line in which two traces differ.
fn first_line(one: &str, two: &str) -> Option<String> {
    if one == two {
        return None;
    }
    let (mut one, mut two) = (one.lines(), two.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (one.next(), two.next()) {
            (None, None) => return Some("the traces differ in how they end".to_owned()),
            (one, two) if one == two => {}
            (one, two) => {
                let line = |line: Option<&str>| line.unwrap_or("(no such line)").to_owned();
                return Some(format!("line {number} differs:\n  {}\n  {}", line(one), line(two)));
            }
        }
    }
}
