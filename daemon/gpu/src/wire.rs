//! Between zedd and a node: messages over a pair of sockets.
//!
//! A message is a fixed header, a value in postcard's encoding, and raw bytes (the small arrays of jobs); large arrays travel
//! as open files. Both ends are the same program, so the version only guards against a node of another build. Sizes are
//! bounded on both sides. Never blocks on anything but its own socket.

use crate::device::DeviceInfo;
use crate::program::KernelId;
use nix::cmsg_space;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::recvmsg;
use nix::sys::socket::sendmsg;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use zed_spec::job::Job;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U16;
use zerocopy::little_endian::U32;

/// Changes with every change of a message.
pub const WIRE_FORMAT: u16 = 2;

/// The most files that one message carries. The kernel allows 253.
pub const MAX_FILES: usize = 250;

/// The most bytes of a message's value, and of its raw bytes.
pub const MAX_PART: usize = 64 << 20;

/// How much one system call reads.
const READ_SIZE: usize = 64 << 10;

/// The largest buffer that is kept from one message to the next.
const KEPT_SIZE: usize = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"zgpu");

/// What every message begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: U32,
    format: U16,
    files: U16,
    value: U32,
    raw: U32,
}

/// Where the bytes of an array are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// In the raw bytes of the message, from here on; the array's size says how far.
    Raw(u32),
    /// In a file of the message, from its beginning.
    File(u32),
}

/// A job for the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id, as in `jobs/ID`.
    pub id: u64,
    /// What is to be computed.
    pub job: Job,
    /// On the CPU, by the reference implementation.
    pub on_cpu: bool,
    /// The bytes of each input.
    pub inputs: Vec<Payload>,
    /// The files that outputs are to be written to; an output without one comes back in the message.
    pub outputs: Vec<Option<u32>>,
}

/// What zedd says to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToNode {
    /// Run these, in this order. The node may put several into one submit.
    Run(Vec<Run>),
    /// End after what is running: keep the caches.
    Stop,
}

/// How long the parts of a start took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartTimes {
    /// The loader and the driver.
    pub instance: u64,
    /// The device and its queue.
    pub device: u64,
    /// The pipeline cache from its file.
    pub cache: u64,
    /// The canary that sees whether the driver runs loops to their end.
    pub canary: u64,
}

/// How a pipeline cache was found at a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheState {
    /// There is none yet.
    Absent,
    /// Loaded, so many bytes.
    Loaded(u64),
    /// Not used, and why: it is of another device, of another driver, damaged.
    Rejected(String),
}

/// How one job went in the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTimes {
    /// Compiling shaders and making pipelines, in microseconds; 0 when all were there.
    pub compile: u64,
    /// From the submit to the end of the wait, in microseconds; shared with the jobs of the same submit.
    pub device: u64,
    /// How many jobs were in the submit.
    pub batch: u32,
    /// Pipelines that the driver found in its cache, where it says so.
    pub cache_hits: u32,
    /// Pipelines that had to be made.
    pub pipelines: u32,
    /// Shaders of them that were kept on disk as SPIR-V, and so were not compiled.
    pub shader_hits: u32,
}

/// What a node says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromNode {
    /// The first message: it is ready.
    Ready {
        /// Its device.
        info: Box<DeviceInfo>,
        /// How long the start took.
        times: StartTimes,
        /// What it found of the pipeline cache.
        cache: CacheState,
    },
    /// The first and last message: the device cannot be used, and why.
    Unusable(String),
    /// These jobs are being run now, in one submit: their deadlines begin. Of jobs that take less than a millisecond it is
    /// said together with their end, of a user's before its kernels are compiled.
    Began(Vec<u64>),
    /// A job is done.
    Done {
        /// Which.
        id: u64,
        /// Where in the raw bytes each output without a file begins.
        outputs: Vec<Option<u32>>,
        /// How long it took.
        times: JobTimes,
        /// It was computed on the CPU.
        on_cpu: bool,
    },
    /// A job failed; the node goes on.
    Failed {
        /// Which.
        id: u64,
        /// Why, in one line or more.
        error: String,
        /// The kernel that is to blame, when one is.
        kernel: Option<KernelId>,
    },
    /// The kernels that a job's program needs; sent once for each shape of job, before `Began`.
    Kernels {
        /// Which job.
        id: u64,
        /// Its kernels, each once.
        kernels: Vec<KernelId>,
    },
    /// The device was lost; the node ends. What it was running is lost with it.
    Lost(String),
}

