//! Frames that do not fit a packet of the smallest size that networks carry are sent in parts, one
//! datagram each. IP would cut a large datagram into fragments, and many networks drop those.
//!
//! A part is a frame with the header of the whole one and the flag `PART`. Its body is the number
//! of the whole frame (8 bytes, little endian), the index of the part and the number of parts (a
//! byte each), and a piece of the whole frame's body. All pieces but the last have the same size.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::datagram::{
    DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_MAX, DATAGRAM_SIZE_TARGET, FRAME_HEADER_SIZE,
};

/// A frame's flag: the frame is a part.
pub const PART: u8 = 1;
const PART_HEADER_SIZE: usize = 10;
pub(crate) const PIECE_SIZE: usize =
    DATAGRAM_SIZE_TARGET - DATAGRAM_HEADER_SIZE - FRAME_HEADER_SIZE - PART_HEADER_SIZE;

/// The memory for the incomplete frames of one joiner. It counts bytes that arrived, not bytes that
/// are announced, so the sender of forged parts has to send as much as it displaces.
pub const INCOMPLETE_SIZE_MAX: usize = 8 << 20;
/// The part of that memory that one sender may use. A single sender cannot displace the frames of
/// others.
const SENDER_SIZE_MAX: usize = INCOMPLETE_SIZE_MAX / 4;
/// If a frame is incomplete for this long, its missing parts were lost.
const INCOMPLETE_US_MAX: u64 = 10_000_000;
/// The overhead of an incomplete frame besides its pieces, and of a piece besides its bytes. An
/// estimate.
const FRAME_OVERHEAD: usize = 512;
const PIECE_OVERHEAD: usize = 16;
/// The memory for the largest frame. A sender that uses less than this holds no more than it needs.
const FRAME_SIZE_MAX: usize = FRAME_OVERHEAD
    + DATAGRAM_SIZE_MAX
    + DATAGRAM_SIZE_MAX.div_ceil(PIECE_SIZE) * (PIECE_OVERHEAD + size_of::<Option<Box<[u8]>>>());
/// The number of completed frames that are remembered, per sender and in total; repeated parts of
/// these frames are dropped.
const SENDER_COMPLETE_MAX: usize = 256;
const COMPLETE_MAX: usize = 16 * SENDER_COMPLETE_MAX;

const _: () = assert!(DATAGRAM_SIZE_MAX / PIECE_SIZE < u8::MAX as usize);

/// Whether a frame with this body is sent in parts over links that are not loopback.
pub fn is_cut(body: &[u8]) -> bool {
    DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE + body.len() > DATAGRAM_SIZE_TARGET
}

/// The bodies of the parts. The sender uses each `number` for one frame only.
pub fn cut(body: &[u8], number: u64) -> impl Iterator<Item = Vec<u8>> {
    let count = body.len().div_ceil(PIECE_SIZE) as u8;
    let pieces = body.chunks(PIECE_SIZE).enumerate();
    pieces.map(move |(place, piece)| {
        let mut part = Vec::with_capacity(PART_HEADER_SIZE + piece.len());
        part.extend_from_slice(&number.to_le_bytes());
        part.extend_from_slice(&[place as u8, count]);
        part.extend_from_slice(piece);
        part
    })
}

/// A part that no correct sender makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPart;

/// The identity of a frame that arrives in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Whole<Sender> {
    sender: Sender,
    stream: u128,
    number: u64,
}

#[derive(Debug)]
struct Incomplete {
    kind: u8,
    pieces: Vec<Option<Box<[u8]>>>,
    missing: usize,
    size: usize,
    serial: u64,
    began_us: u64,
}

/// The incomplete frames of one sender.
#[derive(Debug, Default)]
struct SenderFrames {
    size: usize,
    /// Their serial numbers, the oldest first.
    serials: BTreeSet<u64>,
}

/// The rank of a sender for eviction: if memory is short, the sender with the highest rank loses a
/// frame. It is the sender that uses most. Senders that use no more than one frame may are equal,
/// and among them the sender of the oldest frame has the highest rank.
type EvictionRank = (usize, Reverse<u64>);

