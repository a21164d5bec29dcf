//! Other ways in: protocols that are not the project's own, as thin maps onto operations. Pure: bytes
//! in, bytes out; whoever calls has the socket.

pub mod text;
