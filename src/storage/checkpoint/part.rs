//! The files of a checkpoint, `N.part`: a head, then blocks of registers, each with a chain value
//! that continues the one before. The file `checkpoint` has the last one, so a part that is not
//! exactly the one that was written is noticed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::manifest::PartEntry;
use crate::protocol::types::message::GroupNumber;
use crate::storage::error::StorageError;
use crate::storage::format::{take, take_slice, u32_at, u64_at};
use crate::storage::log::segment::StoreOwner;
use crate::storage::prefix::Prefix;

const MAGIC: [u8; 4] = *b"HSPT";
const VERSION: u32 = 1;
const HEAD_SIZE: usize = 24;
/// Before the registers of a block: their size and their number.
const BLOCK_HEAD_SIZE: usize = 8;
const CHAIN_SIZE: usize = 8;
/// What a register takes beside its key and its value: the sizes of both.
pub const REGISTER_OVERHEAD_SIZE: usize = 2 + 4;
/// A block ends once it has this size.
const BLOCK_SIZE: usize = 256 << 10;
/// A new file is synced in steps of this size: one large sync would delay those of the log.
const SYNC_STEP_SIZE: u64 = 4 << 20;

pub fn path(store: &Path, number: u64) -> PathBuf {
    store.join(format!("{number}.part"))
}

/// The head, and the chain value with which its blocks begin.
fn head(number: u64, owner: StoreOwner) -> ([u8; HEAD_SIZE], u64) {
    let mut bytes = [0; HEAD_SIZE];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..16].copy_from_slice(&owner.incarnation.to_le_bytes());
    bytes[16..].copy_from_slice(&number.to_le_bytes());
    (bytes, xxh3_64_with_seed(&bytes, owner.salt))
}

/// Writes a new part. One that is not finished deletes its file.
#[derive(Debug)]
pub struct PartWriter {
    path: PathBuf,
    file: File,
    entry: PartEntry,
    synced_size: u64,
    block: Vec<u8>,
    in_block: u32,
    is_finished: bool,
}

impl PartWriter {
    pub fn create(
        store: &Path,
        number: u64,
        prefix: Prefix,
        through: GroupNumber,
        owner: StoreOwner,
    ) -> Result<Self, StorageError> {
        let path = path(store, number);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path);
        let file = file.map_err(StorageError::io("creating", &path))?;
        let (head, chain) = head(number, owner);
        let mut writer = PartWriter {
            path,
            file,
            entry: PartEntry {
                number,
                prefix,
                through,
                registers: 0,
                size: 0,
                chain,
            },
            synced_size: 0,
            block: vec![0; BLOCK_HEAD_SIZE],
            in_block: 0,
            is_finished: false,
        };
        writer.write(&head)?;
        Ok(writer)
    }

    pub fn prefix(&self) -> Prefix {
        self.entry.prefix
    }

    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let key_size = u16::try_from(key.len()).expect("keys are short");
        let value_size = u32::try_from(value.len()).expect("values are less than 4 GiB");
        self.block.extend_from_slice(&key_size.to_le_bytes());
        self.block.extend_from_slice(&value_size.to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.in_block += 1;
        self.entry.registers += 1;
        match self.block.len() >= BLOCK_SIZE {
            true => self.end_block(),
            false => Ok(()),
        }
    }

    fn end_block(&mut self) -> Result<(), StorageError> {
        let mut block = std::mem::take(&mut self.block);
        let size = u32::try_from(block.len() - BLOCK_HEAD_SIZE).expect("a block is small");
        block[..4].copy_from_slice(&size.to_le_bytes());
        block[4..8].copy_from_slice(&self.in_block.to_le_bytes());
        self.entry.chain = xxh3_64_with_seed(&block, self.entry.chain);
        block.extend_from_slice(&self.entry.chain.to_le_bytes());
        self.write(&block)?;
        block.truncate(BLOCK_HEAD_SIZE);
        self.block = block;
        self.in_block = 0;
        if self.entry.size - self.synced_size >= SYNC_STEP_SIZE {
            self.sync()?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let written = self.file.write_all(bytes);
        written.map_err(StorageError::io("writing", &self.path))?;
        self.entry.size += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        let synced = self.file.sync_data();
        synced.map_err(StorageError::io("syncing", &self.path))?;
        self.synced_size = self.entry.size;
        Ok(())
    }

    /// Makes the content durable; the name is durable only with the directory.
    pub fn finish(mut self) -> Result<PartEntry, StorageError> {
        if self.in_block > 0 {
            self.end_block()?;
        }
        self.sync()?;
        self.is_finished = true;
        Ok(self.entry)
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Otherwise the next start deletes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Reads a part block by block; each block is checked before it is returned.
#[derive(Debug)]
pub struct PartReader {
    path: PathBuf,
    file: File,
    entry: PartEntry,
    chain: u64,
    left: u64,
    registers: u64,
    block: Vec<u8>,
}

impl PartReader {
    pub fn open(store: &Path, entry: PartEntry, owner: StoreOwner) -> Result<Self, StorageError> {
        let path = path(store, entry.number);
        let file = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(StorageError::damaged(&path, "it is missing"));
            }
            other => other.map_err(StorageError::io("opening", &path))?,
        };
        let size = file.metadata().map(|metadata| metadata.len());
        let size = size.map_err(StorageError::io("examining", &path))?;
        let (head, chain) = head(entry.number, owner);
        let mut reader = PartReader {
            path,
            file,
            entry,
            chain,
            left: size,
            registers: 0,
            block: Vec::new(),
        };
        if size != entry.size || !reader.fill(HEAD_SIZE)? || reader.block != head {
            return Err(reader.wrong());
        }
        Ok(reader)
    }

    /// The registers of the next block; `None` after the last one, if this is exactly the part that
    /// was written.
    pub fn next_block(&mut self) -> Result<Option<Registers<'_>>, StorageError> {
        if self.left == 0 {
            let found = (self.chain, self.registers);
            let is_whole = found == (self.entry.chain, self.entry.registers);
            return if is_whole {
                Ok(None)
            } else {
                Err(self.wrong())
            };
        }
        if !self.fill(BLOCK_HEAD_SIZE)? {
            return Err(self.wrong());
        }
        let (size, count) = (u32_at(&self.block, 0), u32_at(&self.block, 4));
        let end = BLOCK_HEAD_SIZE + size as usize;
        if !self.extend(size as usize + CHAIN_SIZE)? {
            return Err(self.wrong());
        }
        let chain = xxh3_64_with_seed(&self.block[..end], self.chain);
        if chain != u64_at(&self.block, end) {
            return Err(self.wrong());
        }
        self.chain = chain;
        self.registers += u64::from(count);
        Ok(Some(Registers {
            path: &self.path,
            rest: &self.block[BLOCK_HEAD_SIZE..end],
        }))
    }

    /// Reads into the empty buffer; false if the file is too short.
    fn fill(&mut self, size: usize) -> Result<bool, StorageError> {
        self.block.clear();
        self.extend(size)
    }

    fn extend(&mut self, size: usize) -> Result<bool, StorageError> {
        if self.left < size as u64 {
            return Ok(false);
        }
        let at = self.block.len();
        self.block.resize(at + size, 0);
        self.left -= size as u64;
        match self.file.read_exact(&mut self.block[at..]) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read
                .map(|()| true)
                .map_err(StorageError::io("reading", &self.path)),
        }
    }

    fn wrong(&self) -> StorageError {
        let what = "it is not the part that the checkpoint consists of";
        StorageError::damaged(&self.path, what)
    }
}

