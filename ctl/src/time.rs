//! Points in time as text: RFC 3339 in UTC, from and to seconds or milliseconds since 1970. No clock.

/// A text that is not a point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time: expected `2026-11-22T17:46:28Z`")]
pub struct TimeError {
    /// The offending text.
    pub text: String,
}

const SECONDS_PER_DAY: i64 = 86_400;
/// 0000-01-01T00:00:00Z and 9999-12-31T23:59:59Z: all that RFC 3339 can write.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

/// `2026-11-22T17:46:28Z`. Times outside the years 0 to 9999 are written as the nearest of their ends.
pub fn rfc3339(seconds: i64) -> String {
    let seconds = seconds.clamp(FIRST, LAST);
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
    let second = seconds.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `2026-11-22T17:46:28.123Z`, from milliseconds since 1970.
pub fn rfc3339_millis(millis: i64) -> String {
    let seconds = millis.div_euclid(1000);
    let (seconds, fraction) = match seconds {
        s if s < FIRST => (FIRST, 0),
        s if s > LAST => (LAST, 999),
        s => (s, millis.rem_euclid(1000)),
    };
    let text = rfc3339(seconds);
    format!("{}.{fraction:03}Z", text.trim_end_matches('Z'))
}

/// Seconds since 1970; a fraction is dropped.
pub fn parse_rfc3339(text: &str) -> Result<i64, TimeError> {
    parse_rfc3339_millis(text).map(|millis| millis.div_euclid(1000))
}

/// Milliseconds since 1970; finer fractions are dropped. Any offset is accepted.
pub fn parse_rfc3339_millis(text: &str) -> Result<i64, TimeError> {
    parse(text).ok_or_else(|| TimeError { text: text.to_owned() })
}

fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    let (hour, minute, second) = (digits(bytes, 11, 2)?, digits(bytes, 14, 2)?, digits(bytes, 17, 2)?);
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, wanted)| bytes.get(*at) != Some(wanted)) {
        return None;
    }
    if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    // A leap second is written as the last second of its day: unix time has no place for it.
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day < 1 || day > days_in(year, month) {
        return None;
    }
    let (millis, rest) = fraction(text.get(19..)?)?;
    let offset = offset_seconds(rest)?;
    let days = days_from_civil(year, month, day);
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second.min(59) - offset;
    Some(seconds * 1000 + millis)
}

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    let part = bytes.get(at..at + count)?;
    if !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(part.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

/// Milliseconds of `.123456` and what follows it.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let count = rest.bytes().take_while(u8::is_ascii_digit).count();
    if count == 0 {
        return None;
    }
    let millis = (0..3).fold(0, |value, place| {
        let digit = rest.as_bytes().get(place).filter(|_| place < count).map_or(0, |d| i64::from(d - b'0'));
        value * 10 + digit
    });
    Some((millis, rest.get(count..)?))
}

fn offset_seconds(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let bytes = text.as_bytes();
    let sign = match bytes.first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(bytes, 1, 2)?, digits(bytes, 4, 2)?);
    let well_formed = bytes.len() == 6 && bytes.get(3) == Some(&b':') && hours < 24 && minutes < 60;
    well_formed.then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Year, month and day of a day number. The calendar is counted in eras of 400 years from March, so that the
/// leap day is the last of its year (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_369_588, "2026-11-22T17:46:28Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (FIRST, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
            assert_eq!(parse_rfc3339(text), Ok(seconds));
        }
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339_millis(i64::MIN), "0000-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_millis(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn offsets_and_fractions() {
        assert_eq!(parse_rfc3339_millis("1970-01-01T01:00:00.5+01:00"), Ok(500));
        assert_eq!(parse_rfc3339_millis("1969-12-31T23:30:00.123456-00:30"), Ok(123));
        assert_eq!(
            parse_rfc3339_millis("2016-12-31 23:59:60Z"),
            parse_rfc3339_millis("2016-12-31T23:59:59Z")
        );
    }

    #[test]
    fn not_a_time() {
        for text in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T17:46:28",
            "2026-13-01T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T17:46:28.Z",
            "2026-11-22T17:46:28+1:00",
            "2026-11-22T17:46:28Zz",
            "2026-11-2217:46:28Z",
            "+026-11-22T17:46:28Z",
            "2026-11-22T17:46:2\u{e9}Z",
        ] {
            assert!(parse_rfc3339(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(millis in FIRST * 1000..LAST * 1000) {
            prop_assert_eq!(parse_rfc3339_millis(&rfc3339_millis(millis)), Ok(millis));
        }

        #[test]
        fn text_sorts_as_time(a in FIRST * 1000..LAST * 1000, b in FIRST * 1000..LAST * 1000) {
            prop_assert_eq!(a.cmp(&b), rfc3339_millis(a).cmp(&rfc3339_millis(b)));
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*") {
            let _ = parse_rfc3339(&text);
        }
    }
}
