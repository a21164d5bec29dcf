//! What `serve --http` shows: real nodes are asked over HTTP, and what they say is compared with what
//! was done to them, with docs/operations.md, and with the files in ops/.

#[path = "../cluster/clients.rs"]
#[allow(dead_code)] // Not all of it is needed here.
mod clients;
mod documents;
#[path = "../cluster/nodes.rs"]
#[allow(dead_code)] // Not all of it is needed here.
mod nodes;
mod page;
mod prometheus;
mod values;
