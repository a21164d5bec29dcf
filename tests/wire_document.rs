//! Checks that docs/wire.md has the kinds and the fields of every message as the code has them.
//! tests/documents.rs compares its limits.

use std::collections::{BTreeMap, BTreeSet};

use horseshoe::protocol::types::message::{self, Message};

const DOCUMENT: &str = include_str!("../docs/wire.md");

/// The files that define the structs on the wire.
const SOURCES: [&str; 13] = [
    include_str!("../wire/src/messages/mod.rs"),
    include_str!("../wire/src/messages/operation.rs"),
    include_str!("../wire/src/messages/scan.rs"),
    include_str!("../wire/src/messages/transaction.rs"),
    include_str!("../wire/src/messages/change.rs"),
    include_str!("../wire/src/messages/status.rs"),
    include_str!("../src/protocol/types/message.rs"),
    include_str!("../src/protocol/types/configuration.rs"),
    include_str!("../src/protocol/types/record.rs"),
    include_str!("../src/protocol/types/transaction.rs"),
    include_str!("../src/protocol/types/remote_step.rs"),
    include_str!("../src/protocol/types/digest.rs"),
    include_str!("../src/protocol/types/range.rs"),
];

/// Names and types of a struct's fields, in order.
type Fields = Vec<(String, String)>;

/// Number and name of each kind in the table of kinds.
fn documented_kinds() -> BTreeMap<u8, &'static str> {
    let section = DOCUMENT.split("### Kinds").nth(1).expect("a section");
    let section = section.split("\n###").next().expect("text");
    let row = |line: &'static str| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let kind = cells.next()?.parse().ok()?;
        Some((kind, cells.next()?))
    };
    section.lines().filter_map(row).collect()
}

/// The text without comments and attributes.
fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if !line.trim_start().starts_with("#[") {
            code += line;
            code.push('\n');
        }
    }
    code
}

/// The name that Rust source defines before a `{`: in `pub struct Name {`, or in `Name = 16 {` of
/// `messages!`.
fn defined_in_rust(head: &str) -> Option<&str> {
    let name = match head.trim_start_matches("pub ").strip_prefix("struct ") {
        Some(name) => name,
        None => {
            let (name, kind) = head.split_once(" = ")?;
            kind.parse::<u8>().ok().map(|_| name)?
        }
    };
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric());
    is_plain.then_some(name)
}

/// In the document a definition begins with its name.
fn defined_in_document(head: &str) -> Option<&str> {
    Some(head)
}

/// The structs that a text defines. `defined` receives the line before a `{`, and returns the name
/// that this line defines.
fn structs(text: &str, defined: fn(&str) -> Option<&str>) -> BTreeMap<String, Fields> {
    let code = code(text);
    let mut found = BTreeMap::new();
    let mut rest = code.as_str();
    while let Some((before, behind)) = rest.split_once('{') {
        rest = behind;
        let head = before.rsplit('\n').next().unwrap_or_default().trim();
        if let Some(name) = defined(head)
            && let Some((body, behind)) = behind.split_once('}')
        {
            let fields = fields(body).unwrap_or_else(|| panic!("fields of {name}: {body}"));
            found.insert(name.to_owned(), fields);
            rest = behind;
        }
    }
    found
}

/// `None` if the body is not a list of `name: type`.
fn fields(body: &str) -> Option<Fields> {
    let mut depth = 0;
    let separate = |c: char| {
        depth += i32::from("<([".contains(c)) - i32::from(">)]".contains(c));
        c == ',' && depth == 0
    };
    let parts = body.split(separate).map(str::trim);
    parts
        .filter(|part| !part.is_empty())
        .map(|part| {
            let part = part.trim_start_matches("pub ");
            let (name, of) = part.split_once(": ")?;
            let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            is_name.then(|| (name.to_owned(), of.split_whitespace().collect()))
        })
        .collect()
}

/// A Rust type in the notation of the document.
fn as_documented(of: &str) -> String {
    let inner = |wrapper: &str| of.strip_prefix(wrapper)?.strip_suffix('>');
    if let Some(of) = inner("Option<") {
        return as_documented(of) + "?";
    }
    if let Some(of) = inner("Vec<") {
        return format!("[{}]", as_documented(of));
    }
    if let Some(of) = inner("Arc<") {
        return as_documented(of);
    }
    if let Some(of) = of.strip_prefix('(').and_then(|of| of.strip_suffix(')')) {
        let of: Vec<String> = of.split(',').map(as_documented).collect();
        return format!("({})", of.join(","));
    }
    let name = match of {
        "String" => "text",
        "Bytes" | "Clients" | "EncodedIntent" | "Hashes" | "Sums" => "bytes",
        "ClientId" => "u128",
        "NodeId" => "u8",
        "Bucket" => "u16",
        "Birth" | "Version" | "Incarnation" | "Epoch" | "GroupNumber" | "Lineage" => "u64",
        "Key" => "key",
        "Ballot" => "ballot",
        other => other,
    };
    name.to_owned()
}

