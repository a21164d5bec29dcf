//! Frames that do not fit a packet of the smallest size that networks carry leave in parts, a datagram
//! each. IP would cut a large datagram into fragments, and many networks drop those.
//!
//! A part is a frame with the header of the whole one and the flag `PART`. Its body is the number of the
//! whole (8 bytes, little endian), the place of the part, how many there are (a byte each), and a piece of
//! the whole frame's body: all but the last are of the same size.

use std::collections::{BTreeMap, VecDeque};

use crate::datagram::{
    DATAGRAM_HEADER_SIZE, DATAGRAM_SIZE_MAX, DATAGRAM_SIZE_TARGET, FRAME_HEADER_SIZE,
};

/// In a frame's flags: it is a part of one.
pub const PART: u8 = 1;
const PART_HEADER_SIZE: usize = 10;
const PIECE_SIZE: usize =
    DATAGRAM_SIZE_TARGET - DATAGRAM_HEADER_SIZE - FRAME_HEADER_SIZE - PART_HEADER_SIZE;

/// What incomplete frames may take, with all parts that are still to come.
const INCOMPLETE_SIZE_MAX: usize = 16 << 20;
/// Frames that were complete and whose parts, if they come once more, are dropped.
const COMPLETE_KEPT: usize = 256;

const _: () = assert!(DATAGRAM_SIZE_MAX / PIECE_SIZE < u8::MAX as usize);

/// Whether a frame with such a body leaves in parts, over other links than loopback ones.
pub fn is_cut(body: &[u8]) -> bool {
    DATAGRAM_HEADER_SIZE + FRAME_HEADER_SIZE + body.len() > DATAGRAM_SIZE_TARGET
}

/// The bodies of the parts. `number`: of this frame alone among those of the sender.
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

/// A part that no sender makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPart;

#[derive(Debug)]
struct Incomplete {
    kind: u8,
    pieces: Vec<Option<Box<[u8]>>>,
    missing: usize,
}

/// Puts frames together again. `From` is what tells senders apart.
#[derive(Debug)]
pub struct Joiner<From> {
    incomplete: BTreeMap<(From, u64), Incomplete>,
    /// Of these, the oldest first. One that is complete by now may still be among them.
    order: VecDeque<(From, u64)>,
    size: usize,
    complete: VecDeque<(From, u64)>,
    given_up: u64,
}

impl<From> Default for Joiner<From> {
    fn default() -> Self {
        Joiner {
            incomplete: BTreeMap::new(),
            order: VecDeque::new(),
            size: 0,
            complete: VecDeque::new(),
            given_up: 0,
        }
    }
}

impl<From: Ord + Copy> Joiner<From> {
    /// Takes a part; gives the whole body once all parts are there.
    pub fn take(&mut self, from: From, kind: u8, part: &[u8]) -> Result<Option<Vec<u8>>, NoPart> {
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
        let whole = (from, number);
        if self.complete.contains(&whole) {
            return Ok(None);
        }
        if !self.incomplete.contains_key(&whole) {
            self.begin(whole, kind, count);
        }
        let incomplete = self.incomplete.get_mut(&whole).expect("begun");
        if incomplete.kind != kind || incomplete.pieces.len() != count {
            return Err(NoPart);
        }
        if incomplete.pieces[place].is_none() {
            incomplete.pieces[place] = Some(piece.into());
            incomplete.missing -= 1;
        }
        Ok((incomplete.missing == 0).then(|| self.end(whole)))
    }

    /// Frames of which some parts came, and others had not when their room was needed.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    fn begin(&mut self, whole: (From, u64), kind: u8, count: usize) {
        self.size += count * PIECE_SIZE;
        while self.size > INCOMPLETE_SIZE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(incomplete) = self.incomplete.remove(&oldest) {
                self.size -= incomplete.pieces.len() * PIECE_SIZE;
                self.given_up += 1;
            }
        }
        let incomplete = Incomplete {
            kind,
            pieces: vec![None; count],
            missing: count,
        };
        self.incomplete.insert(whole, incomplete);
        self.order.push_back(whole);
    }

    fn end(&mut self, whole: (From, u64)) -> Vec<u8> {
        let Incomplete { pieces, .. } = self.incomplete.remove(&whole).expect("it is there");
        self.size -= pieces.len() * PIECE_SIZE;
        if self.order.len() > 2 * self.incomplete.len() + COMPLETE_KEPT {
            self.order
                .retain(|whole| self.incomplete.contains_key(whole));
        }
        if self.complete.len() >= COMPLETE_KEPT {
            self.complete.pop_front();
        }
        self.complete.push_back(whole);
        pieces.into_iter().flatten().flatten().collect()
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
                whole.extend(joiner.take(1, 9, part).unwrap().into_iter().flatten());
                joiner.take(1, 9, &parts[0]).unwrap();
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
            assert_eq!(joiner.take(1, 9, &one[part]), Ok(None));
            assert_eq!(joiner.take(2, 9, &one[part]), Ok(None));
            assert_eq!(joiner.take(1, 9, &two[part]), Ok(None));
        }
        assert_eq!(joiner.take(1, 9, &two[2]), Ok(Some(body(2_500))));
        assert_eq!(joiner.take(2, 9, &one[2]), Ok(Some(body(3_000))));
        assert_eq!(joiner.take(1, 9, &one[2]), Ok(Some(body(3_000))));
    }

    #[test]
    fn what_no_sender_makes_is_refused() {
        let mut joiner = Joiner::default();
        let good = parts(3_000, 1);
        joiner.take(1, 9, &good[0]).unwrap();
        assert_eq!(joiner.take(1, 8, &good[1]), Err(NoPart), "another kind");
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
            assert_eq!(joiner.take(1, 9, &part), Err(NoPart), "{}", part.len());
        }
    }

    #[test]
    fn what_stays_incomplete_makes_room() {
        let mut joiner = Joiner::default();
        for number in 0..1_000 {
            let part = &parts(60_000, number)[3];
            assert_eq!(joiner.take(1, 9, part), Ok(None));
            assert!(joiner.size <= INCOMPLETE_SIZE_MAX);
        }
        assert!(joiner.given_up() > 700, "{}", joiner.given_up());
        assert!(joiner.order.len() <= 300);
    }
}
