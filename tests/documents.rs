//! Checks that limits in the documents equal those of the code, and that functions and files named
//! in docs/architecture.md exist.
//!
//! Each row of the tables is a phrase of a document, with `{}` for the limit, and a constant. The
//! test fails when a constant changes, and when a sentence changes; then correct the document, or
//! the row.

use std::path::Path;

use horseshoe::config::MEMORY_MAX_MIN;
use horseshoe::gateway::text;
use horseshoe::protocol::types::{digest, limits};
use horseshoe::runtime::bounds::{self, MEMORY_BOUND, MEMORY_USES};
use kvclient::session;
use wire::{datagram, transfer};

const WIRE: Document = Document {
    name: "docs/wire.md",
    text: include_str!("../docs/wire.md"),
};
const GUIDE: Document = Document {
    name: "docs/guide.md",
    text: include_str!("../docs/guide.md"),
};
const README: Document = Document {
    name: "README.md",
    text: include_str!("../README.md"),
};
const PROTOCOL: Document = Document {
    name: "docs/protocol.md",
    text: include_str!("../docs/protocol.md"),
};

struct Document {
    name: &'static str,
    text: &'static str,
}

impl Document {
    /// Fails for each phrase that the document does not contain with any of the limit's spellings.
    #[track_caller]
    fn says(&self, rows: &[(&str, Limit)]) {
        let text = words(self.text);
        let mut missing = String::new();
        for (phrase, limit) in rows {
            let spellings = limit.spellings();
            let is_said = |s: &String| holds(&text, &words(&phrase.replace("{}", s)));
            if !spellings.iter().any(is_said) {
                let limit = spellings.join(" or ");
                missing += &format!("\n  \"{phrase}\" with {limit}");
            }
        }
        let name = self.name;
        assert!(missing.is_empty(), "{name} does not say:{missing}");
    }
}

/// The text in one line, however it is wrapped.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the text contains the phrase, and the phrase does not begin or end within a number.
fn holds(text: &str, phrase: &str) -> bool {
    let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    text.match_indices(phrase).any(|(at, _)| {
        let begins = !is_digit(phrase.chars().next()) || !is_digit(text[..at].chars().last());
        let behind = &text[at + phrase.len()..];
        begins && !(is_digit(phrase.chars().last()) && is_digit(behind.chars().next()))
    })
}

#[derive(Clone, Copy)]
enum Limit {
    Number(u64),
    Bytes(u64),
    Ms(u64),
}

impl Limit {
    /// The ways in which documents write it.
    fn spellings(self) -> Vec<String> {
        match self {
            Limit::Number(number) => numbers(number),
            Limit::Bytes(bytes) => {
                let mut spellings = vec![format!("{} bytes", thousands(bytes))];
                for (shift, units) in [(10, ["KiB", "K"]), (20, ["MiB", "M"])] {
                    let count = bytes >> shift;
                    if count > 0 && count << shift == bytes {
                        spellings.push(format!("{} {}", thousands(count), units[0]));
                        spellings.push(format!("{count}{}", units[1]));
                    }
                }
                spellings
            }
            Limit::Ms(ms) => {
                let mut spellings = vec![format!("{} ms", thousands(ms))];
                if ms == 500 {
                    spellings.push("half a second".to_owned());
                }
                for (unit_ms, short, long) in [(1_000, "s", "second"), (60_000, "min", "minute")] {
                    let count = ms / unit_ms;
                    if count > 0 && count * unit_ms == ms {
                        spellings.push(format!("{count} {short}"));
                        let plural = if count == 1 { "" } else { "s" };
                        spellings
                            .extend(numbers(count).iter().map(|n| format!("{n} {long}{plural}")));
                    }
                    if count == 1 && ms == unit_ms {
                        spellings.push(format!("a {long}"));
                    }
                }
                spellings
            }
        }
    }
}

