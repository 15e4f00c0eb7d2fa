//! A small server of the socket protocol over a folder: what zedctl asks for and nothing else.

use serde_json::Value;
use serde_json::json;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;

/// Bytes of one answer: small, so that files come in parts.
const PART: usize = 16;

/// Serves the folder on a socket until the test ends.
pub(crate) fn serve(root: &Path, socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let root = root.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (root, stream) = (root.clone(), stream.unwrap());
            // A client that goes away ends its connection only.
            std::thread::spawn(move || connection(&root, &stream));
        }
    });
}

fn connection(root: &Path, stream: &UnixStream) -> std::io::Result<()> {
    let mut output = stream;
    writeln!(output, "{}", json!({ "zed": { "protocol": 1, "version": "0.1.0" } }))?;
    for line in BufReader::new(stream).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let path = root.join(request["path"].as_str().unwrap());
        if request["op"] == "follow" {
            return follow(&path, request["offset"].as_u64().unwrap(), stream);
        }
        if request["op"] == "submit" {
            submit(&request, stream)?;
            continue;
        }
        let answer = answer(&path, &request).unwrap_or_else(|error| {
            let errno = if error.kind() == std::io::ErrorKind::NotFound { "ENOENT" } else { "EIO" };
            json!({ "error": { "errno": errno, "message": format!("{}: {error}\n", path.display()) } })
        });
        writeln!(output, "{answer}")?;
    }
    Ok(())
}

/// Replies with what the job says after `reply `, in parts.
fn submit(request: &Value, mut output: &UnixStream) -> std::io::Result<()> {
    let data = request["data"].as_str().unwrap();
    let job = if request["hex"] == true { unhex(data) } else { data.as_bytes().to_vec() };
    let Some(reply) = job.strip_prefix(b"reply ") else {
        let error = json!({ "errno": "EBADMSG", "message": "job:1:1: bad\nhint: mend it\n" });
        return writeln!(output, "{}", json!({ "error": error }));
    };
    for part in reply.chunks(PART) {
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(output, "{}", json!({ "data": { "hex": hex, "next": 0, "end": false } }))?;
    }
    writeln!(output, "{}", json!({ "data": { "text": "", "next": 0, "end": true } }))
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

fn answer(path: &PathBuf, request: &Value) -> std::io::Result<Value> {
    let data = || request["data"].as_str().unwrap();
    Ok(match request["op"].as_str().unwrap() {
        "read" => {
            data_answer(&fs::read(path)?, usize::try_from(request["offset"].as_u64().unwrap()).unwrap())
        }
        "stat" => json!({ "stat": { "name": "x", "dir": false, "size": fs::metadata(path)?.len() } }),
        "list" => {
            let entries: Vec<Value> = fs::read_dir(path)?
                .map(|entry| json!({ "name": entry.unwrap().file_name().to_str().unwrap(), "size": 0 }))
                .collect();
            json!({ "entries": entries })
        }
        "write" if data() == "@missing\n" => {
            json!({ "error": { "errno": "ENOENT", "message": "no such release\nhint: look at history\n" } })
        }
        "put" if data().contains("bad") => {
            let message = ".socket-0-hello.ron cannot become hello.ron: error: bad\nhint: mend it\n";
            json!({ "error": { "errno": "EBADMSG", "message": message } })
        }
        "write" | "put" => {
            fs::write(path, data())?;
            json!({ "ok": {} })
        }
        other => panic!("unknown op {other}"),
    })
}

/// As text where it is, else in hexadecimal.
fn data_answer(bytes: &[u8], offset: usize) -> Value {
    let part = &bytes[offset.min(bytes.len())..bytes.len().min(offset + PART)];
    let (next, end) = (offset + part.len(), offset + part.len() >= bytes.len());
    match std::str::from_utf8(part) {
        Ok(text) => json!({ "data": { "text": text, "next": next, "end": end } }),
        Err(_) => {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "data": { "hex": hex, "next": next, "end": end } })
        }
    }
}

/// What is there, then the end of the connection: the tests need no more.
fn follow(path: &Path, offset: u64, mut stream: &UnixStream) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let offset = usize::try_from(offset).unwrap();
    writeln!(stream, "{}", data_answer(&bytes, offset))?;
    writeln!(stream, "{}", data_answer(b"later\n", 0))?;
    stream.shutdown(std::net::Shutdown::Both)
}
