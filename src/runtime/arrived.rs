//! The datagrams that were received and not handled yet. Those of nodes are handled first.
//!
//! A round needs several messages, each of which would wait behind all requests that arrived before
//! it. With many clients the rounds would take so long that they are repeated, and the node would
//! begin more than it finishes. So each turn of the loop handles all datagrams of nodes, and then
//! those of others, as many as it has time for. The rest waits here, and not in the socket's
//! receive buffer, where the next datagrams of nodes would wait behind it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::decode::Source;
use super::tally::{Cause, Tally};
use crate::gateway::text;

/// Datagrams in one batch.
pub const RECEIVE_BATCH_MAX: usize = 64;
/// Above the largest UDP payload, so that no datagram is truncated.
pub const RECEIVE_SIZE_MAX: usize = 65_536;
/// The memory for datagrams that wait for a later turn. Further ones are dropped and counted.
pub const WAITING_SIZE_MAX: usize = 4 << 20;
/// What one of these takes besides its bytes.
const OVERHEAD: usize = 96;
/// One that has waited for this long is dropped and counted: its client waits no more, or has asked
/// another node.
const WAIT_MAX_US: u64 = 1_000_000;
/// The same of a text datagram: the promises for these depend on how old they are (X1).
const TEXT_WAIT_MAX_US: u64 = 100_000;

/// A datagram in the memory of the last batch.
#[derive(Debug, Clone, Copy)]
struct InBatch {
    place: usize,
    size: usize,
    from: Source,
}

#[derive(Debug)]
struct WaitingDatagram {
    bytes: Vec<u8>,
    from: Source,
    received_us: u64,
}

#[derive(Debug)]
pub struct Arrived {
    memory: Vec<u8>,
    /// Of the last batch, in order.
    fresh: VecDeque<InBatch>,
    /// Of the last batch: those that are not of nodes.
    others: VecDeque<InBatch>,
    /// Those of earlier batches, none of them of a node.
    waiting: VecDeque<WaitingDatagram>,
    /// The memory that `waiting` takes.
    waiting_size: usize,
    /// When the last batch was received.
    batch_us: u64,
    /// The one of `waiting` that was popped last.
    popped: Vec<u8>,
    /// How many of `waiting` were dropped since the caller asked.
    lost: u64,
}

impl Default for Arrived {
    fn default() -> Self {
        Arrived {
            memory: vec![0; RECEIVE_BATCH_MAX * RECEIVE_SIZE_MAX],
            fresh: VecDeque::new(),
            others: VecDeque::new(),
            waiting: VecDeque::new(),
            waiting_size: 0,
            batch_us: 0,
            popped: Vec::new(),
            lost: 0,
        }
    }
}