fn numbers(number: u64) -> Vec<String> {
    const WORDS: [&str; 11] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    ];
    let word = usize::try_from(number).ok().and_then(|n| WORDS.get(n));
    let word = word.map(|word| (*word).to_owned());
    word.into_iter().chain([thousands(number)]).collect()
}

fn thousands(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", thousands(number / 1_000), number % 1_000),
    }
}

fn number(number: usize) -> Limit {
    Limit::Number(number as u64)
}

fn bytes(bytes: usize) -> Limit {
    Limit::Bytes(bytes as u64)
}

#[test]
fn limits_in_the_wire_format() {
    WIRE.says(&[
        (
            "a header of {}, followed by frames",
            bytes(datagram::DATAGRAM_HEADER_SIZE),
        ),
        (
            "a header of {}, followed by the body",
            bytes(datagram::FRAME_HEADER_SIZE),
        ),
        (
            "share a datagram of up to {}",
            bytes(datagram::DATAGRAM_SIZE_TARGET),
        ),
        (
            "or up to {} if the address is a loopback",
            bytes(datagram::DATAGRAM_SIZE_TARGET_LOOPBACK),
        ),
        ("| a datagram | {} |", bytes(datagram::DATAGRAM_SIZE_MAX)),
        (
            "A frame with a larger body, up to {}",
            bytes(transfer::FRAME_BODY_SIZE_MAX),
        ),
        (
            "would make a datagram of more than {}. Smaller",
            bytes(datagram::DATAGRAM_SIZE_TARGET_LOOPBACK),
        ),
        (
            "would make a datagram of more than {}",
            bytes(datagram::DATAGRAM_SIZE_TARGET),
        ),
        ("then a name of 1 to {}", bytes(wire::KEY_SIZE_MAX)),
        ("key: bytes, // 1 to {}", bytes(wire::KEY_SIZE_MAX)),
        ("value: bytes, // up to {}", bytes(wire::VALUE_SIZE_MAX)),
        ("a tombstone; at most {}", bytes(wire::VALUE_SIZE_MAX)),
        (
            "address: text, // 1 to {}",
            bytes(wire::CHANGE_ADDRESS_SIZE_MAX),
        ),
        (
            "reason: text, // at most {}",
            bytes(wire::CHANGE_REASON_SIZE_MAX),
        ),
        ("nodes: [u8], // one to {}", number(wire::CHANGE_NODES_MAX)),
        (
            "of the cluster, at most {}",
            bytes(wire::CLUSTER_NAME_SIZE_MAX),
        ),
        (
            "empty, or 1 to {} letters",
            number(wire::CLUSTER_NAME_SIZE_MAX),
        ),
        (
            "known to be chosen, at most {}",
            number(limits::CHOSEN_PER_MESSAGE_MAX),
        ),
        (
            "the sender's own first, at most {}",
            number(limits::NODES_MAX),
        ),
        (
            "whose start it confirms, at most {}",
            number(2 * limits::MEMBERS_MAX),
        ),
        (
            "Probe { padding: bytes } // up to {}",
            bytes(limits::PROBE_SIZE),
        ),
        (
            "members: [Member], // one to {}",
            number(limits::MEMBERS_MAX),
        ),
        (
            "the non-members, at most {}",
            number(limits::NODES_AWAY_MAX),
        ),
        (
            "forces: [Forced], // E8: at most {}",
            number(limits::FORCES_MAX),
        ),
        (
            "buckets: u16, // 1 to {}",
            number(digest::BUCKETS_MAX.into()),
        ),
        ("a ballot plus 0 to {}", number(limits::COMBINED_MAX)),
        (
            "at most {} operations, and about",
            number(limits::APPLIED_OPERATIONS_MAX),
        ),
        ("and about {} encoded", bytes(limits::APPLIED_SIZE_MAX)),
        (
            "old values of at most {}",
            bytes(wire::OLD_VALUE_KEPT_SIZE_MAX),
        ),
        (
            "entries: [BucketEntry], // at most {}",
            number(limits::KEYS_PER_MESSAGE_MAX),
        ),
        (
            "CopiesRequest { keys: [key] } // at most {}",
            number(limits::KEYS_PER_MESSAGE_MAX),
        ),
        ("are cut at {} encoded", bytes(limits::LIST_SIZE_MAX)),
        (
            "until the node holds {} newer sessions",
            number(limits::SESSIONS_MAX),
        ),
        (
            "it remembers {} numbers",
            Limit::Number(limits::SESSION_WINDOW),
        ),
        (
            "until {} after the operation's birth",
            Limit::Ms(wire::RETRY_WINDOW_MS),
        ),
        (
            "| key | 1 to {} | | value | 0 to",
            bytes(wire::KEY_SIZE_MAX),
        ),
        ("| value | 0 to {}, without", bytes(text::VALUE_SIZE_MAX)),
        (
            "received more than {} ago",
            Limit::Ms(limits::TEXT_AGE_MAX_MS),
        ),
        (
            "executed less than {} ago for another",
            Limit::Ms(limits::TEXT_KEPT_MS),
        ),
        (
            "to every other node of it every {}",
            Limit::Ms(limits::HEARTBEAT_MS_DEFAULT),
        ),
        ("| a datagram | {} |", bytes(datagram::DATAGRAM_SIZE_MAX)),
        (
            "| frames together in a datagram | {} with",
            bytes(datagram::DATAGRAM_SIZE_TARGET),
        ),
        (
            "with the header, {} on loopback",
            number(datagram::DATAGRAM_SIZE_TARGET_LOOPBACK),
        ),
        ("| value | {};", bytes(wire::VALUE_SIZE_MAX)),
        ("as fit {}, at most", bytes(limits::RANGE_SIZE_MAX)),
        ("at most {}, or a single", number(limits::RANGE_KEYS_MAX)),
        (
            "[RangeEntry], // at most {},",
            number(limits::RANGE_KEYS_MAX),
        ),
        ("takes up to {} from", bytes(wire::VALUE_SIZE_DEFAULT)),
        (
            "| applied table of a record | {} operations",
            number(limits::APPLIED_OPERATIONS_MAX),
        ),
        ("operations, {} |", bytes(limits::APPLIED_SIZE_MAX)),
        (
            "kept for a retry | {} |",
            bytes(wire::OLD_VALUE_KEPT_SIZE_MAX),
        ),
        ("| members | {} |", number(limits::MEMBERS_MAX)),
        ("| an address | {} |", bytes(limits::ADDRESS_SIZE_MAX)),
        ("| sessions of a node | {} |", number(limits::SESSIONS_MAX)),
        ("half of its {} |", bytes(2 * limits::APPLIED_TEXT_SIZE_MAX)),
        (
            "without their outcomes | {} |",
            bytes(limits::TEXT_SLICES_SIZE_MAX),
        ),
    ]);
}

