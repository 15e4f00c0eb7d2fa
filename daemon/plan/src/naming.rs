//! Names of what zed leaves in the store: snapshots and branches. Owns their form and tells ours from others'.

use crate::plan::RunId;
use crate::props::BRANCHES;
use crate::release::sha256_hex;
use crate::time::compact_time;
use zed_spec::DatasetPath;

/// Before every snapshot that zed takes.
pub const SNAPSHOT_PREFIX: &str = "zed-";
/// Longest part of a version in a snapshot's name: dataset and snapshot share 255 bytes.
const VERSION_BYTES: usize = 40;
/// Longest part of a dataset's path in a branch's name: the whole must stay below the 150 bytes of a path.
const BRANCH_BYTES: usize = 90;

/// `zed-<time>-<run>-<version>`: when, by whom, and what it *contains*.
pub(crate) fn snapshot_name(now: i64, run: &RunId, contains: Option<&str>) -> String {
    let version: String = contains
        .unwrap_or("none")
        .chars()
        .take(VERSION_BYTES)
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-') { c } else { '_' })
        .collect();
    format!("{SNAPSHOT_PREFIX}{}-{run}-{version}", compact_time(now))
}

/// A dataset's path as one component. Two datasets never share one: a path that could be mistaken for another,
/// or that is too long, ends in a part of its sha256.
pub(crate) fn branch_stem(dataset: &DatasetPath) -> String {
    let path = dataset.as_str();
    if path.len() <= BRANCH_BYTES && !path.contains('.') {
        return path.replace('/', ".");
    }
    let digest = sha256_hex(path.as_bytes());
    let cut: String = path.chars().take(BRANCH_BYTES - 10).collect();
    format!("{}.{}", cut.replace('/', "."), &digest[..8])
}

/// Where a run puts what it takes out of the way: `zed/branches/<dataset with dots>-<run>`. `mark` tells apart
/// several of one run.
pub(crate) fn branch_path(dataset: &DatasetPath, run: &RunId, mark: &str) -> DatasetPath {
    let text = format!("{BRANCHES}/{}-{run}{mark}", branch_stem(dataset));
    // The stem begins with a letter or digit and holds only what a path may hold, as does a run id. A run id
    // that breaks its own rule leads to the dataset's own name here, which the linter refuses.
    DatasetPath::parse(&text).unwrap_or_else(|_| dataset.clone())
}

/// The stem in a branch's path, to find the branches of a dataset.
pub(crate) fn stem_of_branch(branch: &str) -> Option<&str> {
    let rest = branch.strip_prefix(BRANCHES)?.strip_prefix('/')?;
    rest.rsplit_once('-').map(|(stem, _run)| stem)
}

/// True for what lies below [`BRANCHES`].
pub(crate) fn is_branch(path: &str) -> bool {
    path.strip_prefix(BRANCHES).is_some_and(|rest| rest.starts_with('/'))
}

/// The folder of a release below its dataset's mountpoint. Two versions never share one: what a file name should not
/// hold is written as `%` and two hexadecimal digits, and so is a dot at the beginning.
pub fn release_folder(version: &str) -> String {
    let mut name = String::from("releases/");
    for (index, byte) in version.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-');
        if plain && !(index == 0 && byte == b'.') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// True for what belongs to zed itself: `zed` and everything below it.
pub fn is_own(path: &str) -> bool {
    path.strip_prefix("zed").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn branch_names_are_paths_and_never_collide() {
        let run = RunId("r0123456789abcde".into());
        let long = format!("a/{}", "x".repeat(140));
        let mut seen = BTreeSet::new();
        for path in ["apps/hello", "apps.hello", "apps/hello.v1", "a", &long, &format!("{long}y")] {
            let dataset = DatasetPath::parse(path).unwrap();
            let branch = branch_path(&dataset, &run, "");
            assert!(is_branch(branch.as_str()), "{branch}");
            assert_eq!(stem_of_branch(branch.as_str()), Some(branch_stem(&dataset).as_str()));
            assert!(seen.insert(branch), "{path}");
        }
    }

    #[test]
    fn a_release_has_a_folder_of_its_own() {
        for (version, folder) in [
            ("1.0.0", "releases/1.0.0"),
            ("2.1+build-3_x", "releases/2.1+build-3_x"),
            ("..", "releases/%2e."),
            (".new-1", "releases/%2enew-1"),
            ("a/../b", "releases/a%2f..%2fb"),
            ("1.0%", "releases/1.0%25"),
            ("\u{fc}", "releases/%c3%bc"),
        ] {
            assert_eq!(release_folder(version), folder, "{version}");
        }
    }

    #[test]
    fn a_snapshot_is_named_by_what_it_contains() {
        let run = RunId("r1234567".into());
        assert_eq!(snapshot_name(0, &run, Some("1.0 beta/2")), "zed-19700101T000000Z-r1234567-1.0_beta_2");
        assert_eq!(snapshot_name(0, &run, None), "zed-19700101T000000Z-r1234567-none");
    }

    #[test]
    fn only_zed_and_what_is_below_it_is_our_own() {
        for (path, own) in [("zed", true), ("zed/branches/x", true), ("zeda", false), ("apps/zed", false)] {
            assert_eq!(is_own(path), own, "{path}");
        }
    }
}
