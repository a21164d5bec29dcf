//! The operations on keys, on one real node.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};
use wire::{KEY_SIZE_MAX, VALUE_SIZE_DEFAULT};

use crate::nodes::{Cluster, Keep};
use crate::shell::Shell;

fn one_node() -> (Cluster, Shell) {
    let cluster = Cluster::start(1, Keep::Memory);
    let shell = Shell::with(&cluster.list());
    (cluster, shell)
}

fn without_version((mut value, status): (Value, i32)) -> (Value, i32) {
    let version = value.as_object_mut().unwrap().remove("version");
    let digits = version.as_ref().and_then(Value::as_str);
    let is_number = digits.is_some_and(|v| !v.is_empty() && v.parse::<u64>().is_ok());
    assert!(is_number, "{version:?} of {value}");
    (value, status)
}

#[test]
fn values_come_back_as_they_were_put() {
    let (_cluster, shell) = one_node();
    shell.run(&["get", "k"]).failed(1, "no such key");
    let put = shell.run(&["put", "k", "v"]);
    put.gave(0, "");
    assert_eq!(put.stderr, "");
    shell.run(&["get", "k"]).gave(0, "v");
    shell.run(&["put", "k", ""]).gave(0, "");
    shell.run(&["get", "k"]).gave(0, "");
    shell.run(&["put", "k", "a\nb\n"]).gave(0, "");
    shell.run(&["get", "k"]).gave(0, "a\nb\n");
    shell.run(&["append", "k", "c"]).gave(0, "");
    shell.run(&["append", "new", "c"]).gave(0, "");
    shell.run(&["get", "k"]).gave(0, "a\nb\nc");
    shell.run(&["get", "new"]).gave(0, "c");
    shell.run(&["del", "k"]).gave(0, "");
    shell.run(&["get", "k"]).failed(1, "no such key");
    shell.run(&["del", "k"]).gave(0, "");
}

#[test]
fn scans_print_keys_in_order() {
    let (_cluster, shell) = one_node();
    for key in ["b", "a/2", "a/1", "a/3", "c"] {
        shell.run(&["put", key, &format!("of {key}")]).gave(0, "");
    }
    let all = "a/1\tof a/1\na/2\tof a/2\na/3\tof a/3\nb\tof b\nc\tof c\n";
    shell.run(&["scan"]).gave(0, all);
    shell
        .run(&["scan", "a/", "--keys-only"])
        .gave(0, "a/1\na/2\na/3\n");
    let part = [
        "scan",
        "--from",
        "a/2",
        "--to",
        "c",
        "--limit",
        "2",
        "--keys-only",
    ];
    shell.run(&part).gave(0, "a/2\na/3\n");
    shell.run(&["scan", "--count"]).gave(0, "5\n");
    shell.run(&["scan", "none"]).gave(0, "");
    let counted = json!({ "result": "done", "count": 3 });
    assert_eq!(shell.json(&["scan", "a", "--count"]), (counted, 0));
    let told = shell.json(&["scan", "c"]);
    assert_eq!(
        without_version(told).0,
        json!({ "key": "c", "value": "of c" })
    );
}

