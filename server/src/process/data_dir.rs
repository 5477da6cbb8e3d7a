//! The data directory as a folder: made for nobody else to read, and looked at once.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mainstay_server::config::{Config, io_text};

/// A folder that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot access {what} {}: {}", path.display(), io_text(error))]
pub(super) struct DataDirError {
    /// With the flag that names it, where that is not the data directory's.
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

const OWNER_ONLY: u32 = 0o700;

/// What etcd calls it, too.
const DATA_DIRECTORY: &str = "data directory";

/// Makes the member's folders where there are none, and tells what is odd about those that there are.
pub(super) fn prepare(config: &Config) -> Result<(), DataDirError> {
    let initialized = config.is_initialized(Path::exists);
    let of_log = if config.wal_dir.is_some() { "the directory of --wal-dir" } else { DATA_DIRECTORY };
    let folders =
        [(DATA_DIRECTORY, config.data_dir.clone()), (DATA_DIRECTORY, config.member_dir()), (of_log, config.log_dir())];
    for (what, path) in folders {
        make(&path).map_err(|error| DataDirError { what, path, error })?;
    }
    if initialized {
        tracing::info!(
            "data-dir" = %config.data_dir.display(),
            "dir-type" = "member",
            "server has been already initialized"
        );
    }
    for name in foreign(&config.data_dir).unwrap_or_default() {
        tracing::warn!(
            filename = name,
            "data-dir" = %config.data_dir.display(),
            "found invalid file under data directory"
        );
    }
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    // Making it would say "file exists", which is true and no help.
    if folder.exists() && !folder.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, "not a directory"));
    }
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode() & 0o777;
    if mode & !OWNER_ONLY != 0 {
        tracing::warn!(
            dir = %folder.display(),
            permission = format!("{mode:o}"),
            recommended = format!("{OWNER_ONLY:o}"),
            "directory should not be open to others"
        );
    }
    Ok(())
}

/// What does not belong there; certificates do, and what a rebuild put aside.
fn foreign(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "member" | "member.old" | "fixtures") {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data_dir: &Path) -> Config {
        Config::from_flags(["--data-dir".to_owned(), data_dir.display().to_string()]).unwrap()
    }

    #[test]
    fn folders_are_made_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("a/b.etcd");
        prepare(&config(&data_dir)).unwrap();
        for made in [data_dir.clone(), data_dir.join("member"), data_dir.join("member/wal")] {
            let mode = fs::metadata(&made).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, OWNER_ONLY, "{}", made.display());
        }
        prepare(&config(&data_dir)).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = prepare(&config(file.path())).unwrap_err();
        let text = format!("cannot access data directory {}: not a directory", file.path().display());
        assert_eq!(error.to_string(), text);
        let error = prepare(&config(&file.path().join("below"))).unwrap_err();
        assert!(error.to_string().ends_with(": not a directory"), "{error}");
    }

    #[test]
    fn a_directory_for_the_log_that_cannot_be_had_is_told_with_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (data_dir, wal_dir) = (folder.path().display().to_string(), file.path().display().to_string());
        let flags = ["--data-dir", &data_dir, "--wal-dir", &wal_dir].map(str::to_owned);
        let error = prepare(&Config::from_flags(flags).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot access the directory of --wal-dir {wal_dir}: not a directory"));
    }

    #[test]
    fn foreign_files_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["member", "fixtures"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert!(foreign(folder.path()).unwrap().is_empty());
        fs::write(folder.path().join("notes.txt"), "").unwrap();
        assert_eq!(foreign(folder.path()).unwrap(), ["notes.txt"]);
    }
}
