//! The front's socket: one line asks, one line answers.
//!
//! It is in a folder that only the daemon's user can enter. A client that is slow, silent or gone holds nothing up.

use crate::routes::Routes;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use zed_host::front::FrontRequest;
use zed_host::front::FrontStatus;
use zed_host::front::MAX_LINE;
use zed_spec::Listen;

/// More at once are turned away.
const MAX_CLIENTS: usize = 64;
/// For a request to arrive.
const REQUEST: Duration = Duration::from_secs(10);
/// After the system had no descriptor for one who asks.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers for as long as the front runs.
pub(crate) async fn serve(listener: UnixListener, routes: Rc<Routes>, listen: Listen) {
    let clients = Rc::new(Cell::new(0usize));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if clients.get() >= MAX_CLIENTS {
            continue;
        }
        clients.set(clients.get() + 1);
        let (clients, routes) = (Rc::clone(&clients), Rc::clone(&routes));
        tokio::task::spawn_local(async move {
            // One that goes before its answer does not want it.
            let _ = converse(stream, &routes, listen).await;
            clients.set(clients.get() - 1);
        });
    }
}

async fn converse(mut stream: UnixStream, routes: &Routes, listen: Listen) -> io::Result<()> {
    let line = tokio::time::timeout(REQUEST, read_line(&mut stream)).await??;
    let answer = match FrontRequest::parse(&line) {
        Ok(request) => answer(request, routes, listen).await,
        Err(text) => format!("error {text}"),
    };
    stream.write_all(format!("{answer}\n").as_bytes()).await
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(&bytes[..end]).into_owned());
        }
        if bytes.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

async fn answer(request: FrontRequest, routes: &Routes, listen: Listen) -> String {
    match request {
        FrontRequest::Route(ports) => {
            routes.set(ports);
            "routed".to_owned()
        }
        FrontRequest::Connections(port) => routes.count(port).to_string(),
        FrontRequest::Drain(port, at_most) => routes.drain(port, at_most).await.to_string(),
        FrontRequest::Status => {
            let status = FrontStatus {
                listen,
                ports: routes.ports(),
                open: routes.counts(),
                waiting: routes.waiting.get(),
                accepted: routes.accepted.get(),
                refused: routes.refused.get(),
            };
            serde_json::to_string(&status).unwrap_or_default()
        }
    }
}
