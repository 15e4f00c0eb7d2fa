//! Results as text: what `cat jobs/ID/result` shows and `numpy.loadtxt` reads.
//!
//! Owns the form of numbers and rows, and the limit. For each output a line `# NAME f32 [2, 3]`, then its values: of one
//! axis on one line, of more the last axis on a line, with an empty line between matrices. Never longer than
//! [`MAX_RESULT_TEXT`] and a few lines: the rest is in `out/`.

use std::fmt::Write as _;
use zed_spec::job::Array;
use zed_spec::job::DType;
use zed_spec::job::Job;

/// After how many bytes of values the text ends.
pub const MAX_RESULT_TEXT: usize = 1024 * 1024;

/// How many values of one output are enough to reach that: each takes two bytes at least. More need not be read.
pub const MOST_VALUES: u64 = MAX_RESULT_TEXT as u64 / 2 + 2;

/// The text of the outputs of a job; `outputs` holds the little-endian bytes of each, in the job's order.
///
/// Decimals are the shortest that give the same bits back; besides them there are `nan`, `inf` and `-inf`. A text that was
/// cut ends with a line that begins with `...`, which no reader of numbers takes for one.
pub fn render_result(job: &Job, outputs: &[impl AsRef<[u8]>]) -> String {
    // Most values take up to ten characters.
    let values: u64 = job.outputs().map(|(_, array)| array.elements()).sum();
    let room = usize::try_from(values).map_or(MAX_RESULT_TEXT, |n| n.saturating_mul(10).min(MAX_RESULT_TEXT));
    let mut text = String::with_capacity(room + 64);
    for (index, ((_, array), bytes)) in job.outputs().zip(outputs).enumerate() {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# {} {} {:?}", array.name, array.dtype.name(), array.shape);
        if !render_array(&mut text, array, bytes.as_ref()) {
            let name = &array.name;
            let _ = write!(
                text,
                "... cut after {MAX_RESULT_TEXT} bytes of text: the whole of {name} is in out/{name}"
            );
            let _ = match job.outputs.len() - index - 1 {
                0 => writeln!(text),
                more => writeln!(text, ", and {more} more in out/"),
            };
            break;
        }
    }
    text
}

/// False when the text became too long; it then ends after a whole line.
fn render_array(text: &mut String, array: &Array, bytes: &[u8]) -> bool {
    let mut digits = zmij::Buffer::new();
    match array.dtype {
        DType::F32 => rows(text, &array.shape, bytes.as_chunks().0, |text, value| {
            push_float(text, digits.format(f32::from_le_bytes(*value)));
        }),
        DType::F64 => rows(text, &array.shape, bytes.as_chunks().0, |text, value| {
            push_float(text, digits.format(f64::from_le_bytes(*value)));
        }),
        DType::U32 => rows(text, &array.shape, bytes.as_chunks().0, |text, value| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{}", u32::from_le_bytes(*value));
        }),
    }
}

/// Values in lines of the last axis.
fn rows<const N: usize>(
    text: &mut String,
    shape: &[u32],
    values: &[[u8; N]],
    mut push: impl FnMut(&mut String, &[u8; N]),
) -> bool {
    let length = |axis: Option<&u32>| axis.map_or(1, |n| usize::try_from(*n).unwrap_or(usize::MAX).max(1));
    let columns = length(shape.last());
    let lines = match shape {
        [.., lines, _] => length(Some(lines)),
        _ => usize::MAX,
    };
    for (index, row) in values.chunks(columns).enumerate() {
        if index > 0 && index % lines == 0 {
            text.push('\n');
        }
        let begin = text.len();
        for (column, value) in row.iter().enumerate() {
            if column > 0 {
                text.push(' ');
            }
            push(text, value);
            if text.len() > MAX_RESULT_TEXT {
                text.truncate(begin);
                return false;
            }
        }
        text.push('\n');
    }
    true
}

