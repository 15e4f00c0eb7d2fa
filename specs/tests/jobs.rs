//! Jobs of GPUs: the examples, the promise for every text, and values that survive being written and read.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a promise that does not hold fails the test")]

#[path = "../fuzz/check_job.rs"]
mod check_job;

use proptest::prelude::ProptestConfig;
use proptest::prelude::any;
use proptest::prop_assert_eq;
use proptest::proptest;
use proptest::sample::Index;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use zed_spec::job;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/jobs").join(dir);
    let mut files: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "ron"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no examples in {}", dir.display());
    files
}

#[test]
fn good_examples_are_accepted_and_mean_the_same_when_rendered() {
    for path in files("") {
        let text = fs::read(&path).unwrap();
        let parsed =
            job::parse(&text).unwrap_or_else(|e| panic!("{}", e.render(&path.display().to_string())));
        let rendered = job::render_job(&parsed);
        let again = job::parse(rendered.as_bytes())
            .unwrap_or_else(|e| panic!("{}\n{rendered}", e.render("rendered")));
        assert_eq!(parsed, again, "{}\n{rendered}", path.display());
    }
}

#[test]
fn bad_examples_get_the_diagnostic_that_they_name() {
    for path in files("bad") {
        let shown = path.display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let expect = first.strip_prefix("// expect ").unwrap_or_else(|| panic!("{shown} has no `// expect`"));
        let (place, words) = expect.split_once(' ').unwrap();
        let Err(diagnostics) = job::parse(text.as_bytes()) else { panic!("{shown} was accepted") };
        let rendered = diagnostics.render("f.ron");
        assert!(rendered.contains(&format!("f.ron:{place}\n")), "{shown}: nothing at {place}:\n{rendered}");
        assert!(rendered.contains(words), "{shown}: `{words}` is missing:\n{rendered}");
    }
}

/// Pieces that mean something in RON or in a job.
const PIECES: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "/*",
    "//",
    "0",
    "-1",
    "1.5",
    "1e39",
    "-inf",
    "NaN",
    "F32",
    "F64",
    "U32",
    "Raw(F32, [2])",
    "Upload(F64, [2, 2])",
    "[[1, 2], [3]]",
    "Add(",
    "\"a\"",
    "\"b\"",
    "Normal(",
    "mu: 0",
    "eps: 0.1",
    "\0",
    "\0\0\0\0\0",
    "\u{e9}",
    "\n",
    "4294967296",
    "0xff",
    "1_000",
    "steps:",
    "op:",
    "outputs: []",
    "Allow",
    "[4294967295]",
];

/// A character boundary of the text.
fn place(text: &str, index: Index) -> usize {
    text.floor_char_boundary(index.index(text.len() + 1))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn texts_near_the_examples_keep_the_promise(
        base in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), any::<Index>(), any::<Index>(), 0..3_u8), 0..6),
    ) {
        let paths = [files(""), files("bad")].concat();
        let mut text = fs::read_to_string(base.get(&paths)).unwrap();
        for (a, b, piece, kind) in edits {
            let (a, b) = (place(&text, a), place(&text, b));
            let piece = PIECES[piece.index(PIECES.len())];
            let (from, to) = (a.min(b), a.max(b));
            match kind {
                0 => text.insert_str(a, piece),
                // Short cuts leave more of the text to be looked at than long ones.
                1 => text.replace_range(from..text.floor_char_boundary(to.min(from + 3)), piece),
                _ => text.replace_range(from..to, ""),
            }
        }
        check_job::check(text.as_bytes());
    }

    #[test]
    fn any_bytes_keep_the_promise(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_job::check(&bytes);
    }

    #[test]
    fn a_job_that_is_written_is_the_job_that_is_read(choices in proptest::collection::vec(any::<u8>(), 0..400)) {
        let text = Maker { choices: &choices, arrays: Vec::new(), names: 0 }.job();
        let parsed = job::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{}\n{text}", e.render("made")));
        let rendered = job::render_job(&parsed);
        let again = job::parse(rendered.as_bytes())
            .unwrap_or_else(|e| panic!("{}\n{rendered}", e.render("rendered")));
        prop_assert_eq!(&parsed, &again, "{}\n{}", text, rendered);
        prop_assert_eq!(job::render_job(&again), rendered);
    }
}

