//! Datagrams and frames: fixed-width, little-endian headers, so that a relay need not decode
//! bodies.
//!
//! ```text
//! datagram header, 44 bytes                 frame header, 36 bytes
//!   0  magic 0xD7                             0  body length      u32
//!   1  format version                         4  kind             u8
//!   2  sending node (0: a client, or a        5  flags            u8, see `parts`
//!      node that no configuration names)      6  origin           u8
//!   3  reserved, 0                            7  destination      u8
//!   4  cluster id          u64                8  hops left        u8
//!  12  boot of the sender  u64                9  reserved, 0
//!  20  datagram number     u64               10  shard            u16, 0 for now
//!  28  checksum            16 bytes          12  incarnation      u64, of the origin
//!  44  frames to the end                     20  epoch            u64
//!                                            28  message id       u64
//!                                            36  body
//! ```
//!
//! The checksum is XXH3-128 over the whole datagram with these 16 bytes as zero.

use xxhash_rust::xxh3::Xxh3Default;

pub const MAGIC: u8 = 0xD7;
pub const FORMAT_VERSION: u8 = 1;
pub const DATAGRAM_HEADER_SIZE: usize = 44;
pub const FRAME_HEADER_SIZE: usize = 36;
/// The largest payload of one UDP datagram over IPv4.
pub const DATAGRAM_SIZE_MAX: usize = 65_507;
/// Frames are packed up to this size, and larger frames are cut into parts. A datagram of this size
/// passes wherever IPv6 does: it fits packets of 1,280 bytes together with the headers of IPv6 and
/// UDP.
pub const DATAGRAM_SIZE_TARGET: usize = 1_200;
/// Loopback interfaces need no smaller datagrams.
pub const DATAGRAM_SIZE_TARGET_LOOPBACK: usize = 16_384;

const CHECKSUM_AT: usize = 28;
const CHECKSUM_SIZE: usize = 16;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatagramHeader {
    pub sender: u8,
    pub cluster: u64,
    pub boot: u64,
    pub number: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: u8,
    pub flags: u8,
    pub origin: u8,
    pub destination: u8,
    pub hops_left: u8,
    pub incarnation: u64,
    pub epoch: u64,
    pub message_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: FrameHeader,
    pub body: &'a [u8],
}

/// Why a datagram was refused. Each reason has its own counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    #[error("too short for its header")]
    Truncated,
    #[error("not a Horseshoe datagram")]
    Foreign,
    #[error("format version {0}, this build speaks {FORMAT_VERSION}")]
    Version(u8),
    #[error("checksum does not match")]
    Checksum,
    #[error("a frame is longer than its datagram")]
    FrameLength,
}

/// A datagram in preparation. `seal` returns the bytes to send; `clear` makes the buffer ready for
/// the next datagram.
#[derive(Debug, Default)]
pub struct DatagramWriter {
    bytes: Vec<u8>,
}

impl DatagramWriter {
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= DATAGRAM_HEADER_SIZE
    }

    /// The size so far, including the header.
    pub fn size(&self) -> usize {
        self.bytes.len().max(DATAGRAM_HEADER_SIZE)
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Appends a frame whose body is already encoded.
    pub fn push(&mut self, header: &FrameHeader, body: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.resize(DATAGRAM_HEADER_SIZE, 0);
        }
        let length = u32::try_from(body.len()).expect("a body is smaller than a datagram");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        let fixed = [
            header.kind,
            header.flags,
            header.origin,
            header.destination,
            header.hops_left,
            0,
            0,
            0,
        ];
        self.bytes.extend_from_slice(&fixed);
        self.bytes
            .extend_from_slice(&header.incarnation.to_le_bytes());
        self.bytes.extend_from_slice(&header.epoch.to_le_bytes());
        self.bytes
            .extend_from_slice(&header.message_id.to_le_bytes());
        self.bytes.extend_from_slice(body);
    }

    /// Writes header and checksum; the datagram is then ready to be sent.
    pub fn seal(&mut self, header: &DatagramHeader) -> &[u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(DATAGRAM_HEADER_SIZE, 0);
        }
        self.bytes[..4].copy_from_slice(&[MAGIC, FORMAT_VERSION, header.sender, 0]);
        self.bytes[4..12].copy_from_slice(&header.cluster.to_le_bytes());
        self.bytes[12..20].copy_from_slice(&header.boot.to_le_bytes());
        self.bytes[20..28].copy_from_slice(&header.number.to_le_bytes());
        let sum = checksum(&self.bytes);
        self.bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_SIZE].copy_from_slice(&sum);
        &self.bytes
    }
}

