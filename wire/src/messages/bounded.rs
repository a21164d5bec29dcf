//! Lists of bounded length. A list is refused before its elements are decoded: in memory an element
//! may take ten times its size in the frame, so one frame of the largest size would cost hundreds
//! of megabytes before its bounds were checked.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// For `deserialize_with`: a list of at most `MAX` elements.
pub(super) fn at_most<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(BoundedVisitor::<T, MAX>(PhantomData))
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let length = elements.size_hint().unwrap_or(0);
        if length > MAX {
            return Err(Error::invalid_length(length, &self));
        }
        let mut list = Vec::with_capacity(length);
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{decode, encode};

    thread_local! {
        static DECODED: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug)]
    struct CountedElement;

    impl<'de> Deserialize<'de> for CountedElement {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            DECODED.set(DECODED.get() + 1);
            u8::deserialize(deserializer).map(|_| CountedElement)
        }
    }

    #[derive(Debug, serde::Deserialize)]
    struct Three(#[serde(deserialize_with = "at_most::<_, _, 3>")] Vec<CountedElement>);

    #[test]
    fn a_list_that_is_too_long_is_refused_before_it_is_decoded() {
        for (length, decoded) in [(0, Some(0)), (3, Some(3)), (4, None), (70_000, None)] {
            DECODED.set(0);
            let mut bytes = Vec::new();
            encode(&mut bytes, &vec![7_u8; length]);
            let found = decode::<Three>(&bytes).ok().map(|three| three.0.len());
            assert_eq!((found, DECODED.get()), (decoded, decoded.unwrap_or(0)));
        }
    }
}
