//! Two codings behind one interface: gzip (RFC 1952) and zstd (RFC 8878), each fed and read in pieces.
//!
//! Every call writes into the room that it is given and says how far it came, so that a caller bounds the memory by its buffer.

use std::io;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use zstd::stream::raw::{self, CParameter, Operation, OutBuffer};

use super::Coding;

/// The level of gzip: that of nginx's and Envoy's middle.
const GZIP_LEVEL: u32 = 5;
/// The level of zstd: its default.
const ZSTD_LEVEL: i32 = 3;
/// The size of zstd's window and of its tables, as powers of two: 128 KiB each. Its own choice would take megabytes for an answer
/// whose length is not known.
const ZSTD_WINDOW: u32 = 17;
const ZSTD_TABLE: u32 = 15;

/// A file without name and time, by an unknown system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The length of the checksum and the size at the end.
const GZIP_TRAILER: usize = 8;

/// The body could not be compressed.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be compressed: {0}")]
pub(crate) struct EncodeError(#[source] io::Error);

/// A compressed stream that is being written.
pub(crate) enum Encoder {
    Gzip { deflate: Box<Compress>, crc: Crc, has_header: bool, is_deflated: bool },
    Zstd(raw::Encoder<'static>),
}

/// A fixed amount of room, filled from its beginning.
pub(super) struct Room {
    bytes: Box<[u8]>,
    filled: usize,
}

impl Room {
    pub(super) fn new(len: usize) -> Self {
        Self { bytes: vec![0; len].into_boxed_slice(), filled: 0 }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }

    fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Puts bytes into it. Returns whether they fit.
    fn put(&mut self, bytes: &[u8]) -> bool {
        match self.rest().get_mut(..bytes.len()) {
            Some(room) => room.copy_from_slice(bytes),
            None => return false,
        }
        self.filled += bytes.len();
        true
    }
}

impl Encoder {
    /// A stream of `len` bytes, if that is known.
    pub(crate) fn new(coding: Coding, len: Option<u64>) -> Result<Self, EncodeError> {
        match coding {
            Coding::Gzip => Ok(Self::Gzip {
                deflate: Box::new(Compress::new(Compression::new(GZIP_LEVEL), false)),
                crc: Crc::new(),
                has_header: false,
                is_deflated: false,
            }),
            Coding::Zstd => zstd(len).map(Self::Zstd).map_err(EncodeError),
        }
    }

    /// Takes bytes, as far as there is room for what they become. Returns how many it took.
    pub(super) fn write(&mut self, input: &[u8], room: &mut Room) -> Result<usize, EncodeError> {
        match self {
            Self::Gzip { deflate, crc, has_header, .. } => {
                *has_header = *has_header || room.put(&GZIP_HEADER);
                if !*has_header {
                    return Ok(0);
                }
                let (taken, _) = deflated(deflate, input, room, FlushCompress::None)?;
                crc.update(&input[..taken]);
                Ok(taken)
            }
            Self::Zstd(encoder) => {
                let done = encoder.run_on_buffers(input, room.rest()).map_err(EncodeError)?;
                room.filled += done.bytes_written;
                Ok(done.bytes_read)
            }
        }
    }

    /// Writes all that was taken, so that the other side can decode it. Returns whether there was enough room; else call it
    /// again with more.
    pub(super) fn flush(&mut self, room: &mut Room) -> Result<bool, EncodeError> {
        match self {
            Self::Gzip { deflate, .. } => {
                deflated(deflate, &[], room, FlushCompress::Sync)?;
                Ok(!room.is_full())
            }
            Self::Zstd(encoder) => {
                let mut out = OutBuffer::around(room.rest());
                let left = encoder.flush(&mut out).map_err(EncodeError)?;
                let written = out.pos();
                room.filled += written;
                Ok(left == 0)
            }
        }
    }

    /// Ends the stream. Returns whether there was enough room; else call it again with more.
    pub(super) fn finish(&mut self, room: &mut Room) -> Result<bool, EncodeError> {
        match self {
            Self::Gzip { deflate, crc, has_header, is_deflated } => {
                *has_header = *has_header || room.put(&GZIP_HEADER);
                if *has_header && !*is_deflated && !room.is_full() {
                    let (_, status) = deflated(deflate, &[], room, FlushCompress::Finish)?;
                    *is_deflated = status == Status::StreamEnd;
                }
                let mut trailer = [0; GZIP_TRAILER];
                trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
                trailer[4..].copy_from_slice(&crc.amount().to_le_bytes());
                Ok(*is_deflated && room.put(&trailer))
            }
            Self::Zstd(encoder) => {
                let mut out = OutBuffer::around(room.rest());
                let left = encoder.finish(&mut out, true).map_err(EncodeError)?;
                let written = out.pos();
                room.filled += written;
                Ok(left == 0)
            }
        }
    }
}

fn zstd(len: Option<u64>) -> io::Result<raw::Encoder<'static>> {
    let mut encoder = raw::Encoder::new(ZSTD_LEVEL)?;
    for parameter in [
        CParameter::WindowLog(ZSTD_WINDOW),
        CParameter::HashLog(ZSTD_TABLE),
        CParameter::ChainLog(ZSTD_TABLE),
    ] {
        encoder.set_parameter(parameter)?;
    }
    // Shrinks both further for a short answer.
    encoder.set_pledged_src_size(len)?;
    Ok(encoder)
}

/// Compresses as far as there is room. Returns how many bytes were taken.
fn deflated(
    deflate: &mut Compress,
    input: &[u8],
    room: &mut Room,
    flush: FlushCompress,
) -> Result<(usize, Status), EncodeError> {
    let (taken, written) = (deflate.total_in(), deflate.total_out());
    let status = deflate.compress(input, room.rest(), flush);
    let status = status.map_err(|error| EncodeError(io::Error::other(error)))?;
    let since = |now: u64, before: u64| usize::try_from(now - before).expect("no more than a slice has");
    room.filled += since(deflate.total_out(), written);
    Ok((since(deflate.total_in(), taken), status))
}
