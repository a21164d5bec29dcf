//! A vector that is never copied as a whole when it grows, and that gives memory back.

/// The items of a chunk.
const CHUNK_LENGTH: usize = 4_096;

#[derive(Debug)]
pub struct Chunks<T> {
    /// All but the last are full, and none is empty.
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    pub fn len(&self) -> usize {
        let full = self.chunks.len().saturating_sub(1);
        full * CHUNK_LENGTH + self.chunks.last().map_or(0, Vec::len)
    }

    pub fn get(&self, at: usize) -> &T {
        &self.chunks[at / CHUNK_LENGTH][at % CHUNK_LENGTH]
    }

    pub fn get_mut(&mut self, at: usize) -> &mut T {
        &mut self.chunks[at / CHUNK_LENGTH][at % CHUNK_LENGTH]
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK_LENGTH => last.push(item),
            _ => self.chunks.push(vec![item]),
        }
    }

    /// The last item takes the place of the removed one.
    pub fn swap_remove(&mut self, at: usize) {
        let is_last = at + 1 == self.len();
        let chunk = self.chunks.last_mut().expect("it has the item");
        let last = chunk.pop().expect("no chunk is empty");
        if chunk.is_empty() {
            self.chunks.pop();
        }
        if self.chunks.capacity() > 4 * self.chunks.len() {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
        if !is_last {
            *self.get_mut(at) = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_vector() {
        let (mut chunks, mut model) = (Chunks::default(), Vec::new());
        for n in 0..3 * CHUNK_LENGTH {
            chunks.push(n);
            model.push(n);
            assert_eq!(chunks.len(), model.len());
        }
        *chunks.get_mut(CHUNK_LENGTH) = 7;
        model[CHUNK_LENGTH] = 7;
        while !model.is_empty() {
            let at = model.len() * 7 / 11;
            chunks.swap_remove(at);
            model.swap_remove(at);
            assert_eq!(chunks.len(), model.len());
            assert!(model.is_empty() || *chunks.get(model.len() / 2) == model[model.len() / 2]);
            if model.len().is_multiple_of(1_000) {
                assert!(chunks.iter().eq(&model));
            }
        }
        assert_eq!(chunks.chunks.capacity(), 0);
    }
}
