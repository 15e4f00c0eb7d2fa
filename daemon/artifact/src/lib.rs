//! Artifacts: what they are, and how they become a release that can be started.
//!
//! Owns an artifact's identity ([`Digests`]), unpacking it safely into a folder of a dataset ([`unpack`]), taking that
//! back ([`discard`]), clearing up ([`prune`]), the link to the release that is current ([`switch`]), and what a
//! release is started with ([`startup`]). Knows archives and folders; knows no store, no host and no plan. An artifact
//! is untrusted until its digest is what the plan says, and its content stays untrusted after that: nothing that it
//! names may lie outside its own folder.
//!
//! Below a dataset's mountpoint:
//!
//! ```text
//! releases/<folder>/                 a release, with `.zed-release.json` inside
//! releases/.new-<run>/               being unpacked, or being removed
//! releases/.old-<run>-<folder>/      moved aside by a run that can still be undone
//! current -> releases/<folder>
//! ```

mod decode;
mod digest;
mod error;
mod extract;
mod layout;
mod limits;
mod marker;
mod place;
mod release;
mod remove;
mod startup;
mod tarball;
mod tree;

pub use digest::Digests;
pub use digest::Found;
pub use error::Problem;
pub use error::ReleaseError;
pub use error::StartupError;
pub use error::UnpackError;
pub use layout::IMAGE_FILE;
pub use layout::ImageConfig;
pub use layout::ROOTFS;
pub use layout::read_image;
pub use limits::Limits;
pub use marker::MARKER;
pub use marker::Marker;
pub use marker::Owner;
pub use release::CURRENT;
pub use release::RELEASES;
pub use release::Unpack;
pub use release::discard;
pub use release::prune;
pub use release::switch;
pub use release::unpack;
pub use startup::startup;
