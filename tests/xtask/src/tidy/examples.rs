//! The example specs are the contract with users: nobody changes one without changing it here as well.

use super::Finding;
use super::Tree;
use sha2::Digest;
use sha2::Sha256;
use std::fmt::Write;

const FOLDER: &str = "specs/examples/";

/// sha256 of each example.
const EXAMPLES: &[(&str, &str)] = &[
    ("bad/cycle.ron", "c34715fd885b5bd230fee061d3cb66cde7a06c0b753e1f655fb664dc05f230bb"),
    ("bad/duplicate-key.ron", "cf9cee15f9631733344cad28a2e2db152987594e4d02f7953b3672f2284c092c"),
    ("bad/escape.ron", "08a645e754981cec953a815b5bc919773d38076682010a9add1a851f58430d7d"),
    ("bad/missing-dataset.ron", "f0dcc4a7326ad11c4a8951449d05748e64d1d2a65dc7bc352e06a0e10d3e9705"),
    ("bad/no-gpu-fits.ron", "ff6e9c40b6964eefebf521a3acd1431b0c66316cfce140416c52d2a83387b185"),
    ("bad/truncated.ron", "51057c1de405cf2a2fa42dfe943680ca384ce8a97ad19e235c67c1c3148cd708"),
    ("bad/two-mistakes.ron", "f99c4b0d482d0e12de6e6bc326b46d16ee4497f2b7a356c60ce4802f2dab6196"),
    ("bad/unknown-field.ron", "33b815ea62c9e7d617db6a3fb1e4d70414a22a23250d59d8d96015f6293f2874"),
    ("fleet.ron", "40bf2821713f9412a6c5e1e9f232e4fcce276fd7e425205ea8745ba9a027472a"),
    ("gpu-cluster.ron", "b8082b869da04b94ee69d17f35e545ab4c17792555b42a1cec897aa5eaea7a68"),
    ("hello.ron", "c33da5d9cda5c37de985d7b6d8064a44c92a7ed49b8967f4442b6716c328fbc1"),
    ("jails.ron", "8e060e57849590a9c587008ef8ce30604515a1a6e2b5be21700a5b48022ce305"),
    ("prod.ron", "1bfc92ff6c6b17e2e8060c667e8d09abb6d7c4687c29f548d8e8704c5c23030c"),
    ("stack.ron", "2b7050f6df831fad4495ec6d9a8dda051cf8c9b6221eb20fc15259d181106957"),
];

pub(super) fn check(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut add = |path: &str, message: String| {
        findings.push(Finding { path: path.into(), line: 0, rule: "examples", message });
    };
    for (name, wanted) in EXAMPLES {
        let path = format!("{FOLDER}{name}");
        match tree.files.get(&path) {
            None => add(&path, "is missing".into()),
            Some(text) if sha256(text) != *wanted => {
                add(&path, "differs from the contract with users: take the change back, or record it".into());
            }
            Some(_) => {}
        }
    }
    for path in tree.paths.iter().filter(|p| p.starts_with(FOLDER) && p.ends_with(".ron")) {
        if !EXAMPLES.iter().any(|(name, _)| path == &format!("{FOLDER}{name}")) {
            add(path, "is not in the list of examples: add it to the contract".into());
        }
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