#[test]
fn limits_in_the_readme() {
    README.says(&[
        ("Values are limited to {}", bytes(wire::VALUE_SIZE_DEFAULT)),
        ("up to {} with", bytes(wire::VALUE_SIZE_MAX)),
        ("and keys to {}", bytes(wire::KEY_SIZE_MAX)),
    ]);
}

#[test]
fn limits_in_the_guide() {
    GUIDE.says(&[
        ("Keys have 1 to {}", bytes(wire::KEY_SIZE_MAX)),
        ("Values have up to {}", bytes(wire::VALUE_SIZE_DEFAULT)),
        ("at most {}", number(wire::VALUE_SIZE_MAX)),
        ("**Values** have up to {}", bytes(text::VALUE_SIZE_MAX)),
        (
            "the old value was too large (over {})",
            bytes(wire::OLD_VALUE_KEPT_SIZE_MAX),
        ),
        (
            "between machines have at most {}",
            bytes(datagram::DATAGRAM_SIZE_TARGET),
        ),
        (
            "no datagram of more than {}",
            bytes(datagram::DATAGRAM_SIZE_TARGET),
        ),
        ("a probe of {} over each link", bytes(limits::PROBE_SIZE)),
        ("over each link every {}", Limit::Ms(limits::PROBE_MS)),
        (
            "adds a node; {} is the maximum",
            number(limits::MEMBERS_MAX),
        ),
        (
            "A name has 1 to {} letters",
            number(wire::CLUSTER_NAME_SIZE_MAX),
        ),
        (
            "report their links to each other every {}",
            Limit::Ms(limits::HEARTBEAT_MS_DEFAULT),
        ),
        (
            "If datagrams wait more than {}, for",
            Limit::Ms(limits::RECEIVE_DELAY_MAX_MS),
        ),
        (
            "for {} without a break",
            Limit::Ms(limits::OVERLOAD_AFTER_MS),
        ),
        (
            "consider a link down after {} of silence",
            Limit::Ms(limits::LINK_DOWN_MS_DEFAULT),
        ),
        (
            "a write for `--disk-hung-after` ({};",
            Limit::Ms(limits::DISK_HUNG_MS_DEFAULT),
        ),
        (
            "still take space for some {}, and until",
            Limit::Ms(limits::RETRY_HORIZON_MS),
        ),
        (
            "free their space after some {} and",
            Limit::Ms(limits::RETRY_HORIZON_MS),
        ),
        (
            "no new node has appeared for {}",
            Limit::Ms(limits::BOOTSTRAP_WAIT_MS),
        ),
        ("At least {} members are kept", number(limits::MEMBERS_KEPT)),
        (
            "continuously reachable for {}",
            Limit::Ms(limits::READMISSION_DELAY_MS),
        ),
        (
            "after each further removal, up to {}",
            Limit::Ms(limits::STEADY_MAX_MS),
        ),
        (
            "again after {} without a removal",
            Limit::Ms(limits::REMOVALS_FORGOTTEN_MS),
        ),
        ("than fit in memory ({} keys)", number(limits::HINTS_MAX)),
        (
            "take at most {}. Operations above that",
            bytes(limits::OPERATIONS_SIZE_MAX),
        ),
        ("512M, 2G; at least {};", Limit::Bytes(MEMORY_MAX_MIN)),
        (
            "The default is {}, 1 s for `status`",
            Limit::Ms(session::DEADLINE_US_DEFAULT / 1_000),
        ),
    ]);
}

