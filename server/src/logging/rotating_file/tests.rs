use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flate2::read::GzDecoder;
use jiff::tz::Offset;
use tempfile::TempDir;

use super::*;

/// 2026-11-21T09:00:00 UTC.
const START: Duration = Duration::from_secs(1_795_251_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Files of ten bytes, all of which are kept.
const SMALL: LogRotation =
    LogRotation { max_bytes: 10, max_age: None, max_backups: None, local_time: false, compress: false };

fn at(time: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + time
}

/// A log file in a folder of its own, and the time that it is told, in seconds from [`START`].
struct Log {
    folder: TempDir,
    second: Arc<AtomicU64>,
    file: Option<RotatingFile>,
}

impl Log {
    fn open(folder: TempDir, rotation: LogRotation) -> Self {
        let second = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&second);
        let now: Clock = Arc::new(move || at(START + Duration::from_secs(told.load(Ordering::Relaxed))));
        let file = RotatingFile::open_with_clock(&folder.path().join("etcd.log"), rotation, now).unwrap();
        Self { folder, second, file: Some(file) }
    }

    fn new(rotation: LogRotation) -> Self {
        Self::open(tempfile::tempdir().unwrap(), rotation)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&mut self, second: u64, line: &str) {
        self.second.store(second, Ordering::Relaxed);
        self.file.as_mut().unwrap().write_line(line.as_bytes()).unwrap();
    }

    /// Ends with the log, waits until all is cleared up, and compares what is in the folder.
    #[track_caller]
    fn check(mut self, expected: &[(&str, &str)]) {
        self.file = None;
        check_files(self.folder.path(), expected);
    }
}

/// Compares the names and the texts of all files in a folder, the compressed ones by what they hold.
#[track_caller]
fn check_files(folder: &Path, expected: &[(&str, &str)]) {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mut file = File::open(entry.path()).unwrap();
        let mut text = String::new();
        if name.ends_with(COMPRESSED) {
            GzDecoder::new(file).read_to_string(&mut text).unwrap();
        } else {
            file.read_to_string(&mut text).unwrap();
        }
        found.push((name, text));
    }
    found.sort();
    let found: Vec<(&str, &str)> = found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_full_file_is_put_aside() {
    let mut log = Log::new(SMALL);
    log.write(0, "12345\n");
    log.write(1, "789\n");
    log.write(2, "x\n");
    log.check(&[("etcd-2026-11-21T09-00-02.000.log", "12345\n789\n"), ("etcd.log", "x\n")]);
}

#[test]
fn a_file_that_is_there_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("etcd.log"), "12345\n").unwrap();
    let mut log = Log::open(folder, SMALL);
    log.write(0, "789\n");
    log.write(1, "x\n");
    log.check(&[("etcd-2026-11-21T09-00-01.000.log", "12345\n789\n"), ("etcd.log", "x\n")]);
}

#[test]
fn a_line_that_is_longer_than_a_file_gets_one_to_itself() {
    let mut log = Log::new(SMALL);
    log.write(0, "a\n");
    log.write(1, "longer than ten\n");
    log.write(2, "b\n");
    log.check(&[
        ("etcd-2026-11-21T09-00-01.000.log", "a\n"),
        ("etcd-2026-11-21T09-00-02.000.log", "longer than ten\n"),
        ("etcd.log", "b\n"),
    ]);
}

#[test]
fn files_are_for_the_owner_unless_the_former_one_was_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut log = Log::new(SMALL);
    log.write(0, "123456789\n");
    let path = log.path("etcd.log");
    assert_eq!(mode(&fs::metadata(&path).unwrap()), 0o600);
    // Nothing that a umask takes away.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    log.write(1, "x\n");
    assert_eq!(mode(&fs::metadata(&path).unwrap()), 0o700);
}

#[test]
fn folders_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/etcd.log");
    RotatingFile::open(&path, SMALL).unwrap().write_line(b"x\n").unwrap();
    check_files(path.parent().unwrap(), &[("etcd.log", "x\n")]);
}

#[test]
fn what_is_no_file_is_refused() {
    let error = RotatingFile::open(Path::new("/dev/null"), SMALL).err().unwrap();
    assert_eq!(error.to_string(), "it is no regular file and cannot be rotated");
    assert!(RotatingFile::open(Path::new("/"), SMALL).is_err());
}

#[test]
fn two_rotations_at_the_same_time_lose_nothing() {
    let mut log = Log::new(SMALL);
    log.write(0, "aaaaaaaaa\n");
    log.write(1, "bbbbbbbbb\n");
    log.write(1, "ccccccccc\n");
    log.write(2, "ddddddddd\n");
    log.check(&[
        ("etcd-2026-11-21T09-00-01.000.log", "aaaaaaaaa\n"),
        ("etcd-2026-11-21T09-00-02.000.log", "bbbbbbbbb\nccccccccc\n"),
        ("etcd.log", "ddddddddd\n"),
    ]);
}

#[test]
fn a_file_that_somebody_else_has_put_aside_is_begun_anew() {
    let mut log = Log::new(SMALL);
    log.write(0, "aaaaaaaaa\n");
    fs::rename(log.path("etcd.log"), log.path("etcd.log.1")).unwrap();
    log.write(1, "b\n");
    log.check(&[("etcd.log", "b\n"), ("etcd.log.1", "aaaaaaaaa\n")]);
}

#[test]
fn a_folder_that_is_gone_stops_nothing() {
    let mut log = Log::new(SMALL);
    log.write(0, "aaaaaaaaa\n");
    fs::remove_dir_all(log.folder.path()).unwrap();
    log.write(1, "lost\n");
    fs::create_dir(log.folder.path()).unwrap();
    log.write(2, "b\n");
    log.check(&[("etcd.log", "b\n")]);
}

