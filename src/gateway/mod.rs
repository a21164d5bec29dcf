//! Protocols other than the project's own, as thin mappings onto operations. Pure: bytes in, bytes
//! out; the caller has the socket.

pub mod text;
