//! What an app writes is in its log: all of it, in order, whatever it is.

#[expect(dead_code, reason = "this program uses a part of it")]
mod common;

use common::Place;
use zed_plan::ProcessStatus;
use zed_spec::Restart;

fn run_to_end(place: &Place, name: &str, script: &str) -> Vec<u8> {
    let mut start = place.script(name, script);
    start.run.restart = Restart::Never;
    zed_host::Host::start(&place.host, &start).expect("start");
    place.wait_for_status(name, |status| *status == ProcessStatus::Completed);
    let mut bytes = Vec::new();
    for number in (1..=3).rev() {
        bytes.extend(std::fs::read(place.files(name).join(format!("log.{number}"))).unwrap_or_default());
    }
    bytes.extend(std::fs::read(place.files(name).join("log")).expect("log"));
    bytes
}

/// The texts of one source.
fn of<'a>(log: &'a [u8], source: &str) -> Vec<&'a [u8]> {
    let mark = format!(" {source} ").into_bytes();
    log.split(|byte| *byte == b'\n')
        // Time, `T` and milliseconds: 24 bytes.
        .filter(|line| line.len() >= 29 && line[10] == b'T' && line[24..29] == mark)
        .map(|line| &line[29..])
        .collect()
}

#[test]
fn a_hundred_thousand_lines_at_full_speed_lose_none() {
    let place = Place::new();
    let log = run_to_end(&place, "fast", "seq 100000; seq 100000 >&2");
    for source in ["out", "err"] {
        let lines = of(&log, source);
        assert_eq!(lines.len(), 100_000, "{source}");
        for (n, line) in lines.iter().enumerate() {
            assert_eq!(*line, (n + 1).to_string().as_bytes(), "{source}");
        }
    }
}

#[test]
fn a_log_of_more_than_sixteen_mebibytes_is_rotated_without_a_gap() {
    let place = Place::new();
    let log = run_to_end(&place, "much", "seq -f %0199.0f 100000");
    let lines = of(&log, "out");
    assert_eq!(lines.len(), 100_000);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("{:0199}", n + 1).as_bytes());
    }
    let size = |name: &str| std::fs::metadata(place.files("much").join(name)).map_or(0, |meta| meta.len());
    let limit = 16 << 20;
    assert!(size("log.1") >= limit && size("log.1") < limit + (1 << 20), "{}", size("log.1"));
    assert!(size("log") > 0 && size("log") < limit);
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let place = Place::new();
    let log = run_to_end(&place, "odd", r"printf '\377\000\033[1m\t\r\nno newline at the end'");
    assert_eq!(of(&log, "out"), [&b"\xff\\0\x1b[1m\t"[..], b"no newline at the end"]);
}

#[test]
fn an_unfinished_line_shows_while_the_app_goes_on() {
    let place = Place::new();
    let script = "printf 'password: '; while [ ! -e go ]; do sleep 0.01; done; echo thanks";
    zed_host::Host::start(&place.host, &place.script("ask", script)).expect("start");
    place.wait_for_log("ask", " out password:  ...[continues]\n");
    std::fs::write(place.data().join("go"), "").expect("write");
    place.wait_for_log("ask", " out thanks\n");
}
