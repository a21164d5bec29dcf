//! The scopes that are searched. Node 0 is the master, and the key's preferred coordinator.

use wire::Action;

use super::scope::{Change, Held, Plan, Scope, appends, ask};
use crate::sim::script::{append, put, swap};

const GET: Action = Action::Get;

/// Node 0 is not reachable for node 1, so node 1 coordinates itself.
fn apart(scope: Scope) -> Scope {
    let unheard = vec![(1, 0)];
    Scope { unheard, ..scope }
}

/// A write, and two reads one after the other: the first one at the writer's node, the other at
/// another node.
pub fn reads() -> Scope {
    let get_twice = [ask(GET, &[2]), ask(GET, &[1]).after(1)];
    let plans = [vec![ask(put("a"), &[0])], get_twice.to_vec()].concat();
    Scope::new(3, plans)
}

/// The same, and a node repeats its request.
pub fn reads_that_wait() -> Scope {
    Scope {
        timers: 1,
        ..reads()
    }
}

/// A quorum is the master with one other node, or all the others.
pub fn reads_of_four() -> Scope {
    Scope {
        nodes: 4,
        ..reads()
    }
}

/// Two coordinators of one key, either of which may lose.
pub fn duel() -> Scope {
    let plans = vec![ask(append("a"), &[0]), ask(append("b"), &[1])];
    let scope = Scope::new(3, plans);
    apart(Scope { timers: 1, ..scope })
}

/// One of them uses short rounds.
pub fn duel_with_short_rounds() -> Scope {
    let twice = [ask(append("a"), &[0]), ask(append("b"), &[0]).after(0)];
    let plans = [twice.to_vec(), vec![ask(append("c"), &[1])]].concat();
    apart(Scope::new(3, plans))
}

/// One of them, or another node, receives nothing any more.
pub fn duel_and_silence() -> Scope {
    Scope {
        timers: 0,
        silences: 1,
        ..duel()
    }
}

/// A write is retried through another node, and an attempt arrives after its client has moved on.
pub fn stragglers() -> Scope {
    let next = ask(append("b"), &[0]).after(0);
    apart(Scope::new(3, vec![ask(append("a"), &[0, 1]), next]))
}

/// An attempt that finds another value than it expects, and one that would find the expected value,
/// later.
pub fn attempts_that_change_nothing() -> Scope {
    let tried_again = ask(swap("b", "a"), &[0, 0]);
    let other = [ask(put("b"), &[0]), ask(GET, &[0]).after(1)];
    Scope::new(3, [vec![tried_again], other.to_vec()].concat())
}

/// Operations that wait for the same key run in one round.
pub fn combined() -> Scope {
    let plans = [append("a"), append("b"), append("c")].map(|action| ask(action, &[0]));
    Scope::new(3, plans.to_vec())
}

/// A write is forwarded to the preferred node, reclaimed, and executed there all the same.
pub fn forwards() -> Scope {
    let plans = vec![ask(append("a"), &[1]), ask(GET, &[2])];
    Scope {
        timers: 1,
        duplicates: 1,
        ..Scope::new(3, plans)
    }
}

/// A node loses what it had not synced, and restarts.
pub fn slow_disks() -> Scope {
    let plans = vec![ask(put("a"), &[0]), ask(GET, &[1])];
    Scope {
        restarts: 1,
        slow_disks: true,
        ..Scope::new(3, plans)
    }
}

/// A coordinator restarts without its round, and starts another.
pub fn restarted_writer() -> Scope {
    let plans = vec![ask(append("a"), &[0]), ask(append("b"), &[0])];
    Scope {
        restarts: 1,
        ..Scope::new(3, plans)
    }
}

/// A reader restarts without its round, and answers to that round arrive during another.
pub fn restarted_reader() -> Scope {
    let plans = vec![ask(put("a"), &[0]), ask(GET, &[1]), ask(GET, &[1])];
    Scope {
        restarts: 1,
        ..Scope::new(3, plans)
    }
}

/// In a cluster of two nodes the master alone is a quorum.
pub fn two_nodes() -> Scope {
    let plans = vec![
        ask(append("a"), &[0, 1]),
        ask(append("b"), &[1]),
        ask(GET, &[1]),
    ];
    Scope::new(2, plans)
}

/// The same, and either node may restart.
pub fn two_nodes_and_restart() -> Scope {
    Scope {
        restarts: 1,
        ..two_nodes()
    }
}

/// Two writes, and reads one after the other.
pub fn reads_of_two_writes() -> Scope {
    let writes = [ask(put("a"), &[0]), ask(put("b"), &[0]).after(0)];
    let get_twice = [ask(GET, &[2]), ask(GET, &[1]).after(2)];
    Scope::new(3, [writes, get_twice].concat())
}