fn push_float(text: &mut String, digits: &str) {
    match digits {
        "NaN" => text.push_str("nan"),
        _ => text.push_str(digits.strip_suffix(".0").unwrap_or(digits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zed_spec::job;

    /// A job with one output of that type and shape.
    fn job_of(input: &str) -> Job {
        let text = format!("(inputs: {{\"a\": {input}}}, steps: {{\"n\": Bits([1], 0)}}, outputs: [\"a\"])");
        job::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("job"))).job
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn rows_are_the_last_axis_and_matrices_are_apart() {
        let numbers = f32s(&[1.0, 2.5, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        for (shape, wanted) in [
            ("[8]", "# a f32 [8]\n1 2.5 -3 4 5 6 7 8\n"),
            ("[2, 4]", "# a f32 [2, 4]\n1 2.5 -3 4\n5 6 7 8\n"),
            ("[8, 1]", "# a f32 [8, 1]\n1\n2.5\n-3\n4\n5\n6\n7\n8\n"),
            ("[2, 2, 2]", "# a f32 [2, 2, 2]\n1 2.5\n-3 4\n\n5 6\n7 8\n"),
            ("[2, 1, 2, 2]", "# a f32 [2, 1, 2, 2]\n1 2.5\n-3 4\n\n5 6\n7 8\n"),
        ] {
            assert_eq!(render_result(&job_of(&format!("Upload(F32, {shape})")), &[&numbers]), wanted);
        }
        assert_eq!(render_result(&job_of("F32(7)"), &[f32s(&[7.0])]), "# a f32 []\n7\n");
    }

    #[test]
    fn every_number_is_the_shortest_that_gives_the_same_bits_back() {
        let values = [0.1, 1e30, -1e-30, f32::MAX, f32::MIN_POSITIVE, 1e-45, 16_777_216.0, 0.3, -0.0, 1e-5];
        let text = render_result(&job_of("Upload(F32, [10])"), &[f32s(&values)]);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line, "0.1 1e+30 -1e-30 3.4028235e+38 1.1754944e-38 1e-45 16777216 0.3 -0 0.00001");
        for (written, value) in line.split(' ').zip(values) {
            assert_eq!(written.parse::<f32>().unwrap().to_bits(), value.to_bits(), "{written}");
        }
        let doubles: Vec<u8> = [0.1, f64::MAX, 5e-324].iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
        let text = render_result(&job_of("Upload(F64, [3])"), &[doubles]);
        assert_eq!(text, "# a f64 [3]\n0.1 1.7976931348623157e+308 5e-324\n");
        let words = f32s(&[f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(render_result(&job_of("Upload(F32, [4])"), &[words]), "# a f32 [4]\nnan nan inf -inf\n");
        let whole: Vec<u8> = [0, u32::MAX].iter().flat_map(|v: &u32| v.to_le_bytes()).collect();
        assert_eq!(render_result(&job_of("Upload(U32, [2])"), &[whole]), "# a u32 [2]\n0 4294967295\n");
    }

    #[test]
    fn a_result_can_be_pasted_back_as_an_input() {
        let text =
            render_result(&job_of("Upload(F32, [4])"), &[f32s(&[f32::NAN, 1e30, -0.5, f32::NEG_INFINITY])]);
        let list = text.lines().nth(1).unwrap().replace(' ', ", ");
        let again =
            job::parse(format!("(inputs: {{\"a\": F32([{list}])}}, op: Neg(\"a\"))").as_bytes()).unwrap();
        let data = again.data[0].as_deref().unwrap();
        assert_eq!(data[4..], f32s(&[1e30, -0.5, f32::NEG_INFINITY]));
        assert!(f32::from_le_bytes(*data.as_chunks().0.first().unwrap()).is_nan());
    }

    #[test]
    fn a_long_result_ends_after_a_whole_line_and_names_the_file() {
        let parsed = job::parse(
            b"(inputs: {\"a\": Upload(F32, [100000, 10]), \"b\": F32(1)}, op: Neg(\"a\"), outputs: [\"b\", \"out\", \"a\"])",
        );
        let job = parsed.unwrap_or_else(|e| panic!("{}", e.render("job"))).job;
        let many = f32s(&vec![0.25; 1_000_000]);
        let text = render_result(&job, &[&f32s(&[1.0])[..], &many, &many]);
        let (last, before) = text.trim_end().rsplit_once('\n').map(|(before, last)| (last, before)).unwrap();
        assert_eq!(
            last,
            "... cut after 1048576 bytes of text: the whole of out is in out/out, and 1 more in out/"
        );
        assert!(text.len() < MAX_RESULT_TEXT + 200 && before.len() > MAX_RESULT_TEXT - 100);
        assert!(before.lines().skip(3).all(|line| line.split(' ').count() == 10), "a line was cut");

        let job = job_of("Upload(F32, [1000000])");
        assert_eq!(
            render_result(&job, &[many]),
            "# a f32 [1000000]\n... cut after 1048576 bytes of text: the whole of a is in out/a\n"
        );
    }
}
