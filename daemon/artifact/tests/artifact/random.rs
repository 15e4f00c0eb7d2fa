//! Whatever the bytes are, unpacking ends with an answer, leaves nothing that is half done, and touches nothing
//! outside.

use crate::common::Ground;
use crate::common::Item;
use crate::common::archive;
use crate::common::content;
use crate::common::file;
use crate::common::folder;
use crate::common::gzip;
use crate::common::link;
use crate::common::tree;
use crate::common::xz;
use crate::common::zstd;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Unpacks, whatever comes of it: the release is there as a whole, or nothing is.
fn whole_or_nothing(bytes: &[u8]) -> bool {
    let ground = Ground::default();
    let done = ground.try_unpack(&ground.tar(bytes), "1", "run1");
    let outside = tree(&ground.top.path().join("outside"));
    assert_eq!(outside, BTreeMap::from([("file".to_owned(), "untouched".to_owned())]));
    match &done {
        Ok(()) => drop(content(&ground.release("1"))),
        Err(e) => {
            let left: Vec<String> =
                tree(&ground.dataset()).into_keys().filter(|n| n != "releases/").collect();
            assert!(left.is_empty(), "{e}: {left:?}");
            assert!(!e.to_string().is_empty());
        }
    }
    done.is_ok()
}

fn good() -> Vec<u8> {
    archive(&[
        folder("bin"),
        file("bin/app", &"program ".repeat(500)),
        link("l", "bin/app"),
        file("x/y/z", "deep"),
    ])
}

/// Names that are likely to hit one another and the ways out.
fn name() -> impl Strategy<Value = String> {
    let part =
        prop::sample::select(vec!["a", "b", "..", ".", "", "l", "outside", "file", ".zed-release.json"]);
    (prop::bool::weighted(0.1), prop::collection::vec(part, 1..5))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_entries_stays_inside(
        entries in prop::collection::vec((prop::sample::select(b"0125".to_vec()), name(), name()), 1..12)
    ) {
        let items: Vec<Item<'_>> = entries
            .iter()
            .map(|(kind, path, target)| Item {
                kind: *kind,
                path: path.as_bytes(),
                link: if matches!(kind, b'1' | b'2') { target.as_bytes() } else { b"" },
                mode: 0o644,
                content: if *kind == b'0' { b"hit" } else { b"" },
            })
            .collect();
        whole_or_nothing(&archive(&items));
    }

    #[test]
    fn a_flipped_bit_is_survived(at in any::<prop::sample::Index>(), bit in 0..8_u8, packing in 0..4_usize) {
        let mut bytes = match packing {
            0 => good(),
            1 => gzip(&good()),
            2 => zstd(&good()),
            _ => xz(&good()),
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        whole_or_nothing(&bytes);
    }

    #[test]
    fn a_cut_archive_is_never_a_release(at in any::<prop::sample::Index>(), packing in 0..4_usize) {
        let bytes = match packing {
            0 => good(),
            1 => gzip(&good()),
            2 => zstd(&good()),
            _ => xz(&good()),
        };
        // The last block of zeros is padding.
        let end = if packing == 0 { bytes.len() - 1023 } else { bytes.len() };
        prop_assert!(!whole_or_nothing(&bytes[..at.index(end)]));
    }

    #[test]
    fn random_bytes_are_refused(
        magic in prop::sample::select(vec![
            &b""[..], b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46",
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        prop_assert!(!whole_or_nothing(&[magic, &bytes].concat()));
    }
}
