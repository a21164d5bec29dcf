//! Packs outgoing frames: those for one address share datagrams, which leave in batches.
//!
//! A datagram costs several times what another frame in it costs, so all frames for one address in
//! one iteration of the loop travel together. This module owns the queue of datagrams and its
//! bounds; the socket is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use foldhash::fast::RandomState;
use wire::datagram::{
    DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_MAX, DATAGRAM_SIZE_TARGET, DATAGRAM_SIZE_TARGET_LOOPBACK,
    DatagramHeader, DatagramWriter, FRAME_HEADER_SIZE, FrameHeader,
};
use wire::parts;
use wire::transfer::TRANSFER_PIECE;

use super::tally::{Cause, Tally};
use crate::protocol::types::message::{Message, Probe};

/// The most datagrams in one system call.
pub const SEND_BATCH_MAX: usize = 64;
/// The bounds of the queue of datagrams that wait while the socket's send buffer is full.
const QUEUE_LENGTH_MAX: usize = 16_384;
pub const QUEUE_SIZE_MAX: usize = 8 << 20;
/// Up to this many empty buffers are kept for reuse, if they are no larger than this.
pub const SPARES_MAX: usize = 64;
pub const SPARE_SIZE_MAX: usize = 2 * DATAGRAM_SIZE_TARGET_LOOPBACK;

/// A datagram that is ready to leave.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub to: SocketAddr,
    pub bytes: &'a [u8],
    /// It is large, and IP may cut it into fragments.
    pub may_be_cut: bool,
}

/// Why a batch was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// The socket's send buffer is full.
    Full,
    /// The first of the batch cannot be sent.
    Refused(Cause),
}

/// The header fields that all datagrams of a node carry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sender {
    pub node: u8,
    pub cluster: u64,
    pub boot: u64,
}

#[derive(Debug)]
struct Parcel {
    to: SocketAddr,
    content: Content,
    /// Whether IP may cut it into fragments: nothing smaller can take its place.
    may_be_cut: bool,
}

impl Parcel {
    /// Only transfers, which try what gets through, and what IP may cut are so large.
    fn is_larger_than_usual(&self) -> bool {
        !self.to.ip().is_loopback() && self.content.size() > DATAGRAM_SIZE_TARGET
    }
}

#[derive(Debug)]
enum Content {
    Frames(DatagramWriter),
    /// A whole datagram of another protocol.
    Plain(Vec<u8>),
}

impl Content {
    fn size(&self) -> usize {
        match self {
            Content::Frames(writer) => writer.size(),
            Content::Plain(bytes) => bytes.len(),
        }
    }
}

/// Datagrams that are being filled or wait to leave, first in, first out.
#[derive(Debug, Default)]
pub struct Packer {
    queue: VecDeque<Parcel>,
    /// Bytes in the queue.
    size: usize,
    /// Bytes that were ever put in it.
    pushed: u64,
    /// How many datagrams have left the queue: the index of one in the queue is its ordinal minus
    /// this.
    left: u64,
    /// The ordinal of the datagram that takes more frames, by destination.
    open: HashMap<SocketAddr, u64, RandomState>,
    spares: Vec<DatagramWriter>,
    /// The number of the last sealed datagram.
    number: u64,
    /// The number of the last frame that was cut into parts.
    parts_number: u64,
}

