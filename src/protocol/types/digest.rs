//! Digests of a node's records by bucket of keys. If the digests of a bucket are equal on two
//! nodes, these nodes hold the same ballots for the same keys of the bucket. Pure arithmetic.

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use siphasher::sip128::SipHasher13;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::protocol::types::ballot::Ballot;
use crate::protocol::types::record::Key;

pub type Bucket = u16;

/// The digests of all buckets fit one datagram.
pub const BUCKETS_MAX: u16 = 4_096;

/// D1: how a cluster distributes its keys over buckets. The hash is keyed, and only nodes know its
/// key, so no client can choose keys that share a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    key: u128,
    buckets: u16,
}

impl Spread {
    pub fn new(key: u128, buckets: u16) -> Self {
        Spread { key, buckets }
    }

    pub fn is_sound(&self) -> bool {
        (1..=BUCKETS_MAX).contains(&self.buckets)
    }

    /// The number of buckets.
    pub fn buckets(&self) -> usize {
        usize::from(self.buckets.clamp(1, BUCKETS_MAX))
    }

    pub fn all(&self) -> Range<Bucket> {
        0..self.buckets() as Bucket
    }

    pub fn bucket_of(&self, key: &Key) -> Bucket {
        self.hash(key).0
    }

    /// A summand of the digest of a range: the hash of a vote.
    pub fn hash_of_vote(&self, key: &Key, accepted: Ballot) -> u64 {
        vote_hash(self.hash(key).1, accepted)
    }

    /// The key's bucket, and a hash that is independent of the bucket.
    fn hash(&self, key: &Key) -> (Bucket, u64) {
        let hasher = SipHasher13::new_with_keys(self.key as u64, (self.key >> 64) as u64);
        let hash = hasher.hash(key.as_bytes());
        ((hash.h1 % self.buckets() as u64) as Bucket, hash.h2)
    }
}

/// For nodes without a configuration, which hold no records.
impl Default for Spread {
    fn default() -> Self {
        Spread::new(0, BUCKETS_MAX)
    }
}

/// The output omits the hash key, which is a secret.
impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread")
            .field("buckets", &self.buckets)
            .finish_non_exhaustive()
    }
}

/// For each bucket, the sum of the hashes of its keys with their accepted ballots, kept separately
/// for each life of the node (E5). A key without an accepted ballot is in no sum.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Digests {
    spread: Spread,
    /// One entry per life, in order of life, so that digests of equal records are equal. The sums
    /// of earlier lives may all be zero.
    lives: Vec<(u32, Box<[u64]>)>,
}

impl Digests {
    /// The digests of a node that holds no records.
    pub fn new(spread: Spread) -> Self {
        Digests {
            spread,
            lives: Vec::new(),
        }
    }

    pub fn spread(&self) -> Spread {
        self.spread
    }

    pub fn add(&mut self, key: &Key, accepted: Ballot, life: u32) {
        self.replace(key, None, Some((accepted, life)));
    }

    pub fn remove(&mut self, key: &Key, accepted: Ballot, life: u32) {
        self.replace(key, Some((accepted, life)), None);
    }

    /// Replaces the key's accepted ballot and life. `None`: the key is not in the digests.
    pub fn replace(&mut self, key: &Key, old: Option<(Ballot, u32)>, new: Option<(Ballot, u32)>) {
        if old == new {
            return;
        }
        let place = self.spread.hash(key);
        if let Some((accepted, life)) = old {
            self.change(place, accepted, life, u64::wrapping_sub);
        }
        if let Some((accepted, life)) = new {
            self.change(place, accepted, life, u64::wrapping_add);
        }
    }