/// The registers of a block: key and value.
#[derive(Debug, Clone, Copy)]
pub struct Registers<'a> {
    path: &'a Path,
    rest: &'a [u8],
}

impl<'a> Registers<'a> {
    pub fn path(&self) -> &'a Path {
        self.path
    }
}

impl<'a> Iterator for Registers<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let register = read_register(&mut self.rest);
        Some(register.ok_or_else(|| {
            self.rest = &[];
            StorageError::damaged(self.path, "its registers can't be read")
        }))
    }
}

fn read_register<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let key_size = u16::from_le_bytes(take(rest)?);
    let value_size = u32::from_le_bytes(take(rest)?);
    let key = take_slice(rest, key_size.into())?;
    Some((key, take_slice(rest, usize::try_from(value_size).ok()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: StoreOwner = StoreOwner {
        incarnation: 5,
        salt: 6,
    };

    fn write(store: &Path, values: &[Vec<u8>]) -> PartEntry {
        let mut writer = PartWriter::create(store, 1, Prefix::ALL, 7, OWNER).unwrap();
        for (n, value) in values.iter().enumerate() {
            writer.push(&[0, n as u8], value).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(store: &Path, entry: PartEntry) -> Result<Vec<Vec<u8>>, StorageError> {
        let mut reader = PartReader::open(store, entry, OWNER)?;
        let mut values = Vec::new();
        while let Some(registers) = reader.next_block()? {
            for register in registers {
                values.push(register?.1.to_vec());
            }
        }
        Ok(values)
    }

    #[test]
    fn registers_come_back_in_blocks() {
        let directory = tempfile::tempdir().unwrap();
        for values in [
            vec![],
            vec![vec![]],
            (0..9).map(|n| vec![n; 100_000]).collect(),
        ] {
            let entry = write(directory.path(), &values);
            assert_eq!(entry.registers, values.len() as u64);
            assert_eq!(read(directory.path(), entry).unwrap(), values);
        }
    }

    #[test]
    fn a_part_that_is_not_finished_leaves_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = PartWriter::create(directory.path(), 1, Prefix::ALL, 7, OWNER).unwrap();
        writer.push(b"k", b"v").unwrap();
        drop(writer);
        assert!(!path(directory.path(), 1).exists());
    }

    #[test]
    fn a_part_that_was_not_written_like_this_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path();
        let entry = write(store, &[vec![1; 50], vec![2; 50]]);
        let whole = fs::read(path(store, 1)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(path(store, 1), damaged).unwrap();
            assert!(read(store, entry).is_err(), "byte {at}");
            fs::write(path(store, 1), &whole[..at]).unwrap();
            assert!(read(store, entry).is_err(), "{at} bytes");
        }
        // One block that is whole, but of another version of the part.
        write(store, &[vec![1; 50], vec![3; 50]]);
        assert!(read(store, entry).is_err());
        fs::write(path(store, 1), whole).unwrap();
        assert!(read(store, entry).is_ok());
    }
}