#[test]
fn what_is_exported_can_be_imported() {
    let (_cluster, shell) = one_node();
    let large = "x".repeat(VALUE_SIZE_DEFAULT);
    let bytes = OsStr::from_bytes(b"\xff\n");
    shell.run(&["put", "text", "a\n\"b\""]).gave(0, "");
    shell.run(&[OsStr::new("put"), bytes, bytes]).gave(0, "");
    shell
        .run_with_input(&["put", "large", "-"], large.as_bytes())
        .gave(0, "");
    let exported = shell.run(&["export"]).stdout;
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 3);
    let (_other, shell) = one_node();
    shell
        .run_with_input(&["import"], &exported)
        .gave(0, "3 keys were put\n");
    shell.run(&["get", "text"]).gave(0, "a\n\"b\"");
    shell.run(&["get", "large"]).gave(0, &large);
    let got = shell.run(&[OsStr::new("get"), bytes]);
    assert_eq!(got.stdout, b"\xff\n");
    // Many puts at once, of which some replace others.
    let line = |n: usize| format!("{{\"key\":\"key {}\",\"value\":\"{n}\"}}\n", n % 1_500);
    let lines: String = (0..3_000).map(line).collect();
    let imported = shell.run_with_input(&["import", "-"], lines.as_bytes());
    imported.gave(0, "3000 keys were put\n");
    shell.run(&["scan", "key ", "--count"]).gave(0, "1500\n");
    shell.run(&["get", "key 7"]).gave(0, "1507");
    let wrong = format!("{}\n\n{{\"key\":\"k\"}}\n", line(1));
    let refused = shell.run_with_input(&["import"], wrong.as_bytes());
    refused.failed(2, "line 4: neither `value` nor `value_b64`");
}

/// Whoever reads a scan has enough, as `head` has. An export that nobody reads is not complete.
#[test]
fn output_that_nobody_reads_ends_a_scan_and_fails_an_export() {
    let (_cluster, shell) = one_node();
    shell.run(&["put", "k", "v"]).gave(0, "");
    let scan = shell.run_unread(&["scan"]);
    assert_eq!((scan.status, &*scan.stderr), (0, ""));
    let export = shell.run_unread(&["export"]);
    assert_eq!(export.status, 6, "{}", export.stderr);
}

#[test]
fn a_directory_cannot_be_imported() {
    let (_cluster, shell) = one_node();
    shell
        .run(&["import", "/"])
        .failed(2, "line 1: Is a directory");
}

#[test]
fn only_a_terminal_gets_a_newline_and_hints() {
    let (_cluster, shell) = one_node();
    let put = shell.run_on_terminal("put k v");
    let text = String::from_utf8(put.stdout).unwrap();
    assert!(text.starts_with("done, version "), "{text:?}");
    shell.run_on_terminal("get k").gave(0, "v\r\n");
    shell.run(&["get", "k"]).gave(0, "v");
}

#[test]
fn old_values_are_printed_on_request() {
    let (_cluster, shell) = one_node();
    shell.run(&["put", "k", "1", "--old"]).gave(0, "");
    shell.run(&["put", "--old", "k", "2"]).gave(0, "1");
    shell.run(&["append", "--old", "k", "0"]).gave(0, "2");
    shell.run(&["cas", "--old", "k", "20", "5"]).gave(0, "20");
    shell.run(&["add", "k", "1", "--old"]).gave(0, "5");
    shell.run(&["del", "k", "--old"]).gave(0, "6");
    shell.run(&["del", "k", "--old"]).gave(0, "");
    let told = |words: &[&str]| without_version(shell.json(words)).0;
    let done = |old: Value| json!({ "key": "k", "result": "done", "old": old });
    assert_eq!(told(&["put", "k", "", "--old"]), done(Value::Null));
    assert_eq!(told(&["put", "k", "v", "--old"]), done(json!("")));
}

#[test]
fn conditions_hold_or_conflict() {
    let (_cluster, shell) = one_node();
    shell
        .run(&["cas", "k", "a", "b"])
        .failed(4, "does not exist");
    shell
        .run(&["cas", "--version", "1", "k", "b"])
        .failed(4, "does not exist");
    let (value, status) = shell.json(&["cas", "k", "a", "b"]);
    let expected = json!({ "key": "k", "result": "conflict", "version": null });
    assert_eq!((value, status), (expected, 4));
    shell.run(&["put", "--if-absent", "k", "a"]).gave(0, "");
    shell
        .run(&["put", "--if-absent", "k", "b"])
        .failed(4, "conflict: the key exists");
    shell.run(&["cas", "k", "x", "b"]).failed(4, "conflict");
    shell.run(&["cas", "k", "a", "b"]).gave(0, "");

    let told = shell.run(&["get", "k", "--version"]);
    let text = String::from_utf8(told.stdout).unwrap();
    let (version, value) = text.split_once('\n').unwrap();
    assert_eq!(value, "b");
    shell
        .run(&["cas", "--version", version, "k", "c"])
        .gave(0, "");
    shell
        .run(&["cas", "k", "d", "--version", version])
        .failed(4, "conflict: the version is");
    shell.run(&["get", "k"]).gave(0, "c");
}

