//! From a file to the bytes of a tar archive: recognised by what it begins with, never by its name.
//!
//! Owns the readers between file and archive. What is read is hashed on the way, so that what was unpacked can be
//! compared with what was verified before; what comes out is held to the limits. All decoders are written in Rust,
//! since an archive is the one thing here that a stranger may have written.

use crate::error::UnpackError;
use crate::limits::Limit;
use crate::limits::Limits;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::errors::ReadFrameHeaderError;
use sha2::Digest;
use sha2::Sha256;
use std::cell::Cell;
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// Memory that an xz archive may ask for, in KiB: `xz -9` needs 64 MiB.
const XZ_MEMORY: u32 = 256 << 10;
/// Decoded at once from a zstd frame.
const ZSTD_STEP: usize = 256 << 10;
/// Between file and decoder.
const BUFFER: usize = 128 << 10;

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    /// Looks at the first bytes.
    pub(crate) fn of(artifact: &Path, file: &File) -> Result<Self, UnpackError> {
        let mut head = Vec::new();
        let mut block = [0; 512];
        while head.len() < block.len() {
            let read = file.read_at(&mut block[..512 - head.len()], head.len() as u64);
            match read.map_err(|e| UnpackError::read(artifact, e))? {
                0 => break,
                n => head.extend_from_slice(&block[..n]),
            }
        }
        Self::of_bytes(&head).map_err(|what| UnpackError::Unusable {
            artifact: artifact.to_owned(),
            why: format!("it is {what}; it must be a tar archive, plain or packed with gzip, zstd or xz"),
        })
    }

    fn of_bytes(head: &[u8]) -> Result<Self, &'static str> {
        let begins = |magic: &[u8]| head.starts_with(magic);
        if begins(&[0x1f, 0x8b]) {
            Ok(Self::Gzip)
        } else if begins(&[0x28, 0xb5, 0x2f, 0xfd])
            || (head.len() > 3 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18])
        {
            Ok(Self::Zstd)
        } else if begins(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Ok(Self::Xz)
        } else if begins(b"BZh") {
            Err("packed with bzip2")
        } else if begins(b"PK\x03\x04") {
            Err("a zip archive")
        } else if head.is_empty() {
            Err("empty")
        } else if <&[u8; 512]>::try_from(head).is_ok_and(crate::tarball::is_header) {
            Ok(Self::Plain)
        } else {
            Err("of a format that zed does not know")
        }
    }
}

/// A file that is hashed and counted while it is read.
struct Source {
    file: File,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    hash: RefCell<Sha256>,
    read: Cell<u64>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.shared.hash.borrow_mut().update(&buffer[..n]);
        self.shared.read.set(self.shared.read.get() + n as u64);
        Ok(n)
    }
}

/// The bytes of the archive, unpacked, within the limits.
pub(crate) struct Decoded {
    inner: Box<dyn Read>,
    shared: Rc<Shared>,
    out: u64,
    limits: Limits,
}

impl Decoded {
    /// From a file's beginning.
    pub(crate) fn open(artifact: &Path, mut file: File, limits: Limits) -> Result<Self, UnpackError> {
        let packing = Packing::of(artifact, &file)?;
        io::Seek::rewind(&mut file).map_err(UnpackError::io("read", artifact))?;
        let shared = Rc::new(Shared::default());
        let source = BufReader::with_capacity(BUFFER, Source { file, shared: Rc::clone(&shared) });
        let inner: Box<dyn Read> = match packing {
            Packing::Plain => Box::new(source),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Packing::Zstd => Box::new(Zstd { source, decoder: FrameDecoder::new(), inside: false }),
            Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, XZ_MEMORY)),
        };
        Ok(Self { inner, shared, out: 0, limits })
    }

    /// Reads what is left, so that checksums at the end are verified, and gives the sha256 of the whole file.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        let hash = self.shared.hash.borrow().clone();
        Ok(crate::digest::hex(hash))
    }
}

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.out += n as u64;
        let Limits { bytes, ratio, free, .. } = self.limits;
        if self.out > free.saturating_add(self.shared.read.get().saturating_mul(ratio)) {
            return Err(io::Error::other(Limit::Ratio(ratio)));
        }
        // Headers, padding and what follows the archive's end count, too: each costs time.
        if self.out > bytes.saturating_mul(2) {
            return Err(io::Error::other(Limit::Bytes(bytes)));
        }
        Ok(n)
    }
}

/// All frames of a zstd file, one after another; skippable ones are skipped, checksums are verified.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    inside: bool,
}

impl<R: BufRead> Zstd<R> {
    /// Begins the next frame. False at the end of the file.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => {
                    self.inside = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
            }
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.inside && !self.next_frame()? {
                return Ok(0);
            }
            let n = self.decoder.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            if self.decoder.is_finished() {
                let told = self.decoder.get_checksum_from_data();
                if told.is_some() && told != self.decoder.get_calculated_checksum() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd checksum does not match"));
                }
                self.inside = false;
                continue;
            }
            let step = BlockDecodingStrategy::UptoBytes(ZSTD_STEP);
            self.decoder.decode_blocks(&mut self.source, step).map_err(invalid)?;
        }
    }
}
