//! Checks of the repository itself: rules that a reviewer would otherwise have to remember.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const RUST_LINES_MAX: usize = 700;
/// For comments and documents; `cargo fmt` wraps code.
const COLUMNS_MAX: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files that belong to the project: tracked, or new and not ignored. Outside of a checkout (in a
/// release's archive) there are none.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    let listed = match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => String::new(),
    };
    listed
        .lines()
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .is_some_and(|e| extensions.iter().any(|wanted| e == *wanted))
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Lines of the files that match, as `path:number: line`.
fn lines_with(paths: &[PathBuf], matches: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let text = read(path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if matches(path, line) {
                found.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    found
}

#[test]
fn rust_files_can_be_read_in_one_sitting() {
    let mut long = Vec::new();
    for path in files().iter().filter(|p| has_extension(p, &["rs"])) {
        let lines = read(path).unwrap_or_default().lines().count();
        if lines > RUST_LINES_MAX {
            long.push(format!("{} has {lines} lines", path.display()));
        }
    }
    assert_none("files over the limit", long);
}

/// Whether a line of text could be wrapped and is not. A URL and a path cannot be.
fn is_too_long(line: &str) -> bool {
    let is_address = |word: &str| word.contains("://") || word.len() > 40 && word.contains('/');
    line.chars().count() > COLUMNS_MAX && !line.split_whitespace().any(is_address)
}

/// Whether the whole line is a comment. In C and Rust a `#` begins a directive or an attribute.
fn is_comment(path: &Path, line: &str) -> bool {
    let line = line.trim_start();
    match has_extension(path, &["sh"]) {
        true => line.starts_with('#') && !line.starts_with("#!"),
        false => ["//", "/*", "* ", "*/"].iter().any(|m| line.starts_with(m)),
    }
}

#[test]
fn comments_are_wrapped() {
    let code: Vec<_> = files()
        .into_iter()
        .filter(|p| has_extension(p, &["rs", "sh", "c", "h", "hpp", "cpp"]))
        .collect();
    let found = lines_with(&code, |path, line| {
        is_comment(path, line) && is_too_long(line)
    });
    assert_none("comments of more than 100 columns", found);
}

/// Tables, links and blocks of code cannot be wrapped, or not without harm.
#[test]
fn documents_are_wrapped() {
    let mut found = Vec::new();
    for path in files().iter().filter(|p| has_extension(p, &["md"])) {
        let text = read(path).unwrap_or_default();
        let mut in_code = false;
        for (number, line) in text.lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            let is_table = line.trim_start().starts_with('|');
            if !in_code && !is_table && !line.contains("](") && is_too_long(line) {
                found.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert_none("lines of documents of more than 100 columns", found);
}

/// Code that is shipped, as opposed to tests and benchmarks.
fn is_product(path: &Path) -> bool {
    let path = path.strip_prefix(root()).unwrap_or(path);
    let text = path.to_string_lossy();
    ["src/", "wire/", "client-lib/", "checker/"]
        .iter()
        .any(|folder| text.starts_with(folder))
        && has_extension(path, &["rs"])
        && !text.ends_with("build.rs")
        && !["tests", "examples", "benches"]
            .iter()
            .any(|folder| text.contains(folder))
}

/// `eprintln!` and `println!` end the process with a panic if the output cannot be written.
#[test]
fn programs_do_not_print_by_macros_that_panic() {
    let paths: Vec<PathBuf> = files().into_iter().filter(|p| is_product(p)).collect();
    let found = lines_with(&paths, |_, line| {
        let code = line.trim_start();
        !code.starts_with("//") && ["println!", "print!"].iter().any(|m| code.contains(m))
    });
    assert_none(
        "printed by a macro that panics; use report::complain",
        found,
    );
}

#[test]
fn the_protocol_is_pure() {
    let banned = [
        "tokio",
        "nix::",
        "dashmap",
        "std::net",
        "std::fs",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "tracing::",
        "println!",
        "eprintln!",
        "rand::rng()",
    ];
    let pure = ["src/protocol", "wire/src", "checker/src"].map(|folder| root().join(folder));
    let paths: Vec<_> = files()
        .into_iter()
        .filter(|p| pure.iter().any(|folder| p.starts_with(folder)))
        .collect();
    let found = lines_with(&paths, |_, line| {
        let code = line.split("//").next().unwrap_or_default();
        banned.iter().any(|word| code.contains(word))
    });
    assert_none(
        "clocks, sockets, files or threads in src/protocol, wire or checker",
        found,
    );
}

/// The names of interfaces in addresses are the only code that nodes and the client library share
/// besides `wire`.
#[test]
fn only_the_command_line_uses_the_client_library() {
    let source = root().join("src");
    let command_line = source.join("cli");
    let paths: Vec<_> = files()
        .into_iter()
        .filter(|p| p.starts_with(&source) && !p.starts_with(&command_line))
        .collect();
    assert!(paths.len() > 50, "{} files", paths.len());
    let found = lines_with(&paths, |_, line| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("kvclient") && !code.contains("kvclient::zone")
    });
    assert_none("nodes take what they share with clients from `wire`", found);
}

/// The levels of `src/protocol`, lowest first.
const LEVELS: [&str; 10] = [
    "types",
    "clock",
    "clients",
    "register",
    "network",
    "membership",
    "catchup",
    "keys",
    "transactions",
    "replica",
];

/// The levels that a line of code names in a path.
fn levels_named(line: &str) -> Vec<usize> {
    let code = line.split("//").next().unwrap_or_default();
    let mut named = Vec::new();
    for root in ["protocol::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            let word = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next();
            named.extend(LEVELS.iter().position(|level| Some(*level) == word));
        }
    }
    named
}

/// The file's level, by its folder; `None` for files that are in no level.
fn level_of(path: &Path) -> Option<usize> {
    let inside = path.strip_prefix(root().join("src/protocol")).ok()?;
    let folder = inside.components().next()?.as_os_str().to_str()?;
    LEVELS.iter().position(|level| *level == folder)
}

#[test]
fn no_import_of_the_protocol_points_up() {
    let listed = read(&root().join("src/protocol/mod.rs")).unwrap();
    let levels: Vec<String> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("mod ").or(line.strip_prefix("pub mod ")))
        .map(|name| name.trim_end_matches(';').to_owned())
        .collect();
    let mut sorted = LEVELS.map(str::to_owned);
    sorted.sort();
    assert_eq!(levels, sorted, "LEVELS lists the folders of src/protocol");
    let replica = LEVELS.len() - 1;
    let paths: Vec<_> = files()
        .into_iter()
        .filter(|p| level_of(p).is_some_and(|level| level < replica))
        .collect();
    assert!(paths.len() > 20, "{} files", paths.len());
    let found = lines_with(&paths, |path, line| {
        let own = level_of(path).unwrap_or(replica);
        levels_named(line).iter().any(|level| *level > own)
    });
    assert_none("imports of a higher level", found);
    let found = lines_with(&paths, |_, line| {
        let code = line.split("//").next().unwrap_or_default();
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == "Replica") || code.contains("Output::Send")
    });
    assert_none(
        "below src/protocol/replica, sends or knows `Replica`",
        found,
    );
}