#[test]
fn limits_in_the_protocol() {
    PROTOCOL.says(&[
        (
            "counts only up to {} above the (lower) median",
            Limit::Ms(limits::SKEW_MAX_MS_DEFAULT),
        ),
        (
            "(for a birth: {} above it)",
            Limit::Ms(limits::BIRTH_SLACK_MS),
        ),
        (
            "may be ahead of that by up to {}",
            Limit::Ms(limits::RECEIVED_SLACK_MS),
        ),
        (
            "waited more than {}, and until",
            Limit::Ms(limits::RECEIVE_DELAY_MAX_MS),
        ),
        (
            "every datagram that it sampled for {}",
            Limit::Ms(limits::OVERLOAD_AFTER_MS),
        ),
        (
            "a clock above the bound for {} (",
            Limit::Ms(limits::FOLLOW_AFTER_MS),
        ),
        (
            "in order of birth, at most {} of them",
            number(limits::COMBINED_MAX),
        ),
        (
            "sends a heartbeat to each other node every {}",
            Limit::Ms(limits::HEARTBEAT_MS_DEFAULT),
        ),
        (
            "is *down* after {} of silence",
            Limit::Ms(limits::LINK_DOWN_MS_DEFAULT),
        ),
        (
            "had been up for less than {} the probation",
            Limit::Ms(limits::LINK_QUIET_MS),
        ),
        (
            "the probation is doubled, up to {}",
            Limit::Ms(limits::LINK_HOLD_MAX_MS),
        ),
        (
            "Every {} a node also sends a *probe*",
            Limit::Ms(limits::PROBE_MS),
        ),
        ("to each other node: {}", bytes(limits::PROBE_SIZE)),
        ("A row expires after {}", Limit::Ms(limits::ROW_STALE_MS)),
        (
            "at the low mark, {} after birth",
            Limit::Ms(limits::RETRY_HORIZON_MS),
        ),
        (
            "older than the retry horizon ({},",
            Limit::Ms(limits::RETRY_HORIZON_MS),
        ),
        (
            "at the table's bound ({} operations",
            number(limits::APPLIED_OPERATIONS_MAX),
        ),
        (
            "operations, {}), lowest birth first",
            bytes(limits::APPLIED_SIZE_MAX),
        ),
        (
            "does not keep an old value of over {}",
            bytes(wire::OLD_VALUE_KEPT_SIZE_MAX),
        ),
        (
            "received more than {} ago",
            Limit::Ms(limits::TEXT_AGE_MAX_MS),
        ),
        (
            "has known it for {} by its own",
            Limit::Ms(limits::TEXT_KEPT_MS),
        ),
        (
            "not reached a quorum for {} starts no round",
            Limit::Ms(limits::QUORUM_LOST_MS),
        ),
        (
            "each further one {} later",
            Limit::Ms(limits::CHANGE_STAGGER_MS),
        ),
        (
            "one for each of {} buckets",
            number(digest::BUCKETS_MAX.into()),
        ),
        (
            "After `--disk-hung-after` ({},",
            Limit::Ms(limits::DISK_HUNG_MS_DEFAULT),
        ),
        ("of that node, up to {}", Limit::Ms(limits::STEADY_MAX_MS)),
        (
            "again after {} without a removal",
            Limit::Ms(limits::REMOVALS_FORGOTTEN_MS),
        ),
        (
            "no further node has appeared for {}",
            Limit::Ms(limits::BOOTSTRAP_WAIT_MS),
        ),
        (
            "did not answer it within {}",
            Limit::Ms(limits::HINT_AFTER_MS),
        ),
        ("a node records at most {} keys", number(limits::HINTS_MAX)),
        ("keys, in {} for all members", bytes(limits::HINTS_SIZE_MAX)),
        (
            "At most {} hinted copies",
            number(limits::COPIES_UNDER_WAY_MAX),
        ),
        (
            "to one member, and {}, are in flight",
            bytes(limits::COPIES_SIZE_MAX),
        ),
        (
            "at most {} of them a second",
            Limit::Number(limits::COPIES_PER_SECOND_BUSY),
        ),
        ("in windows of {} keys", number(limits::PULLS_UNDER_WAY_MAX)),
        (
            "keys and {} per source member",
            bytes(limits::PULLS_SIZE_MAX),
        ),
        (
            "found more than {} keys missing",
            Limit::Number(limits::FAR_BEHIND_MISSING_MIN),
        ),
        (
            "no more than {} fetched keys failed",
            Limit::Number(limits::GIVEN_UP_MAX),
        ),
        (
            "that found at most {} keys missing",
            Limit::Number(limits::LEARNED_MISSING_MAX),
        ),
        (
            "purges up to {} buckets a second",
            number(limits::BUCKETS_PURGED_IDLE),
        ),
        (
            "a second, and {} while operations",
            number(limits::BUCKETS_PURGED_BUSY),
        ),
        (
            "tracks {} tombstones with text",
            number(limits::TEXT_TOMBSTONES_MAX),
        ),
        (
            "differs in more than {} buckets",
            number(limits::PURGE_DIFFERING_MAX),
        ),
        ("while more than {} are left", number(limits::MEMBERS_KEPT)),
        (
            "lists at least {} keys",
            number(limits::SCAN_KEYS_LISTED_MIN),
        ),
        (
            "needs more than {} of these",
            number(limits::SCAN_READS_MAX),
        ),
        (
            "no more than {} or than fit",
            number(limits::RANGE_KEYS_MAX),
        ),
        ("or than fit {}", bytes(limits::RANGE_SIZE_MAX)),
        (
            "page has at most {} keys if",
            number(limits::RANGE_KEYS_BUSY_MAX),
        ),
        (
            "works on more than {} other operations",
            number(limits::SCAN_OPERATIONS_BUSY),
        ),
    ]);
}

