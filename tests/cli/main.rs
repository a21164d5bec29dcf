//! The command line as scripts see it: exit status, standard output, standard error. Against real
//! nodes where these can be brought to show it, else against nodes that only speak the protocol.

#[allow(dead_code)] // tests of whole clusters use the rest of it
#[path = "../cluster/nodes.rs"]
mod nodes;

mod bench;
mod failures;
mod fake;
mod file;
mod member;
mod operations;
mod shell;
mod status;
mod words;