/// Checks a datagram as a whole and returns its header and frames.
pub fn open(bytes: &[u8]) -> Result<(DatagramHeader, Frames<'_>), DatagramError> {
    if bytes.first() != Some(&MAGIC) {
        return Err(DatagramError::Foreign);
    }
    if bytes.len() < DATAGRAM_HEADER_SIZE {
        return Err(DatagramError::Truncated);
    }
    if bytes[1] != FORMAT_VERSION {
        return Err(DatagramError::Version(bytes[1]));
    }
    if checksum(bytes) != bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_SIZE] {
        return Err(DatagramError::Checksum);
    }
    let header = DatagramHeader {
        sender: bytes[2],
        cluster: u64_at(bytes, 4),
        boot: u64_at(bytes, 12),
        number: u64_at(bytes, 20),
    };
    Ok((
        header,
        Frames {
            rest: &bytes[DATAGRAM_HEADER_SIZE..],
        },
    ))
}

/// The frames of a datagram, in order. The first malformed frame ends the iteration.
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, DatagramError>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.rest;
        if bytes.is_empty() {
            return None;
        }
        self.rest = &[];
        if bytes.len() < FRAME_HEADER_SIZE {
            return Some(Err(DatagramError::FrameLength));
        }
        let (head, rest) = bytes.split_at(FRAME_HEADER_SIZE);
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if length > rest.len() {
            return Some(Err(DatagramError::FrameLength));
        }
        let (body, rest) = rest.split_at(length);
        self.rest = rest;
        Some(Ok(Frame {
            header: FrameHeader {
                kind: head[4],
                flags: head[5],
                origin: head[6],
                destination: head[7],
                hops_left: head[8],
                incarnation: u64_at(head, 12),
                epoch: u64_at(head, 20),
                message_id: u64_at(head, 28),
            },
            body,
        }))
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_SIZE] {
    let mut hasher = Xxh3Default::new();
    hasher.update(&bytes[..CHECKSUM_AT]);
    hasher.update(&[0; CHECKSUM_SIZE]);
    hasher.update(&bytes[CHECKSUM_AT + CHECKSUM_SIZE..]);
    hasher.digest128().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<u8> {
        let mut writer = DatagramWriter::default();
        for id in 1..=3u64 {
            let header = FrameHeader {
                kind: 9,
                flags: 1,
                origin: 2,
                destination: 3,
                hops_left: 1,
                incarnation: 77,
                epoch: 4,
                message_id: id,
            };
            writer.push(&header, &vec![id as u8; id as usize * 10]);
        }
        let header = DatagramHeader {
            sender: 2,
            cluster: 5,
            boot: 6,
            number: 7,
        };
        writer.seal(&header).to_vec()
    }

    #[test]
    fn what_was_packed_comes_out() {
        let bytes = sample();
        let (header, frames) = open(&bytes).unwrap();
        assert_eq!(
            (header.sender, header.cluster, header.boot, header.number),
            (2, 5, 6, 7)
        );
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].header.message_id, 3);
        assert_eq!(frames[2].body, [3; 30]);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_refused() {
        let bytes = sample();
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x40;
            assert!(open(&broken).is_err(), "byte {at}");
            assert!(open(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_datagram_ends_it() {
        let mut bytes = sample();
        let at = DATAGRAM_HEADER_SIZE;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let sum = checksum(&bytes);
        bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_SIZE].copy_from_slice(&sum);
        let (_, mut frames) = open(&bytes).unwrap();
        assert_eq!(frames.next(), Some(Err(DatagramError::FrameLength)));
        assert_eq!(frames.next(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), seal in any::<bool>()) {
            if seal && bytes.len() >= DATAGRAM_HEADER_SIZE {
                bytes[0] = MAGIC;
                bytes[1] = FORMAT_VERSION;
                let sum = checksum(&bytes);
                bytes[CHECKSUM_AT..CHECKSUM_AT + CHECKSUM_SIZE].copy_from_slice(&sum);
            }
            if let Ok((_, frames)) = open(&bytes) {
                for frame in frames.flatten() {
                    prop_assert!(frame.body.len() <= bytes.len());
                }
            }
        }
    }
}
