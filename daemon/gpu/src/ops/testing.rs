//! What the tests of operations share: jobs without their text, limits, the validator of SPIR-V.

use crate::device::Limits;
use crate::program::Program;
use crate::wgsl;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use zed_spec::job::Array;
use zed_spec::job::ArrayId;
use zed_spec::job::DType;
use zed_spec::job::Fallback;
use zed_spec::job::Job;
use zed_spec::job::Op;
use zed_spec::job::Reply;
use zed_spec::job::Source;
use zed_spec::job::Step;

/// A small device that can everything.
pub(crate) fn limits() -> Limits {
    Limits {
        push_bytes: 128,
        workgroup_threads: 1024,
        groups: [65_535; 3],
        shared_bytes: 32 << 10,
        buffer_bytes: 128 << 20,
        bindings: 16,
        f64: true,
    }
}

/// A job in the making.
#[derive(Debug, Default)]
pub(crate) struct Text {
    arrays: Vec<Array>,
    inputs: usize,
    steps: Vec<Step>,
}

impl Text {
    fn array(&mut self, dtype: DType, shape: &[u32]) -> ArrayId {
        let id = ArrayId(u32::try_from(self.arrays.len()).expect("few arrays"));
        self.arrays.push(Array { name: format!("a{}", id.0), dtype, shape: shape.to_vec() });
        id
    }

    /// An input; all inputs come before all steps.
    pub(crate) fn input(&mut self, dtype: DType, shape: &[u32]) -> ArrayId {
        assert!(self.steps.is_empty(), "inputs come first");
        self.inputs += 1;
        self.array(dtype, shape)
    }

    /// A step with results of these types and shapes.
    pub(crate) fn step_as(&mut self, op: Op, results: &[(DType, &[u32])]) -> Vec<ArrayId> {
        let results: Vec<ArrayId> = results.iter().map(|(dtype, shape)| self.array(*dtype, shape)).collect();
        self.steps.push(Step { op, results: results.clone() });
        results
    }

    /// A step whose operands broadcast to its result, of their type or the one that it casts to.
    pub(crate) fn step(&mut self, op: Op) -> ArrayId {
        let operands: Vec<&Array> =
            super::operands_of(&op).iter().map(|id| &self.arrays[id.0 as usize]).collect();
        let rank = operands.iter().map(|array| array.shape.len()).max().unwrap_or(0);
        let length = |from_last: usize| {
            let lengths = operands.iter().filter_map(|array| array.shape.iter().rev().nth(from_last));
            lengths.copied().max().unwrap_or(1)
        };
        let shape: Vec<u32> = (0..rank).rev().map(length).collect();
        let dtype = match &op {
            Op::Cast(dtype, _) => *dtype,
            _ => operands.first().map_or(DType::F32, |array| array.dtype),
        };
        self.step_as(op, &[(dtype, &shape)])[0]
    }

    /// The job that keeps these.
    pub(crate) fn job(self, outputs: &[ArrayId]) -> Job {
        Job {
            arrays: self.arrays,
            inputs: vec![Source::Raw; self.inputs],
            steps: self.steps,
            outputs: outputs.to_vec(),
            deadline: Duration::from_secs(10),
            priority: 0,
            fallback: Fallback::Forbid,
            reply: Reply::Id,
        }
    }
}

/// A file of the unpacked Mesa that tests use, or `None` with a line that says that the test is not run.
pub(crate) fn vulkan_file(test: &str, path: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("ZED_TEST_VULKAN").map(PathBuf::from) else {
        println!("{test}: not run: ZED_TEST_VULKAN is not set");
        return None;
    };
    let found = [folder.join(path), folder.join("root").join(path)].into_iter().find(|file| file.exists());
    Some(found.unwrap_or_else(|| panic!("no {path} in {}", folder.display())))
}

/// Compiles every kernel of a program, and has it judged by spirv-val where there is one.
pub(crate) fn validate(test: &str, programs: &[Program]) {
    let validator = vulkan_file(test, "usr/bin/spirv-val");
    let mut seen = BTreeSet::new();
    for dispatch in programs.iter().flat_map(|program| &program.dispatches) {
        let kernel = &dispatch.kernel;
        if !seen.insert(kernel.id.clone()) {
            continue;
        }
        let words =
            wgsl::compile(kernel, &limits()).unwrap_or_else(|error| panic!("{error}\n{}", kernel.source));
        if let Some(validator) = &validator {
            judge(validator, &kernel.source, &words);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the validator is a program")]
fn judge(validator: &std::path::Path, source: &str, words: &[u32]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(file.path(), bytes).expect("written");
    let libraries = validator.ancestors().nth(2).expect("usr").join("lib/x86_64-linux-gnu");
    let output = std::process::Command::new(validator)
        .env("LD_LIBRARY_PATH", libraries)
        .args(["--target-env", "vulkan1.1"])
        .arg(file.path())
        .output()
        .expect("spirv-val runs");
    assert!(output.status.success(), "{}\n{source}", String::from_utf8_lossy(&output.stderr));
}
