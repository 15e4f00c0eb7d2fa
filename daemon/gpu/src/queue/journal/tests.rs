use super::*;

fn entries(dir: &Path) -> Vec<(Entry, Vec<u8>)> {
    let mut all = Vec::new();
    replay(dir, &mut |entry, raw| all.push((entry, raw))).unwrap();
    all
}

fn started(dir: &Path, snapshot: &Snapshot) -> Journal {
    let found = replay(dir, &mut |_, _| {}).unwrap();
    Journal::start(dir, &found, snapshot).unwrap()
}

fn submitted(id: u64) -> Entry {
    Entry::Submitted { id, uid: 7, gid: 8, at_ms: 9, tail: 0 }
}

fn ended(id: u64) -> Entry {
    let how = How::Done { on_cpu: true, fallback: "why".to_owned() };
    let end =
        End { at_ms: 1, how, queued_us: 2, compile_us: 3, device_us: 4, attempts: 1, outputs: vec![4, 0] };
    Entry::Ended(id, end)
}

#[test]
fn what_was_appended_is_there_after_a_kill_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = started(dir.path(), &Vec::new());
    let all = [
        (submitted(1), b"text".to_vec()),
        (Entry::Begun(vec![1, 2]), Vec::new()),
        (ended(1), b"abcd".to_vec()),
        (Entry::Requeued(vec![2]), Vec::new()),
        (Entry::Interrupted(2, 1), Vec::new()),
        (Entry::Weight(1000, 3), Vec::new()),
        (Entry::Retain(5), Vec::new()),
        (Entry::Paused(true), Vec::new()),
        (Entry::Priority(1, -3), Vec::new()),
        (Entry::Started(1), Vec::new()),
        (Entry::Next(5), Vec::new()),
    ];
    for (entry, raw) in &all {
        journal.append(entry, &[&raw[..raw.len() / 2], &raw[raw.len() / 2..]]).unwrap();
    }
    // Nothing is closed or synced: this is what a kill leaves.
    std::mem::forget(journal);
    assert_eq!(entries(dir.path()), all);
}

#[test]
fn a_log_that_was_cut_anywhere_gives_what_was_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = started(dir.path(), &Vec::new());
    let mut ends = vec![journal.length];
    for id in 1..5 {
        journal.append(&submitted(id), &[b"text"]).unwrap();
        ends.push(journal.length);
    }
    let path = log_path(dir.path(), 0);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() as u64, journal.length);
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let expected = ends.iter().filter(|end| **end <= cut as u64).count().saturating_sub(1);
        let mut all = Vec::new();
        let found = replay(dir.path(), &mut |entry, _| all.push(entry)).unwrap();
        assert_eq!(all, (1..=expected as u64).map(submitted).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(found.damaged, [], "cut at {cut}");
    }
}

#[test]
fn a_damaged_log_is_set_aside_and_gives_what_is_before_the_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = started(dir.path(), &Vec::new());
    for id in 1..5 {
        journal.append(&submitted(id), &[b"text"]).unwrap();
    }
    let path = log_path(dir.path(), 0);
    let whole = fs::read(&path).unwrap();
    for at in size_of::<Header>()..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let got = entries(dir.path());
        assert!(got.len() < 4, "byte {at}: {got:?}");
        assert!(got.iter().zip(1..).all(|((entry, raw), id)| *entry == submitted(id) && raw == b"text"));
    }
    let mut bytes = whole.clone();
    bytes[size_of::<Header>() + 14] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found = replay(dir.path(), &mut |_, _| {}).unwrap();
    assert_eq!(found.damaged, [(path.clone(), size_of::<Header>() as u64)]);
    Journal::start(dir.path(), &found, &Vec::new()).unwrap();
    assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
    assert_eq!(entries(dir.path()), []);
}

#[test]
fn a_base_replaces_what_was_before_it_at_whichever_step_zedd_dies() {
    let text: Arc<[u8]> = Arc::from(*b"text");
    let snapshot: Snapshot = vec![(submitted(3), vec![text])];
    for step in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = started(dir.path(), &Vec::new());
        journal.append(&submitted(1), &[b"gone later"]).unwrap();
        journal.append(&submitted(3), &[b"text"]).unwrap();
        let number = journal.rotate().unwrap();
        journal.append(&submitted(4), &[b"text"]).unwrap();
        assert!(!journal.wants_base());
        assert_eq!(journal.files().len(), 2);
        match step {
            0 => {}
            1 => fs::write(base_path(dir.path(), number).with_extension("new"), b"half").unwrap(),
            2 => drop(write_base(dir.path(), number, &snapshot).unwrap()),
            _ => {
                let length = write_base(dir.path(), number, &snapshot).unwrap();
                journal.has_base(number, length);
                assert_eq!(journal.files().len(), 1);
            }
        }
        let ids: Vec<Entry> = entries(dir.path()).into_iter().map(|(entry, _)| entry).collect();
        let expected = if step < 2 { vec![1, 3, 4] } else { vec![3, 4] };
        assert_eq!(ids, expected.into_iter().map(submitted).collect::<Vec<_>>(), "step {step}");
    }
}

#[test]
fn a_newer_zedds_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(started(dir.path(), &Vec::new()));
    let path = log_path(dir.path(), 0);
    let newer = Header { format: U32::new(JOURNAL_FORMAT + 1), ..header() };
    fs::write(&path, newer.as_bytes()).unwrap();
    let error = replay(dir.path(), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("newer zedd"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), newer.as_bytes());
}

/// Bytes that a zedd of format 1 wrote; they must be read for ever.
#[test]
fn a_log_of_format_1_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(log_path(dir.path(), 7), include_bytes!("format-1.log")).unwrap();
    let expected =
        [(submitted(3), b"text".to_vec()), (Entry::Begun(vec![3]), Vec::new()), (ended(3), b"abcd".to_vec())];
    assert_eq!(entries(dir.path()), expected);
}
