//! Durations and sizes as people write them: `1m30s`, `512M`.
//!
//! Owns both directions. What is rendered parses back to the same value.

use crate::diagnostics::quoted;
use std::fmt::Write as _;
use std::time::Duration;

/// The longest duration a spec may ask for: ten years. Longer ones are typing mistakes, and clocks overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// The largest size a spec may ask for, in bytes: ZFS counts in signed 64 bits.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: {reason}")]
pub struct QuantityError {
    /// `duration` or `size`.
    pub kind: &'static str,
    /// The offending text.
    pub text: String,
    /// The rule it breaks.
    pub reason: String,
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u32); 6] = [("E", 60), ("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];

/// Parses `500ms`, `2s`, `1m`, `1h`, `1d` and their combinations from large to small, `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let bad = |reason: String| QuantityError { kind: "duration", text: text.to_owned(), reason };
    if text.is_empty() {
        return Err(bad("it is empty".to_owned()));
    }
    let mut rest = text;
    let mut allowed = 0;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_digits(rest);
        if number.is_empty() {
            return Err(bad(format!("a number is missing before {}", quoted(rest))));
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, tail) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(bad(format!("{} has no unit (ms, s, m, h or d)", quoted(number))));
        }
        let Some(index) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(bad(format!("{} is not one of ms, s, m, h and d", quoted(unit))));
        };
        if index < allowed {
            return Err(bad("its units must go from large to small, each once".to_owned()));
        }
        allowed = index + 1;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(DURATION_UNITS[index].1))
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(|| bad("it is longer than ten years".to_owned()))?;
        rest = tail;
    }
    let value = Duration::from_millis(total);
    if value > MAX_DURATION {
        return Err(bad("it is longer than ten years".to_owned()));
    }
    Ok(value)
}

/// Renders a duration so that [`parse_duration`] gives it back. Parts below a millisecond are dropped: no
/// spec can hold them.
pub fn render_duration(value: Duration) -> String {
    let mut left = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, ms) in DURATION_UNITS {
        if left >= ms {
            // Writing into a String cannot fail.
            let _ = write!(out, "{}{unit}", left / ms);
            left %= ms;
        }
    }
    out
}

/// Parses a size in bytes: digits and at most one of K, M, G, T, P, E. K is 1024.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let bad = |reason: String| QuantityError { kind: "size", text: text.to_owned(), reason };
    let (number, unit) = split_digits(text);
    if number.is_empty() {
        return Err(bad("it must begin with a whole number".to_owned()));
    }
    let shift = match unit {
        "" => 0,
        _ => match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, shift)) => *shift,
            None => return Err(bad(format!("{} is not one of K, M, G, T, P and E", quoted(unit)))),
        },
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n <= MAX_SIZE)
        .ok_or_else(|| bad("it is larger than 8E".to_owned()))
}

/// Renders a size in bytes with the largest unit that keeps it whole.
pub fn render_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => bytes.to_string(),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_mean_what_they_say() {
        let check = |text: &str, expect: Result<u64, &str>| match (parse_duration(text), expect) {
            (Ok(value), Ok(ms)) => assert_eq!(value.as_millis(), u128::from(ms), "{text}"),
            (Err(error), Err(word)) => {
                assert!(error.to_string().contains(word), "{text}: `{error}` lacks `{word}`");
            }
            (found, expect) => panic!("{text}: found {found:?}, expected {expect:?}"),
        };
        check("500ms", Ok(500));
        check("2s", Ok(2_000));
        check("1m", Ok(60_000));
        check("1h", Ok(3_600_000));
        check("1d", Ok(86_400_000));
        check("1m30s", Ok(90_000));
        check("1d1ms", Ok(86_400_001));
        check("0s", Ok(0));
        check("3650d", Ok(3650 * 86_400_000));
        check("", Err("empty"));
        check("10", Err("no unit"));
        check("s", Err("number is missing"));
        check("10x", Err("`x` is not one of"));
        check("10S", Err("`S` is not one of"));
        check("1s1m", Err("large to small"));
        check("1s1s", Err("each once"));
        check("1.5s", Err("`.` is not one of"));
        check("-1s", Err("number is missing"));
        check("3651d", Err("ten years"));
        check("99999999999999999999d", Err("ten years"));
        check("1s ", Err("`s ` is not one of"));
        check("\u{661}s", Err("number is missing"));
    }

    #[test]
    fn sizes_mean_what_they_say() {
        let check = |text: &str, expect: Result<u64, &str>| match (parse_size(text), expect) {
            (Ok(value), Ok(bytes)) => assert_eq!(value, bytes, "{text}"),
            (Err(error), Err(word)) => {
                assert!(error.to_string().contains(word), "{text}: `{error}` lacks `{word}`");
            }
            (found, expect) => panic!("{text}: found {found:?}, expected {expect:?}"),
        };
        check("0", Ok(0));
        check("1024", Ok(1024));
        check("16K", Ok(16 << 10));
        check("512M", Ok(512 << 20));
        check("2G", Ok(2 << 30));
        check("1T", Ok(1 << 40));
        check("7E", Ok(7 << 60));
        check("8E", Err("larger than 8E"));
        check("99999999999999999999", Err("larger than 8E"));
        check("2g", Err("`g` is not one of"));
        check("2GB", Err("`GB` is not one of"));
        check("1.5G", Err("`.5G` is not one of"));
        check("", Err("whole number"));
        check("G", Err("whole number"));
    }

    proptest! {
        #[test]
        fn rendered_durations_parse_back(ms in 0..=3650_u64 * 86_400_000) {
            let value = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&render_duration(value)), Ok(value));
        }

        #[test]
        fn rendered_sizes_parse_back(bytes in 0..=MAX_SIZE, shift in 0..60_u32) {
            for bytes in [bytes, bytes >> shift << shift] {
                prop_assert_eq!(parse_size(&render_size(bytes)), Ok(bytes));
            }
        }
    }
}