/// Makes texts of valid jobs from a list of choices, so that proptest can make a failing one smaller.
struct Maker<'b> {
    choices: &'b [u8],
    /// Name, type, shape.
    arrays: Vec<(String, &'static str, Vec<usize>)>,
    names: usize,
}

const NUMBERS: &[&str] =
    &["0", "1", "-0.0", "2.5", "-7", "1e-30", "3.4028235e38", "0.1", "16777217", "1_000", "0x1F"];
const SHAPES: &[&[usize]] = &[&[], &[1], &[3], &[2, 3], &[3, 2], &[1, 3], &[2, 1, 3], &[2, 1, 1, 3]];
const UNARY: &[&str] = &["Exp", "Log", "Neg", "Erf", "Log1p", "Relu"];
const BINARY: &[&str] = &["Add", "Mul", "Pow", "Lt", "Max"];
const REDUCE: &[&str] = &["Sum", "ReduceMin", "ReduceMax", "LogSumExp"];
const FAMILIES: &[&str] = &[
    "Normal(mu: 0, sigma: 1)",
    "Normal(-1.5, 1e-3)",
    "Exponential(lambda: 2)",
    "StudentT(nu: 3, mu: 0, sigma: 0.5)",
    "Cauchy(loc: 0, scale: 1)",
    "HalfNormal(1)",
    "Weibull(k: 2, lambda: 1)",
];

