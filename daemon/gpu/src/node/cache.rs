//! The file of a pipeline cache: our header, then what the driver gave.
//!
//! Pure. Vulkan's own header does not say of which driver a cache is (Mesa's driver for CPUs writes the same one for all its
//! versions) and has no checksum, and drivers believe what they are given. So a file is used only when every byte of its
//! header is what this device and driver would write, and the rest has the checksum.

use crate::device::DeviceInfo;
use sha2::Digest;
use sha2::Sha256;
use zerocopy::FromBytes;
use zerocopy::Immutable;
use zerocopy::IntoBytes;
use zerocopy::KnownLayout;
use zerocopy::little_endian::U32;
use zerocopy::little_endian::U64;

/// Changes with the header.
const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"zedvkpc\n";

/// No driver's cache is larger; what is, is no cache.
pub(super) const MAX_FILE: u64 = 256 << 20;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U32,
    driver_number: U32,
    driver_uuid: [u8; 16],
    device_uuid: [u8; 16],
    vendor_id: U32,
    device_id: U32,
    length: U64,
    sha256: [u8; 32],
}

/// What Vulkan says that a cache begins with: `VkPipelineCacheHeaderVersionOne`.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct VulkanHeader {
    size: U32,
    version: U32,
    vendor_id: U32,
    device_id: U32,
    uuid: [u8; 16],
}

/// What a cache must be of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    device_uuid: [u8; 16],
    driver_uuid: [u8; 16],
    driver_number: u32,
    vendor_id: u32,
    device_id: u32,
    /// What the driver calls `pipelineCacheUUID`.
    cache_uuid: [u8; 16],
}

impl Identity {
    /// That of a device and its driver.
    pub(super) fn of(info: &DeviceInfo, cache_uuid: [u8; 16]) -> Self {
        Self {
            device_uuid: info.uuid.0,
            driver_uuid: info.driver_uuid,
            driver_number: info.driver_number,
            vendor_id: info.vendor_id,
            device_id: info.device_id,
            cache_uuid,
        }
    }
}

/// Why a file is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rejected {
    /// It ends early, or goes on.
    #[error("it has {found} bytes instead of {wanted}")]
    Length {
        /// How many it has.
        found: u64,
        /// How many it should have.
        wanted: u64,
    },
    /// It is something else.
    #[error("it is no pipeline cache of zed")]
    Magic,
    /// Of another version of zed.
    #[error("it has format {0}, this version of zed writes {FORMAT}")]
    Format(u32),
    /// Of another device.
    #[error("it is of another device")]
    Device,
    /// Of another driver or another version of it.
    #[error("it is of another driver, or of another version of it")]
    Driver,
    /// Not what was written.
    #[error("it is damaged: its checksum is wrong")]
    Checksum,
    /// The driver's part is not of this device and driver.
    #[error("what the driver wrote into it is not for this device")]
    Vulkan,
}

/// The file for what a driver gave.
pub(super) fn encode(blob: &[u8], identity: &Identity) -> Vec<u8> {
    let header = Header {
        magic: MAGIC,
        format: U32::new(FORMAT),
        driver_number: U32::new(identity.driver_number),
        driver_uuid: identity.driver_uuid,
        device_uuid: identity.device_uuid,
        vendor_id: U32::new(identity.vendor_id),
        device_id: U32::new(identity.device_id),
        length: U64::new(blob.len() as u64),
        sha256: Sha256::digest(blob).into(),
    };
    [header.as_bytes(), blob].concat()
}

/// What the driver gave, from a file.
///
/// # Errors
/// Why it is not to be used.
pub(super) fn decode<'a>(file: &'a [u8], identity: &Identity) -> Result<&'a [u8], Rejected> {
    let (found, least) = (file.len() as u64, size_of::<Header>() as u64);
    let (header, blob) =
        Header::ref_from_prefix(file).map_err(|_| Rejected::Length { found, wanted: least })?;
    if header.magic != MAGIC {
        return Err(Rejected::Magic);
    }
    if header.format.get() != FORMAT {
        return Err(Rejected::Format(header.format.get()));
    }
    let device = (header.device_uuid, header.vendor_id.get(), header.device_id.get());
    if device != (identity.device_uuid, identity.vendor_id, identity.device_id) {
        return Err(Rejected::Device);
    }
    if (header.driver_number.get(), header.driver_uuid) != (identity.driver_number, identity.driver_uuid) {
        return Err(Rejected::Driver);
    }
    if header.length.get() != blob.len() as u64 {
        return Err(Rejected::Length { found, wanted: header.length.get().saturating_add(least) });
    }
    if <[u8; 32]>::from(Sha256::digest(blob)) != header.sha256 {
        return Err(Rejected::Checksum);
    }
    check_blob(blob, identity)?;
    Ok(blob)
}

