//! The verbs of a GPU and of its jobs: their rows of the table, and their arguments.

use super::Argument;
use super::FileKind;
use super::GpuVerb;
use super::Needs;
use super::VerbId;
use super::VerbSpec;
use super::optional;
use super::printable;
use super::required;
use crate::Code;
use crate::CtlError;

/// The largest share of a user.
const MAX_WEIGHT: u32 = 1000;
/// The most ended jobs that can be kept.
const MAX_RETAINED: u32 = 1_000_000;
/// The priorities, from the one that is last to the one that is first.
const PRIORITIES: std::ops::RangeInclusive<i8> = -100..=100;

const fn of_gpu(
    name: &'static str,
    arguments: &'static [Argument],
    refusals: &'static [Code],
    help: &'static str,
) -> VerbSpec {
    VerbSpec {
        id: VerbId::Gpu,
        name,
        arguments,
        file: FileKind::GpuCtl,
        needs: Needs::Nothing,
        refusals,
        help,
    }
}

const fn of_job(
    name: &'static str,
    arguments: &'static [Argument],
    needs: Needs,
    help: &'static str,
) -> VerbSpec {
    let refusals = &[Code::NotFound, Code::Busy];
    VerbSpec { id: VerbId::Gpu, name, arguments, file: FileKind::GpuJobCtl, needs, refusals, help }
}

/// The rows, in the order of the help text.
pub(super) const GPU_VERBS: &[VerbSpec] = &[
    of_gpu("pause", &[], &[], "begin no further job; what runs ends"),
    of_gpu("resume", &[], &[], "go on"),
    of_gpu("restart", &[], &[], "start the node anew when what runs has ended; no job is lost"),
    of_gpu(
        "forgive",
        &[optional("KERNEL")],
        &[Code::NotFound],
        "let a kernel back that was evicted for its timeouts; without a name all, and release the brake",
    ),
    of_gpu(
        "weight",
        &[required("USER"), required("N")],
        &[Code::NotFound],
        "a user's share of the device relative to others, 1 to 1000",
    ),
    of_gpu("retain", &[required("N")], &[], "keep so many ended jobs"),
    of_gpu("cancel", &[], &[], "cancel all jobs of the caller that are not running"),
    of_job("start", &[], Needs::WaitingJob, "the inputs in `in/` are complete"),
    of_job("cancel", &[], Needs::Job, "do not run it, or stop it"),
    of_job(
        "priority",
        &[required("N")],
        Needs::QueuedJob,
        "before or after others of the same user, -100 to 100",
    ),
];

/// The verb of one of these rows, with so many arguments as it takes.
///
/// # Errors
/// [`Code::BadArgument`], naming the verb and what is expected in its place.
pub(super) fn build(spec: &VerbSpec, arguments: &[String]) -> Result<GpuVerb, CtlError> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Ok(match (spec.name, words.as_slice()) {
        ("pause", []) => GpuVerb::Pause,
        ("resume", []) => GpuVerb::Resume,
        ("restart", []) => GpuVerb::Restart,
        ("forgive", []) => GpuVerb::Forgive { kernel: None },
        ("forgive", [kernel]) => GpuVerb::Forgive { kernel: Some((*kernel).to_owned()) },
        ("weight", [user, weight]) => {
            let weight = number(spec, weight, 1..=MAX_WEIGHT)?;
            GpuVerb::Weight { user: (*user).to_owned(), weight }
        }
        ("retain", [jobs]) => GpuVerb::Retain { jobs: number(spec, jobs, 0..=MAX_RETAINED)? },
        ("start", []) => GpuVerb::Start,
        ("cancel", []) => GpuVerb::Cancel,
        ("priority", [priority]) => GpuVerb::Priority { priority: number(spec, priority, PRIORITIES)? },
        _ => {
            let message = format!("`{}`: expected `{}`", spec.name, spec.form());
            return Err(CtlError::new(Code::BadArgument, message));
        }
    })
}

fn number<T>(spec: &VerbSpec, word: &str, range: std::ops::RangeInclusive<T>) -> Result<T, CtlError>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    match word.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => {
            let (least, most) = (range.start(), range.end());
            let message =
                format!("`{}`: `{}` is not a number from {least} to {most}", spec.name, printable(word));
            Err(CtlError::new(Code::BadArgument, message).hint(format!("expected `{}`", spec.form())))
        }
    }
}
