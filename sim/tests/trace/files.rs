//! A file appears when it is whole, or not at all.

use std::fs;
use std::io::Write;
use std::path::Path;

use dirtysim::trace::PendingFile;

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_kept_file_takes_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("t.jsonl");
    fs::write(&place, "before").unwrap();
    let mut file = PendingFile::create(&place).unwrap();
    file.write_all(b"after").unwrap();
    file.flush().unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"before");
    file.keep().unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"after");
    assert_eq!(names(directory.path()), ["t.jsonl"]);
}

#[test]
fn a_dropped_file_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("t.jsonl");
    let mut file = PendingFile::create(&place).unwrap();
    file.write_all(&[0; 100_000]).unwrap();
    drop(file);
    assert_eq!(names(directory.path()), [] as [&str; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_not_whole_has_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("t.jsonl");
    let mut file = PendingFile::create(&place).unwrap();
    file.write_all(&[0; 100_000]).unwrap();
    file.flush().unwrap();
    assert_eq!(names(directory.path()), [] as [&str; 0]);
    file.keep().unwrap();
    assert_eq!(names(directory.path()), ["t.jsonl"]);
    assert_eq!(fs::read(&place).unwrap(), [0; 100_000]);
}

#[test]
fn a_directory_or_a_missing_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    assert!(PendingFile::create(directory.path()).is_err());
    assert!(PendingFile::create(&directory.path().join("missing/t.jsonl")).is_err());
    assert_eq!(names(directory.path()), [] as [&str; 0]);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_a_new_file_has_ordinary_permissions() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let (place, link) = (
        directory.path().join("t.jsonl"),
        directory.path().join("link"),
    );
    fs::write(&place, "before").unwrap();
    symlink(&place, &link).unwrap();
    let mut file = PendingFile::create(&link).unwrap();
    file.write_all(b"after").unwrap();
    file.keep().unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&place).unwrap(), b"after");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let ordinary = directory.path().join("ordinary");
    fs::write(&ordinary, "").unwrap();
    assert_eq!(mode(&place), mode(&ordinary));
}

#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    let null = Path::new("/dev/null");
    let mut file = PendingFile::create(null).unwrap();
    file.write_all(b"gone").unwrap();
    file.keep().unwrap();
    assert!(fs::metadata(null).unwrap().file_type().is_char_device());
}
