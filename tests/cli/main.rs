//! The command line as scripts see it: exit status, standard output, standard error. The tests use
//! real nodes if those can be brought into the state in question, otherwise nodes that only
//! implement the protocol.

#[allow(dead_code)] // the tests of whole clusters use the rest of it
#[path = "../cluster/nodes.rs"]
mod nodes;

mod bench;
mod failures;
mod fake;
mod file;
mod lock;
mod member;
mod operations;
mod shell;
mod status;
mod transactions;
mod watch;
mod words;