#[test]
fn limits_are_found_as_documents_spell_them() {
    let is_spelled = |limit: Limit, spelling: &str| limit.spellings().iter().any(|s| s == spelling);
    assert!(is_spelled(Limit::Ms(10_000), "ten seconds") && is_spelled(Limit::Ms(10_000), "10 s"));
    assert!(
        is_spelled(Limit::Ms(1_000), "a second") && is_spelled(Limit::Ms(600_000), "ten minutes")
    );
    assert!(is_spelled(Limit::Bytes(12 << 10), "12 KiB") && is_spelled(Limit::Number(9), "nine"));
    assert!(is_spelled(Limit::Bytes(49_152), "49,152 bytes"));
    assert!(!is_spelled(Limit::Ms(11_000), "ten seconds"));
    assert!(holds("up to 200 bytes", "200 bytes") && !holds("up to 1200 bytes", "200 bytes"));
    assert!(!holds("every 50", "every 5"));
}

/// Each row of the table of what a node holds beside its data has the constant and its size, and no
/// other row is there.
#[test]
fn what_a_node_holds_beside_its_data() {
    let text = include_str!("../docs/operations.md");
    let (_, table) = text.split_once("| constant | KiB |").expect("a table");
    let row = |line: &str| {
        let mut cells = line.split('|').map(|cell| cell.trim().to_owned());
        Some((cells.nth(1)?, cells.next()?))
    };
    let rows = table.lines().skip(2).take_while(|line| !line.is_empty());
    let told: Vec<_> = rows.map(|line| row(line).expect("two cells")).collect();
    let kib = |size: usize| thousands(size as u64 >> 10);
    let mut held: Vec<_> = MEMORY_USES
        .iter()
        .map(|one| (format!("`{}`", one.constant), kib(one.size_max)))
        .collect();
    held.push(("together".to_owned(), kib(bounds::sum())));
    assert_eq!(told, held);
    let bound = format!("less than {} MB", MEMORY_BOUND / 1_000_000);
    for document in [text, GUIDE.text] {
        assert!(holds(&words(document), &bound), "{bound}");
    }
}