impl SenderFrames {
    fn rank(&self) -> Option<EvictionRank> {
        let oldest = *self.serials.first()?;
        Some((self.size.max(FRAME_SIZE_MAX), Reverse(oldest)))
    }
}

/// The frames that were completed most recently.
#[derive(Debug)]
struct CompleteFrames<Sender> {
    /// The stream and number of each frame, and its serial number in `order`.
    by_sender: BTreeMap<Sender, BTreeMap<(u128, u64), u64>>,
    /// By serial number, the oldest first.
    order: BTreeMap<u64, Whole<Sender>>,
}

/// Reassembles frames. All senders of one joiner share its memory, and each has its own limit.
/// Senders that must not displace each other at all need two joiners.
#[derive(Debug)]
pub struct Joiner<Sender> {
    incomplete: BTreeMap<Whole<Sender>, Incomplete>,
    /// By serial number, the oldest first.
    order: BTreeMap<u64, Whole<Sender>>,
    senders: BTreeMap<Sender, SenderFrames>,
    ranks: BTreeSet<EvictionRank>,
    size: usize,
    next_serial: u64,
    complete: CompleteFrames<Sender>,
    given_up: u64,
}

impl<Sender> Default for Joiner<Sender> {
    fn default() -> Self {
        Joiner {
            incomplete: BTreeMap::new(),
            order: BTreeMap::new(),
            senders: BTreeMap::new(),
            ranks: BTreeSet::new(),
            size: 0,
            next_serial: 0,
            complete: CompleteFrames {
                by_sender: BTreeMap::new(),
                order: BTreeMap::new(),
            },
            given_up: 0,
        }
    }
}

impl<Sender: Ord + Copy> CompleteFrames<Sender> {
    fn contains(&self, whole: &Whole<Sender>) -> bool {
        let of_sender = self.by_sender.get(&whole.sender);
        of_sender.is_some_and(|frames| frames.contains_key(&(whole.stream, whole.number)))
    }

    /// Adds a frame. Above its sender's limit the sender's oldest frame is discarded, and above the
    /// total limit the oldest frame of all.
    fn add(&mut self, serial: u64, whole: Whole<Sender>) {
        self.order.insert(serial, whole);
        let frames = self.by_sender.entry(whole.sender).or_default();
        frames.insert((whole.stream, whole.number), serial);
        if frames.len() > SENDER_COMPLETE_MAX
            && let Some(&oldest) = frames.values().min()
        {
            self.forget(oldest);
        }
        if self.order.len() > COMPLETE_MAX
            && let Some((&oldest, _)) = self.order.first_key_value()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, serial: u64) {
        let Some(whole) = self.order.remove(&serial) else {
            return;
        };
        if let Some(frames) = self.by_sender.get_mut(&whole.sender) {
            frames.remove(&(whole.stream, whole.number));
            if frames.is_empty() {
                self.by_sender.remove(&whole.sender);
            }
        }
    }
}

/// A part's header and piece.
struct Part<'a> {
    number: u64,
    place: usize,
    count: usize,
    piece: &'a [u8],
}

impl<'a> Part<'a> {
    fn open(part: &'a [u8]) -> Result<Self, NoPart> {
        let (head, piece) = part.split_first_chunk::<PART_HEADER_SIZE>().ok_or(NoPart)?;
        let (place, count) = (usize::from(head[8]), usize::from(head[9]));
        let is_last = place + 1 == count;
        let fits = piece.len() == PIECE_SIZE || is_last && (1..PIECE_SIZE).contains(&piece.len());
        if count < 2
            || place >= count
            || !fits
            || count * PIECE_SIZE > DATAGRAM_SIZE_MAX + PIECE_SIZE
        {
            return Err(NoPart);
        }
        let number = u64::from_le_bytes(*head.first_chunk().expect("it is longer"));
        Ok(Part {
            number,
            place,
            count,
            piece,
        })
    }
}