/// Types that may share a name: the C interface's view of an operation is not the operation.
const SHARED_NAMES: [&str; 1] = ["Operation"];

/// The name that a line at the left margin gives to a type.
fn type_defined(line: &str) -> Option<&str> {
    let words = ["struct ", "enum ", "trait ", "type ", "union "];
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let rest = words.iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
}

#[test]
fn no_two_types_share_a_name() {
    let product: Vec<PathBuf> = files()
        .into_iter()
        .filter(|path| has_extension(path, &["rs"]) && is_product(path))
        .collect();
    let mut places: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in &product {
        let text = read(path).unwrap_or_default();
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        for name in code.lines().filter_map(type_defined) {
            places
                .entry(name.to_owned())
                .or_default()
                .insert(path.clone());
        }
    }
    assert!(places.len() > 300, "{} types", places.len());
    let shared = places
        .iter()
        .filter(|(name, paths)| paths.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    let shared = shared.map(|(name, paths)| format!("{name}: {paths:?}"));
    assert_none("types of one name", shared.collect());
}

#[test]
fn a_module_with_a_folder_is_its_mod_rs() {
    let product = files().into_iter().filter(|path| is_product(path));
    let beside = product.filter(|path| path.with_extension("").is_dir());
    let found = beside.map(|path| path.display().to_string());
    assert_none("module files beside their folders", found.collect());
}

#[test]
fn nothing_is_left_unfinished_or_unsafe() {
    let here = Path::new(file!()).file_name().unwrap();
    let code: Vec<_> = files()
        .into_iter()
        .filter(|p| has_extension(p, &["rs", "sh", "c", "h", "hpp"]) && p.file_name() != Some(here))
        .collect();
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("];
    let found = lines_with(&code, |_, line| {
        marks.iter().any(|mark| line.contains(mark))
    });
    assert_none("unfinished marks", found);
    let at_the_border = ["client-lib/c/src", "client-lib/compat/src/ffi.rs"];
    let at_the_border = at_the_border.map(|place| root().join(place));
    let found = lines_with(&code, |path, line| {
        line.contains("unsafe ")
            && !line.trim_start().starts_with("//")
            && !at_the_border.iter().any(|place| path.starts_with(place))
    });
    assert_none("unsafe elsewhere than where C is met", found);
}

#[test]
fn ignored_tests_and_allowed_lints_have_their_reason_beside_them() {
    let code: Vec<_> = files()
        .into_iter()
        .filter(|p| has_extension(p, &["rs"]))
        .collect();
    let found = lines_with(&code, |_, line| {
        let line = line.trim_start();
        let switch = line.starts_with("#[ignore") || line.starts_with("#[allow(");
        switch && !line.contains("//") && !line.contains("reason")
    });
    assert_none("switched off without a reason on the line", found);
}

#[test]
fn documents_link_to_what_exists() {
    let mut broken = Vec::new();
    for path in files().iter().filter(|p| has_extension(p, &["md"])) {
        let text = read(path).unwrap_or_default();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            if !outside && !path.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert_none("broken links", broken);
}

/// A crate's name is enough, and an address that does not exist is worse than none.
#[test]
fn nothing_links_to_a_package_registry_or_an_invented_repository() {
    let texts: Vec<_> = files()
        .into_iter()
        .filter(|p| has_extension(p, &["md"]) || p.ends_with("Cargo.toml"))
        .collect();
    let found = lines_with(&texts, |_, line| {
        let is_address = ["repository =", "homepage =", "documentation ="];
        ["crates.io/", "docs.rs/", "lib.rs/crates"]
            .iter()
            .any(|page| line.contains(page))
            || is_address
                .iter()
                .any(|key| line.trim_start().starts_with(key))
    });
    assert_none("links to registries or repositories", found);
}

/// Whether the document has the name of this rule or part in bold: `**E5 (` or `**E5_found**`.
fn is_defined(name: &str, document: &str) -> bool {
    let bold = format!("**{name}");
    let mut found = document.match_indices(&bold);
    found.any(|(at, _)| document[at + bold.len()..].starts_with(['*', ' ']))
}

#[test]
fn every_rule_that_can_be_switched_off_is_in_the_document() {
    let rules = read(&root().join("src/protocol/types/rules.rs")).unwrap();
    let document = read(&root().join("docs/protocol.md")).unwrap();
    let listed = rules
        .split("pub enum Rule {")
        .nth(1)
        .unwrap()
        .split('}')
        .next()
        .unwrap();
    let names = listed
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','));
    let missing: Vec<String> = names
        .flat_map(|name| [name, name.split('_').next().unwrap()])
        .filter(|name| !is_defined(name, &document))
        .map(str::to_owned)
        .collect();
    assert_none("rules without a paragraph in docs/protocol.md", missing);
}
