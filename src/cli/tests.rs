//! How the arguments of the command line are parsed. `tests/cli/` tests the commands themselves,
//! with nodes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::{CommandFactory, Parser};

use super::{Arguments, Command};

fn parse(words: &[&str]) -> Result<Arguments, clap::error::ErrorKind> {
    let words = std::iter::once("horseshoe").chain(words.iter().copied());
    Arguments::try_parse_from(words).map_err(|error| error.kind())
}

fn shown(words: &[&str]) -> String {
    match parse(words) {
        Ok(arguments) => format!("{:?}", arguments.command),
        Err(kind) => format!("{kind:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Arguments::command().debug_assert();
}

#[test]
fn shared_flags_stand_before_or_after_the_subcommand() {
    for words in [
        &["--nodes", "a:1", "--json", "--timeout", "2s", "get", "k"][..],
        &["get", "--nodes", "a:1", "--json", "--timeout", "2s", "k"],
        &["get", "k", "--nodes=a:1", "--json", "--timeout=2"],
        &[
            "--json",
            "get",
            "k",
            "--timeout",
            "2000ms",
            "--nodes",
            "a:1",
        ],
    ] {
        let connection = parse(words).unwrap().connection;
        assert_eq!(connection.nodes.as_deref(), Some("a:1"), "{words:?}");
        assert!(connection.json, "{words:?}");
        assert_eq!(connection.timeout.unwrap().as_millis(), 2_000, "{words:?}");
    }
}

#[test]
fn positional_words_may_begin_with_a_hyphen() {
    for words in [
        &["get", "-k"][..],
        &["get", "-"],
        &["get", "--"],
        &["scan", "-k", "--from", "-a", "--to", "-b"],
        &["export", "-k"],
        &["import", "-"],
        &["put", "-k", "-v"],
        &["put", "-1", "--no-such-flag"],
        &["put", "k", "-"],
        &["put", "--k", "--v", "--old"],
        &["del", "--k"],
        &["cas", "-k", "-old", "-new"],
        &["cas", "-k", "--version", "7", "-new"],
        &["add", "-k", "-5"],
        &["add", "k", "+5"],
        &["append", "-k", "--v"],
        &["expire", "-k", "10s"],
        &["persist", "-k", "--if-version", "7"],
        &["ttl", "-k"],
        &["lock", "-k", "--", "command", "-x", "--ttl"],
        &["run", "-"],
    ] {
        let found = shown(words);
        let ok = found.contains("Args {") || words == ["get", "--"];
        assert!(ok, "{words:?}: {found}");
    }
}

#[test]
fn a_known_flag_is_the_flag_unless_it_stands_behind_two_hyphens() {
    let missing = "MissingRequiredArgument";
    for words in [
        &["put", "k", "--old"][..],
        &["put", "--json", "k"],
        &["get", "--version"],
        &["get", "--json"],
        &["get", "--"],
        &["cas", "k", "--old", "x"],
        &["cas", "--version", "1", "k"],
        &["cas", "k", "old"],
    ] {
        assert_eq!(shown(words), missing, "{words:?}");
    }
    let found = shown(&["put", "--", "--old", "--json"]);
    assert!(
        found.contains("key: \"--old\", value: \"--json\""),
        "{found}"
    );
    let found = shown(&["put", "--if-absent", "--", "-k", "--"]);
    assert!(found.contains("key: \"-k\", value: \"--\""), "{found}");
    let found = shown(&["get", "--", "--version"]);
    assert!(
        found.contains("key: \"--version\", version: false"),
        "{found}"
    );
    let found = shown(&["cas", "--version", "3", "--", "-k", "--old"]);
    assert!(found.contains("version: Some(3)") && found.contains("first: \"--old\""));
}

#[test]
fn what_does_not_fit_is_a_usage_error() {
    for words in [
        &[][..],
        &["nothing"],
        &["get"],
        &["get", "a", "b"],
        &["put", "k"],
        &["put", "k", "v", "w"],
        &["put", "k", "v", "--ttl", "0"],
        &["put", "k", "v", "--if-absent", "--if-version", "1"],
        &["expire", "k"],
        &["expire", "k", "36601d"],
        &["ttl"],
        &["lock", "k"],
        &["lock", "k", "--"],
        &["lock", "k", "command"],
        &["add", "k", "x"],
        &["add", "k", "9223372036854775808"],
        &["cas", "k", "a", "b", "c"],
        &["cas", "--version", "1", "k", "a", "b"],
        &["cas", "--version", "-1", "k", "a"],
        &["--timeout", "0", "get", "k"],
        &["--timeout", "soon", "get", "k"],
        &["bench", "--clients", "0"],
        &["bench", "--mix", "1"],
        &["bench", "--value-size", "16777217"],
    ] {
        assert!(parse(words).is_err(), "{words:?}: {}", shown(words));
    }
}

#[test]
fn keys_and_values_are_any_bytes() {
    let words = ["horseshoe", "put"].map(OsString::from).into_iter();
    let bytes = [&b"\xff\xfe"[..], b"-\xff"].map(|b| OsString::from_vec(b.to_vec()));
    let arguments = Arguments::try_parse_from(words.chain(bytes)).unwrap();
    assert!(matches!(arguments.command, Command::Put(_)));
}
