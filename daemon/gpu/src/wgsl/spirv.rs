//! A walk over the words of a SPIR-V module.
//!
//! What a driver does with a module that is not valid is undefined, and on real ones it is a wrong result without an error.
//! The compiler is known to have two such faults: lengths of instructions that wrap, and extended instructions on 64-bit
//! numbers that do not exist.
//!
//! It also marks arithmetic as not to be contracted. Without the mark drivers fuse `a * b + c` where they like, and Mesa
//! turns `(a + b) - b` into `a` and `(x - k * a) - k * b` into `x - k * (a + b)`, which takes the sense out of numbers in
//! two parts (an exponential was wrong by 690 ulp); with it one source gives one result.

use std::collections::BTreeSet;

const MAGIC: u32 = 0x0723_0203;
const HEADER_WORDS: usize = 5;

const OP_EXT_INST: u32 = 12;
const OP_TYPE_INT: u32 = 21;
const OP_TYPE_FLOAT: u32 = 22;
const OP_TYPE_VECTOR: u32 = 23;
const OP_TYPE_STRUCT: u32 = 30;
const OP_TYPES: std::ops::RangeInclusive<u32> = 19..=39;
const OP_DECORATE: u32 = 71;
const NO_CONTRACTION: u32 = 42;

/// Instructions of GLSL.std.450 that take 64-bit numbers: rounding (1-3), absolute values and signs (4-7), floor, ceil,
/// fract (8-10), roots (31, 32), minimum, maximum and clamp (37-45), mix, step, fma (46, 48, 50), ldexp (53), and minimum,
/// maximum and clamp that know NaN (79-81).
const WIDE: &[u32] =
    &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 31, 32, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 48, 50, 53, 79, 80, 81];

/// Says what is wrong with a module, if it is something that this knows.
pub(super) fn check(words: &[u32]) -> Result<(), String> {
    if words.first() != Some(&MAGIC) {
        return Err("it does not begin with the magic number".to_owned());
    }
    let mut rest = words.get(HEADER_WORDS..).ok_or("its header is cut off")?;
    let mut wide_types = BTreeSet::new();
    while let Some(first) = rest.first() {
        let (opcode, length) = (first & 0xffff, (first >> 16) as usize);
        let at = words.len() - rest.len();
        if length == 0 {
            return Err(format!("word {at}: an instruction of no words"));
        }
        let operands =
            rest.get(1..length).ok_or_else(|| format!("word {at}: the last instruction is cut off"))?;
        match (opcode, operands) {
            (OP_TYPE_INT | OP_TYPE_FLOAT, [id, 64, ..]) => {
                wide_types.insert(*id);
            }
            (OP_TYPE_VECTOR, [id, element, _]) if wide_types.contains(element) => {
                wide_types.insert(*id);
            }
            (OP_TYPE_STRUCT, [id, members @ ..])
                if members.iter().any(|member| wide_types.contains(member)) =>
            {
                wide_types.insert(*id);
            }
            (OP_EXT_INST, [result, _, _, instruction, ..])
                if wide_types.contains(result) && !WIDE.contains(instruction) =>
            {
                return Err(format!("word {at}: extended instruction {instruction} on 64-bit numbers"));
            }
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// Arithmetic on floating-point numbers: fma, sqrt and the like, conversion between widths, negation, sum, difference,
/// product, quotient, remainders, and those of vectors and matrices.
fn is_arithmetic(opcode: u32) -> bool {
    matches!(opcode, OP_EXT_INST | 115 | 127 | 129 | 131 | 133 | 136 | 140..=146 | 148)
}

/// Marks all arithmetic of a module that [`check`] has passed.
pub(super) fn mark_exact(words: &[u32]) -> Vec<u32> {
    let mut annotations_end = None;
    let mut marks = Vec::new();
    let mut at = HEADER_WORDS;
    while let Some(first) = words.get(at) {
        let (opcode, length) = (first & 0xffff, (first >> 16) as usize);
        if OP_TYPES.contains(&opcode) {
            annotations_end.get_or_insert(at);
        }
        if is_arithmetic(opcode)
            && let Some(result) = words.get(at + 2)
        {
            marks.extend([(3 << 16) | OP_DECORATE, *result, NO_CONTRACTION]);
        }
        at += length.max(1);
    }
    let (before, after) = words.split_at(annotations_end.unwrap_or(words.len()));
    [before, &marks, after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(instructions: &[u32]) -> Vec<u32> {
        let mut words = vec![MAGIC, 0x0001_0300, 0, 100, 0];
        words.extend_from_slice(instructions);
        words
    }

    #[test]
    fn what_is_cut_off_or_has_no_length_is_found() {
        let float = [(3 << 16) | OP_TYPE_FLOAT, 1, 64];
        assert_eq!(check(&module(&float)), Ok(()));
        assert!(check(&module(&float[..2])).is_err());
        assert!(check(&module(&[OP_TYPE_FLOAT, 1, 64])).is_err());
        assert!(check(&[MAGIC, 0, 0]).is_err());
        assert!(check(&[]).is_err());
        assert!(check(&module(&float)[1..]).is_err());
    }

    #[test]
    fn exp_of_doubles_is_found_and_exp_of_singles_and_sqrt_of_doubles_are_not() {
        let with = |width: u32, instruction: u32| {
            module(&[
                (3 << 16) | OP_TYPE_FLOAT,
                1,
                width,
                (4 << 16) | OP_TYPE_VECTOR,
                2,
                1,
                3,
                (6 << 16) | OP_EXT_INST,
                2,
                9,
                8,
                instruction,
                7,
            ])
        };
        let exp = |width| {
            let mut words = with(width, 27);
            let at = words.len() - 6;
            words[at] = (6 << 16) | OP_EXT_INST;
            words
        };
        assert_eq!(check(&exp(32)), Ok(()));
        assert_eq!(check(&exp(64)), Err("word 12: extended instruction 27 on 64-bit numbers".to_owned()));
        assert_eq!(check(&with(64, 31)), Ok(()));
    }

    #[test]
    fn arithmetic_is_marked_before_the_types() {
        let float = [(3 << 16) | OP_TYPE_FLOAT, 1, 32];
        let add = [(5 << 16) | 129, 1, 7, 5, 6];
        let marked = mark_exact(&module(&[&float[..], &add].concat()));
        let mark = [(3 << 16) | OP_DECORATE, 7, NO_CONTRACTION];
        assert_eq!(marked, module(&[&mark[..], &float, &add].concat()));
    }
}
