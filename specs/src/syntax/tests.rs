//! The syntax tree against the `ron` crate, and its own messages.

use super::*;
use proptest::prelude::*;
use ron::Value;
use ron::value::Number;

fn document(max_values: usize) -> Document {
    Document { noun: "spec", smallest: "Deploy()", max_values, numbers: false }
}

fn parse(text: &str) -> Result<Node<'_>, SyntaxError> {
    parse_document(text, 0, document(MAX_VALUES))
}

/// The tree as the `ron` crate would see it: places, names and the difference between `()` and `[]` are lost.
fn to_value(node: &Node<'_>) -> Value {
    match &node.kind {
        Kind::Bool(value) => Value::Bool(*value),
        Kind::Int { negative: false, magnitude } => Value::Number(match *magnitude {
            n if u8::try_from(n).is_ok() => Number::U8(n.try_into().unwrap()),
            n if u16::try_from(n).is_ok() => Number::U16(n.try_into().unwrap()),
            n if u32::try_from(n).is_ok() => Number::U32(n.try_into().unwrap()),
            n => Number::U64(n),
        }),
        Kind::Int { negative: true, magnitude } => {
            Value::Number(match 0_i64.checked_sub_unsigned(*magnitude).unwrap() {
                n if i8::try_from(n).is_ok() => Number::I8(n.try_into().unwrap()),
                n if i16::try_from(n).is_ok() => Number::I16(n.try_into().unwrap()),
                n if i32::try_from(n).is_ok() => Number::I32(n.try_into().unwrap()),
                n => Number::I64(n),
            })
        }
        Kind::Float(value) => Value::Number(Number::new(*value)),
        Kind::Char(value) => Value::Char(*value),
        Kind::Str(text) => Value::String(text.clone().into_owned()),
        Kind::Ident(name) if name.text == "None" => Value::Option(None),
        Kind::Ident(_) => Value::Seq(vec![]),
        Kind::List(items) => Value::Seq(items.iter().map(to_value).collect()),
        Kind::Numbers(_) => unreachable!("not asked for"),
        Kind::Map(entries) => Value::Map(entries.iter().map(|(k, v)| (to_value(k), to_value(v))).collect()),
        Kind::Tuple { name: Some(name), items } if name.text == "Some" && items.len() == 1 => {
            Value::Option(Some(Box::new(to_value(&items[0]))))
        }
        Kind::Tuple { items, .. } => Value::Seq(items.iter().map(to_value).collect()),
        Kind::Struct { fields, .. } => Value::Map(
            fields.iter().map(|f| (Value::String(f.name.text.to_owned()), to_value(&f.value))).collect(),
        ),
    }
}

/// `Some` and `None` with a wrong number of values are syntax to us and nonsense to ron.
fn is_odd_option(node: &Node<'_>) -> bool {
    let odd_name = |name: &Option<Name<'_>>, count: usize| match name.map(|n| n.text) {
        Some("Some") => count != 1,
        Some("None") => true,
        _ => false,
    };
    match &node.kind {
        Kind::Ident(name) => name.text == "Some",
        Kind::List(items) => items.iter().any(is_odd_option),
        Kind::Map(entries) => entries.iter().any(|(k, v)| is_odd_option(k) || is_odd_option(v)),
        Kind::Tuple { name, items } => odd_name(name, items.len()) || items.iter().any(is_odd_option),
        Kind::Struct { name, fields } => odd_name(name, 0) || fields.iter().any(|f| is_odd_option(&f.value)),
        _ => false,
    }
}

/// Makes `()` and `[]`, and single and double precision, the same.
fn normal(value: Value) -> Value {
    match value {
        Value::Unit => Value::Seq(vec![]),
        Value::Number(Number::F32(n)) => Value::Number(Number::new(f64::from(n.get()))),
        Value::Option(Some(inner)) => Value::Option(Some(Box::new(normal(*inner)))),
        Value::Seq(items) => Value::Seq(items.into_iter().map(normal).collect()),
        Value::Map(map) => Value::Map(map.into_iter().map(|(k, v)| (normal(k), normal(v))).collect()),
        other => other,
    }
}