impl<Sender: Ord + Copy> Joiner<Sender> {
    /// Adds a part; returns the whole body when all parts have arrived. A sender's frame numbers
    /// are unique within a `stream`: for a node, one of its incarnations; for a host, one port; for
    /// a network, one port of one of its hosts.
    pub fn take(
        &mut self,
        now_us: u64,
        (sender, stream): (Sender, u128),
        kind: u8,
        part: &[u8],
    ) -> Result<Option<Vec<u8>>, NoPart> {
        self.expire(now_us);
        let Part {
            number,
            place,
            count,
            piece,
        } = Part::open(part)?;
        let whole = Whole {
            sender,
            stream,
            number,
        };
        if self.complete.contains(&whole) {
            return Ok(None);
        }
        if !self.incomplete.contains_key(&whole) {
            self.begin(now_us, whole, kind, count);
        }
        let incomplete = self.incomplete.get_mut(&whole).expect("begun");
        if incomplete.kind != kind || incomplete.pieces.len() != count {
            return Err(NoPart);
        }
        if incomplete.pieces[place].is_none() {
            incomplete.pieces[place] = Some(piece.into());
            incomplete.missing -= 1;
            if incomplete.missing == 0 {
                return Ok(Some(self.end(whole)));
            }
            let size = PIECE_OVERHEAD + piece.len();
            incomplete.size += size;
            self.charge(sender, size);
        }
        Ok(None)
    }

    /// Drops the frames that have been incomplete for too long.
    pub fn expire(&mut self, now_us: u64) {
        while let Some((_, &oldest)) = self.order.first_key_value()
            && self.incomplete[&oldest].began_us + INCOMPLETE_US_MAX <= now_us
        {
            self.give_up(oldest);
        }
    }