/// Checks what the driver wrote, which has the checksum, but may have been written into a cache of another one.
fn check_blob(blob: &[u8], identity: &Identity) -> Result<(), Rejected> {
    let (header, _) = VulkanHeader::ref_from_prefix(blob).map_err(|_| Rejected::Vulkan)?;
    let found = (header.size.get() as usize, header.version.get());
    let of = (header.vendor_id.get(), header.device_id.get(), header.uuid);
    let ours = found == (size_of::<VulkanHeader>(), 1)
        && of == (identity.vendor_id, identity.device_id, identity.cache_uuid);
    if ours { Ok(()) } else { Err(Rejected::Vulkan) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            device_uuid: *b"device uuid 0123",
            driver_uuid: *b"driver uuid 0123",
            driver_number: 0x0190_0007,
            vendor_id: 0x10de,
            device_id: 0x2330,
            cache_uuid: *b"cache uuid 01234",
        }
    }

    fn blob(payload: &[u8]) -> Vec<u8> {
        let of = identity();
        let numbers = [32, 1, of.vendor_id, of.device_id];
        let mut blob: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        blob.extend(of.cache_uuid);
        blob.extend(payload);
        blob
    }

    #[test]
    fn what_was_written_is_read_back() {
        for payload in [b"".as_slice(), b"x", &[7; 10_000]] {
            let blob = blob(payload);
            assert_eq!(decode(&encode(&blob, &identity()), &identity()), Ok(blob.as_slice()));
        }
    }

    #[test]
    fn the_header_has_the_layout_of_its_format() {
        let file = encode(&blob(b"payload"), &identity());
        assert_eq!(&file[..16], b"zedvkpc\n\x01\0\0\0\x07\0\x90\x01");
        assert_eq!(&file[16..48], b"driver uuid 0123device uuid 0123");
        assert_eq!(&file[48..64], b"\xde\x10\0\0\x30\x23\0\0\x27\0\0\0\0\0\0\0");
        assert_eq!(file.len(), 96 + 32 + 7);
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let file = encode(&blob(b"some pipelines"), &identity());
        for place in 0..file.len() {
            for bit in [1, 0x10, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[place] ^= bit;
                assert!(decode(&damaged, &identity()).is_err(), "byte {place} ^ {bit}");
            }
            let cut = decode(&file[..place], &identity());
            assert!(matches!(cut, Err(Rejected::Length { .. })), "cut at {place}: {cut:?}");
        }
        for more in 1..100 {
            let longer = [file.as_slice(), &vec![0; more]].concat();
            assert!(matches!(decode(&longer, &identity()), Err(Rejected::Length { .. })), "{more} more");
        }
    }

    #[test]
    fn what_is_of_another_device_driver_or_format_says_so() {
        let file = encode(&blob(b"payload"), &identity());
        let change = |change: fn(&mut Identity)| {
            let mut other = identity();
            change(&mut other);
            decode(&file, &other)
        };
        assert_eq!(change(|other| other.device_uuid[3] ^= 1), Err(Rejected::Device));
        assert_eq!(change(|other| other.vendor_id += 1), Err(Rejected::Device));
        assert_eq!(change(|other| other.device_id += 1), Err(Rejected::Device));
        assert_eq!(change(|other| other.driver_number += 1), Err(Rejected::Driver));
        assert_eq!(change(|other| other.driver_uuid[15] ^= 1), Err(Rejected::Driver));
        assert_eq!(change(|other| other.cache_uuid[15] ^= 1), Err(Rejected::Vulkan));
        let mut newer = file.clone();
        newer[8] = 2;
        assert_eq!(decode(&newer, &identity()), Err(Rejected::Format(2)));
        assert_eq!(decode(b"", &identity()), Err(Rejected::Length { found: 0, wanted: 96 }));
        assert_eq!(decode(&[b'x'; 500], &identity()), Err(Rejected::Magic));
    }

    #[test]
    fn a_driver_s_part_that_is_not_its_own_is_refused_in_spite_of_its_checksum() {
        let good = blob(b"payload");
        for place in 0..32 {
            let mut bad = good.clone();
            bad[place] ^= 1;
            let file = encode(&bad, &identity());
            assert_eq!(decode(&file, &identity()), Err(Rejected::Vulkan), "byte {place}");
        }
        for length in 0..32 {
            let file = encode(&good[..length], &identity());
            assert_eq!(decode(&file, &identity()), Err(Rejected::Vulkan), "{length} bytes");
        }
    }
}