#[test]
fn the_oldest_are_removed_where_there_are_too_many() {
    let mut log = Log::new(LogRotation { max_backups: Some(2), ..SMALL });
    for name in ["etcd-notes.log", "etcd-2026-11-20.log", "other-2026-11-20T09-00-00.000.log"] {
        fs::write(log.path(name), name).unwrap();
    }
    for (second, line) in (0..).zip(["aaaaaaaaa\n", "bbbbbbbbb\n", "ccccccccc\n", "ddddddddd\n", "eeeeeeeee\n"]) {
        log.write(second, line);
    }
    log.check(&[
        ("etcd-2026-11-20.log", "etcd-2026-11-20.log"),
        ("etcd-2026-11-21T09-00-03.000.log", "ccccccccc\n"),
        ("etcd-2026-11-21T09-00-04.000.log", "ddddddddd\n"),
        ("etcd-notes.log", "etcd-notes.log"),
        ("etcd.log", "eeeeeeeee\n"),
        ("other-2026-11-20T09-00-00.000.log", "other-2026-11-20T09-00-00.000.log"),
    ]);
}

#[test]
fn what_is_too_old_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    for day in ["13T09-00-00.000", "14T08-59-59.999", "14T09-00-00.000", "21T08-00-00.000"] {
        fs::write(folder.path().join(format!("etcd-2026-11-{day}.log")), "").unwrap();
    }
    fs::write(folder.path().join("etcd.log"), "").unwrap();
    let rotation = LogRotation { max_age: Some(7 * DAY), ..SMALL };
    let backups = Backups::of(&folder.path().join("etcd.log"), rotation).unwrap();
    backups.clean_up(at(START)).unwrap();
    check_files(
        folder.path(),
        &[("etcd-2026-11-14T09-00-00.000.log", ""), ("etcd-2026-11-21T08-00-00.000.log", ""), ("etcd.log", "")],
    );
}

#[test]
fn what_was_put_aside_is_compressed() {
    let mut log = Log::new(LogRotation { compress: true, ..SMALL });
    log.write(0, "aaaaaaaaa\n");
    log.write(1, "bbbbbbbbb\n");
    log.write(2, "c\n");
    log.check(&[
        ("etcd-2026-11-21T09-00-01.000.log.gz", "aaaaaaaaa\n"),
        ("etcd-2026-11-21T09-00-02.000.log.gz", "bbbbbbbbb\n"),
        ("etcd.log", "c\n"),
    ]);
}

/// The process ended while it compressed: both are there, which counts as one.
#[test]
fn a_compression_that_was_cut_off_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("etcd-2026-11-20T09-00-00.000.log"), "whole").unwrap();
    fs::write(folder.path().join("etcd-2026-11-20T09-00-00.000.log.gz"), "half").unwrap();
    fs::write(folder.path().join("etcd-2026-11-19T09-00-00.000.log"), "before").unwrap();
    let log = Log::open(folder, LogRotation { max_backups: Some(2), compress: true, ..SMALL });
    log.check(&[
        ("etcd-2026-11-19T09-00-00.000.log.gz", "before"),
        ("etcd-2026-11-20T09-00-00.000.log.gz", "whole"),
        ("etcd.log", ""),
    ]);
}

#[test]
fn names_are_etcds() {
    for (path, backup) in [
        ("/var/log/etcd.log", "/var/log/etcd-2026-11-21T09-00-00.007.log"),
        ("/var/log/etcd", "/var/log/etcd-2026-11-21T09-00-00.007"),
        ("etcd.m1.log", "./etcd.m1-2026-11-21T09-00-00.007.log"),
        ("logs/.etcd", "logs/-2026-11-21T09-00-00.007.etcd"),
    ] {
        let backups = Backups::of(Path::new(path), SMALL).unwrap();
        let time = at(START + Duration::from_millis(7));
        let actual = backups.path_at(time).unwrap();
        assert_eq!(actual, Path::new(backup));
        let name = actual.file_name().unwrap().to_str().unwrap();
        let expected = Some(Timestamp::try_from(time).unwrap());
        assert_eq!(backups.time_of(name), expected, "{name}");
        assert_eq!(backups.time_of(&format!("{name}.gz")), expected, "{name}.gz");
    }
}

#[test]
fn other_names_are_left_alone() {
    let backups = Backups::of(Path::new("etcd.log"), SMALL).unwrap();
    for name in [
        "etcd.log",
        "etcd-.log",
        "etcd-2026-11-21.log",
        "etcd-2026-11-21T09-00-00.log",
        "etcd-2026-11-21T09-00-00.00.log",
        "etcd-2026-11-21T09-00-00.0000.log",
        "etcd-2026-11-21T9-00-00.000.log",
        "etcd-2026-13-21T09-00-00.000.log",
        "etcd-2026-11-21T09-00-00.000.txt",
        "etcd-2026-11-21T09-00-00.000.log.1",
        "etcd-2026-11-21T09-00-00.000",
        "other-2026-11-21T09-00-00.000.log",
    ] {
        assert_eq!(backups.time_of(name), None, "{name}");
    }
}

#[test]
fn names_may_have_local_time() {
    let mut backups = Backups::of(Path::new("/etcd.log"), SMALL).unwrap();
    backups.zone = TimeZone::fixed(Offset::constant(2));
    assert_eq!(backups.path_at(at(START)).unwrap(), Path::new("/etcd-2026-11-21T11-00-00.000.log"));
    let time = Timestamp::try_from(at(START)).unwrap();
    assert_eq!(backups.time_of("etcd-2026-11-21T11-00-00.000.log"), Some(time));
}
