//! The pages of `serve --http`: the tests query real nodes over HTTP, and compare the answers with
//! the operations that were run, with docs/operations.md, and with the files in ops/.

#[path = "../cluster/clients.rs"]
#[allow(dead_code)] // these tests do not need all of it
mod clients;
mod documents;
#[path = "../cluster/nodes.rs"]
#[allow(dead_code)] // these tests do not need all of it
mod nodes;
mod page;
mod prometheus;
mod top;
mod values;