/// The definitions of the document: all its fenced code blocks.
fn documented_structs() -> BTreeMap<String, Fields> {
    let blocks = DOCUMENT.split("```").skip(1).step_by(2);
    let blocks: Vec<&str> = blocks.filter_map(|b| b.strip_prefix("text\n")).collect();
    structs(&blocks.join("\n"), defined_in_document)
}

/// The structs that a type refers to.
fn named_in(of: &str) -> impl Iterator<Item = &str> {
    let words = of.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
}

#[test]
fn every_kind_is_documented_and_every_documented_kind_is_known() {
    let documented = documented_kinds();
    for kind in 0..=u8::MAX {
        // An empty body is an error of a known kind.
        let between_nodes = !matches!(Message::decode(kind, &[]), Ok(None));
        let to_nodes = !matches!(message::decode_client(kind, &[]), Ok(None));
        let to_clients = [
            wire::kind::HELLO_ANSWER,
            wire::kind::ANSWER,
            wire::kind::NO_SESSION,
            wire::kind::STATUS_ANSWER,
            wire::kind::CHANGE_ANSWER,
        ];
        let known = between_nodes || to_nodes || to_clients.contains(&kind);
        assert_eq!(documented.contains_key(&kind), known, "kind {kind}");
        if between_nodes {
            assert_eq!(documented[&kind], Message::name_of(kind), "kind {kind}");
        }
    }
    assert_eq!(documented.get(&wire::kind::NO_SESSION), Some(&"NoSession"));
}

#[test]
fn every_kind_and_every_struct_in_it_has_a_definition() {
    let documented = documented_structs();
    let mut missing = BTreeSet::new();
    let of_fields = documented.values().flatten();
    let of_fields = of_fields.flat_map(|(_, of)| named_in(of));
    for name in documented_kinds().into_values().chain(of_fields) {
        if !documented.contains_key(name) {
            missing.insert(name);
        }
    }
    assert!(missing.is_empty(), "not defined in wire.md: {missing:?}");
}

#[test]
fn fields_are_those_of_the_code() {
    let mut sources = BTreeMap::new();
    for source in SOURCES {
        sources.extend(structs(source, defined_in_rust));
    }
    for (name, documented) in documented_structs() {
        // An enum is sent as a flat struct.
        let flat = sources.get(&format!("Flat{name}"));
        let source = flat.or_else(|| sources.get(&name));
        let source = source.unwrap_or_else(|| panic!("wire.md defines {name}, no source does"));
        let names = |fields: &Fields| -> Vec<String> {
            fields.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&documented), names(source), "fields of {name}");
        for ((field, of), (_, in_source)) in documented.iter().zip(source) {
            let of = of.replace("clock", "u64");
            assert_eq!(of, as_documented(in_source), "type of {name}.{field}");
        }
    }
}

/// The parser reads both notations; otherwise the tests above might compare nothing.
#[test]
fn definitions_are_read_in_both_notations() {
    let pair = |(name, of): (&str, &str)| (name.to_owned(), of.to_owned());
    let rust = "
        /// Doc { a: b }.
        #[derive(Debug)]
        pub struct One {
            /// Why.
            pub a: u8,
            #[serde(default)]
            pub b: Vec<(Key, Ballot)>,
        }
        messages! {
            Two = 16 { a: Option<Arc<One>> }
        }
        fn f() { One { a, b } }";
    let found = structs(rust, defined_in_rust);
    let one = [("a", "u8"), ("b", "Vec<(Key,Ballot)>")].map(pair).to_vec();
    assert_eq!(found.get("One"), Some(&one));
    let two = [("a", "Option<Arc<One>>")].map(pair).to_vec();
    assert_eq!(found.get("Two"), Some(&two));
    assert_eq!(found.len(), 2);
    let documented = structs(
        "One {\n    a: u8, // 0: none\n    b: [(key, ballot)],\n}\n",
        defined_in_document,
    );
    let one = one
        .iter()
        .map(|(name, of)| (name.clone(), as_documented(of)));
    assert_eq!(documented["One"], one.collect::<Vec<_>>());
    assert_eq!(as_documented("Option<Arc<One>>"), "One?");
}