    fn change(
        &mut self,
        (bucket, hash): (Bucket, u64),
        accepted: Ballot,
        life: u32,
        how: fn(u64, u64) -> u64,
    ) {
        if accepted == Ballot::ZERO {
            return;
        }
        let hash = vote_hash(hash, accepted);
        let sums = match self.lives.iter().rposition(|(of, _)| *of == life) {
            Some(place) => &mut self.lives[place].1,
            None => {
                // Drops earlier lives whose sums are all zero: a node may be admitted very often.
                self.lives
                    .retain(|(_, sums)| sums.iter().any(|sum| *sum != 0));
                let sums = vec![0; self.spread.buckets()].into_boxed_slice();
                let place = self.lives.partition_point(|(of, _)| *of < life);
                self.lives.insert(place, (life, sums));
                &mut self.lives[place].1
            }
        };
        let sum = &mut sums[usize::from(bucket)];
        *sum = how(*sum, hash);
    }

    /// The digest of the bucket's votes in that life.
    pub fn of_life(&self, life: u32, bucket: Bucket) -> u64 {
        let sums = self.lives.iter().rev().find(|(of, _)| *of == life);
        sums.map_or(0, |(_, sums)| sums[usize::from(bucket)])
    }

    /// The digest of all records in the bucket, whether they are votes or cached.
    pub fn of_all(&self, bucket: Bucket) -> u64 {
        let sums = self.lives.iter().map(|(_, sums)| sums[usize::from(bucket)]);
        sums.fold(0, u64::wrapping_add)
    }

    /// The digest of all buckets.
    pub fn total(&self) -> u64 {
        let sums = self.lives.iter().flat_map(|(_, sums)| sums.iter());
        sums.copied().fold(0, u64::wrapping_add)
    }

    pub fn is_empty(&self) -> bool {
        let mut sums = self.lives.iter().flat_map(|(_, sums)| sums.iter());
        sums.all(|sum| *sum == 0)
    }

    /// Whether all records held belong to that life.
    pub fn is_all_of(&self, life: u32) -> bool {
        let others = self.lives.iter().filter(|(of, _)| *of != life);
        others
            .flat_map(|(_, sums)| sums.iter())
            .all(|sum| *sum == 0)
    }
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lives = self.lives.iter();
        let lives = lives.map(|(life, sums)| (life, sums.iter().copied()));
        f.debug_map()
            .entries(lives.map(|(life, sums)| (life, Nonzero(sums))))
            .finish()
    }
}

fn vote_hash(hash: u64, accepted: Ballot) -> u64 {
    xxh3_64_with_seed(&hash.to_le_bytes(), accepted.0)
}

/// The digests of a node's votes as a message carries them: one little-endian `u64` per bucket.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums(Bytes);

impl Sums {
    pub fn collect(sums: impl Iterator<Item = u64>) -> Self {
        let mut bytes = BytesMut::with_capacity(8 * usize::from(BUCKETS_MAX));
        sums.for_each(|sum| bytes.put_u64_le(sum));
        Sums(bytes.freeze())
    }

    /// The number of buckets. `None` if no node can have that many.
    pub fn buckets(&self) -> Option<usize> {
        let (sums, rest) = self.0.as_chunks::<8>();
        let fits = (1..=usize::from(BUCKETS_MAX)).contains(&sums.len());
        (fits && rest.is_empty()).then_some(sums.len())
    }

    pub fn of(&self, bucket: Bucket) -> u64 {
        let at = 8 * usize::from(bucket);
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }
}

impl fmt::Debug for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.chunks_exact(8);
        Nonzero(words.map(|w| u64::from_le_bytes(w.try_into().expect("eight bytes")))).fmt(f)
    }
}

/// Shows only nonzero digests: in a small store most buckets are empty.
struct Nonzero<I>(I);

