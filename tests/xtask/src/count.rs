//! Reads how many tests passed and failed from what test runners print. Never guesses: a line that is not
//! exactly a runner's summary counts nothing.

/// Tests that ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: u64,
    /// Failed.
    pub failed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Sums the summaries of libtest, nextest and xtask itself (`N passed, N failed`) in `output`.
pub fn counts(output: &str) -> Counts {
    let mut sum = Counts::default();
    for line in output.lines() {
        sum += summary(line.trim()).unwrap_or_default();
    }
    sum
}

fn summary(line: &str) -> Option<Counts> {
    if let Some(rest) = line.strip_prefix("test result: ") {
        let (_, numbers) = rest.split_once(". ")?;
        return Some(Counts {
            passed: before(numbers, " passed;").unwrap_or(0),
            failed: before(numbers, " failed;").unwrap_or(0),
        });
    }
    if line.starts_with("Summary [") {
        let (_, numbers) = line.split_once("tests run: ").or_else(|| line.split_once("test run: "))?;
        let mut counts = Counts::default();
        for part in numbers.split(", ") {
            let mut words = part.split(' ');
            let number: u64 = words.next()?.parse().ok()?;
            match words.next()? {
                "passed" => counts.passed += number,
                "failed" | "timed" => counts.failed += number,
                _ => {}
            }
        }
        return Some(counts);
    }
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Counts { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

/// The number right before `word`.
fn before(text: &str, word: &str) -> Option<u64> {
    let (head, _) = text.split_once(word)?;
    head.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_each_runner() {
        for (line, passed, failed) in [
            (
                "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
                12,
                0,
            ),
            ("test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", 4, 2),
            ("     Summary [   0.512s] 37 tests run: 37 passed, 2 skipped", 37, 0),
            ("     Summary [   0.512s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                "     Summary [  10.001s] 9 tests run: 6 passed (1 slow, 1 flaky), 2 failed, 1 timed out, 2 skipped",
                6,
                3,
            ),
            ("12 passed, 3 failed", 12, 3),
            ("the tests passed, 3 failed", 0, 0),
            ("everything is ok", 0, 0),
        ] {
            assert_eq!(counts(line), Counts { passed, failed }, "{line}");
        }
    }

    #[test]
    fn several_summaries_are_summed() {
        let text = "test result: ok. 1 passed; 0 failed; 0 ignored\nnoise\ntest result: ok. 2 passed; 1 failed; 0 ignored\n";
        assert_eq!(counts(text), Counts { passed: 3, failed: 1 });
    }
}
