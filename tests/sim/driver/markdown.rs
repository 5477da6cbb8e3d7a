//! Tables in Markdown, and the files that hold them.

use std::fs;
use std::io;
use std::path::Path;

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

/// Writes text between the markers of a file, or a new file with them.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let section = format!("{BEGIN}\n{text}{END}");
    let whole = match fs::read_to_string(path) {
        Ok(old) => match (old.split_once(BEGIN), old.split_once(END)) {
            (Some((before, _)), Some((_, after))) => format!("{before}{section}{after}"),
            _ => {
                let text = format!("{} has no {BEGIN} and {END}, and is not overwritten", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{section}\n"),
        Err(error) => return Err(error),
    };
    fs::write(path, whole)
}