/// One message as it was received.
#[derive(Debug)]
pub struct Received<T> {
    /// The value.
    pub value: T,
    /// Raw bytes.
    pub raw: Vec<u8>,
    /// Open files.
    pub files: Vec<OwnedFd>,
}

/// One end, for sending. Whoever shares it holds a lock: a message may take several system calls.
#[derive(Debug)]
pub struct Sender {
    socket: UnixStream,
    value: Vec<u8>,
}

/// One end, for receiving.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixStream,
    /// Filled from `begin` to `end`; the rest is room, so that nothing is zeroed for each message.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    files: VecDeque<OwnedFd>,
}

/// The two directions of one end.
///
/// # Errors
/// When the system has no descriptor left.
pub fn split(socket: UnixStream) -> io::Result<(Sender, Receiver)> {
    let other = socket.try_clone()?;
    Ok((
        Sender { socket, value: Vec::new() },
        Receiver { socket: other, buffer: Vec::new(), begin: 0, end: 0, files: VecDeque::new() },
    ))
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Of a size that a header can say.
fn bounded(what: &str, size: usize) -> io::Result<U32> {
    match u32::try_from(size) {
        Ok(small) if size <= MAX_PART => Ok(U32::new(small)),
        _ => Err(invalid(format!("{what} of {size} bytes; a message holds at most {MAX_PART}"))),
    }
}

impl Sender {
    /// Sends a message. `raw` is sent piece by piece, without being copied together.
    ///
    /// # Errors
    /// When the other end is gone; `InvalidData` for what is too large.
    pub fn send<T: Serialize>(
        &mut self,
        value: &T,
        raw: &[&[u8]],
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        self.value.clear();
        self.encode(value, raw, files.len())?;
        self.transmit(&[(self.value.len(), raw)], files)
    }

    /// Sends several messages without files by as few system calls as possible.
    ///
    /// # Errors
    /// As [`Sender::send`]; when one is too large, none is sent.
    pub fn send_many<T: Serialize>(&mut self, messages: &[(T, Vec<&[u8]>)]) -> io::Result<()> {
        self.value.clear();
        let mut parts: Vec<(usize, &[&[u8]])> = Vec::with_capacity(messages.len());
        for (value, raw) in messages {
            let before = self.value.len();
            self.encode(value, raw, 0)?;
            parts.push((self.value.len() - before, raw));
        }
        self.transmit(&parts, &[])
    }

    /// Appends a message's header and value to `self.value`.
    fn encode<T: Serialize>(&mut self, value: &T, raw: &[&[u8]], files: usize) -> io::Result<()> {
        const HEADER: usize = size_of::<Header>();
        if files > MAX_FILES {
            return Err(invalid(format!("{files} files; a message carries at most {MAX_FILES}")));
        }
        let begin = self.value.len();
        self.value.extend_from_slice(&[0; HEADER]);
        self.value = postcard::to_extend(value, std::mem::take(&mut self.value))
            .map_err(|error| invalid(format!("a message cannot be encoded: {error}")))?;
        let header = Header {
            magic: U32::new(MAGIC),
            format: U16::new(WIRE_FORMAT),
            files: U16::new(u16::try_from(files).unwrap_or(u16::MAX)),
            value: bounded("a value", self.value.len() - begin - HEADER)?,
            raw: bounded("raw bytes", raw.iter().map(|piece| piece.len()).sum())?,
        };
        if let Some(place) = self.value.get_mut(begin..begin + HEADER) {
            place.copy_from_slice(header.as_bytes());
        }
        Ok(())
    }

    /// Sends what is encoded: for each message its length in `self.value`, and its raw bytes.
    fn transmit(&self, messages: &[(usize, &[&[u8]])], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut pieces: Vec<IoSlice<'_>> = Vec::with_capacity(messages.len() * 2);
        let mut encoded = self.value.as_slice();
        for (length, raw) in messages {
            let (value, others) = encoded.split_at_checked(*length).unwrap_or((encoded, &[]));
            encoded = others;
            pieces.push(IoSlice::new(value));
            pieces.extend(raw.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)));
        }
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let control = [ControlMessage::ScmRights(&numbers)];
        let mut control: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &control };
        let mut rest: &mut [IoSlice<'_>] = &mut pieces;
        while !rest.is_empty() {
            // The kernel takes a bounded number of pieces in one call.
            let now = rest.get(..1024).unwrap_or(rest);
            match sendmsg::<()>(self.socket.as_raw_fd(), now, control, no_signal(), None) {
                Ok(sent) => {
                    // Files travel with the first byte.
                    control = &[];
                    IoSlice::advance_slices(&mut rest, sent);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// The other end may be gone: that is an error to be handled, not a signal that ends the process.
fn no_signal() -> MsgFlags {
    MsgFlags::MSG_NOSIGNAL
}

impl Receiver {
    /// Whether there is something to receive, or the end, waiting for it so long; without a time for ever.
    ///
    /// # Errors
    /// What the system answers.
    pub fn wait(&self, time: Option<Duration>) -> io::Result<bool> {
        if !self.filled().is_empty() {
            return Ok(true);
        }
        let time = time.map(|time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
        let mut sockets = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut sockets, time.unwrap_or(PollTimeout::NONE)) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What was read and not yet taken.
    fn filled(&self) -> &[u8] {
        self.buffer.get(self.begin..self.end).unwrap_or_default()
    }

    /// Waits for a message; nothing when the other end is gone between two.
    ///
    /// # Errors
    /// `InvalidData` for what is no message of this build; `UnexpectedEof` in the middle of one.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<Received<T>>> {
        const HEADER: usize = size_of::<Header>();
        while self.filled().len() < HEADER {
            if self.fill(0)? == 0 {
                return if self.filled().is_empty() { Ok(None) } else { Err(cut_off()) };
            }
        }
        let (header, _) = Header::read_from_prefix(self.filled()).map_err(|_| cut_off())?;
        if header.magic.get() != MAGIC || header.format.get() != WIRE_FORMAT {
            return Err(invalid("this is no message of a node of this build"));
        }
        let (value, raw) = (header.value.get() as usize, header.raw.get() as usize);
        if value > MAX_PART || raw > MAX_PART {
            return Err(invalid("a message is larger than any that is sent"));
        }
        let whole = HEADER + value + raw;
        while self.filled().len() < whole {
            if self.fill(whole - self.filled().len())? == 0 {
                return Err(cut_off());
            }
        }
        let bytes = self.filled().get(HEADER..HEADER + value).ok_or_else(cut_off)?;
        let decoded = postcard::from_bytes(bytes)
            .map_err(|error| invalid(format!("a message cannot be decoded: {error}")))?;
        let raw = self.filled().get(HEADER + value..whole).ok_or_else(cut_off)?.to_vec();
        self.begin += whole;
        if self.buffer.len() > KEPT_SIZE && self.filled().is_empty() {
            self.buffer = Vec::new();
            (self.begin, self.end) = (0, 0);
        }
        let count = usize::from(header.files.get());
        if count > self.files.len() {
            return Err(invalid("a message came without its files"));
        }
        Ok(Some(Received { value: decoded, raw, files: self.files.drain(..count).collect() }))
    }

    /// Reads once, at least as much as is there now. Zero at the end.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        self.buffer.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        let size = self.end + wanted.max(READ_SIZE);
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        let mut control = cmsg_space!([RawFd; MAX_FILES]);
        loop {
            let place = self.buffer.get_mut(self.end..).unwrap_or_default();
            let mut pieces = [IoSliceMut::new(place)];
            let flags = close_on_exec();
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut pieces, Some(&mut control), flags) {
                Ok(message) => {
                    let got = message.bytes;
                    for received in message.cmsgs()? {
                        let ControlMessageOwned::ScmRights(numbers) = received else { continue };
                        for number in numbers {
                            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
                            self.files.push_back(unsafe { OwnedFd::from_raw_fd(number) });
                        }
                    }
                    self.end += got;
                    return Ok(got);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Received files are not for the children of this process.
#[cfg(not(target_os = "illumos"))]
fn close_on_exec() -> MsgFlags {
    MsgFlags::MSG_CMSG_CLOEXEC
}

/// illumos has no such flag; a node starts no process there, and zedd receives no files.
#[cfg(target_os = "illumos")]
fn close_on_exec() -> MsgFlags {
    MsgFlags::empty()
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other end is gone in the middle of a message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::io::Seek;
    use std::io::Write;

    fn pair() -> (Sender, Receiver) {
        let (one, other) = UnixStream::pair().unwrap();
        let (sender, _) = split(one).unwrap();
        let (_, receiver) = split(other).unwrap();
        (sender, receiver)
    }

    #[test]
    fn messages_arrive_whole_and_in_order_with_their_bytes() {
        let (mut sender, mut receiver) = pair();
        let large = vec![7_u8; 3 << 20];
        let writer = std::thread::spawn(move || {
            for number in 0..200_u32 {
                sender.send(&number, &[&[1], &[], &[2, 3]], &[]).unwrap();
            }
            sender.send(&"large".to_owned(), &[&large, b"end"], &[]).unwrap();
        });
        for number in 0..200_u32 {
            let got = receiver.receive::<u32>().unwrap().unwrap();
            assert_eq!((got.value, got.raw, got.files.len()), (number, vec![1, 2, 3], 0));
        }
        let got = receiver.receive::<String>().unwrap().unwrap();
        assert_eq!((got.value.as_str(), got.raw.len()), ("large", (3 << 20) + 3));
        assert!(got.raw.ends_with(b"\x07end"));
        writer.join().unwrap();
        assert!(receiver.receive::<u32>().unwrap().is_none());
    }

    #[test]
    fn files_stay_with_their_message() {
        let (mut sender, mut receiver) = pair();
        let mut files: Vec<File> = (0..5).map(|_| tempfile::tempfile().unwrap()).collect();
        for (file, number) in files.iter_mut().zip(0_u8..) {
            file.write_all(&[number]).unwrap();
            file.rewind().unwrap();
        }
        sender.send(&1_u8, &[], &[files[0].as_fd(), files[1].as_fd()]).unwrap();
        sender.send(&2_u8, &[b"none"], &[]).unwrap();
        sender.send(&3_u8, &[], &[files[2].as_fd(), files[3].as_fd(), files[4].as_fd()]).unwrap();
        let mut next = 0;
        for (value, count) in [(1, 2), (2, 0), (3, 3)] {
            let got = receiver.receive::<u8>().unwrap().unwrap();
            assert_eq!((got.value, got.files.len()), (value, count));
            for file in got.files {
                let mut byte = [9];
                File::from(file).read_exact(&mut byte).unwrap();
                assert_eq!(byte, [next]);
                next += 1;
            }
        }
    }

    #[test]
    fn several_messages_at_once_are_received_one_by_one() {
        let (mut sender, mut receiver) = pair();
        let numbers: Vec<[u8; 1]> = (0..200).map(|number| [number]).collect();
        let messages: Vec<(String, Vec<&[u8]>)> =
            numbers.iter().map(|number| (format!("{number:?}"), vec![number.as_slice(), b"x"])).collect();
        assert!(!receiver.wait(Some(Duration::ZERO)).unwrap());
        sender.send_many(&messages).unwrap();
        for number in 0..200_u8 {
            assert!(receiver.wait(None).unwrap());
            let got = receiver.receive::<String>().unwrap().unwrap();
            assert_eq!((got.value, got.raw), (format!("[{number}]"), vec![number, b'x']));
        }
        assert!(!receiver.wait(Some(Duration::from_millis(1))).unwrap());
        let large = vec![0; MAX_PART + 1];
        let error = sender.send_many(&[(1_u8, vec![]), (2, vec![&large])]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        sender.send(&3_u8, &[], &[]).unwrap();
        assert_eq!(receiver.receive::<u8>().unwrap().unwrap().value, 3);
        drop(sender);
        assert!(receiver.wait(None).unwrap(), "the end is something to receive");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (bytes, kind) in [
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), io::ErrorKind::InvalidData),
            (b"zgpu".to_vec(), io::ErrorKind::UnexpectedEof),
            (
                [b"zgpu\x02\0\0\0".as_slice(), &u32::MAX.to_le_bytes(), &0_u32.to_le_bytes()].concat(),
                io::ErrorKind::InvalidData,
            ),
            (b"zgpu\xff\xff\0\0\0\0\0\0\0\0\0\0".to_vec(), io::ErrorKind::InvalidData),
            // One file, and none came.
            (b"zgpu\x02\0\x01\0\x01\0\0\0\0\0\0\0\x05".to_vec(), io::ErrorKind::InvalidData),
        ] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(&bytes).unwrap();
            drop(one);
            let (_, mut receiver) = split(other).unwrap();
            assert_eq!(receiver.receive::<u8>().unwrap_err().kind(), kind, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_not_sent() {
        let (mut sender, _receiver) = pair();
        let piece = vec![0_u8; MAX_PART / 2 + 1];
        let error = sender.send(&0_u8, &[&piece, &piece], &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
