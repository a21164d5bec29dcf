//! Directories that are refused, and the messages for the operator.

use std::fs;
use std::path::Path;

use horseshoe::protocol::types::message::{Group, Meta};
use horseshoe::storage::{DiskOptions, disk};

use super::model::{INCARNATION, copy, directory, files, list, make, open, options, segment, size};

/// The message of an open that must fail, and that leaves all files unchanged.
fn refused(options: DiskOptions) -> String {
    let path = options.directory.clone();
    let before = contents(&path);
    let error = disk::open(options, INCARNATION).expect_err("is refused");
    assert_eq!(contents(&path), before, "a refusal changes nothing");
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    text
}

fn contents(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let read = |path: std::path::PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    };
    files(directory).into_iter().map(read).collect()
}

#[test]
fn another_list_another_place_or_a_process_that_has_it() {
    let (_base, path) = directory();
    let opened = open(options(&path));
    let text = refused(options(&path));
    let pid = std::process::id();
    assert!(text.contains(&format!("in use by process {pid}")), "{text}");
    opened.storage.close().unwrap();
    fs::remove_dir_all(&path).unwrap();
    make(&path, 5);
    let mut other = list();
    other.swap(0, 2);
    let text = refused(DiskOptions {
        list: other,
        ..options(&path)
    });
    assert!(
        text.contains("a:1,b:1,c:1") && text.contains("c:1,b:1,a:1"),
        "{text}"
    );
    let text = refused(DiskOptions {
        index: 2,
        ..options(&path)
    });
    assert!(
        text.contains("made for node 1") && text.contains("as node 2"),
        "{text}"
    );
}

/// As after a mistake in the list at the first start.
#[test]
fn a_directory_that_belonged_to_no_cluster_is_used_for_another_list() {
    let mut other = list();
    other.swap(0, 2);
    let remade = |path: &Path| DiskOptions {
        list: other.clone(),
        index: 2,
        ..options(path)
    };
    let meta = |bound_to| Group {
        number: 1,
        meta: Some(Meta {
            starts: 1,
            bound_to,
            ..Meta::default()
        }),
        ..Group::default()
    };
    for bound_to in [None, Some(7)] {
        let (_base, path) = directory();
        let mut opened = open(options(&path));
        opened.storage.commit(&[meta(bound_to)]).unwrap();
        opened.storage.close().unwrap();
        if bound_to.is_some() {
            // E6: the node's commitment may count at another node.
            let text = disk::open(remade(&path), 9).unwrap_err().to_string();
            assert!(text.contains("was made for the nodes"), "{text}");
            continue;
        }
        let opened = open(remade(&path));
        assert_eq!(opened.recovered.incarnation, INCARNATION);
        assert!(
            opened
                .notes
                .iter()
                .any(|note| note.contains("no cluster was formed"))
        );
        opened.storage.close().unwrap();
        // From now on the directory belongs to the other list.
        assert!(open(remade(&path)).notes.is_empty());
    }
}

#[test]
fn other_versions_are_refused_by_name_and_number() {
    let (_base, path) = directory();
    make(&path, 3);
    let identity = path.join("identity");
    let text = fs::read_to_string(&identity).unwrap();
    fs::write(&identity, text.replace("\"format\": 4", "\"format\": 5")).unwrap();
    let message = refused(options(&path));
    assert!(
        message.contains("format version 5, this build reads version 4"),
        "{message}"
    );
    fs::write(&identity, text).unwrap();
    for (name, what) in [("1.log", "the log"), ("checkpoint", "the checkpoint")] {
        let file = path.join("store").join(name);
        let bytes = fs::read(&file).unwrap();
        let mut other = bytes.clone();
        other[4] = 9;
        fs::write(&file, other).unwrap();
        let message = refused(options(&path));
        let expected = format!("{what} in {}", file.display());
        assert!(
            message.contains(&expected) && message.contains("version 9"),
            "{message}"
        );
        fs::write(&file, bytes).unwrap();
    }
}