    /// Frames that were dropped while incomplete: their missing parts did not come in time, or
    /// there was no memory for them.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn begin(&mut self, now_us: u64, whole: Whole<Sender>, kind: u8, count: usize) {
        let incomplete = Incomplete {
            kind,
            pieces: vec![None; count],
            missing: count,
            size: FRAME_OVERHEAD + count * size_of::<Option<Box<[u8]>>>(),
            serial: self.next_serial,
            began_us: now_us,
        };
        self.next_serial += 1;
        self.hold(whole.sender, |held| {
            held.size += incomplete.size;
            held.serials.insert(incomplete.serial);
        });
        self.size += incomplete.size;
        self.order.insert(incomplete.serial, whole);
        self.incomplete.insert(whole, incomplete);
    }

    /// Changes what a sender holds, and updates its rank.
    fn hold(&mut self, sender: Sender, change: impl FnOnce(&mut SenderFrames)) {
        let held = self.senders.entry(sender).or_default();
        if let Some(before) = held.rank() {
            self.ranks.remove(&before);
        }
        change(held);
        match held.rank() {
            Some(after) => _ = self.ranks.insert(after),
            None => _ = self.senders.remove(&sender),
        }
    }

    /// Adds to the memory that a sender's frames use. Above the sender's limit its oldest frames
    /// are dropped, and above the total limit the oldest frames of the sender that uses most. So a
    /// host that floods from several addresses displaces its own frames.
    fn charge(&mut self, sender: Sender, size: usize) {
        self.size += size;
        self.hold(sender, |held| held.size += size);
        while let Some(held) = self.senders.get(&sender)
            && held.size > SENDER_SIZE_MAX
            && let Some(&oldest) = held.serials.first()
        {
            self.give_up(self.order[&oldest]);
        }
        while self.size > INCOMPLETE_SIZE_MAX
            && let Some(&(_, Reverse(oldest))) = self.ranks.last()
        {
            self.give_up(self.order[&oldest]);
        }
    }

    fn give_up(&mut self, whole: Whole<Sender>) {
        self.remove(whole);
        self.given_up += 1;
    }

    fn end(&mut self, whole: Whole<Sender>) -> Vec<u8> {
        let pieces = self.remove(whole);
        self.complete.add(self.next_serial, whole);
        self.next_serial += 1;
        pieces.into_iter().flatten().flatten().collect()
    }

    fn remove(&mut self, whole: Whole<Sender>) -> Vec<Option<Box<[u8]>>> {
        let incomplete = self.incomplete.remove(&whole).expect("it is there");
        self.order.remove(&incomplete.serial);
        self.size -= incomplete.size;
        self.hold(whole.sender, |held| {
            held.size -= incomplete.size;
            held.serials.remove(&incomplete.serial);
        });
        incomplete.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at * 7 % 251) as u8).collect()
    }

    fn parts(size: usize, number: u64) -> Vec<Vec<u8>> {
        cut(&body(size), number).collect()
    }

    #[test]
    fn parts_fit_and_come_together_in_any_order_and_more_than_once() {
        for size in [1_121, 2 * PIECE_SIZE, 2 * PIECE_SIZE + 1, 65_000] {
            assert!(is_cut(&body(size)));
            let mut parts = parts(size, 7);
            let header_size = DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE;
            assert!(
                parts
                    .iter()
                    .all(|part| header_size + part.len() <= DATAGRAM_SIZE_TARGET)
            );
            parts.reverse();
            let mut joiner = Joiner::default();
            let mut whole = Vec::new();
            for part in parts.iter().chain(&parts) {
                whole.extend(
                    joiner
                        .take(0, (1, 0), 9, part)
                        .unwrap()
                        .into_iter()
                        .flatten(),
                );
                joiner.take(0, (1, 0), 9, &parts[0]).unwrap();
            }
            assert_eq!(whole, body(size));
            assert_eq!((joiner.size, joiner.incomplete.len()), (0, 0));
        }
        assert!(!is_cut(&body(1_120)));
    }

    #[test]
    fn parts_of_two_frames_or_senders_do_not_mix() {
        let (one, two) = (parts(3_000, 1), parts(2_500, 2));
        let mut joiner = Joiner::default();
        for part in 0..2 {
            assert_eq!(joiner.take(0, (1, 0), 9, &one[part]), Ok(None));
            assert_eq!(joiner.take(0, (2, 0), 9, &one[part]), Ok(None));
            assert_eq!(joiner.take(0, (1, 0), 9, &two[part]), Ok(None));
        }
        assert_eq!(joiner.take(0, (1, 0), 9, &two[2]), Ok(Some(body(2_500))));
        assert_eq!(joiner.take(0, (2, 0), 9, &one[2]), Ok(Some(body(3_000))));
        assert_eq!(joiner.take(0, (1, 0), 9, &one[2]), Ok(Some(body(3_000))));
    }

    #[test]
    fn what_no_sender_makes_is_refused() {
        let mut joiner = Joiner::default();
        let good = parts(3_000, 1);
        joiner.take(0, (1, 0), 9, &good[0]).unwrap();
        assert_eq!(
            joiner.take(0, (1, 0), 8, &good[1]),
            Err(NoPart),
            "another kind"
        );
        let changed = |at: usize, to: u8| {
            let mut part = good[1].clone();
            part[at] = to;
            part
        };
        for part in [
            changed(8, 3),
            changed(8, 255),
            changed(9, 0),
            changed(9, 1),
            changed(9, 4),
            changed(9, 255),
            good[1][..PART_HEADER_SIZE].to_vec(),
            good[1][..100].to_vec(),
            [&good[1][..], b"x"].concat(),
            Vec::new(),
        ] {
            assert_eq!(
                joiner.take(0, (1, 0), 9, &part),
                Err(NoPart),
                "{}",
                part.len()
            );
        }
    }

    /// The first part of a frame of the largest allowed size.
    fn forged(number: u64) -> Vec<u8> {
        let count = DATAGRAM_SIZE_MAX.div_ceil(PIECE_SIZE) as u8;
        [&number.to_le_bytes()[..], &[0, count], &[1; PIECE_SIZE]].concat()
    }

    #[test]
    fn a_flood_from_one_sender_does_not_stop_the_frames_of_others() {
        let mut joiner = Joiner::default();
        let theirs = parts(60_000, 7);
        for part in &theirs[1..] {
            assert_eq!(joiner.take(0, (1, 0), 9, part), Ok(None));
        }
        for number in 0u64..40_000 {
            assert_eq!(
                joiner.take(1, (2, number.into()), 9, &forged(number)),
                Ok(None)
            );
            assert!(joiner.size <= SENDER_SIZE_MAX + 60 * PIECE_SIZE);
        }
        let whole = joiner.take(2, (1, 0), 9, &theirs[0]).unwrap();
        assert_eq!(whole, Some(body(60_000)));
        assert!(joiner.given_up() > 30_000, "{}", joiner.given_up());
    }

    #[test]
    fn a_flood_from_several_senders_does_not_stop_the_frames_of_others() {
        let mut joiner = Joiner::default();
        let theirs = parts(60_000, 7);
        for part in &theirs[1..] {
            assert_eq!(joiner.take(0, (1, 0), 9, part), Ok(None));
        }
        for number in 0..40_000 {
            for sender in 2..102 {
                let stream = number.into();
                assert_eq!(
                    joiner.take(1, (sender, stream), 9, &forged(number)),
                    Ok(None)
                );
                assert!(joiner.size <= INCOMPLETE_SIZE_MAX);
                assert_eq!(joiner.ranks.len(), joiner.senders.len());
            }
            if joiner.given_up() > 30_000 {
                break;
            }
        }
        assert!(joiner.given_up() > 30_000, "{}", joiner.given_up());
        let whole = joiner.take(2, (1, 0), 9, &theirs[0]).unwrap();
        assert_eq!(whole, Some(body(60_000)));
    }

    #[test]
    fn many_complete_frames_of_one_sender_let_no_frame_of_another_come_twice() {
        let mut joiner = Joiner::default();
        let take = |joiner: &mut Joiner<u32>, sender, number| {
            let parts = parts(1_500, number);
            let taken = parts
                .iter()
                .map(|part| joiner.take(0, (sender, 0), 9, part).unwrap());
            taken.last().flatten()
        };
        assert!(take(&mut joiner, 1, 7).is_some());
        for number in 0..2 * COMPLETE_MAX as u64 {
            assert!(take(&mut joiner, 2, number).is_some());
        }
        assert!(take(&mut joiner, 1, 7).is_none());
        assert_eq!(joiner.complete.order.len(), SENDER_COMPLETE_MAX + 1);
        for sender in 3..3 + 2 * COMPLETE_MAX as u32 {
            assert!(take(&mut joiner, sender, 1).is_some());
        }
        let kept = joiner.complete.by_sender.values().map(BTreeMap::len);
        assert_eq!(kept.sum::<usize>(), COMPLETE_MAX);
        assert_eq!(joiner.complete.order.len(), COMPLETE_MAX);
    }

    /// The limit counts the bytes sent, not the bytes announced.
    #[test]
    fn few_parts_displace_nothing() {
        let mut joiner = Joiner::default();
        for number in 0..500 {
            assert_eq!(joiner.take(0, (1, 0), 9, &forged(number)), Ok(None));
        }
        assert_eq!(joiner.given_up(), 0);
    }

    #[test]
    fn of_many_senders_with_a_frame_each_the_oldest_one_goes_first() {
        let mut joiner = Joiner::default();
        let theirs = parts(3_000, 7);
        for sender in 0..40_000 {
            assert_eq!(joiner.take(0, (sender, 0), 9, &forged(1)), Ok(None));
            assert!(joiner.size <= INCOMPLETE_SIZE_MAX);
            if sender == 39_000 {
                joiner.take(0, (50_000, 0), 9, &theirs[0]).unwrap();
                joiner.take(0, (50_000, 0), 9, &theirs[1]).unwrap();
            }
        }
        assert!(joiner.given_up() > 20_000, "{}", joiner.given_up());
        let whole = joiner.take(0, (50_000, 0), 9, &theirs[2]).unwrap();
        assert_eq!(whole, Some(body(3_000)));
    }

    #[test]
    fn what_stays_incomplete_for_long_is_dropped_and_counted() {
        let mut joiner = Joiner::default();
        let parts = parts(3_000, 7);
        joiner.take(5, (1, 0), 9, &parts[0]).unwrap();
        joiner.expire(4 + INCOMPLETE_US_MAX);
        assert_eq!((joiner.given_up(), joiner.incomplete.len()), (0, 1));
        joiner.expire(5 + INCOMPLETE_US_MAX);
        assert_eq!((joiner.given_up(), joiner.size), (1, 0));
        assert!(joiner.incomplete.is_empty() && joiner.senders.is_empty());
        for part in &parts[1..] {
            assert_eq!(joiner.take(INCOMPLETE_US_MAX, (1, 0), 9, part), Ok(None));
        }
    }
}