impl Maker<'_> {
    fn below(&mut self, n: usize) -> usize {
        match self.choices.split_first() {
            Some((first, rest)) => {
                self.choices = rest;
                usize::from(*first) % n
            }
            None => 0,
        }
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("n{}", self.names)
    }

    fn job(&mut self) -> String {
        let mut text = "Job(inputs: {".to_owned();
        for index in 0..1 + self.below(4) {
            // One that every operation can take.
            let shape = if index == 0 { SHAPES[3] } else { SHAPES[self.below(SHAPES.len())] };
            let dtype = if index == 0 { "F32" } else { self.pick(&["F32", "F64", "U32"]) };
            let name = self.name();
            let value = match self.below(2) {
                0 => format!("{dtype}({})", self.elements(dtype, shape)),
                _ => format!("Upload({dtype}, {shape:?})"),
            };
            let _ = write!(text, "\"{name}\": {value},");
            self.arrays.push((name, dtype, shape.to_vec()));
        }
        text.push_str("}, steps: {");
        for _ in 0..1 + self.below(6) {
            let name = self.name();
            let step = self.step(&name);
            let _ = write!(text, "\"{name}\": {step}, ");
        }
        text.push('}');
        if self.below(2) == 1 {
            let index = self.below(self.arrays.len());
            let name = self.arrays[index].0.clone();
            let _ = write!(text, ", outputs: [\"{name}\"]");
        }
        text.push_str(self.pick(&["", ", deadline: \"1m30s\"", ", deadline: \"1ms\""]));
        text.push_str(self.pick(&["", ", priority: -100", ", priority: 7"]));
        text.push_str(self.pick(&["", ", reply: Text", ", reply: Raw", ", reply: Id"]));
        text.push(')');
        text
    }

    fn elements(&mut self, dtype: &str, shape: &[usize]) -> String {
        match shape.split_first() {
            None if dtype == "U32" => self.pick(&["0", "4294967295", "0xff", "1_0"]).to_owned(),
            None => self.pick(&[NUMBERS, &["inf", "-inf"]].concat()).to_owned(),
            Some((length, rest)) => {
                let items: Vec<_> = (0..*length).map(|_| self.elements(dtype, rest)).collect();
                format!("[{}]", items.join(self.pick(&[",", ", ", " , // x\n"])))
            }
        }
    }

    /// A float array, or a matrix.
    fn array(&mut self, rank: Option<usize>) -> (String, &'static str, Vec<usize>) {
        let good: Vec<_> = self
            .arrays
            .iter()
            .filter(|(_, dtype, shape)| *dtype != "U32" && rank.is_none_or(|rank| shape.len() == rank))
            .cloned()
            .collect();
        good[self.below(good.len())].clone()
    }

    fn step(&mut self, step: &str) -> String {
        let (a, dtype, shape) = self.array(None);
        let (m, m_type, m_shape) = self.array(Some(2));
        let kind = self.below(12);
        let mut give = |part: &str, dtype, shape: &[usize]| {
            self.arrays.push((format!("{step}{part}"), dtype, shape.to_vec()));
        };
        match kind {
            0 => {
                give("", dtype, &shape);
                format!("{}(\"{a}\")", self.pick(UNARY))
            }
            1 => {
                give("", dtype, &shape);
                format!("{}(\"{a}\", \"{a}\")", self.pick(BINARY))
            }
            2 => {
                give("", dtype, &shape);
                let number = self.pick(&[NUMBERS, &["inf", "-inf"]].concat());
                format!("{}({number}, \"{a}\")", self.pick(BINARY))
            }
            3 => {
                let to = if dtype == "F32" { "F64" } else { "F32" };
                give("", to, &shape);
                format!("Cast({to}, \"{a}\")")
            }
            4 => {
                give("", m_type, &m_shape[1..]);
                format!("{}(\"{m}\", 0)", self.pick(REDUCE))
            }
            5 => {
                give("", dtype, &[]);
                format!("{}(a: \"{a}\")", self.pick(REDUCE))
            }
            6 => {
                give("", m_type, &[m_shape[1], m_shape[0]]);
                format!("Transpose(\"{m}\")")
            }
            7 => {
                let (random, dtype) = if self.below(2) == 0 { ("Uniform", "F32") } else { ("Normal", "F64") };
                self.arrays.push((step.to_owned(), dtype, vec![2, 3]));
                format!("{random}(dtype: {dtype}, shape: [2, 3], seed: 18446744073709551615, offset: 9)")
            }
            8 => {
                give("", "U32", &[5]);
                "Bits([5], 7)".to_owned()
            }
            9 => {
                give(".q", dtype, &shape);
                give(".p", dtype, &shape);
                format!(
                    "Leapfrog(family: {}, q: \"{a}\", p: \"{a}\", inv_mass: \"{a}\", eps: -0.5)",
                    self.pick(FAMILIES)
                )
            }
            10 => {
                give(".logp", m_type, &[m_shape[0], 4]);
                format!(
                    "Chain(family: {}, q: \"{m}\", p: \"{m}\", inv_mass: \"{m}\", eps: 1e-3, steps: 4)",
                    self.pick(FAMILIES)
                )
            }
            _ => {
                give(".x", "U32", &[4]);
                give(".y", "F32", &[]);
                format!(
                    "Wgsl(source: \"fn \\\"main\\\"() {{\\n}}\\u{{1}}\", inputs: [\"{a}\", \"{m}\"], outputs: {{\"x\": (U32, [4]), \
                     \"y\": (F32, [])}}, groups: (1, 2, 65535))"
                )
            }
        }
    }
}

/// Two inputs of 64 numbers, about a kilobyte.
fn small_job() -> String {
    let numbers = |factor: f32| {
        let list: Vec<_> = (0..64_u8).map(|n| format!("{:?}", f32::from(n) * factor)).collect();
        list.join(", ")
    };
    format!(
        "Job(inputs: {{\"a\": F32([{}]), \"b\": F32([{}])}}, op: Add(\"a\", \"b\"))",
        numbers(0.37),
        numbers(-1.25)
    )
}

/// Not a test of speed: it prints. `cargo test --release -p zed-spec --test jobs -- --ignored --nocapture`
#[test]
#[ignore = "prints how long it takes; meaningful in release builds only"]
fn how_long_a_small_job_takes_to_read() {
    let smallest = "(inputs: {\"a\": F32(1), \"b\": F32(2)}, op: Add(\"a\", \"b\"))".to_owned();
    for (text, size) in [(smallest, 8), (small_job(), 512)] {
        let rounds = 20_000;
        let mut bytes = 0;
        let begin = std::time::Instant::now();
        for _ in 0..rounds {
            bytes += job::parse(text.as_bytes()).unwrap().data.iter().flatten().map(Vec::len).sum::<usize>();
        }
        let each = begin.elapsed() / rounds;
        println!("a job of {} bytes: {each:?}", text.len());
        assert_eq!(bytes, size * rounds as usize);
    }
}