/// A directory of the last release before the log, as that release wrote it; and one of an earlier
/// format, which only its identity file shows.
#[test]
fn directories_of_earlier_formats_are_refused_with_what_to_do() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/format3");
    for format in [3, 2] {
        let (_base, path) = directory();
        copy(&kept, &path);
        // An opening writes the id of its process there.
        fs::write(path.join("lock"), format!("{}\n", std::process::id())).unwrap();
        let identity = path.join("identity");
        let text = fs::read_to_string(&identity).unwrap();
        let text = text.replace("\"format\": 3", &format!("\"format\": {format}"));
        fs::write(&identity, text).unwrap();
        let message = refused(options(&path));
        for part in [
            &format!("format version {format}, of an earlier release"),
            "Nothing was changed",
            "move its data directory away",
            "horseshoe status",
            "horseshoe export",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
}

#[test]
fn a_directory_that_is_not_a_nodes() {
    let (_base, path) = directory();
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("thesis.tex"), "chapter").unwrap();
    let error = disk::open(options(&path), 9).unwrap_err().to_string();
    assert!(error.contains("\"thesis.tex\""), "{error}");
    let (_base, path) = directory();
    make(&path, 3);
    fs::remove_file(path.join("identity")).unwrap();
    assert!(refused(options(&path)).contains("no identity file"));
}

#[test]
fn a_store_that_ends_below_the_mark() {
    let (_base, path) = directory();
    make(&path, 4);
    let length = size(&segment(&path));
    make_more(&path, 9);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(segment(&path))
        .unwrap();
    file.set_len(length as u64).unwrap();
    let text = disk::open(options(&path), 9).unwrap_err().to_string();
    assert!(
        text.contains("ends at group 4, but group 9 was synced"),
        "{text}"
    );
    assert!(
        text.contains("move the whole data directory away"),
        "{text}"
    );
    // The refusal is permanent.
    let again = disk::open(options(&path), 9).unwrap_err().to_string();
    assert_eq!(text, again);
}

#[test]
fn a_mark_of_another_life() {
    let (_base, path) = directory();
    make(&path, 3);
    let (_other_base, other) = directory();
    let opened = disk::open(options(&other), 2).unwrap();
    opened.storage.close().unwrap();
    fs::copy(other.join("mark"), path.join("mark")).unwrap();
    assert!(refused(options(&path)).contains("belongs to incarnation 2"));
    // With the mark and the identity of another incarnation, the store is refused.
    fs::copy(other.join("identity"), path.join("identity")).unwrap();
    let text = disk::open(options(&path), 9).unwrap_err().to_string();
    assert!(
        text.contains("checkpoint is damaged: it belongs to incarnation 4369"),
        "{text}"
    );
}

#[test]
fn any_file_of_the_store_that_is_missing() {
    let (base, path) = directory();
    make(&path, 3);
    make_more(&path, 9);
    for (n, file) in files(&path).into_iter().enumerate() {
        let inner = file.strip_prefix(&path).unwrap();
        if inner == Path::new("lock") {
            continue;
        }
        let copied = base.path().join(format!("copy {n}"));
        copy(&path, &copied);
        fs::remove_file(copied.join(inner)).unwrap();
        let error = disk::open(options(&copied), 9).expect_err(inner.to_str().unwrap());
        assert!(error.to_string().contains("copy"), "{error}");
    }
}

/// A missing permission to read a directory does not mean that its content is lost.
#[test]
fn what_can_not_be_looked_at_is_not_taken_for_damaged() {
    let (_base, path) = directory();
    make(&path, 3);
    let store = path.join("store");
    fs::rename(&store, path.join("store.away")).unwrap();
    std::os::unix::fs::symlink("store", &store).unwrap();
    let text = disk::open(options(&path), 9)
        .expect_err("is refused")
        .to_string();
    assert!(
        text.contains("symbolic links") && !text.contains("damaged"),
        "{text}"
    );
}

fn make_more(path: &Path, number: u64) {
    let mut opened = open(options(path));
    let next = opened.recovered.group + 1;
    let groups = super::model::groups(next..=number);
    opened.storage.commit(&groups).unwrap();
    opened.storage.close().unwrap();
}