/// Texts made from a list of choices, so that proptest can make a failing one smaller.
struct Maker<'b> {
    choices: &'b [u8],
    out: String,
}

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

    fn put(&mut self, choices: &[&str]) {
        let index = self.below(choices.len());
        self.out.push_str(choices[index]);
    }

    fn space(&mut self) {
        self.put(&[
            "",
            "",
            "",
            " ",
            "\n",
            "\r\n",
            "\t",
            " // c\n",
            "/* a */",
            "/* /* ) */ \" */",
            "\u{85}",
            "  ",
        ]);
    }

    fn ident(&mut self) {
        self.put(&[
            "a", "Some_", "x1", "_", "Deploy", "b", "r", "br", "r#raw", "nan", "truex", "none", "Nested",
        ]);
    }

    fn comma(&mut self, last: bool) {
        self.space();
        if !last || self.below(3) == 0 {
            self.out.push(',');
        }
        self.space();
    }

    fn scalar(&mut self) {
        match self.below(5) {
            0 => self.put(&["true", "false", "None", "Always", "b", "r", "br", "_x"]),
            1 => self.put(&[
                "0",
                "1",
                "255",
                "256",
                "65536",
                "4294967296",
                "18446744073709551615",
                "1_000",
                "0xff",
                "0xFF_ff",
                "0b1010",
                "0o17",
                "-1",
                "-129",
                "+7",
                "-9223372036854775808",
                "007",
            ]),
            2 => self.put(&[
                "1.0", "0.5", ".5", "5.", "-2.25", "+1.5", "1.5e3", "1.5e-3", "1.5E+3", "1_0.2_5", "0.1",
            ]),
            3 => self.put(&["'a'", "'\"'", "'\\''", "'\\n'", "'\\u{1F600}'", "'\\x41'", "' '", "'\u{e9}'"]),
            _ => self.put(&[
                "\"\"",
                "\"text\"",
                "\"a\\\"b\"",
                "\"\\\\\"",
                "\"\\n\\r\\t\\0\\x41\\u{e9}\\'\"",
                "\"two\nlines\"",
                "\"joined \\\n   up\"",
                "\"joined \\\r\n   up\"",
                "\"// no comment\"",
                "\"/* none */\"",
                "r\"raw \\n\"",
                "r#\"a \" b\"#",
                "r##\"a \"# b\"##",
                "\"\u{1F600} \u{e9}\"",
            ]),
        }
    }

    fn value(&mut self, depth: usize) {
        if depth == 0 {
            return self.scalar();
        }
        match self.below(6) {
            0 => self.scalar(),
            1 => {
                self.out.push('[');
                self.items(depth);
                self.out.push(']');
            }
            2 => {
                self.out.push('{');
                self.space();
                let n = self.below(4);
                for i in 0..n {
                    self.scalar();
                    self.space();
                    self.out.push(':');
                    self.space();
                    self.value(depth - 1);
                    self.comma(i + 1 == n);
                }
                self.out.push('}');
            }
            3 => {
                self.out.push_str("Some");
                self.space();
                self.out.push('(');
                self.space();
                self.value(depth - 1);
                self.comma(true);
                self.out.push(')');
            }
            kind => {
                if self.below(2) == 0 {
                    self.ident();
                    self.space();
                }
                self.out.push('(');
                if kind == 4 {
                    self.items(depth);
                } else {
                    self.space();
                    let n = self.below(4);
                    for i in 0..n {
                        self.ident();
                        self.space();
                        self.out.push(':');
                        self.space();
                        self.value(depth - 1);
                        self.comma(i + 1 == n);
                    }
                }
                self.out.push(')');
            }
        }
    }

    fn items(&mut self, depth: usize) {
        self.space();
        let n = self.below(4);
        for i in 0..n {
            self.value(depth - 1);
            self.comma(i + 1 == n);
        }
    }
}