impl<I: Iterator<Item = u64> + Clone> fmt::Debug for Nonzero<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sums = self.0.clone().enumerate();
        f.debug_map()
            .entries(sums.filter(|(_, sum)| *sum != 0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key::user(number.to_string().as_bytes())
    }

    fn b(reading: u64) -> Ballot {
        Ballot::new(reading, 1)
    }

    #[test]
    fn equal_records_of_several_lives_have_equal_digests() {
        let records = [(1, 7), (2, 1), (3, 4), (4, 1)];
        let digests = |records: &mut dyn Iterator<Item = &(u32, u32)>| {
            let mut digests = Digests::default();
            records.for_each(|(number, life)| digests.add(&key(*number), b(1), *life));
            digests
        };
        assert_eq!(
            digests(&mut records.iter()),
            digests(&mut records.iter().rev())
        );
    }

    #[test]
    fn sums_tell_what_is_held_not_how_it_came() {
        let (mut long, mut short) = (Digests::default(), Digests::default());
        for number in 0..100 {
            long.add(&key(number), b(1), 0);
            long.add(&key(number + 1_000), b(1), 0);
        }
        for number in 0..100 {
            long.remove(&key(number + 1_000), b(1), 0);
            short.add(&key(99 - number), b(1), 0);
        }
        long.add(&key(5_000), Ballot::ZERO, 0);
        assert_eq!(long, short);
        short.remove(&key(7), b(1), 0);
        short.add(&key(7), b(2), 0);
        let differ = long
            .spread()
            .all()
            .filter(|at| long.of_all(*at) != short.of_all(*at));
        assert_eq!(
            differ.collect::<Vec<_>>(),
            [long.spread().bucket_of(&key(7))]
        );
    }

    #[test]
    fn admissions_are_told_apart() {
        let mut digests = Digests::default();
        let (old, new) = (key(1), key(2));
        digests.add(&old, b(1), 1);
        digests.add(&new, b(1), 2);
        assert_ne!(digests.of_life(1, digests.spread().bucket_of(&old)), 0);
        assert_eq!(digests.of_life(2, digests.spread().bucket_of(&old)), 0);
        assert_ne!(digests.of_life(2, digests.spread().bucket_of(&new)), 0);
        assert!(!digests.is_all_of(2));
        digests.remove(&old, b(1), 1);
        assert!(digests.is_all_of(2));
        assert_eq!(digests.of_all(digests.spread().bucket_of(&old)), 0);
    }

    #[test]
    fn many_admissions_take_no_more_room_than_two() {
        let mut digests = Digests::default();
        digests.add(&key(1), b(1), 0);
        for life in 1..100 {
            digests.replace(&key(1), Some((b(1), life - 1)), Some((b(1), life)));
            assert!(digests.lives.len() <= 2, "{}", digests.lives.len());
        }
    }

    #[test]
    fn buckets_are_about_equally_full() {
        for buckets in [1, 3, 64, BUCKETS_MAX] {
            let spread = Spread::new(7, buckets);
            let mut counts = vec![0_usize; spread.buckets()];
            for number in 0..100_000 {
                counts[usize::from(spread.bucket_of(&key(number)))] += 1;
            }
            let mean = 100_000 / counts.len();
            let about = mean / 20..=3 * mean;
            assert!(counts.iter().all(|count| about.contains(count)));
        }
    }

    /// D1: keys found to share a bucket in one cluster do not share one in another cluster. Knowing
    /// the hash without its key does not help either.
    #[test]
    fn keys_that_share_a_bucket_in_one_cluster_do_not_in_another() {
        let (known, secret) = (
            Spread::default(),
            Spread::new(0x0123_4567_89ab_cdef << 64, 4_096),
        );
        let keys = (0..4_000_000).map(key);
        let found: Vec<Key> = keys.filter(|key| known.bucket_of(key) == 0).collect();
        assert!(found.len() > 800);
        let buckets = found.iter().map(|key| secret.bucket_of(key));
        let buckets: std::collections::BTreeSet<Bucket> = buckets.collect();
        assert!(buckets.len() > found.len() * 3 / 4, "{}", buckets.len());
    }

    /// Records whose digests are equal by chance in one cluster must not have equal digests in
    /// another.
    #[test]
    fn sums_of_clusters_differ() {
        let spreads = [Spread::new(1, 1), Spread::new(2, 1)];
        let sums = spreads.map(|spread| {
            let mut digests = Digests::new(spread);
            digests.add(&key(1), b(1), 0);
            digests.total()
        });
        assert_ne!(sums[0], sums[1]);
    }
}
