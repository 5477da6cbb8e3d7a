//! Tables in Markdown, and the files that hold them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the generated part of a file begins and ends; what stands around it is somebody's text.
const BEGIN: &str = "<!-- generated: begin -->";
const END: &str = "<!-- generated: end -->";

/// Renders a table; its columns are as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let mut all = vec![head.map(cell)];
    all.extend(rows.iter().map(|row| std::array::from_fn(|column| cell(&row[column]))));
    let widths: [usize; N] =
        std::array::from_fn(|column| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3));
    let mut lines: Vec<String> = Vec::new();
    for (place, row) in all.iter().enumerate() {
        let cells: [String; N] = std::array::from_fn(|column| format!("{:<1$}", row[column], widths[column]));
        lines.push(format!("| {} |", cells.join(" | ")));
        if place == 0 {
            lines.push(format!("|-{}-|", widths.map(|width| "-".repeat(width)).join("-|-")));
        }
    }
    lines.join("\n") + "\n"
}

/// A file with a generated part.
pub(crate) struct Page {
    path: PathBuf,
    before: String,
    after: String,
}

impl Page {
    /// Reads what stands around the generated part; a file that is not there yet gets nothing else.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
            return Err(at(path, &io::Error::new(io::ErrorKind::InvalidInput, "is no file")));
        }
        let (before, after) = match fs::read_to_string(path) {
            Ok(old) => match (old.split_once(BEGIN), old.split_once(END)) {
                (Some((before, _)), Some((_, after))) => (before.to_owned(), after.to_owned()),
                _ => {
                    let text = format!("{} has no {BEGIN} and {END}, and is not overwritten", path.display());
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
                    return Err(at(path, &error));
                }
                (String::new(), "\n".to_owned())
            }
            Err(error) => return Err(at(path, &error)),
        };
        Ok(Self { path: path.to_owned(), before, after })
    }

    /// Writes the file with a new generated part.
    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        let Self { path, before, after } = self;
        fs::write(path, format!("{before}{BEGIN}\n{text}{END}{after}")).map_err(|error| at(path, &error))
    }
}

/// An error that says which file it is about.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
