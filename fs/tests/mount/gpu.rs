//! `/zed/gpu`: jobs through the queue, their replies, their arrays, and who may see them.

use crate::support::LIMIT;
use crate::support::Rig;
use crate::support::Told;
use crate::support::gpu::ARRAY;
use crate::support::have;
use crate::support::until;
use nix::errno::Errno;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::Ordering::SeqCst;
use zed_fs::JobKey;
use zed_fs::VerbFile;

/// With `job.ron` and the like beside the mount.
fn rig() -> Option<Rig> {
    let rig = Rig::new()?;
    for (name, text) in
        [("job.ron", "Job(\n    a: 1,\n)\n"), ("bad.ron", "bad(\n)\n"), ("open.ron", "Job(\n"), ("nul", "\0")]
    {
        fs::write(rig.real(name), text).unwrap();
    }
    Some(rig)
}

fn open(rig: &Rig) -> File {
    File::options().read(true).write(true).open(rig.path("gpu/0/queue")).unwrap()
}

fn errno(result: io::Result<usize>) -> Result<usize, Errno> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
}

/// One read, as text.
fn next(queue: &mut File) -> String {
    let mut bytes = vec![0; 1 << 16];
    let count = queue.read(&mut bytes).unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

fn written(rig: &Rig) -> Vec<String> {
    rig.fake.gpus.written().into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

/// T60. A job is what one program writes to `gpu/N/queue`, with whatever tool; a read of the same open file gives its
/// id.
#[test]
fn every_tool_submits_a_job() {
    let Some(rig) = rig() else { return };
    let job = "Job(\n    a: 1,\n)\n";
    for (tool, script) in [
        ("cat", "cat ../job.ron > gpu/0/queue"),
        ("cat", "cat ../job.ron >> gpu/0/queue"),
        ("cp", "cp ../job.ron gpu/0/queue"),
        ("dd", "dd if=../job.ron of=gpu/0/queue status=none"),
        ("dd", "dd if=../job.ron of=gpu/0/queue bs=1 status=none"),
        ("dd", "dd if=../job.ron of=gpu/0/queue conv=fsync status=none"),
        ("tee", "tee gpu/0/queue < ../job.ron"),
        ("bash", "printf 'Job(\\n    a: 1,\\n)\\n' > gpu/0/queue"),
        ("bash", "echo \"$(cat ../job.ron)\" > gpu/0/queue"),
        ("bash", "cat > gpu/0/queue << END\nJob(\n    a: 1,\n)\nEND"),
        ("dash", "dash -c 'cat ../job.ron > gpu/0/queue'"),
        ("python3", "python3 -c 'open(\"gpu/0/queue\", \"w\").write(open(\"../job.ron\").read())'"),
        ("rsync", "rsync --inplace ../job.ron gpu/0/queue"),
    ] {
        if !have(tool) {
            continue;
        }
        rig.ok(script);
        assert_eq!(
            written(&rig).iter().map(|text| text.trim_end()).collect::<Vec<_>>(),
            [job.trim_end()],
            "{script}"
        );
        assert_eq!(rig.read("gpu/0/error"), "", "{script}");
        rig.fake.gpus.forget();
    }
    for script in [
        "exec 3<>gpu/0/queue; cat ../job.ron >&3; read id <&3; echo $id",
        "exec 3<>gpu/0/queue; cat ../job.ron >&3; cat <&3",
        "exec 3<>gpu/0/queue; printf 'Job()' >&3; read id <&3; echo $id",
        "python3 -c '
import os
q = os.open(\"gpu/0/queue\", os.O_RDWR)
assert os.write(q, b\"Job()\") == 5
print(os.read(q, 99).decode(), end=\"\")
assert os.read(q, 99) == b\"\"'",
    ] {
        if script.starts_with("python3") && !have("python3") {
            continue;
        }
        let id = rig.ok(script);
        assert_eq!(rig.ok("ls gpu/0/jobs"), id, "{script}");
        rig.fake.gpus.forget();
    }
}

/// T61. Several jobs may be written through one open file. Their replies come in the order of the jobs; one read gives
/// no more than one reply, and the end of file comes when none is owed. Without `O_NONBLOCK` a read waits for the reply,
/// with it the answer is EAGAIN.
#[test]
fn replies_come_in_the_order_of_the_jobs() {
    let Some(rig) = rig() else { return };
    let mut queue = open(&rig);
    assert_eq!(next(&mut queue), "", "nothing is owed");
    queue.write_all(b"Job(1)").unwrap();
    queue.write_all(b"Job(text, slow)\n").unwrap();
    queue.write_all(b"Job(text, long) // one\n Job(4)").unwrap();
    assert_eq!(rig.ok("ls gpu/0/jobs"), "1\n2\n3\n4\n");
    assert_eq!(next(&mut queue), "1\n");
    let mut reader = queue.try_clone().unwrap();
    let waiting = std::thread::spawn(move || next(&mut reader));
    until("the reader waits", || rig.mount().waiting() == 1);
    queue.write_all(b"Job(5)").unwrap();
    rig.fake.gpus.end(2);
    assert_eq!(waiting.join().unwrap(), "result of 2\n");
    let mut long = String::new();
    while !long.ends_with('\n') {
        long.push_str(&next(&mut queue));
    }
    assert_eq!(long.len(), 300_001);
    assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], ["4\n", "5\n", ""]);
    // Bytes of one reply may be read one at a time, and a failed job fails its own read only.
    queue.write_all(b"Job(text, boom)Job(7)").unwrap();
    assert_eq!(errno(queue.read(&mut [0; 9])), Err(Errno::EIO));
    assert!(rig.read("gpu/0/error").starts_with("job 6: it burst\nhint: "));
    let mut one = [0; 1];
    assert_eq!((queue.read(&mut one).unwrap(), one), (1, *b"7"));
    assert_eq!(next(&mut queue), "\n");
    let mut impatient = File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(rig.path("gpu/0/queue"))
        .unwrap();
    impatient.write_all(b"Job(text, slow)").unwrap();
    assert_eq!(errno(impatient.read(&mut [0; 9])), Err(Errno::EAGAIN));
    rig.fake.gpus.end(8);
    assert_eq!(next(&mut impatient), "result of 8\n");
    assert_eq!(rig.fake.gpus.commits.load(SeqCst), 0);
    impatient.sync_all().unwrap();
    assert_eq!(rig.fake.gpus.commits.load(SeqCst), 1, "fsync is commit");
}

/// T62. A job is judged in the write that completes it: EBADMSG with line and column in `error` beside the queue,
/// EAGAIN when the queue is full, EFBIG above 1 MiB of text.
/// A refusal does not stick: the same write may be tried again; what is too big stays refused until the close.
#[test]
fn a_job_is_judged_in_its_write() {
    let Some(rig) = rig() else { return };
    let mut queue = open(&rig);
    assert_eq!(errno(queue.write(b"bad(1)")), Err(Errno::EBADMSG));
    assert!(rig.read("gpu/0/error").starts_with("job:1:5: this is bad\nhint: "));
    assert_eq!(errno(queue.write(b"hello\n")), Err(Errno::EBADMSG));
    assert_eq!(errno(queue.write(b"Job(full)")), Err(Errno::EAGAIN));
    assert!(rig.read("gpu/0/error").starts_with("the queue of GPU 0 is full: 8 jobs\nhint: "));
    // Of several jobs those before the refused one are taken; of one in pieces the last piece comes again.
    assert_eq!(errno(queue.write(b"Job(1)Job(full)")), Ok(6));
    queue.write_all(b"Job(2, ").unwrap();
    assert_eq!(errno(queue.write(b"full)")), Err(Errno::EAGAIN));
    rig.fake.gpus.full.store(false, SeqCst);
    assert_eq!(errno(queue.write(b"full)")), Ok(5));
    assert_eq!(written(&rig), ["Job(1)", "Job(2, full)"]);
    assert_eq!(rig.read("gpu/0/error"), "");
    let big = format!("Job({})", "1,".repeat(1 << 19));
    let refused = queue.write_all(big.as_bytes()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EFBIG as i32));
    assert!(rig.read("gpu/0/error").starts_with("the text of a job has at most 1048576 bytes"));
    queue.sync_all().unwrap();
    queue.write_all(b"Job(3)").unwrap();
    for script in ["echo 'bad()' > gpu/0/queue", "cat ../bad.ron > gpu/0/queue", "echo hello > gpu/0/queue"] {
        let refused = rig.sh(script);
        assert!(!refused.status.success(), "{script}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Bad message"), "{script}: {refused:?}");
    }
    assert_eq!(written(&rig).len(), 3);
}

/// T63. A job may come in pieces, as `cat` writes what is longer than 128 KiB; it is judged when its last bracket is
/// closed, and with `Raw` inputs when the last byte behind its NUL is there. One that is not complete when its writer
/// closes the queue is refused with EBADMSG.
#[test]
fn a_job_may_come_in_pieces() {
    let Some(rig) = rig() else { return };
    let long = format!("Job([{}], \")\", // )\n)\n", "1.25,".repeat(150_000));
    fs::write(rig.real("long.ron"), &long).unwrap();
    rig.ok("cat ../long.ron > gpu/0/queue");
    assert!(written(&rig) == [long.trim_end()]);
    rig.fake.gpus.forget();
    let raw: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(rig.real("raw"), &raw).unwrap();
    fs::write(rig.real("raw.ron"), format!("Job(a: Raw({}))\n", raw.len())).unwrap();
    rig.ok("cat ../raw.ron ../nul ../raw > gpu/0/queue");
    let whole = [format!("Job(a: Raw({}))\n\0", raw.len()).as_bytes(), &raw].concat();
    assert!(rig.fake.gpus.written() == [whole]);
    rig.fake.gpus.forget();
    // A text and its few bytes in one write, and another job behind them.
    open(&rig).write_all(b"Job(a: Raw(4))\0(\0))Job(2)").unwrap();
    assert_eq!(written(&rig), ["Job(a: Raw(4))\0(\0))", "Job(2)"]);
    rig.fake.gpus.forget();
    for (script, said) in [
        ("cat ../open.ron > gpu/0/queue", "job:1:5"),
        ("cat ../raw.ron > gpu/0/queue", "12000000 bytes before the end"),
        ("head -c 9999 ../raw | cat ../raw.ron ../nul - > gpu/0/queue", "11990001 bytes before the end"),
    ] {
        let refused = rig.sh(script);
        assert!(!refused.status.success(), "{script}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Bad message"), "{script}: {refused:?}");
        assert!(rig.read("gpu/0/error").contains(said), "{script}: {}", rig.read("gpu/0/error"));
    }
    // Comments alone are no job; a child that closes what it inherited ends nobody's job.
    rig.ok("printf '// nothing\\n\\n' > gpu/0/queue");
    if have("python3") {
        rig.ok("python3 -c '
import os, subprocess
q = os.open(\"gpu/0/queue\", os.O_RDWR)
os.set_inheritable(q, True)
os.write(q, b\"Job(\")
subprocess.run([\"true\"], close_fds=False)
os.write(q, b\"1)\")'");
        assert_eq!(written(&rig), ["Job(1)"]);
    }
}

/// T64. A reader that waits for a reply can be interrupted, and the reply is there for the next one. `poll` and `select`
/// wake when it is there.
#[test]
fn a_reply_outlives_an_interrupted_reader() {
    let Some(rig) = rig() else { return };
    let mut queue = open(&rig);
    queue.write_all(b"Job(text, slow)").unwrap();
    for signal in ["INT", "TERM", "KILL"] {
        let reader = queue.try_clone().unwrap();
        let mut cat = Command::new("cat").stdin(reader).spawn().unwrap();
        until("cat waits", || rig.mount().waiting() == 1);
        Command::new("kill").args([&format!("-{signal}"), &cat.id().to_string()]).status().unwrap();
        assert!(cat.wait().unwrap().signal().is_some(), "{signal}");
        until("nothing is parked any more", || rig.mount().waiting() == 0);
    }
    let poll = |queue: &File, patience| {
        let mut fds = [PollFd::new(queue.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, patience).unwrap()
    };
    assert_eq!(poll(&queue, PollTimeout::ZERO), 0, "it runs");
    std::thread::scope(|scope| {
        let woken = scope.spawn(|| poll(&queue, PollTimeout::try_from(LIMIT).unwrap()));
        rig.fake.gpus.end(1);
        assert_eq!(woken.join().unwrap(), 1);
    });
    assert_eq!(next(&mut queue), "result of 1\n");
    assert_eq!(poll(&queue, PollTimeout::ZERO), 0, "nothing is owed");
    queue.write_all(b"Job()").unwrap();
    assert_eq!(poll(&queue, PollTimeout::ZERO), 1);
}

/// T65. Reading `wait` of a job waits until it has ended, and gives the verdict; a reader with `O_NONBLOCK`, as `grep -r`
/// is one, gets nothing before that.
#[test]
fn wait_of_a_job_waits_for_its_end() {
    let Some(rig) = rig() else { return };
    open(&rig).write_all(b"Job(slow)Job(slow, boom)").unwrap();
    assert_eq!(rig.ok("grep -rh --include=wait . gpu/0/jobs/1; stat -c %s gpu/0/jobs/1/wait"), "0\n");
    let mut cat = Command::new("cat").arg(rig.path("gpu/0/jobs/1/wait")).spawn().unwrap();
    until("cat waits", || rig.mount().waiting() == 1);
    Command::new("kill").args(["-INT", &cat.id().to_string()]).status().unwrap();
    assert_eq!(cat.wait().unwrap().signal(), Some(2));
    let path = rig.path("gpu/0/jobs/1/wait");
    let waiter = std::thread::spawn(move || fs::read_to_string(path).unwrap());
    until("it waits", || rig.mount().waiting() == 1);
    rig.fake.gpus.end(1);
    rig.fake.gpus.end(2);
    assert_eq!(waiter.join().unwrap(), "done\n");
    assert_eq!(rig.ok("stat -c %s gpu/0/jobs/1/wait; grep -rh --include=wait . gpu/0/jobs/1"), "5\ndone\n");
    assert!(rig.read("gpu/0/jobs/2/wait").starts_with("it burst\nhint: "));
}

/// T66. `in/NAME` and `out/NAME` are the arrays' bytes. Ranges of an input can be written in any order until the job is
/// started; its size stays, `>` does not cut it, and beyond its end is EFBIG. An output can be mapped.
#[test]
fn arrays_are_files_of_bytes() {
    let Some(rig) = rig() else { return };
    open(&rig).write_all(b"Job(slow)Job()Job(small)").unwrap();
    let bytes: Vec<u8> = (0..ARRAY / 4).flat_map(|n| u32::try_from(n).unwrap().to_le_bytes()).collect();
    fs::write(rig.real("x"), &bytes).unwrap();
    fs::write(rig.real("long"), [&bytes[..], b"beyond"].concat()).unwrap();
    for script in [
        "cat ../x > gpu/0/jobs/1/in/a",
        "cp ../x gpu/0/jobs/1/in/a",
        "dd if=../x of=gpu/0/jobs/1/in/a bs=64k status=none",
        "for n in 3 0 2 1; do dd if=../x of=gpu/0/jobs/1/in/a bs=256k count=1 skip=$n seek=$n status=none || exit; done",
        "dd if=../x of=gpu/0/jobs/1/in/a bs=1M conv=notrunc,fsync status=none",
    ] {
        rig.ok(script);
        rig.ok("cmp ../x gpu/0/jobs/1/in/a");
        assert_eq!(rig.ok("stat -c '%s %a' gpu/0/jobs/1/in/a"), "1048576 600\n");
        File::options()
            .write(true)
            .open(rig.path("gpu/0/jobs/1/in/a"))
            .unwrap()
            .write_all_at(&[0; 4096], 5)
            .unwrap();
    }
    let refused = rig.sh("cat ../long > gpu/0/jobs/1/in/a");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("File too large"), "{refused:?}");
    rig.ok("cmp ../x gpu/0/jobs/1/in/a");
    assert_eq!(
        rig.read("gpu/0/jobs/1/error"),
        "the array has 1048576 bytes, and byte 1048576 was to be written\n"
    );
    assert!(!rig.sh("truncate -s 2M gpu/0/jobs/1/in/a").status.success());
    let refused = rig.sh("echo x > gpu/0/jobs/2/in/a");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("busy"), "{refused:?}");
    assert!(rig.read("gpu/0/jobs/2/error").contains("has been started"));
    for job in [2, 3] {
        fs::write(rig.real(&format!("gpu/{job}-Out")), &bytes).unwrap();
        rig.ok(&format!("cmp ../x gpu/0/jobs/{job}/out/c; ! echo x > gpu/0/jobs/{job}/out/c"));
        assert_eq!(
            rig.ok(&format!("dd if=gpu/0/jobs/{job}/out/c bs=4 skip=1000 count=1 status=none | od -An -tu4")),
            "       1000\n"
        );
        if have("python3") {
            let script = format!(
                "import mmap\nf = open('gpu/0/jobs/{job}/out/c', 'rb')\n\
                 m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\nassert m[:] == open('../x', 'rb').read()"
            );
            rig.ok(&format!("python3 -c \"{script}\""));
        }
    }
    assert_eq!(rig.ok("ls gpu/0/jobs/1/out"), "", "it has not ended");
}

/// T67. How a job is doing everybody may read; what goes in and comes out, and its `ctl`, are its submitter's and root's, the
/// `ctl` of a device root's.
#[test]
fn what_a_job_computes_is_its_submitters() {
    if !nix::unistd::geteuid().is_root() {
        println!("NOT RUN: becoming another user needs root");
        return;
    }
    let Some(rig) = rig() else { return };
    let as_user = |uid: u32, script: &str| {
        rig.sh(&format!("setpriv --reuid {uid} --regid {uid} --clear-groups bash -c '{script}'"))
    };
    assert!(
        as_user(65534, "cat ../job.ron > gpu/0/queue; echo \"Job(slow)\" > gpu/0/queue").status.success()
    );
    assert_eq!(
        rig.ok("stat -c '%u:%g %a' gpu/0/jobs/1 gpu/0/jobs/1/out"),
        "65534:65534 755\n65534:65534 700\n"
    );
    for allowed in [
        "cat gpu/0/jobs/1/status gpu/0/jobs/1/wait gpu/0/info gpu/0/stats gpu/0/suspects gpu/0/shaders/*",
        "ls -lR gpu/0/shaders; ls -l gpu/0/jobs gpu/0/jobs/1; cat gpu/0/ctl gpu/0/jobs/1/ctl",
    ] {
        for uid in [0, 65533, 65534] {
            assert!(as_user(uid, allowed).status.success(), "{allowed}: {:?}", as_user(uid, allowed));
        }
    }
    for own in [
        "cat gpu/0/jobs/1/result",
        "cat gpu/0/jobs/1/out/c",
        "ls gpu/0/jobs/2/in",
        "echo x > gpu/0/jobs/2/in/a",
        "echo ok > gpu/0/jobs/1/ctl",
    ] {
        for (uid, may) in [(0, true), (65534, true), (65533, false)] {
            assert_eq!(as_user(uid, own).status.success(), may, "{uid}: {own}");
        }
    }
    for (uid, may) in [(0, true), (65534, false)] {
        assert_eq!(as_user(uid, "echo ok > gpu/0/ctl").status.success(), may, "{uid}");
    }
    let told = rig.fake.told();
    let verbs: Vec<_> = told
        .iter()
        .filter_map(|told| match told {
            Told::Verb(caller, file, _) => Some((caller.uid, file.clone())),
            _ => None,
        })
        .collect();
    assert!(verbs.contains(&(0, VerbFile::Gpu(0))), "{verbs:?}");
    assert!(verbs.contains(&(65534, VerbFile::GpuJob(JobKey { gpu: 0, id: 1 }))), "{verbs:?}");
}

/// T68. The jobs of a device are folders below `jobs`, as many as are kept; `find` and `grep -r` over them end, whether
/// they have ended or not.
#[test]
fn walkers_pass_many_jobs() {
    let Some(rig) = rig() else { return };
    rig.fake.gpus.fill(16_384);
    assert_eq!(rig.ok("ls gpu/0/jobs | wc -l; ls -l gpu/0/jobs | wc -l"), "16384\n16385\n");
    assert_eq!(rig.ok("find gpu/0/jobs -maxdepth 1 -name '*99' | wc -l"), "163\n");
    rig.fake.gpus.forget();
    open(&rig).write_all(b"Job(slow)Job()").unwrap();
    let before = rig.fake.gpus.written();
    rig.ok("ls gpu/0; grep -r . gpu > /dev/null; find gpu -ls > /dev/null; tar -cf ../gpu.tar gpu/0");
    let changed = "stat -c %Y.%Z gpu/0/stats; stat -c %.Y gpu/0/stats";
    let before_change = rig.ok(changed);
    assert_eq!(rig.ok(changed), before_change, "mtime is the last change");
    assert_eq!(rig.fake.gpus.written(), before, "reading submits nothing");
    open(&rig).write_all(b"Job()").unwrap();
    assert_ne!(rig.ok(changed), before_change);
    let usage = rig.read("gpu/0/queue");
    assert!(usage.starts_with("Write a job here"), "{usage}");
    assert_eq!(rig.ok("stat -c %s gpu/0/queue"), format!("{}\n", usage.len()));
    assert_eq!(
        rig.ok("ls gpu gpu/0 gpu/0/jobs/16386; cat gpu/0/ctl | head -n 1"),
        "gpu:\n0\n\ngpu/0:\nctl\nerror\ninfo\ninfo.json\njobs\nqueue\nshaders\nstats\nstats.json\nsuspects\nsuspects.json\n\n\
         gpu/0/jobs/16386:\nctl\nerror\nin\nout\nresult\nstatus\nstatus.json\nwait\n\
         pause             begin no further job; what runs ends\n"
    );
    for absent in ["gpu/1", "gpu/00", "gpu/0/jobs/1", "gpu/0/jobs/016385", "gpu/0/shaders/none", "gpu/x"] {
        assert!(!rig.path(absent).exists(), "{absent}");
    }
}
