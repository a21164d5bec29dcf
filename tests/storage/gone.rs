//! Files that are deleted or moved under a running store: the store keeps writing to files that no
//! later start will find.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use horseshoe::storage::StorageError;

use super::model::{directory, group, open, options, segment};

/// A bound for steps that take a second.
const PATIENCE: Duration = Duration::from_secs(60);

fn delete_all(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}

fn delete_segment(path: &Path) {
    fs::remove_file(segment(path)).unwrap();
}

fn move_away(path: &Path) {
    fs::rename(path, path.with_extension("moved")).unwrap();
}

/// An operator puts a copy in its place.
fn replace(path: &Path) {
    let aside = path.with_extension("aside");
    super::model::copy(path, &aside);
    move_away(path);
    fs::rename(aside, path).unwrap();
}

fn assert_gone(error: StorageError) {
    let text = error.to_string();
    assert!(text.contains("was deleted, moved or replaced"), "{text}");
}

#[test]
fn nothing_is_durable_any_more_in_files_that_are_gone() {
    for take_away in [delete_all, delete_segment, move_away, replace] {
        let (_base, path) = directory();
        let mut opened = open(options(&path));
        opened.storage.commit(&[group(1)]).unwrap();
        take_away(&path);
        assert_gone(opened.storage.commit(&[group(2)]).unwrap_err());
        let again = opened.storage.commit(&[group(3)]).unwrap_err();
        assert!(matches!(again, StorageError::Stopped { .. }));
    }
}

#[test]
fn a_store_without_commits_notices_it_too() {
    for take_away in [delete_all, delete_segment, move_away, replace] {
        let (_base, path) = directory();
        let mut opened = open(options(&path));
        opened.storage.tend().unwrap();
        take_away(&path);
        let began = Instant::now();
        let error = loop {
            assert!(began.elapsed() < PATIENCE);
            match opened.storage.tend() {
                Ok(()) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) => break error,
            }
        };
        assert_gone(error);
    }
}