impl Arrived {
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.others.is_empty() && self.waiting.is_empty()
    }

    /// Frees the buffers for the batch that is received now: what is still in them waits elsewhere.
    /// All datagrams of nodes must have been popped.
    pub fn make_room(&mut self, now_us: u64, tally: &mut Tally) {
        assert!(self.fresh.is_empty(), "nodes' datagrams do not wait");
        while let Some(InBatch { place, size, from }) = self.others.pop_front() {
            if self.waiting_size + size + OVERHEAD > WAITING_SIZE_MAX {
                self.lost += 1;
                tally.count(Cause::ReceiveOverflow);
                continue;
            }
            let at = place * RECEIVE_SIZE_MAX;
            self.waiting_size += size + OVERHEAD;
            self.waiting.push_back(WaitingDatagram {
                bytes: self.memory[at..at + size].to_vec(),
                from,
                received_us: self.batch_us,
            });
        }
        self.batch_us = now_us;
    }

    /// The buffers of the next batch.
    pub fn buffers(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.memory.chunks_exact_mut(RECEIVE_SIZE_MAX)
    }

    /// The buffer with that index has received a datagram.
    pub fn add(&mut self, place: usize, size: usize, from: Source) {
        self.fresh.push_back(InBatch { place, size, from });
    }

    /// The next datagram of a node.
    pub fn pop_of_node(
        &mut self,
        mut is_nodes: impl FnMut(SocketAddr) -> bool,
    ) -> Option<(&[u8], Source)> {
        while let Some(next) = self.fresh.pop_front() {
            if is_nodes(next.from.address) {
                return Some(self.bytes(next));
            }
            self.others.push_back(next);
        }
        None
    }

    /// The next of the others, the oldest one first.
    pub fn pop(&mut self, now_us: u64, tally: &mut Tally) -> Option<(&[u8], Source)> {
        while let Some(next) = self.waiting.pop_front() {
            self.waiting_size -= next.bytes.len() + OVERHEAD;
            let waited_us = now_us.saturating_sub(next.received_us);
            let is_text = text::is_text(&next.bytes);
            let (wait_max_us, cause) = match is_text {
                true => (TEXT_WAIT_MAX_US, Cause::TextBusy),
                false => (WAIT_MAX_US, Cause::ReceiveOverflow),
            };
            if waited_us <= wait_max_us {
                self.popped = next.bytes;
                return Some((&self.popped, next.from));
            }
            self.lost += 1;
            tally.count(cause);
        }
        let next = self.others.pop_front().or_else(|| self.fresh.pop_front())?;
        Some(self.bytes(next))
    }

    /// How long the oldest one has waited here.
    pub fn waited_us(&self, now_us: u64) -> u64 {
        let oldest_us = match self.waiting.front() {
            Some(oldest) => oldest.received_us,
            None if self.others.is_empty() => now_us,
            None => self.batch_us,
        };
        now_us.saturating_sub(oldest_us)
    }

    /// How many were dropped here since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    fn bytes(&self, InBatch { place, size, from }: InBatch) -> (&[u8], Source) {
        let at = place * RECEIVE_SIZE_MAX;
        (&self.memory[at..at + size], from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: u16 = 1;

    fn from(port: u16) -> Source {
        Source {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            is_own_machine: true,
        }
    }

    /// A batch of datagrams of one byte, which is the port of their source.
    fn receive(arrived: &mut Arrived, now_us: u64, ports: &[u16], tally: &mut Tally) {
        arrived.make_room(now_us, tally);
        let bytes = arrived.buffers().zip(ports);
        bytes.for_each(|(buffer, port)| buffer[0] = *port as u8);
        for (place, port) in ports.iter().enumerate() {
            arrived.add(place, 1, from(*port));
        }
    }

    fn nodes(arrived: &mut Arrived) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some((bytes, from)) = arrived.pop_of_node(|at| at.port() == NODE) {
            assert_eq!(from.address.port(), NODE);
            all.push(bytes[0]);
        }
        all
    }

    fn others(arrived: &mut Arrived, now_us: u64, count: usize, tally: &mut Tally) -> Vec<u8> {
        let next = |_| arrived.pop(now_us, tally).map(|(bytes, _)| bytes[0]);
        (0..count).map_while(next).collect()
    }

    #[test]
    fn nodes_come_first_and_the_others_in_order_over_several_batches() {
        let (mut arrived, mut tally) = (Arrived::default(), Tally::default());
        receive(&mut arrived, 10, &[2, 3, NODE, 4, NODE], &mut tally);
        assert_eq!(nodes(&mut arrived), [1, 1]);
        assert_eq!(others(&mut arrived, 10, 1, &mut tally), [2]);
        assert_eq!(arrived.waited_us(10), 0);
        receive(&mut arrived, 30, &[5, NODE, 6], &mut tally);
        assert_eq!(arrived.waited_us(40), 30);
        assert_eq!(nodes(&mut arrived), [1]);
        assert_eq!(others(&mut arrived, 40, 9, &mut tally), [3, 4, 5, 6]);
        assert_eq!((arrived.waited_us(40), arrived.waiting_size), (0, 0));
        assert!(arrived.is_empty() && tally.total() == 0);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_too_much_is_counted() {
        let (mut arrived, mut tally) = (Arrived::default(), Tally::default());
        let ports = [2; RECEIVE_BATCH_MAX];
        let mut received = 0;
        while tally.total() == 0 {
            receive(&mut arrived, 0, &ports, &mut tally);
            received += RECEIVE_BATCH_MAX as u64;
            assert!(nodes(&mut arrived).is_empty());
            assert!(arrived.waiting_size <= WAITING_SIZE_MAX);
        }
        arrived.make_room(0, &mut tally);
        let lost = tally.of(Cause::ReceiveOverflow);
        assert_eq!(arrived.take_lost(), lost);
        assert_eq!(arrived.take_lost(), 0);
        assert_eq!(arrived.waiting.len() as u64, received - lost);
    }

    #[test]
    fn what_waits_for_too_long_is_dropped_and_a_text_earlier() {
        let (mut arrived, mut tally) = (Arrived::default(), Tally::default());
        let texts: &[&[u8]] = &[b"GET a 1", b"\x01", b"GET b 2"];
        for (now_us, bytes) in [0, 0, 1].into_iter().zip(texts) {
            arrived.make_room(now_us, &mut tally);
            arrived.buffers().next().unwrap()[..bytes.len()].copy_from_slice(bytes);
            arrived.add(0, bytes.len(), from(2));
            assert!(nodes(&mut arrived).is_empty());
        }
        arrived.make_room(1, &mut tally);
        assert!(text::is_text(texts[0]) && !text::is_text(texts[1]));
        let mut pop = |now_us| arrived.pop(now_us, &mut tally).map(|(bytes, _)| bytes[0]);
        assert_eq!(
            pop(TEXT_WAIT_MAX_US + 1),
            Some(1),
            "the first text is too old"
        );
        assert_eq!(pop(TEXT_WAIT_MAX_US + 1), Some(b'G'));
        assert_eq!((tally.of(Cause::TextBusy), arrived.take_lost()), (1, 1));
        receive(&mut arrived, 0, &[7, 8], &mut tally);
        assert!(nodes(&mut arrived).is_empty());
        arrived.make_room(0, &mut tally);
        assert_eq!(others(&mut arrived, WAIT_MAX_US, 1, &mut tally), [7]);
        assert!(others(&mut arrived, WAIT_MAX_US + 1, 1, &mut tally).is_empty());
        assert_eq!(tally.of(Cause::ReceiveOverflow), 1);
    }
}