fn data(input: &str) -> Result<(Vec<u8>, Vec<u32>), String> {
    let text = format!("(inputs: {{\"a\": {input}}}, steps: {{\"n\": Bits([1], 0)}})");
    let parsed = job::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    Ok((parsed.data[0].clone().unwrap_or_default(), parsed.job.arrays[0].shape.clone()))
}

#[test]
fn numbers_are_rounded_once_to_their_own_type() {
    let single = |input: &str, wanted: &[f32], shape: &[u32]| {
        let bytes: Vec<u8> = wanted.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(data(input), Ok((bytes, shape.to_vec())), "{input}");
    };
    single("F32(5)", &[5.0], &[]);
    single("F32([1, 2.5, -0.0])", &[1.0, 2.5, -0.0], &[3]);
    single("F32([ 1,\n\t2 , ])", &[1.0, 2.0], &[2]);
    single("F32([[1], [2], /* two */ [3]])", &[1.0, 2.0, 3.0], &[3, 1]);
    single("F32([1, inf, -inf, 1e-50])", &[1.0, f32::INFINITY, f32::NEG_INFINITY, 0.0], &[4]);
    single("F32([inf, // first\n 1])", &[f32::INFINITY, 1.0], &[2]);
    single("F32([1_000, 0x10, -0b11])", &[1000.0, 16.0, -3.0], &[3]);
    // Rounded to F64 first, this is exactly between two F32 and would go to the other one.
    single("F32([1.00000017881393432617187499])", &[1.000_000_1], &[1]);
    single("F32(1.00000017881393432617187499)", &[1.000_000_1], &[]);
    single("F32(values: [3.4028235e38])", &[f32::MAX], &[1]);
    assert_eq!(data("F64([0.1])"), Ok((0.1_f64.to_le_bytes().to_vec(), vec![1])));
    assert_eq!(data("U32([4294967295, 0])"), Ok((vec![255, 255, 255, 255, 0, 0, 0, 0], vec![2])));
    let (nan, _) = data("F32([1, NaN, nan])").unwrap();
    assert!(nan[4..].as_chunks().0.iter().all(|bytes| f32::from_le_bytes(*bytes).is_nan()));
}

#[test]
fn arrays_that_are_none_are_refused() {
    for (input, word) in [
        ("F32([1 2])", "is a comma missing?"),
        ("F32([1,,2])", "a number is missing here"),
        ("F32([1, , ])", "a number is missing here"),
        ("F32([1e])", "`1e` is not a number"),
        ("F32([--1])", "`--1` is not a number"),
        ("F32([])", "empty"),
        ("F32([[], []])", "empty"),
        ("F32([1, [2]])", "a list stands where"),
        ("F32([[1], 2])", "a number stands where"),
        ("F32([[[1]], [[2]], [3]])", "a number stands where"),
        ("F32([[[[[1]]]]])", "at most 4 axes"),
        ("F32(\"1\")", "must be a number"),
        ("F64([1e999])", "does not fit f64"),
        ("U32([-1])", "is no u32"),
        ("U32([1.0])", "is no u32"),
        ("U32([4294967296])", "is no u32"),
        ("Upload(F32, [0])", "a length must be"),
        ("Upload(F32, [1.5])", "a length must be"),
        ("Upload(F32, 3)", "must be a list of lengths"),
        ("Upload(F16, [3])", "must be one of F32, F64, U32"),
        ("Upload(\"F32\", [3])", "without quotes"),
        ("Upload(F32)", "needs `shape`"),
        ("Upload(F32, [3], 4)", "at most 2 values"),
        ("Upload(dtype: F32, shap: [3])", "did you mean `shape`?"),
        ("Upload(dtype: F32, dtype: F32)", "twice"),
        ("[1, 2]", "expected an input"),
        ("Float32([1])", "did you mean `F32`?"),
    ] {
        let error = data(input).expect_err(input);
        assert!(error.contains(word), "{input}: `{error}` lacks `{word}`");
    }
}