fn version_of(shell: &Shell, key: &str) -> String {
    let told = shell.json(&["get", key]).0;
    told["version"].as_str().unwrap().to_owned()
}

#[test]
fn a_known_version_is_deleted_or_written_over() {
    let (_cluster, shell) = one_node();
    shell
        .run(&["put", "k", "a", "--if-version", "0"])
        .gave(0, "");
    let first = version_of(&shell, "k");
    shell
        .run(&["put", "k", "b", "--if-version", &first])
        .gave(0, "");
    shell
        .run(&["del", "k", "--if-version", &first])
        .failed(4, "conflict: the version is");
    let second = version_of(&shell, "k");
    shell
        .run(&["del", "k", "--if-version", &second])
        .gave(0, "");
    shell.run(&["get", "k"]).failed(1, "no such key");
    shell
        .run(&["del", "k", "--if-version", &second])
        .failed(4, "does not exist");
}

#[test]
fn keys_expire() {
    let (_cluster, shell) = one_node();
    shell.run(&["put", "k", "v", "--ttl", "1h"]).gave(0, "");
    let (told, status) = shell.json(&["ttl", "k"]);
    let left_ms = told["ttl_ms"].as_u64().unwrap();
    assert!(
        (3_500_000..=3_600_000).contains(&left_ms) && status == 0,
        "{told}"
    );
    let version = version_of(&shell, "k");
    shell.run(&["persist", "k"]).gave(0, "");
    shell.run(&["ttl", "k"]).gave(0, "none\n");
    shell
        .run(&["ttl", "k", "--version"])
        .gave(0, &format!("{version}\nnone\n"));
    shell
        .run(&["put", "k", "w", "--ttl", "1h", "--if-version", "1"])
        .failed(4, "conflict: the version is");
    shell
        .run(&["put", "k", "w", "--ttl", "1h", "--if-absent"])
        .failed(4, "conflict: the key exists");
    shell
        .run(&["expire", "k", "1ms", "--if-version", "1"])
        .failed(4, "conflict: the version is");
    assert_eq!(version_of(&shell, "k"), version);
    shell
        .run(&["expire", "k", "1ms", "--if-version", &version])
        .gave(0, "");
    std::thread::sleep(std::time::Duration::from_millis(5));
    shell.run(&["get", "k"]).failed(1, "no such key");
    shell.run(&["ttl", "k"]).failed(1, "no such key");
    shell
        .run(&["expire", "k", "1s"])
        .failed(4, "does not exist");
    shell.run(&["persist", "k"]).failed(4, "does not exist");
}

#[test]
fn numbers_are_added_to() {
    let (_cluster, shell) = one_node();
    shell.run(&["add", "n", "5"]).gave(0, "5\n");
    shell.run(&["add", "n", "-7"]).gave(0, "-2\n");
    shell.run(&["get", "n"]).gave(0, "-2");
    let most = i64::MAX.to_string();
    shell.run(&["put", "n", &most]).gave(0, "");
    shell.run(&["add", "n", "1"]).failed(6, "overflow");
    shell.run(&["add", "n", "x"]).failed(2, "invalid value");
    shell.run(&["put", "n", "five"]).gave(0, "");
    shell.run(&["add", "n", "1"]).failed(6, "not a number");
    let (value, status) = shell.json(&["add", "n", "1"]);
    assert_eq!((&value["error"], status), (&json!("not_a_number"), 6));
    let done = without_version(shell.json(&["add", "m", "9007199254740993"]));
    let expected = json!({ "key": "m", "result": "done", "value": "9007199254740993" });
    assert_eq!(done, (expected, 0));
}

