//! Reading a tar archive entry by entry, in bounded memory.
//!
//! Owns the walk over the headers; the format of a header is the tar crate's. Its own iterator is not used: it reads a
//! long name of any length into memory, splits extended headers at newlines, and takes an archive that was cut
//! between two entries for a whole one. Places nothing.

use rustix::fs::Mode;
use rustix::fs::RawMode;
use std::io;
use std::io::Read;
use tar::EntryType;
use tar::Header;

const BLOCK: usize = 512;
/// Longest extended header or long name.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// A hard link to this path of the archive.
    HardLink(Vec<u8>),
    /// Something else, by name.
    Other(&'static str),
}

/// One entry. Its content follows in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) size: u64,
}

/// What extended headers say of the entry that follows.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    sparse: bool,
}

/// An archive that is read.
pub(crate) struct Tarball<R> {
    input: R,
    /// Content of the current entry that has not been read.
    left: u64,
    padding: u64,
    /// An archive must end with a block of zeros.
    strict: bool,
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// True when the block is a header with the right checksum, or the end of an archive.
pub(crate) fn is_header(block: &[u8; BLOCK]) -> bool {
    is_end(block) || checksum_fits(block)
}

fn is_end(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let told = Header::from_byte_slice(block).cksum();
    let sum = |to_number: fn(u8) -> i64| -> i64 {
        block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { to_number(*byte) })
            .sum()
    };
    // Old programs added up signed bytes.
    told.is_ok_and(|told| {
        let told = i64::from(told);
        told == sum(i64::from) || told == sum(|byte| i64::from(byte.cast_signed()))
    })
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(input: R, strict: bool) -> Self {
        Self { input, left: 0, padding: 0, strict }
    }

    /// The next entry; what was not read of the one before is skipped. Nothing at the archive's end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        let mut pending = false;
        loop {
            self.skip()?;
            let Some(block) = self.block()? else {
                if self.strict || pending {
                    return Err(damaged("it ends in the middle"));
                }
                return Ok(None);
            };
            if is_end(&block) {
                return if pending { Err(damaged("a long name belongs to no entry")) } else { Ok(None) };
            }
            if !checksum_fits(&block) {
                return Err(damaged("a header has a wrong checksum"));
            }
            let header = Header::from_byte_slice(&block);
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extended.link = Some(until_nul(self.extension(size)?)),
                EntryType::XHeader => extended.read(&self.extension(size)?)?,
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                    continue;
                }
                _ => return self.entry(header, extended).map(Some),
            }
            pending = true;
        }
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> io::Result<Entry> {
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || {
            let link = extended.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            link.ok_or_else(|| damaged("a link has no target"))
        };
        let kind = match header.entry_type() {
            _ if extended.sparse => Kind::Other("sparse file"),
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => Kind::Link(link()?),
            EntryType::Link => Kind::HardLink(link()?),
            EntryType::Char => Kind::Other("character device"),
            EntryType::Block => Kind::Other("block device"),
            EntryType::Fifo => Kind::Other("named pipe"),
            EntryType::GNUSparse => Kind::Other("sparse file"),
            _ => Kind::Other("thing of unknown type"),
        };
        // As Go and GNU tar have it: only what may have content has a size.
        let size = match header.entry_type() {
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => 0,
            _ => extended.size.map_or_else(|| header.entry_size(), Ok)?,
        };
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let id = |told: io::Result<u64>| told.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let mtime = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        Ok(Entry {
            path,
            kind,
            // Only the nine permission bits are used, which every system has.
            mode: Mode::from_raw_mode((header.mode()? & 0o777) as RawMode),
            uid: extended.uid.unwrap_or_else(|| id(header.uid())),
            gid: extended.gid.unwrap_or_else(|| id(header.gid())),
            mtime: extended.mtime.unwrap_or(mtime),
            size,
        })
    }

    /// The input, once the archive's end was seen.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        if skipped < rest { Err(damaged("it ends in the middle of an entry")) } else { Ok(()) }
    }

    /// The next block; nothing when the input has ended before it.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(damaged("it ends in the middle of a header")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Some(block))
    }

    /// Content of an extended header.
    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(damaged(format!("a name or an extended header has {size} bytes")));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }
}

impl<R: Read> Read for Tarball<R> {
    /// Content of the current entry.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.input.read(&mut buffer[..most])?;
        if n == 0 {
            return Err(damaged("it ends in the middle of an entry"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(at);
    }
    bytes
}

impl Extended {
    /// Records of the form `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || damaged("an extended header is broken");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = number(&records[..space]).ok_or_else(broken)?;
            let record = records.get(space + 1..length).ok_or_else(broken)?;
            let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let broken = || damaged("an extended header is broken");
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value).ok_or_else(broken)?),
            b"uid" => self.uid = number(value),
            b"gid" => self.gid = number(value),
            b"mtime" => self.mtime = number(value.split(|byte| *byte == b'.').next().unwrap_or(value)),
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            _ => {}
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