/// Adds the Rust files of a folder and of its subfolders.
fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(std::fs::read_to_string(path).expect("a source"));
        }
    }
}

/// `name`, or `Type::name` in a file that has an implementation of the type.
fn is_defined(function: &str, sources: &[String]) -> bool {
    let (of, name) = match function.rsplit_once("::") {
        Some((of, name)) => (format!("impl {of} "), name),
        None => (String::new(), function),
    };
    let heads = ["(", "<"].map(|open| format!("fn {name}{open}"));
    let defines = |text: &&String| heads.iter().any(|head| text.contains(head));
    sources
        .iter()
        .filter(defines)
        .any(|text| text.contains(&of))
}

/// Whether a span of code names a file or a folder.
fn is_path(span: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    span.contains(['/', '.']) && span.chars().all(is_plain)
}

#[test]
fn functions_and_files_of_the_architecture_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in ["src", "wire", "client-lib"] {
        sources(&root.join(folder), &mut texts);
    }
    assert!(!is_defined("no_such_function", &texts) && !is_defined("Replica::call", &texts));
    let spans = include_str!("../docs/architecture.md").split('`');
    let spans: Vec<&str> = spans.skip(1).step_by(2).collect();
    let functions = spans.iter().filter_map(|span| span.strip_suffix("()"));
    let paths = spans.iter().filter(|span| is_path(span));
    assert!(functions.clone().count() > 50 && paths.clone().count() > 50);
    let functions = functions.filter(|function| !is_defined(function, &texts));
    let paths = paths.filter(|path| !root.join(path).exists()).copied();
    let missing: Vec<&str> = functions.chain(paths).collect();
    assert!(missing.is_empty(), "docs/architecture.md names {missing:?}");
}
