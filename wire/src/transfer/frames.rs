//! Which frames are under way, or arrived a moment ago.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::datagram::FrameHeader;

/// A frame that arrived is not sent again for this long: its receiver has it, and may be busy.
/// If the answer was lost, the frame that provokes it again leaves after this time.
const DONE_US: u64 = 150_000;
/// The most frames that are remembered.
const DONE_MAX: usize = 1_024;

/// The body of a large frame. Frames with the same body to several peers share it.
#[derive(Debug, Clone)]
pub struct LargeBody {
    pub(super) bytes: Bytes,
    digest: u128,
}

impl From<Vec<u8>> for LargeBody {
    fn from(bytes: Vec<u8>) -> Self {
        LargeBody {
            digest: xxh3_128(&bytes),
            bytes: bytes.into(),
        }
    }
}

impl LargeBody {
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Two frames with the same digest are the same, apart from the hops that they have left.
pub(super) fn digest(header: &FrameHeader, body: &LargeBody) -> u128 {
    let mut hasher = Xxh3Default::new();
    hasher.update(&[header.kind, header.flags, header.origin, header.destination]);
    for word in [header.incarnation, header.epoch, header.message_id] {
        hasher.update(&word.to_le_bytes());
    }
    hasher.update(&body.digest.to_le_bytes());
    hasher.digest128()
}

#[derive(Debug)]
pub(super) struct FramesSent<Peer> {
    under_way: BTreeMap<u128, BTreeSet<Peer>>,
    /// When they arrived, the oldest first.
    done: VecDeque<(u64, u128)>,
}

impl<Peer> Default for FramesSent<Peer> {
    fn default() -> Self {
        FramesSent {
            under_way: BTreeMap::new(),
            done: VecDeque::new(),
        }
    }
}

impl<Peer: Ord + Copy> FramesSent<Peer> {
    /// To which peers it is under way.
    pub(super) fn peers(&self, digest: u128) -> impl Iterator<Item = &Peer> {
        self.under_way.get(&digest).into_iter().flatten()
    }

    pub(super) fn is_done(&self, now_us: u64, digest: u128) -> bool {
        let recent = self.done.iter().rev();
        recent
            .take_while(|(at_us, _)| at_us + DONE_US > now_us)
            .any(|(_, done)| *done == digest)
    }

    pub(super) fn begin(&mut self, digest: u128, peer: Peer) {
        self.under_way.entry(digest).or_default().insert(peer);
    }

    /// `done_us`: when it arrived, if it did.
    pub(super) fn end(&mut self, digest: u128, peer: Peer, done_us: Option<u64>) {
        if let Some(peers) = self.under_way.get_mut(&digest) {
            peers.remove(&peer);
            if peers.is_empty() {
                self.under_way.remove(&digest);
            }
        }
        if let Some(done_us) = done_us {
            self.done.push_back((done_us, digest));
            if self.done.len() > DONE_MAX {
                self.done.pop_front();
            }
        }
    }
}
