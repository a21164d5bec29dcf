//! The code that the targets share: it makes frames with a correct checksum from the fuzzer's
//! bytes.

use wire::datagram::{DatagramHeader, DatagramWriter, FrameHeader};

/// A frame as the input describes it: `kind`, `flags`, the body's length (u16), the body.
pub struct Piece<'a> {
    pub kind: u8,
    /// Each target gives the flags its own meaning.
    pub flags: u8,
    pub body: &'a [u8],
}

/// Cuts the input into pieces; the last one contains the rest.
pub fn pieces(mut bytes: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let (&[kind, flags, low, high], rest) = bytes.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        bytes = rest;
        Some(Piece { kind, flags, body })
    })
}

/// A datagram that contains one frame.
pub fn seal(sender: u8, cluster: u64, header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    let mut writer = DatagramWriter::default();
    writer.push(header, body);
    let header = DatagramHeader {
        sender,
        cluster,
        ..DatagramHeader::default()
    };
    writer.seal(&header).to_vec()
}
