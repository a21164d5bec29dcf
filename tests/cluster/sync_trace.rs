//! R2, checked with a trace of system calls: no answer leaves a node before the sync of the write
//! that it acknowledges.

use std::collections::HashMap;
use std::path::Path;

use nix::sys::signal::Signal;
use wire::datagram;
use wire::{Action, Answer, Outcome, Request, kind};

use super::can_trace::can_trace;
use super::clients::{client, get, put};
use super::nodes::{Cluster, Keep, SOON, wait_until};
use super::trace::{Call, parse};

const PUTS: usize = 40;
const TRACED: &str = "trace=fsync,fdatasync,sync_file_range,msync,write,pwrite64,writev,pwritev,\
                      sendto,sendmsg,sendmmsg,recvfrom,recvmsg,recvmmsg";

/// Runs one node under strace, and one client that makes one put at a time.
fn traced_puts(keep: Keep) -> Vec<Call> {
    let under = |directory: &Path| {
        let file = directory.join("trace").display().to_string();
        let options = [
            "strace", "-D", "-f", "-ttt", "-xx", "-s", "65536", "-e", TRACED, "-o",
        ];
        options
            .iter()
            .map(|word| word.to_string())
            .chain([file])
            .collect()
    };
    let mut cluster = Cluster::start_under(1, keep, under);
    let client = client(&cluster.list());
    for number in 0..PUTS {
        put(&client, &format!("key-{}", number % 7), &value(number));
    }
    assert_eq!(get(&client, "key-0"), Some(value(PUTS / 7 * 7)));
    let (status, _) = cluster.stop(0, Signal::SIGTERM);
    assert!(status.success(), "{status}");
    let file = cluster.directory().join("trace");
    let mut text = String::new();
    wait_until(SOON, "the end of the trace", || {
        text = std::fs::read_to_string(&file).expect("a trace");
        let last = text.lines().last();
        last.is_some_and(|line| line.ends_with("+++ exited with 0 +++"))
    });
    parse(&text)
}

/// The value is in the request and in what is written to disk, and nowhere else.
fn value(number: usize) -> String {
    format!("<the value of put {number}>")
}

/// Frames of one kind in the datagrams of a call.
fn frames(call: &Call, kind: u8) -> impl Iterator<Item = &[u8]> {
    let datagrams = call
        .strings
        .iter()
        .filter_map(|bytes| datagram::open(bytes).ok());
    let frames = datagrams.flat_map(|(_, frames)| frames.flatten());
    frames
        .filter(move |frame| frame.header.kind == kind)
        .map(|frame| frame.body)
}

/// A put, as the trace shows it.
struct Traced {
    value: Vec<u8>,
    received: usize,
}

/// Returns the answers to puts that left before the sync of that put, and the number of all
/// answers.
fn early_answers(calls: &[Call]) -> (Vec<String>, usize) {
    let mut puts: HashMap<u64, Traced> = HashMap::new();
    let mut attempts: HashMap<u64, u64> = HashMap::new();
    let (mut early, mut answers) = (Vec::new(), 0);
    for call in calls {
        if call.name.starts_with("recv") {
            for body in frames(call, kind::REQUEST) {
                let request: Request = wire::decode(body).expect("the client's");
                let sequence = request.operation.id.sequence;
                if let Action::Put { value } = request.operation.action {
                    attempts.insert(request.attempt, sequence);
                    let received = call.ended;
                    let value = value.to_vec();
                    puts.entry(sequence).or_insert(Traced { value, received });
                }
            }
        } else if call.name.starts_with("send") {
            for body in frames(call, kind::ANSWER) {
                let answer: Answer = wire::decode(body).expect("the node's");
                let Some(sequence) = attempts.get(&answer.attempt) else {
                    continue;
                };
                assert!(
                    matches!(answer.outcome, Outcome::Written { .. }),
                    "{answer:?}"
                );
                answers += 1;
                if !is_synced(calls, &puts[sequence], call.began) {
                    early.push(format!(
                        "put {sequence}, answered at line {}",
                        call.began + 1
                    ));
                }
            }
        }
    }
    assert_eq!(puts.len(), PUTS, "requests in the trace");
    (early, answers)
}

/// Whether, between these times, the value was written to a file, and that file then synced.
fn is_synced(calls: &[Call], put: &Traced, answered: usize) -> bool {
    let between = |call: &&Call| call.began > put.received && call.ended < answered;
    let holds_value = |call: &Call| {
        let mut strings = call.strings.iter();
        strings.any(|s| s.windows(put.value.len()).any(|part| part == put.value))
    };
    let mut writes = calls.iter().filter(between).filter(|call| {
        let is_write = call.name.contains("write");
        is_write && call.result.is_some_and(|result| result > 0) && holds_value(call)
    });
    writes.any(|write| {
        let mut later = calls
            .iter()
            .filter(between)
            .filter(|c| c.began > write.ended);
        later.any(|call| {
            let is_sync = call.name == "fsync" || call.name == "fdatasync";
            is_sync && call.result == Some(0) && call.descriptor == write.descriptor
        })
    })
}

#[test]
fn no_answer_leaves_before_the_sync_of_its_write() {
    if !can_trace("R2's trace of system calls") {
        return;
    }
    let (early, answers) = early_answers(&traced_puts(Keep::Fsync));
    assert!(answers >= PUTS, "{answers} answers in the trace");
    assert!(early.is_empty(), "before its sync: {early:#?}");

    // Shows that the trace would reveal an early answer: a node that need not sync does answer
    // earlier.
    let (early, answers) = early_answers(&traced_puts(Keep::Os));
    assert!(
        early.len() > answers / 2,
        "{} of {answers} before a sync",
        early.len()
    );
}