#[test]
fn raw_bytes_follow_the_text_and_are_as_many_as_the_inputs_need() {
    let text = b"(inputs: {\"a\": Raw(F32, [2]), \"b\": F32(1), \"c\": Raw(F64, [])}, op: Exp(\"a\"))";
    let with = |after: &[u8]| job::parse(&[&text[..], after].concat());
    let parsed = with(&[0; 17]).unwrap();
    assert_eq!(parsed.raw, Some(text.len() + 1..text.len() + 17));
    assert_eq!(parsed.data.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    for (after, word) in
        [(&[0_u8; 16][..], "and 15 follow"), (&[0; 18], "and 17 follow"), (&[], "no NUL byte")]
    {
        let error = with(after).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("`c` f64 [] has 8"), "{error}");
    }
    assert_eq!(job::raw_bytes(text), Ok(16));
    assert_eq!(job::raw_bytes(&[&text[..], &[0, 1]].concat()), Ok(16));
    assert!(job::raw_bytes(b"(inputs: {\"a\": Raw(F32, [2])}, op: Exp(\"b\"))").is_err());
    let none = b"(op: Bits([1], 0))";
    assert_eq!(job::raw_bytes(none), Ok(0));
    assert_eq!(job::parse(&[&none[..], &[0]].concat()).unwrap().raw, None);
    let error = job::parse(&[&none[..], &[0, 1]].concat()).unwrap_err().to_string();
    assert!(error.contains("1 bytes follow the NUL byte"), "{error}");
}

#[test]
fn limits_are_told_and_long_jobs_are_read() {
    let error = |text: String| job::parse(text.as_bytes()).unwrap_err().to_string();
    let longest = format!("(op: Bits([1], 0)){}", " ".repeat(job::MAX_TEXT - 18));
    assert_eq!(longest.len(), job::MAX_TEXT);
    assert!(job::parse(longest.as_bytes()).is_ok());
    // What follows the text does not count.
    assert!(error(format!("{longest}\0x")).contains("1 bytes follow"));
    assert!(error(format!("{longest} ")).contains("at most 1048576 bytes"));
    let steps = |count: usize| {
        let list: Vec<_> = (0..count).map(|n| format!("\"s{n}\": Bits([1], {n})")).collect();
        format!("(steps: {{{}}})", list.join(", "))
    };
    assert_eq!(job::parse(steps(job::MAX_STEPS).as_bytes()).unwrap().job.steps.len(), job::MAX_STEPS);
    assert!(error(steps(job::MAX_STEPS + 1)).contains("at most 256 steps"));
    let numbers = format!("(inputs: {{\"a\": F32([{}1])}}, op: Sum(\"a\"))", "1,".repeat(500_000));
    let parsed = job::parse(numbers.as_bytes()).unwrap();
    assert_eq!(parsed.job.arrays[0].shape, [500_001]);
}

