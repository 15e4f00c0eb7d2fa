//! Templates and preludes.
//!
//! A template is WGSL in which `real` stands for the type and `exp_real` for the function of that type; a prelude is a file
//! of such functions, each a paragraph. Linking puts the type in, and the functions that are used behind the text, so
//! that lines keep their numbers.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use zed_spec::job::DType;

const PRELUDES: [(&str, &[DType]); 3] = [
    (include_str!("../../../../shaders/prelude_f32.wgsl"), &[DType::F32]),
    (include_str!("../../../../shaders/prelude_f64.wgsl"), &[DType::F64]),
    (include_str!("../../../../shaders/prelude_real.wgsl"), &[DType::F32, DType::F64]),
];

/// A paragraph of a prelude that declares something.
struct Block {
    text: String,
    order: usize,
}

/// By the name that it declares.
static BLOCKS: LazyLock<BTreeMap<String, Block>> = LazyLock::new(|| {
    let mut blocks = BTreeMap::new();
    for (text, dtypes) in PRELUDES {
        for dtype in dtypes {
            for paragraph in text.split("\n\n") {
                let paragraph = instantiate(*dtype, paragraph.trim());
                let order = blocks.len();
                let name = declarations(&paragraph).next().map(str::to_owned);
                if let Some(name) = name {
                    blocks.insert(name, Block { text: paragraph, order });
                }
            }
        }
    }
    blocks
});

/// A template for one type, with what it uses of the preludes.
pub fn link(dtype: DType, template: &str) -> String {
    link_source(&instantiate(dtype, template))
}

/// A source that names its types itself (`exp_f64`), with what it uses of the preludes. What it declares itself is not
/// replaced.
pub fn link_source(source: &str) -> String {
    let own: BTreeSet<&str> = declarations(source).collect();
    let mut needed = BTreeSet::new();
    let mut open: Vec<&str> = identifiers(source).collect();
    while let Some(name) = open.pop() {
        if own.contains(name) {
            continue;
        }
        if let Some((name, block)) = BLOCKS.get_key_value(name)
            && needed.insert((block.order, name.as_str()))
        {
            open.extend(identifiers(&block.text));
        }
    }
    let mut text = source.to_owned();
    for (_, name) in needed {
        if let Some(block) = BLOCKS.get(name) {
            text.push('\n');
            text.push_str(&block.text);
            text.push('\n');
        }
    }
    text
}

/// Whether a prelude declares this.
pub(super) fn has(name: &str) -> bool {
    BLOCKS.contains_key(name)
}

/// Puts a type in for `real` and `_real`.
fn instantiate(dtype: DType, template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut end = 0;
    for word in identifiers(template) {
        // Both are slices of one string.
        let start = word.as_ptr() as usize - template.as_ptr() as usize;
        text.push_str(&template[end..start]);
        if word == "real" {
            text.push_str(dtype.name());
        } else if let Some(stem) = word.strip_suffix("_real") {
            text.push_str(stem);
            text.push('_');
            text.push_str(dtype.name());
        } else {
            text.push_str(word);
        }
        end = start + word.len();
    }
    text.push_str(&template[end..]);
    text
}

/// The words of a source that could be names; of numbers and comments, too, which does no harm.
fn identifiers(source: &str) -> impl Iterator<Item = &str> {
    source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// The names that a source declares.
fn declarations(source: &str) -> impl Iterator<Item = &str> {
    let declares = |word: &str| matches!(word, "fn" | "const" | "struct" | "alias" | "var");
    identifiers(source)
        .zip(identifiers(source).skip(1))
        .filter(move |(word, _)| declares(word))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_put_in_for_whole_words_only() {
        assert_eq!(
            instantiate(DType::F64, "let realm: real = real(1.5) + exp_real(unreal) - x_really;"),
            "let realm: f64 = f64(1.5) + exp_f64(unreal) - x_really;"
        );
    }

    #[test]
    fn what_is_used_is_linked_behind_the_text_and_nothing_else() {
        let body = "fn main() { let x = sigmoid_real(real(1.0)); }";
        let text = link(DType::F32, body);
        assert!(text.starts_with("fn main() { let x = sigmoid_f32(f32(1.0)); }\n"));
        assert!(text.contains("fn sigmoid_f32("));
        assert!(text.contains("fn exp_f32("));
        assert!(!text.contains("f64"), "{text}");
        assert!(!text.contains("fn erf_f32("));
        assert_eq!(link(DType::F64, "fn main() {}"), "fn main() {}");
    }

    #[test]
    fn a_source_s_own_function_hides_the_prelude_s() {
        let source = "fn exp_f64(x: f64) -> f64 { return x; }\nfn main() { let y = exp_f64(1.0lf); }";
        assert_eq!(link_source(source), source);
    }
}