#[test]
fn keys_and_values_are_any_bytes() {
    let (_cluster, shell) = one_node();
    let (key, value) = (
        OsStr::from_bytes(b"\xff k"),
        OsStr::from_bytes(b"\x01\xfe\n"),
    );
    shell.run(&[OsStr::new("put"), key, value]).gave(0, "");
    let got = shell.run(&[OsStr::new("get"), key]);
    assert_eq!((got.status, &got.stdout[..]), (0, &b"\x01\xfe\n"[..]));
    let told = without_version(shell.json(&[OsStr::new("get"), key]));
    let expected = json!({ "key_b64": "/yBr", "value_b64": "Af4K", "result": "value" });
    assert_eq!(told, (expected, 0));
    let (told, status) = shell.json(&["get", "\u{fc}"]);
    assert_eq!(
        (told, status),
        (json!({ "key": "\u{fc}", "result": "absent" }), 1)
    );
    let told = shell.json(&["del", "k"]);
    assert_eq!(told, (json!({ "key": "k", "result": "absent" }), 0));
}

#[test]
fn a_lone_hyphen_is_standard_input_for_a_value() {
    let (_cluster, shell) = one_node();
    let input: Vec<u8> = (0..=255).cycle().take(VALUE_SIZE_DEFAULT).collect();
    shell.run_with_input(&["put", "k", "-"], &input).gave(0, "");
    assert_eq!(shell.run(&["get", "k"]).stdout, input);
    shell
        .run_with_input(&["put", "k", "--", "-"], b"x")
        .gave(0, "");
    shell
        .run_with_input(&["append", "k", "-"], b"y\n")
        .gave(0, "");
    shell.run(&["get", "k"]).gave(0, "xy\n");
    shell.run(&["cas", "k", "xy\n", "-"]).gave(0, "");
    shell.run(&["get", "k"]).gave(0, "-");
    shell.run(&["put", "-", "v"]).gave(0, "");
    shell.run(&["get", "-"]).gave(0, "v");
}

#[test]
fn words_that_look_like_flags_can_be_keys_and_values() {
    let (_cluster, shell) = one_node();
    shell.run(&["put", "-k", "--v"]).gave(0, "");
    shell.run(&["get", "-k"]).gave(0, "--v");
    shell.run(&["cas", "-k", "--v", "-1"]).gave(0, "");
    shell.run(&["add", "-k", "-1"]).gave(0, "-2\n");
    shell.run(&["put", "--", "--old", "--json"]).gave(0, "");
    shell.run(&["get", "--", "--old"]).gave(0, "--json");
    shell.run(&["del", "--", "--old"]).gave(0, "");
    shell.run(&["get", "--", "--old"]).failed(1, "no such key");
}

#[test]
fn what_is_over_a_limit_is_refused() {
    let (_cluster, shell) = one_node();
    let value = vec![b'v'; VALUE_SIZE_DEFAULT + 1];
    let put = shell.run_with_input(&["put", "k", "-"], &value);
    put.failed(6, "too large");
    shell.run(&["get", "k"]).failed(1, "no such key");
    let key = "k".repeat(KEY_SIZE_MAX);
    shell.run(&["put", &key, "v"]).gave(0, "");
    shell.run(&["get", &key]).gave(0, "v");
    let key = "k".repeat(KEY_SIZE_MAX + 1);
    shell.run(&["get", &key]).failed(6, "too large");
    shell.run(&["get", ""]).failed(2, "at least one byte");
    shell
        .run_with_input(&["put", "k", "-"], &value[1..])
        .gave(0, "");
    shell.run(&["append", "k", "v"]).failed(6, "too large");
    let (told, status) = shell.json(&["append", "k", "v"]);
    assert_eq!((&told["error"], status), (&json!("too_large"), 6));
}