#[test]
fn types_and_shapes_follow_from_the_inputs() {
    let inputs = "\"s\": F32(2), \"v\": F32([1, 2, 3]), \"c\": F32([[1], [2]]), \"m\": F32([[1, 2, 3], [4, 5, 6]]), \
                  \"d\": F64([1, 2]), \"u\": U32([1, 2])";
    for (op, wanted) in [
        ("Exp(\"m\")", Ok("out f32 [2, 3]")),
        ("Add(\"s\", \"v\")", Ok("out f32 [3]")),
        ("Add(\"c\", \"v\")", Ok("out f32 [2, 3]")),
        ("Pow(2, \"d\")", Ok("out f64 [2]")),
        ("Mul(\"v\", 1e39)", Err("it does not fit f32")),
        ("Mul(\"d\", 1e39)", Ok("out f64 [2]")),
        ("Max(\"v\", -inf)", Ok("out f32 [3]")),
        ("Add(1, 2)", Err("needs an array")),
        ("Add(\"m\", \"d\")", Err("of one type")),
        ("Add(\"u\", \"u\")", Err("is neither")),
        ("Add(v, \"v\")", Err("names are written in quotes: \"v\"")),
        ("Add(Exp(\"v\"), \"v\")", Err("a step and a name of its own")),
        ("Add(\"v\", [1, 2, 3])", Err("give it as an input")),
        ("NormalLogPdf(\"v\", 0, \"c\")", Ok("out f32 [2, 3]")),
        ("NormalLogPdf(\"m\", \"v\", \"c\")", Ok("out f32 [2, 3]")),
        ("NormalLogPdf(1, \"v\", \"d\")", Err("of one type")),
        ("Cast(F64, \"m\")", Ok("out f64 [2, 3]")),
        ("Cast(F32, \"m\")", Err("of that type already")),
        ("Cast(U32, \"m\")", Err("must be one of F32, F64")),
        ("Sum(\"m\")", Ok("out f32 []")),
        ("Sum(\"m\", 0)", Ok("out f32 [3]")),
        ("LogSumExp(\"m\", 1)", Ok("out f32 [2]")),
        ("Sum(\"m\", -1)", Err("its axes are 0 to 1")),
        ("Sum(\"s\", 0)", Err("it is a single value")),
        ("Matmul(\"c\", \"c\")", Err("has 1 columns")),
        ("Matmul(\"m\", \"v\")", Err("takes matrices")),
        ("Matmul(\"m\", \"c\", Tiles)", Err("did you mean `Tiled`?")),
        ("Transpose(\"m\")", Ok("out f32 [3, 2]")),
        ("Transpose(\"v\")", Err("takes matrices")),
        ("KineticEnergy(\"v\", \"v\")", Ok("out f32 []")),
        ("KineticEnergy(\"v\", \"m\")", Err("the same shape")),
        ("Uniform(F64, [2, 2], 1)", Ok("out f64 [2, 2]")),
        ("Uniform(U32, [2, 2], 1)", Err("must be one of F32, F64")),
        ("Bits([8], 1, 4294967292)", Ok("out u32 [8]")),
        ("Bits([8], 1, 4294967293)", Err("take another seed")),
        ("Normal(F64, [5], 1, 4294967292)", Err("take another seed")),
        ("Bits([8], -1)", Err("`seed` must be")),
        ("Chain(HalfNormal(1), \"m\", \"m\", \"m\", 0.1, 7)", Ok("out.q f32 [2, 7, 3]")),
        ("Chain(HalfNormal(1), \"v\", \"v\", \"v\", 0.1, 7)", Ok("out.q f32 [7, 3]")),
        ("Chain(HalfNormal(1), \"s\", \"s\", \"s\", 0.1, 7)", Err("is neither")),
        ("Chain(HalfNormal(1), \"v\", \"v\", \"v\", inf, 7)", Err("it must be finite")),
        ("Chain(HalfNormal(1), \"v\", \"v\", \"v\", 0.1, 0)", Err("`steps` must be")),
        ("Chain(Gamma(1), \"v\", \"v\", \"v\", 0.1, 7)", Err("is not a family")),
        ("Leapfrog(Weibull(0, 1), \"v\", \"v\", \"v\", 0.1)", Err("`k` cannot be `0`")),
        ("Leapfrog(Normal(NaN, 1), \"v\", \"v\", \"v\", 0.1)", Err("it must be finite")),
        ("Leapfrog(StudentT(1, 0, 1e-50), \"v\", \"v\", \"v\", 0.1)", Err("in f32 it is 0")),
        ("Leapfrog(StudentT(1, 0, 1e-50), \"d\", \"d\", \"d\", 0.1)", Ok("out.q f64 [2]")),
        ("Wgsl(\"\", [\"u\"], {\"x\": (U32, [2])}, (1, 1, 1))", Ok("out.x u32 [2]")),
        ("Wgsl(\"\", [], {}, (1, 1, 1))", Err("needs an output")),
        ("Wgsl(\"\", [], {\"x\": (U32, [2]), \"x\": (U32, [2])}, (1, 1, 1))", Err("duplicate output")),
        ("Wgsl(\"\", [], {\"X\": (U32, [2])}, (1, 1, 1))", Err("cannot be the name")),
        ("Wgsl(\"\", [], {\"x\": (U32, [2])}, (1, 1, 65536))", Err("from 1 to 65535")),
        ("Dot(\"m\", \"m\")", Err("did you mean `Matmul`?")),
        ("\"Exp\"", Err("expected an operation")),
    ] {
        let text = format!("(inputs: {{{inputs}}}, op: {op})");
        let found = job::parse(text.as_bytes()).map_err(|e| e.to_string()).map(|parsed| {
            let (_, array) = parsed.job.outputs().next().unwrap();
            format!("{} {} {:?}", array.name, array.dtype.name(), array.shape)
        });
        match (found, wanted) {
            (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{op}"),
            (Err(error), Err(word)) => assert!(error.contains(word), "{op}: `{error}` lacks `{word}`"),
            (found, wanted) => panic!("{op}: found {found:?}, expected {wanted:?}"),
        }
    }
}

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/GPU.md")).unwrap()
}

