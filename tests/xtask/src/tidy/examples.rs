//! The example specs and jobs are the contract with users: nobody changes one without changing it here as well.

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
    ("jobs/bad/axis.ron", "b0c2e6aa605eefaa18b9fbabe41625ac2e19ad82e0a6707a16126351428f7424"),
    ("jobs/bad/broadcast.ron", "7efc00a8e029ab2c596445fa3315d205af99e447e48b61ce7c662ce2d1079f0f"),
    ("jobs/bad/deadline.ron", "40ddad10c9bd250b057ce9c9d5cd111136e6dc13cfd5ae1100522a7c573ba694"),
    ("jobs/bad/duplicate-name.ron", "faeca870ed267493708a4f4ebfad9795e8ae4bdacaef2bf48d0c1e65de6628fc"),
    ("jobs/bad/elements.ron", "ab5a5ccc51f819e6aadd49edbffe47c5725a49e4a855b71cb2793417a64d2a5d"),
    ("jobs/bad/inner-lengths.ron", "5d1061d315de0bf20a3b9c5c33d0e49890f874336f07427675a85c94eb0a903c"),
    ("jobs/bad/mixed-arguments.ron", "d2c2529ebaff3f9a43257a1366645a304fc6ea6a421073e93f496d91c9dccd34"),
    ("jobs/bad/not-made-yet.ron", "c8c37a7c10a49b9081e678d29d43cd631ad4f762b40649c7d63906b6719794fa"),
    ("jobs/bad/nothing-to-do.ron", "f9da0ff2e12c3c5df8691ca625aad565f91b633527df601d7c47121a7f11abc4"),
    ("jobs/bad/output.ron", "d63f57c7880fc49883a6bbb3e0046878f26d7f6817bdc158bdf3253b62ce2fe7"),
    ("jobs/bad/ragged.ron", "aa2b03f6681b8007afdb19b2e1ec69bad35ab24803bb9ecb549b98ac265b8b08"),
    ("jobs/bad/rank.ron", "93f4d8b3a1cc5723abdba44d266521fc1a05e438c54583d360cf702ff8999915"),
    ("jobs/bad/raw-is-missing.ron", "1af099e54ca4a63ec6e0ac77d7f8c3c503d57aef7ad7c5485e3af4d435110501"),
    ("jobs/bad/several-results.ron", "ba665dc5e46c6cf918472a63a35e7dddb2f0830384db7af6f0060332048eaab4"),
    ("jobs/bad/shader-fallback.ron", "e74bdbe0a88ef0ad1ba352f8142b58e41749b21a3a065d7266ca105baf55a066"),
    ("jobs/bad/sigma.ron", "5e5166b8fb974c3a27607efbe63f38c533ed014593ae7a81d29db6ad69381398"),
    ("jobs/bad/step-size.ron", "0157bf1b04e4f5b090c8eb1ff599bcef989a9ab3a4165f243926051d34f3f3f5"),
    ("jobs/bad/too-large.ron", "3395029663d6a46084d453072eb01f4e6d98e05d09e7bfa8a6a65287155d23aa"),
    ("jobs/bad/two-mistakes.ron", "b2ca4f20f3ef017b3a9a04e98e63a91734679484575a06a0881080458f0a5300"),
    ("jobs/bad/two-types.ron", "27ed4f9b27b5b05fd4080e41523f1a337085bd5d1d7d8dd83fc6bbb998e83744"),
    ("jobs/bad/u32.ron", "0b52897e51ef4c91660de50817cd73b5a57bbcf4b4cd13f29cdbf762c0d77305"),
    ("jobs/bad/unknown-array.ron", "3f663029ebbe6f379081228d4eb29c1e3436e4e5f883dde93185724a7804a170"),
    ("jobs/bad/unknown-operation.ron", "425b196f65f06b70aab3efd26e725eca0f33be254c699863ffbac47b586ff387"),
    ("jobs/chain.ron", "f4838aeb167cef0c20da317d9e017135d95c29376324930bc0c800aa92a79d86"),
    ("jobs/matmul.ron", "e31fa24d94c06f71fd8b98b2b526d4ed352ba3072338d9fa1904bb0772db930b"),
    ("jobs/random.ron", "763ac6f06d00617f2af78e30f7b4bc8e022987329f3a7f467f1d7beabeb5cd18"),
    ("jobs/shader.ron", "94a4687704cd35e3601997f27956ef67d198862c30c35e64413618c4ace244ca"),
    ("jobs/steps.ron", "105068efb78b0552038a343394453b91d78599388645c2af649178dfde24dcf5"),
    ("jobs/sum.ron", "50e46047a9d9af006cd67b613397e750572aabe0c33e798b2be2823a94c740c7"),
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
