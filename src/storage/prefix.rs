//! Ranges of key hashes. A checkpoint is divided into parts by the first bits of a hash of the key,
//! so that a part can be rewritten, and divided, by itself. The hash has the directory's salt, so
//! no client can choose keys that all belong to one part.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub fn hash(key: &[u8], salt: u64) -> u64 {
    xxh3_64_with_seed(key, salt)
}

/// All hashes that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The bits, from the most significant one; the others are zero.
    bits: u64,
    length: u8,
}

impl Prefix {
    pub const ALL: Prefix = Prefix { bits: 0, length: 0 };

    /// `None` if it is too long, or if bits after its length are set.
    pub fn new(bits: u64, length: u64) -> Option<Self> {
        let length = u8::try_from(length).ok().filter(|length| *length <= 64)?;
        let prefix = Prefix { bits, length };
        (bits & prefix.rest() == 0).then_some(prefix)
    }

    pub fn bits(self) -> u64 {
        self.bits
    }

    pub fn length(self) -> u64 {
        self.length.into()
    }

    /// The bits that are not of the prefix.
    fn rest(self) -> u64 {
        u64::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }

    pub fn first(self) -> u64 {
        self.bits
    }

    pub fn last(self) -> u64 {
        self.bits | self.rest()
    }

    pub fn contains(self, hash: u64) -> bool {
        hash & !self.rest() == self.bits
    }

    /// The two prefixes with one more bit; `None` for a single hash.
    pub fn halves(self) -> Option<[Prefix; 2]> {
        let length = self.length + 1;
        let shift = 64_u32.checked_sub(length.into())?;
        Some([0, 1 << shift].map(|bit| Prefix {
            bits: self.bits | bit,
            length,
        }))
    }

    /// The prefix with one bit less.
    pub fn parent(self) -> Option<Prefix> {
        let length = self.length.checked_sub(1)?;
        let rest = Prefix { bits: 0, length }.rest();
        Some(Prefix {
            bits: self.bits & !rest,
            length,
        })
    }
}

/// Whether prefixes, in order, contain each hash exactly once.
pub fn cover_all(prefixes: impl Iterator<Item = Prefix>) -> bool {
    let mut next = Some(0);
    for prefix in prefixes {
        if next != Some(prefix.first()) {
            return false;
        }
        next = prefix.last().checked_add(1);
    }
    next.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_divide_a_prefix_and_have_it_as_parent() {
        let mut prefix = Prefix::ALL;
        for depth in 0..64 {
            let [low, high] = prefix.halves().expect("it has more than one hash");
            assert_eq!((low.first(), high.last()), (prefix.first(), prefix.last()));
            assert_eq!(low.last() + 1, high.first());
            assert_eq!([low.parent(), high.parent()], [Some(prefix); 2]);
            for half in [low, high] {
                assert_eq!(Prefix::new(half.bits(), half.length()), Some(half));
                assert!(half.contains(half.first()) && half.contains(half.last()));
            }
            assert!(!low.contains(high.first()) && !high.contains(low.last()));
            prefix = if depth % 3 == 0 { high } else { low };
        }
        assert_eq!((prefix.first(), prefix.halves()), (prefix.last(), None));
        assert_eq!(Prefix::ALL.parent(), None);
        assert_eq!((Prefix::new(1, 63), Prefix::new(0, 65)), (None, None));
    }

    #[test]
    fn a_hole_or_an_overlap_is_noticed() {
        let [low, high] = Prefix::ALL.halves().expect("it has");
        let [first, second] = low.halves().expect("it has");
        let covers = |prefixes: &[Prefix]| cover_all(prefixes.iter().copied());
        assert!(covers(&[Prefix::ALL]) && covers(&[low, high]) && covers(&[first, second, high]));
        for wrong in [
            &[][..],
            &[low],
            &[high],
            &[first, high],
            &[low, second, high],
            &[Prefix::ALL, high],
            &[low, high, high],
        ] {
            assert!(!covers(wrong), "{wrong:?}");
        }
    }
}