/// An example of docs/GPU.md: its name, its commands, and whether it is refused.
struct Example {
    name: String,
    commands: String,
    output: String,
    refused: bool,
}

fn examples() -> Vec<Example> {
    let document = document();
    let block = |text: &str, fence: &str| -> String {
        let text = text.strip_prefix(fence).unwrap_or_else(|| panic!("no {fence} in:\n{text}"));
        text.split_once("\n```\n").unwrap().0.to_owned()
    };
    let examples = document.split("<!-- example: ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" -->\n").unwrap();
        let commands = block(rest, "```sh\n");
        let (kind, rest) = rest.split_once("\n<!-- output").unwrap().1.split_once(" -->\n").unwrap();
        Example {
            name: name.to_owned(),
            commands,
            output: block(rest, "```text\n"),
            refused: kind == ": contains",
        }
    });
    examples.collect()
}

#[test]
fn the_examples_of_the_document_are_jobs() {
    let examples = examples();
    assert_eq!(
        examples.len(),
        document().matches("```sh\n").count(),
        "a block of commands that is no example"
    );
    assert!(examples.len() >= 8);
    for Example { name, commands, output, refused } in examples {
        let heredoc = commands.split_once("<<'EOF'\n").and_then(|(_, rest)| rest.split_once("\nEOF"));
        let quoted = commands.split_once("echo '").and_then(|(_, rest)| rest.split_once('\''));
        let (text, _) = heredoc.or(quoted).unwrap_or_else(|| panic!("{name} writes no job"));
        match job::raw_bytes(text.as_bytes()) {
            Ok(_) => assert!(!refused, "{name} is accepted"),
            Err(found) => assert!(refused && found.to_string().contains(&output), "{name}: {found}"),
        }
    }
}

#[test]
fn every_operation_and_family_is_documented() {
    let document = document();
    let names = job::Unary::ALL
        .iter()
        .map(|op| op.name())
        .chain(job::Binary::ALL.iter().map(|op| op.name()))
        .chain(job::Reduction::ALL.iter().map(|op| op.name()))
        .chain(job::Random::ALL.iter().map(|op| op.name()))
        .chain(["Cast", "KineticEnergy", "NormalLogPdf", "Matmul", "Transpose", "Leapfrog", "Chain", "Wgsl"])
        .chain([
            "Normal(mu",
            "Exponential",
            "StudentT",
            "Cauchy",
            "HalfNormal",
            "Weibull",
            "F32",
            "F64",
            "U32",
            "Upload",
            "Raw",
        ]);
    for name in names {
        let shown = if name.contains('(') { format!("`{name}") } else { format!("`{name}(") };
        assert!(document.contains(&shown), "docs/GPU.md does not show {shown}");
    }
    for variant in job::MatmulVariant::ALL {
        assert!(document.contains(&format!("`{}`", variant.name())), "{variant:?}");
    }
}