fn make(choices: &[u8]) -> String {
    let mut maker = Maker { choices, out: String::new() };
    maker.put(&[
        "",
        "",
        "#![enable(implicit_some)]\n",
        "#![enable(unwrap_newtypes, unwrap_variant_newtypes,)] ",
    ]);
    // With implicit_some, ron reads no differently into a Value.
    maker.space();
    maker.value(5);
    maker.space();
    maker.out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000.max(ProptestConfig::default().cases), ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_ron_crate(choices in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = make(&choices);
        let theirs: Value = match ron::from_str(&text) {
            Ok(value) => value,
            Err(error) => return Err(TestCaseError::fail(format!("ron refuses {text:?}: {error}"))),
        };
        match parse(&text) {
            Ok(node) => prop_assert_eq!(normal(to_value(&node)), normal(theirs), "{:?}", text),
            Err(error) => prop_assert!(false, "we refuse {text:?}: {error:?}"),
        }
    }

    #[test]
    fn what_we_accept_the_ron_crate_accepts(
        choices in proptest::collection::vec(any::<u8>(), 0..100),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, "[-+,:()\\[\\]{}\"'a0.e_/*\\\\# \n]"), 1..4),
    ) {
        let mut text = make(&choices);
        for (place, kind, with) in edits {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            if places.is_empty() {
                break;
            }
            let at = *place.get(&places);
            let len = text[at..].chars().next().map_or(0, char::len_utf8);
            match kind {
                0 => text.replace_range(at..at + len, ""),
                1 => text.insert_str(at, &with),
                _ => text.replace_range(at..at + len, &with),
            }
        }
        if let Ok(node) = parse(&text)
            && !is_odd_option(&node)
        {
            match ron::from_str::<Value>(&text) {
                Ok(theirs) => prop_assert_eq!(normal(to_value(&node)), normal(theirs), "{:?}", text),
                Err(error) => prop_assert!(false, "ron refuses {text:?}: {error}"),
            }
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused_with_a_place_inside_it(text in "\\PC*|[-+,:()\\[\\]{}\"'a0.e_/*\\\\#r \n]{0,40}") {
        if let Err(error) = parse(&text) {
            let Span { start, end } = error.span;
            prop_assert!(start <= end && end <= text.len() + 1, "{error:?}");
            prop_assert!(text.is_char_boundary(start), "{error:?}");
            prop_assert!(end > text.len() || text.is_char_boundary(end), "{error:?}");
        }
    }
}

#[test]
fn places_cover_what_they_name() {
    let text = "Deploy(a: [1, \"x\"], b: Some('c') , c: {\"k\": Name(2)}, d: Name )";
    let node = parse(text).unwrap();
    let slice = |span: Span| &text[span.start..span.end];
    assert_eq!(slice(node.span), text);
    let Kind::Struct { fields, .. } = &node.kind else { panic!("{node:?}") };
    let found: Vec<_> = fields.iter().map(|f| (slice(f.name.span), slice(f.value.span))).collect();
    let expect = [("a", "[1, \"x\"]"), ("b", "Some('c')"), ("c", "{\"k\": Name(2)}"), ("d", "Name")];
    assert_eq!(found, expect);
}

#[test]
fn mistakes_are_named_where_they_are() {
    let check = |text: &str, at: &str, words: &[&str]| {
        let error = parse(text).expect_err(text);
        let place = if at.is_empty() { text.len() } else { text.find(at).unwrap() };
        assert_eq!(error.span.start, place, "{text:?}: {error:?}");
        let said = format!("{} {}", error.message, error.hint.unwrap_or_default());
        for word in words {
            assert!(said.contains(word), "{text:?}: `{said}` lacks `{word}`");
        }
    };
    check("", "", &["unexpected end", "Deploy()"]);
    check("  // only a comment\n", "", &["unexpected end"]);
    check("(a: 1", "", &["unexpected end", "`)` is missing", "`(`", "line 1"]);
    check("(a: 1,\n b: [1,", "", &["unexpected end", "`[`", "line 2"]);
    check("(a: 1 b: 2)", "b:", &["expected `,` or `)`", "`b`", "comma missing"]);
    check("[1 2]", "2]", &["expected `,` or `]`", "comma"]);
    check("(a = 1)", "= ", &["expected"]);
    check("(x: 1, a = 1)", "a =", &["a field name"]);
    check("(a: 1, \"b\": 2)", "\"b\"", &["without quotes"]);
    check("{\"a\" = 1}", "= 1", &["`:`", "name: value"]);
    check("(a: )", ")", &["a value"]);
    check("(a: 1)) ", ") ", &["end of the file"]);
    check("(a: 1) (b: 2)", "(b", &["end of the file", "one spec"]);
    check("(a: \"x", "\"x", &["never closed"]);
    check("(a: r#\"x\")", "r#", &["never closed", "\"#"]);
    check("/* a /* b */", "/* a", &["never closed", "nest"]);
    check("\"\\q\"", "\\q", &["unknown escape"]);
    check("\"\\x9f\"", "\\x", &["two hexadecimal digits"]);
    check("\"\\x+1\"", "\\x", &["two hexadecimal digits"]);
    check("\"\\u{d800}\"", "\\u", &["not a character"]);
    check("'ab'", "'ab", &["one character", "double quotes"]);
    check("''", "''", &["empty"]);
    check("(a: 1.0.0)", "1.0.0", &["`1.0.0` is not a number", "quotes"]);
    check("(a: 512M)", "512M", &["`512M` is not a number", "quotes"]);
    check("(a: 10s)", "10s", &["`10s` is not a number"]);
    check("(a: 18446744073709551616)", "1844", &["larger than"]);
    check("(a: 0xg)", "0xg", &["not a number"]);
    check("(a: -)", "-", &["digit"]);
    check("(a: b\"x\")", "b\"", &["no byte strings"]);
    check("# comment\n()", "# comment", &["a value", "comments begin with `//`"]);
    check("(a: 1) # comment", "#", &["end of the file"]);
    check("(a: 1, # comment\n)", "#", &["comments begin with `//`"]);
    check("#![enable(nonsense)]\n()", "nonsense", &["extension of RON"]);
    check("#![allow(x)]\n()", "allow", &["`enable`"]);
    check("(\u{fc}: 1)", "\u{fc}", &["a value"]);
}

#[test]
fn values_are_counted() {
    let list = |n: usize| format!("[{}]", "1,".repeat(n));
    assert!(parse_document(&list(9), 0, document(10)).is_ok());
    let error = parse_document(&list(10), 0, document(10)).unwrap_err();
    assert!(error.message.contains("too many values"), "{error:?}");
}

#[test]
fn brackets_may_nest_to_the_limit_and_no_deeper() {
    for (open, close) in [("[", "]"), ("(", ")"), ("A(", ")"), ("(a:", ")"), ("{1:", "}")] {
        let text = |depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        assert!(parse(&text(MAX_DEPTH)).is_ok(), "{open}");
        let error = parse(&text(MAX_DEPTH + 1)).unwrap_err();
        assert!(error.message.contains("64"), "{error:?}");
        // Far beyond the limit, and never closed.
        assert!(parse(&open.repeat(100_000)).is_err());
    }
    assert!(parse(&"/*".repeat(100_000)).is_err());
    assert!(parse(&format!("{}{}1", "/*".repeat(100_000), "*/".repeat(100_000))).is_ok());
}