impl Packer {
    /// Frames that are cut into parts are numbered from `parts_number` on, so that the numbers
    /// differ from those before a restart.
    pub fn new(parts_number: u64) -> Self {
        Packer {
            parts_number,
            ..Packer::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Datagrams that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that wait.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of all frames and plain datagrams since the start.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Adds a frame. At the queue's bound it is dropped and counted.
    pub fn push(
        &mut self,
        to: SocketAddr,
        mut header: FrameHeader,
        tally: &mut Tally,
        body: &[u8],
    ) {
        if self.is_full() {
            return tally.count(Cause::SendOverflow);
        }
        let size = FRAME_HEADER_SIZE + body.len();
        if DATAGRAM_HEADER_SIZE + size > DATAGRAM_SIZE_MAX {
            return tally.count_too_large(Message::name_of(header.kind), size);
        }
        // A probe is never cut here: it measures what happens to large datagrams. A transfer tries
        // which datagrams get through.
        let is_piece = header.flags & (parts::PART | TRANSFER_PIECE) != 0;
        let is_whole = is_piece || header.kind == Probe::KIND;
        if is_whole || to.ip().is_loopback() || !parts::is_cut(body) {
            self.put(to, &header, body);
        } else {
            header.flags |= parts::PART;
            self.parts_number = self.parts_number.wrapping_add(1);
            for part in parts::cut(body, self.parts_number) {
                self.put(to, &header, &part);
            }
        }
    }

    fn put(&mut self, to: SocketAddr, header: &FrameHeader, body: &[u8]) {
        let size = FRAME_HEADER_SIZE + body.len();
        let at = self.place(to, size);
        self.queue[at].may_be_cut |= header.kind == Probe::KIND;
        let Content::Frames(writer) = &mut self.queue[at].content else {
            unreachable!("a place for frames");
        };
        let before = writer.size();
        writer.push(header, body);
        self.size += writer.size() - before;
        self.pushed += size as u64;
    }

    /// Adds a datagram that is sent unchanged: without a header, and with nothing else in it. At
    /// the queue's bound it is dropped and counted.
    pub fn push_plain(&mut self, to: SocketAddr, bytes: Vec<u8>, tally: &mut Tally) {
        assert!(bytes.len() <= DATAGRAM_SIZE_MAX, "a datagram of its own");
        if self.is_full() {
            return tally.count(Cause::SendOverflow);
        }
        self.size += bytes.len();
        self.pushed += bytes.len() as u64;
        let content = Content::Plain(bytes);
        self.queue.push_back(Parcel {
            to,
            content,
            may_be_cut: true,
        });
    }

    fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_LENGTH_MAX || self.size >= QUEUE_SIZE_MAX
    }

    /// The index in the queue of the datagram for a frame of this size.
    fn place(&mut self, to: SocketAddr, size: usize) -> usize {
        let target = if to.ip().is_loopback() {
            DATAGRAM_SIZE_TARGET_LOOPBACK
        } else {
            DATAGRAM_SIZE_TARGET
        };
        let alone = DATAGRAM_HEADER_SIZE + size > target;
        if !alone && let Some(&ordinal) = self.open.get(&to) {
            let at = usize::try_from(ordinal - self.left).expect("a place in the queue");
            if self.queue[at].content.size() + size <= target {
                return at;
            }
        }
        let at = self.queue.len();
        if !alone {
            self.open.insert(to, self.left + at as u64);
        }
        let writer = self.spares.pop().unwrap_or_default();
        self.size += writer.size();
        let content = Content::Frames(writer);
        self.queue.push_back(Parcel {
            to,
            content,
            may_be_cut: false,
        });
        at
    }

    /// Sends what waits, in batches. `false` if the socket's send buffer is full: the rest keeps
    /// waiting.
    pub fn flush(
        &mut self,
        sender: Sender,
        tally: &mut Tally,
        send: &mut dyn FnMut(&[Outgoing<'_>]) -> Result<usize, SendError>,
    ) -> bool {
        self.open.clear();
        while !self.queue.is_empty() {
            let number = &mut self.number;
            let batch: Vec<Outgoing<'_>> = self
                .queue
                .iter_mut()
                .take(SEND_BATCH_MAX)
                .map(|parcel| Outgoing {
                    to: parcel.to,
                    may_be_cut: parcel.may_be_cut && parcel.is_larger_than_usual(),
                    bytes: seal(&mut parcel.content, sender, number),
                })
                .collect();
            match send(&batch) {
                Ok(sent) => self.drop_front(sent),
                Err(SendError::Full) => return false,
                Err(SendError::Refused(cause)) => {
                    let is_trial = self.queue[0].is_larger_than_usual();
                    if cause != Cause::SendTooBig || !is_trial {
                        tally.count(cause);
                    }
                    self.drop_front(1);
                }
            }
        }
        true
    }

    fn drop_front(&mut self, many: usize) {
        for parcel in self.queue.drain(..many) {
            let size = parcel.content.size();
            self.size -= size;
            self.left += 1;
            if let Content::Frames(mut writer) = parcel.content
                && self.spares.len() < SPARES_MAX
                && size <= SPARE_SIZE_MAX
            {
                writer.clear();
                self.spares.push(writer);
            }
        }
    }
}

/// A datagram that has to wait is sealed again, with a new number, when it is retried.
fn seal<'a>(content: &'a mut Content, sender: Sender, number: &mut u64) -> &'a [u8] {
    let writer = match content {
        Content::Frames(writer) => writer,
        Content::Plain(bytes) => return bytes,
    };
    *number += 1;
    writer.seal(&DatagramHeader {
        sender: sender.node,
        cluster: sender.cluster,
        boot: sender.boot,
        number: *number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::datagram;

    const SENDER: Sender = Sender {
        node: 3,
        cluster: 4,
        boot: 5,
    };

    fn far(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 7_000))
    }

    fn near() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7_000))
    }

    fn push(packer: &mut Packer, to: SocketAddr, id: u64, size: usize, tally: &mut Tally) {
        let header = FrameHeader {
            kind: 9,
            message_id: id,
            ..FrameHeader::default()
        };
        packer.push(to, header, tally, &vec![1; size]);
    }

    /// The datagrams that left: destination, size, ids of the frames.
    type Sent = Vec<(SocketAddr, usize, Vec<u64>)>;

    fn note(sent: &mut Sent, outgoing: &Outgoing<'_>) {
        let (header, frames) = datagram::open(outgoing.bytes).unwrap();
        assert_eq!((header.sender, header.cluster, header.boot), (3, 4, 5));
        let ids = frames.map(|frame| frame.unwrap().header.message_id);
        sent.push((outgoing.to, outgoing.bytes.len(), ids.collect()));
    }

    fn flush(packer: &mut Packer) -> Sent {
        let mut sent = Vec::new();
        packer.flush(SENDER, &mut Tally::default(), &mut |batch| {
            assert!(batch.len() <= SEND_BATCH_MAX);
            batch.iter().for_each(|one| note(&mut sent, one));
            Ok(batch.len())
        });
        sent
    }

    #[test]
    fn frames_to_one_address_share_datagrams_up_to_the_target() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        for id in 0..30 {
            push(&mut packer, far(1 + (id % 2) as u8), id, 64, &mut tally);
        }
        let sent = flush(&mut packer);
        let ids: Vec<_> = sent.iter().map(|(to, _, ids)| (*to, ids.len())).collect();
        assert_eq!(
            ids,
            [(far(1), 11), (far(2), 11), (far(1), 4), (far(2), 4)],
            "11 frames of 100 bytes and a header of 44 are within 1,200"
        );
        assert!(packer.is_empty() && packer.size == 0);
        assert_eq!(tally.total(), 0);
    }

    #[test]
    fn a_plain_datagram_goes_as_it_is() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        push(&mut packer, far(1), 1, 10, &mut tally);
        packer.push_plain(far(1), b"OK [5] []".to_vec(), &mut tally);
        push(&mut packer, far(1), 2, 10, &mut tally);
        let mut plain = Vec::new();
        let mut sent = Vec::new();
        packer.flush(SENDER, &mut tally, &mut |batch| {
            for one in batch {
                if one.bytes.starts_with(b"OK") {
                    plain.push((one.to, one.bytes.to_vec()));
                } else {
                    note(&mut sent, one);
                }
            }
            Ok(batch.len())
        });
        assert_eq!(plain, [(far(1), b"OK [5] []".to_vec())]);
        assert_eq!((sent.len(), &sent[0].2), (1, &vec![1, 2]));
        assert_eq!((packer.size, packer.spares.len(), tally.total()), (0, 1, 0));

        for _ in 0..20_000 {
            packer.push_plain(far(1), b"FL [5]".to_vec(), &mut tally);
        }
        assert_eq!(packer.len(), QUEUE_LENGTH_MAX);
        let refused = 20_000 - QUEUE_LENGTH_MAX as u64;
        assert_eq!(tally.of(Cause::SendOverflow), refused);
    }

    #[test]
    fn loopback_takes_larger_datagrams() {
        let mut packer = Packer::default();
        for id in 0..100 {
            push(&mut packer, near(), id, 64, &mut Tally::default());
        }
        let sent = flush(&mut packer);
        assert_eq!(sent.len(), 1);
    }

    #[test]
    fn at_loopback_a_frame_over_the_target_travels_alone_and_one_over_the_limit_not_at_all() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        push(&mut packer, near(), 1, 10, &mut tally);
        push(&mut packer, near(), 2, 50_000, &mut tally);
        push(&mut packer, near(), 3, 10, &mut tally);
        push(&mut packer, near(), 4, DATAGRAM_SIZE_MAX - 79, &mut tally);
        push(&mut packer, near(), 5, DATAGRAM_SIZE_MAX - 80, &mut tally);
        let ids: Vec<_> = flush(&mut packer).into_iter().map(|sent| sent.2).collect();
        assert_eq!(ids, [vec![1, 3], vec![2], vec![5]]);
        assert_eq!(tally.of(Cause::SendTooBig), 1);
        let line = tally.report(1).expect("it is logged");
        assert!(
            line.contains("too large to be sent (a message to a client, 65464 bytes): 1"),
            "{line}"
        );
    }

    /// A transfer tries larger datagrams. The system refuses what its interface does not take.
    #[test]
    fn a_piece_of_a_transfer_is_not_cut_and_its_refusal_is_not_reported() {
        let (mut packer, mut tally) = (Packer::default(), Tally::default());
        let header = FrameHeader {
            kind: 9,
            flags: TRANSFER_PIECE,
            ..FrameHeader::default()
        };
        let probe = FrameHeader {
            kind: Probe::KIND,
            ..FrameHeader::default()
        };
        packer.push(far(1), header, &mut tally, &[1; 1_392]);
        packer.push(far(1), probe, &mut tally, &[1; 1_392]);
        packer.push_plain(far(1), vec![1; 1_300], &mut tally);
        packer.push_plain(far(1), vec![1; 1_200], &mut tally);
        packer.push_plain(near(), vec![1; 1_300], &mut tally);
        let mut left = Vec::new();
        packer.flush(SENDER, &mut tally, &mut |batch| {
            if left.is_empty() {
                left = batch
                    .iter()
                    .map(|one| (one.bytes.len(), one.may_be_cut))
                    .collect();
            }
            Err(SendError::Refused(Cause::SendTooBig))
        });
        let expected = [
            (1_472, false),
            (1_472, true),
            (1_300, true),
            (1_200, false),
            (1_300, false),
        ];
        assert_eq!(left, expected);
        assert_eq!(tally.of(Cause::SendTooBig), 2);
    }

    /// Networks drop what IP would cut into fragments.
    #[test]
    fn elsewhere_no_datagram_is_larger_than_the_target_and_all_parts_leave() {
        let mut packer = Packer::new(u64::MAX);
        let mut tally = Tally::default();
        let sizes = [10, 1_120, 1_121, 5_000, DATAGRAM_SIZE_MAX - 80];
        for (id, size) in sizes.into_iter().enumerate() {
            push(&mut packer, far(1), id as u64, size, &mut tally);
        }
        push(&mut packer, far(1), 9, DATAGRAM_SIZE_MAX - 79, &mut tally);
        assert_eq!(tally.of(Cause::SendTooBig), 1);
        let mut joiner = parts::Joiner::default();
        let mut got = Vec::new();
        packer.flush(SENDER, &mut tally, &mut |batch| {
            for one in batch {
                assert!(
                    one.bytes.len() <= DATAGRAM_SIZE_TARGET,
                    "{}",
                    one.bytes.len()
                );
                for frame in datagram::open(one.bytes).unwrap().1.map(Result::unwrap) {
                    let (id, is_part) =
                        (frame.header.message_id, frame.header.flags == parts::PART);
                    let whole = match is_part {
                        true => joiner
                            .take(0, (1, 0), frame.header.kind, frame.body)
                            .unwrap(),
                        false => Some(frame.body.to_vec()),
                    };
                    got.extend(whole.map(|body| (id, body.len())));
                }
            }
            Ok(batch.len())
        });
        got.sort_unstable();
        let all = sizes.into_iter().enumerate();
        assert_eq!(
            got,
            all.map(|(id, size)| (id as u64, size)).collect::<Vec<_>>()
        );
    }

    #[test]
    fn what_a_full_socket_refuses_waits_and_leaves_in_order() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        for id in 0..10 {
            push(&mut packer, far(id as u8), id, 10, &mut tally);
        }
        let mut sent = Vec::new();
        let mut room = 4;
        packer.flush(SENDER, &mut tally, &mut |batch| {
            let taken = batch.len().min(room);
            room -= taken;
            batch[..taken].iter().for_each(|one| note(&mut sent, one));
            if taken == 0 {
                Err(SendError::Full)
            } else {
                Ok(taken)
            }
        });
        assert_eq!((sent.len(), packer.len()), (4, 6));
        push(&mut packer, far(9), 10, 10, &mut tally);
        sent.extend(flush(&mut packer));
        let ids: Vec<u64> = sent.into_iter().flat_map(|sent| sent.2).collect();
        assert_eq!(ids, (0..=10).collect::<Vec<u64>>());
        assert_eq!(tally.total(), 0);
    }

    #[test]
    fn a_datagram_that_can_not_be_sent_does_not_hold_up_the_next() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        for id in 0..3 {
            push(&mut packer, far(id as u8), id, 10, &mut tally);
        }
        let mut sent = Vec::new();
        packer.flush(SENDER, &mut tally, &mut |batch| {
            if batch[0].to == far(1) {
                return Err(SendError::Refused(Cause::SendError));
            }
            note(&mut sent, &batch[0]);
            Ok(1)
        });
        assert_eq!(sent.len(), 2);
        assert_eq!(tally.of(Cause::SendError), 1);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut packer = Packer::default();
        let mut tally = Tally::default();
        for id in 0..1_000 {
            push(&mut packer, near(), id, 65_000, &mut tally);
        }
        assert!(packer.size < QUEUE_SIZE_MAX + DATAGRAM_SIZE_MAX);
        let kept = packer.len() as u64;
        assert_eq!(kept + tally.of(Cause::SendOverflow), 1_000);
        assert_eq!(flush(&mut packer).len() as u64, kept);
        assert!(packer.spares.is_empty(), "large buffers are not kept");

        let mut tally = Tally::default();
        for port in 1..=20_000 {
            let to = SocketAddr::from(([192, 0, 2, 1], port));
            push(&mut packer, to, 1, 10, &mut tally);
        }
        assert_eq!(packer.len(), QUEUE_LENGTH_MAX);
        let refused = 20_000 - QUEUE_LENGTH_MAX as u64;
        assert_eq!(tally.of(Cause::SendOverflow), refused);
        assert_eq!(flush(&mut packer).len(), QUEUE_LENGTH_MAX);
        assert_eq!(packer.spares.len(), SPARES_MAX);
    }

    #[test]
    fn numbers_rise() {
        let mut packer = Packer::default();
        let mut numbers = Vec::new();
        for _ in 0..3 {
            push(&mut packer, far(1), 1, 10, &mut Tally::default());
            push(&mut packer, far(2), 1, 10, &mut Tally::default());
            packer.flush(SENDER, &mut Tally::default(), &mut |batch| {
                let number = |one: &Outgoing<'_>| datagram::open(one.bytes).unwrap().0.number;
                numbers.extend(batch.iter().map(number));
                Ok(batch.len())
            });
        }
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }

    proptest! {
        /// Every frame arrives once, and those to one address that fit the target arrive in order.
        #[test]
        fn every_frame_leaves_once(frames in prop::collection::vec((0u8..3, 0usize..=1_120, any::<bool>()), 0..200)) {
            let mut packer = Packer::default();
            let mut tally = Tally::default();
            let mut sent = Vec::new();
            for (id, &(host, size, turn_ends)) in frames.iter().enumerate() {
                push(&mut packer, far(host), id as u64, size, &mut tally);
                if turn_ends {
                    sent.extend(flush(&mut packer));
                }
            }
            sent.extend(flush(&mut packer));
            prop_assert_eq!(packer.size, 0);
            let mut seen = vec![false; frames.len()];
            for (to, size, ids) in sent {
                prop_assert!(size <= DATAGRAM_SIZE_TARGET);
                prop_assert!(ids.is_sorted());
                for id in ids {
                    prop_assert_eq!(far(frames[id as usize].0), to);
                    prop_assert!(!std::mem::replace(&mut seen[id as usize], true));
                }
            }
            prop_assert!(seen.into_iter().all(|seen| seen));
        }
    }
}
