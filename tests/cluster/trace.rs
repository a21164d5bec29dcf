//! Parses the output of `strace -f -ttt -xx`, as far as it concerns datagrams, writes and syncs.

use std::collections::HashMap;

/// One system call. The number of a line serves as a time: a traced thread is paused while strace
/// writes that its call begins, or that it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub name: String,
    /// The first argument.
    pub descriptor: Option<i64>,
    /// All strings among the arguments, decoded.
    pub strings: Vec<Vec<u8>>,
    pub result: Option<i64>,
    pub began: usize,
    pub ended: usize,
}

/// Returns the calls that ended, in the order of their ends.
pub fn parse(text: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut words = line.splitn(2, ' ');
        let thread = words.next().unwrap_or_default();
        // The columns are padded; then comes the time.
        let rest = words.next().unwrap_or_default().trim_start();
        let Some((_time, rest)) = rest.split_once(' ') else {
            continue;
        };
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begin.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((_, end)) = resumed.split_once(" resumed>") else {
                continue;
            };
            if let Some((began, begin)) = unfinished.remove(thread) {
                calls.extend(call(&format!("{begin}{end}"), began, number));
            }
        } else {
            calls.extend(call(rest, number, number));
        }
    }
    calls
}

/// `name(arguments) = result`; lines about signals and exits have another form.
fn call(text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return None;
    }
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let digits = arguments.split([',', ')']).next()?;
    Some(Call {
        name: name.to_owned(),
        descriptor: digits.trim().parse().ok(),
        strings: strings(arguments),
        result: result.split_whitespace().next()?.parse().ok(),
        began,
        ended,
    })
}

/// With -xx each byte of a string is `\xNN`.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    let decoded = quoted.map(|text| {
        let bytes = text.split("\\x").skip(1);
        let bytes: Result<Vec<u8>, _> = bytes.map(|hex| u8::from_str_radix(hex, 16)).collect();
        bytes.ok()
    });
    decoded.flatten().collect()
}

#[test]
fn calls_that_were_interrupted_by_others_are_put_together() {
    let text = "\
7     1.5 fdatasync(9 <unfinished ...>\n\
8     1.6 sendmmsg(3, [{msg_hdr={msg_iov=[{iov_base=\"\\x41\\x0a\", iov_len=2}]}}], 1, 0) = 1\n\
8     1.7 --- SIGCHLD {si_signo=SIGCHLD} ---\n\
7     1.8 <... fdatasync resumed>)             = 0\n\
8     1.9 write(4, \"\", 0) = -1 EAGAIN (Resource temporarily unavailable)\n\
7     2.0 +++ exited with 0 +++\n";
    let calls = parse(text);
    let seen: Vec<_> = calls
        .iter()
        .map(|c| (c.name.as_str(), c.descriptor, c.result, c.began, c.ended))
        .collect();
    let expected = [
        ("sendmmsg", Some(3), Some(1), 1, 1),
        ("fdatasync", Some(9), Some(0), 0, 3),
        ("write", Some(4), Some(-1), 4, 4),
    ];
    assert_eq!(seen, expected);
    assert_eq!(calls[0].strings, [b"A\n"]);
}