/// Node 2 is removed, and node 1 becomes the master, so that it alone is a quorum of the new two.
/// Node 0 is not reachable for node 1. Node 0's clock is ahead, and it learns of the change late or
/// never, and only after its completion.
fn master_moves(plans: Vec<Plan>) -> Scope {
    apart(Scope {
        change: Some(Change {
            old: vec![0, 1, 2],
            new: vec![1, 0],
            told: vec![1, 2],
            skips: Some(0),
        }),
        prompt: true,
        ahead: Some(0),
        ..Scope::new(3, plans)
    })
}

/// A write by the old master and one by the new, in any epoch.
pub fn change_under_writes() -> Scope {
    let held = [0, 1, 2].map(|node| Held {
        node,
        value: "0",
        age_ms: 60_000,
    });
    Scope {
        held: held.to_vec(),
        ..master_moves(vec![ask(append("a"), &[0]), ask(append("b"), &[1])])
    }
}

/// A late write by the old master, from the old epoch, arrives after one by the new.
pub fn change_and_straggler() -> Scope {
    let mut scope = change_under_writes();
    scope.plans[1] = scope.plans[1].clone().in_epoch(3);
    scope
}

/// A write by the old master, and a read by the new one, in any epoch. Messages about the change
/// are late or lost.
pub fn change_under_reads() -> Scope {
    Scope {
        prompt: false,
        ..master_moves(vec![ask(put("a"), &[0]), ask(GET, &[1])])
    }
}

/// Node 2 comes back with a value that the others have purged, and the key is read there: a cluster
/// of two becomes one of three.
pub fn admission() -> Scope {
    Scope {
        change: Some(Change {
            old: vec![0, 1],
            new: vec![0, 1, 2],
            told: vec![0, 1, 2],
            skips: None,
        }),
        held: vec![Held {
            node: 2,
            value: "forgotten",
            age_ms: 60_000,
        }],
        ..Scope::new(3, vec![ask(GET, &[2])])
    }
}

/// A delete is purged, and the earlier write is retried, or its messages arrive late. In the
/// cluster of two the master alone is a quorum.
pub fn purge() -> Scope {
    let write = ask(append("a"), &[0, 1]);
    let delete = ask(Action::Delete, &[0]).after(0);
    let read = ask(GET, &[1]).after(1);
    Scope {
        purges: 1,
        ..Scope::new(2, vec![write, delete, read])
    }
}

/// A transaction over two keys at node 1, and reads of them one after the other. In the cluster of
/// two the master alone is a quorum, so only the transaction's messages have an order.
pub fn transaction_and_reads() -> Scope {
    let transaction = appends(2, &[1, 0], "a", &[1]);
    let reads = [ask(GET, &[0]), ask(GET, &[0]).after(1).on_key(1)];
    Scope::new(2, [vec![transaction], reads.to_vec()].concat())
}

/// Its coordinator, or the other node, restarts at any moment.
pub fn transaction_and_restart() -> Scope {
    Scope {
        restarts: 1,
        ..transaction_and_reads()
    }
}

/// A transaction is retried through another node.
pub fn transaction_retried() -> Scope {
    let transaction = appends(2, &[1, 0], "a", &[1, 0]);
    let plans = vec![transaction, ask(GET, &[0])];
    Scope::new(2, plans)
}

/// Two transactions meet at one key. The older one aborts the other.
pub fn transactions_that_meet() -> Scope {
    let plans = vec![appends(2, &[0], "a", &[0]), appends(2, &[0], "b", &[1])];
    Scope::new(2, plans)
}

/// A write meets a transaction's intent.
pub fn transaction_and_write() -> Scope {
    let plans = vec![
        appends(2, &[1, 0], "a", &[1]),
        ask(append("b"), &[0]),
        ask(GET, &[0]).after(1).on_key(1),
    ];
    Scope::new(2, plans)
}

/// The same, and the coordinator of the transaction may restart.
pub fn transaction_write_and_restart() -> Scope {
    Scope {
        restarts: 1,
        ..transaction_and_write()
    }
}

/// The configuration changes while a transaction runs: the master moves from node 0 to node 1.
pub fn transaction_and_change() -> Scope {
    let plans = vec![appends(2, &[1], "a", &[1])];
    Scope {
        change: Some(Change {
            old: vec![0, 1],
            new: vec![1, 0],
            told: vec![0, 1],
            skips: None,
        }),
        prompt: true,
        ..Scope::new(2, plans)
    }
}
