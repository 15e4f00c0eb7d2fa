//! HTTP/1.1, request by request: a client's connection outlives the instance that answered it before.
//!
//! Bodies are streamed. A request is sent again only when nothing of it was sent, or when it may be sent twice
//! (RFC 9110, 9.2.2) and has no body.

use crate::body;
use crate::body::Answer;
use crate::connect::NoInstance;
use crate::connect::connect_in_order;
use crate::headers::say_who;
use crate::headers::strip;
use crate::headers::upgrade_of;
use crate::pool::Pool;
use crate::pool::Sender;
use crate::routes::Open;
use crate::routes::Routes;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::Uri;
use hyper::Version;
use hyper::body::Body;
use hyper::body::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::header::HOST;
use hyper::header::HeaderValue;
use hyper::header::RETRY_AFTER;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A client that has sent no whole request for so long is let go.
const IDLE: Duration = Duration::from_secs(75);
/// Between two lines in the log about requests that were broken off.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Sends of one request that may be sent twice.
const SENDS: u32 = 3;

/// The HTTP side of a front.
pub(crate) struct Http {
    routes: Rc<Routes>,
    pool: Pool,
    broken: Broken,
}

/// Tells of requests that instances broke off, once a minute at most: an app that fails must not fill its log here.
#[derive(Default)]
struct Broken {
    untold: Cell<u64>,
    told: Cell<Option<Instant>>,
}

impl Broken {
    fn tell(&self, error: &hyper::Error) {
        let untold = self.untold.get() + 1;
        self.untold.set(untold);
        if self.told.get().is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            self.told.set(Some(Instant::now()));
            self.untold.set(0);
            crate::report(&format!(
                "an instance broke a request off ({untold} since the last line): {error}"
            ));
        }
    }
}

/// Why there is no answer of an instance.
enum Failure {
    /// None accepted in time.
    NoInstance,
    /// The connection broke before there was an answer.
    Broken(hyper::Error),
}

impl From<NoInstance> for Failure {
    fn from(_: NoInstance) -> Self {
        Failure::NoInstance
    }
}

/// An instance's answer, and the connection it came through.
struct Answered {
    response: Response<Incoming>,
    sender: Sender,
    open: Open,
}

impl Http {
    pub(crate) fn new(routes: &Rc<Routes>) -> Rc<Self> {
        Rc::new(Self {
            routes: Rc::clone(routes),
            pool: Pool::new(Rc::clone(routes)),
            broken: Broken::default(),
        })
    }

    /// Serves a client until it goes, or until the front ends and it has its answer.
    pub(crate) async fn serve(
        self: Rc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut ending: watch::Receiver<bool>,
    ) {
        let service = service_fn(|request| {
            let this = Rc::clone(&self);
            async move { Ok::<_, Infallible>(this.answer(request, peer).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            // What goes wrong with one client is that client's, and it has been answered if it could be.
            _ = connection.as_mut() => return,
            _ = ending.wait_for(|ending| *ending) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(self: Rc<Self>, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Answer> {
        if request.method() == Method::CONNECT {
            return own(StatusCode::METHOD_NOT_ALLOWED, "this is no proxy for other hosts");
        }
        let protocol = upgrade_of(request.headers());
        let upgrade = protocol.is_some().then(|| hyper::upgrade::on(&mut request));
        strip(request.headers_mut(), protocol.as_ref());
        say_who(request.headers_mut(), peer.ip());
        if let Err(why) = to_origin_form(&mut request) {
            return own(StatusCode::BAD_REQUEST, why);
        }
        match self.send(request.map(body::Request::Client), upgrade.is_some()).await {
            Ok(answered) => self.pass_on(answered, upgrade),
            Err(Failure::NoInstance) => {
                let mut response =
                    own(StatusCode::SERVICE_UNAVAILABLE, "no instance of the app accepts connections");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                response
            }
            Err(Failure::Broken(error)) => {
                self.broken.tell(&error);
                own(StatusCode::BAD_GATEWAY, "the app's instance broke the request off")
            }
        }
    }

    /// Sends a request to the instance whose turn it is.
    async fn send(&self, mut request: Request<body::Request>, upgrade: bool) -> Result<Answered, Failure> {
        let again = (!upgrade && request.body().is_end_stream() && request.method().is_idempotent())
            .then(|| head_of(&request));
        let mut may_reuse = again.is_some();
        for sends in 1.. {
            let ports = self.routes.in_turn();
            let idle = ports.first().filter(|_| may_reuse).and_then(|port| self.pool.take(*port));
            // One idle connection was closed: the others of that instance may be as well.
            may_reuse = false;
            let (mut sender, open) = match idle {
                Some(idle) => idle,
                None => self.connect(ports).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Answered { response, sender, open }),
                Err(mut failed) => match (failed.take_message(), &again) {
                    (Some(unsent), _) if sends < SENDS => request = unsent,
                    (None, Some(head)) if sends < SENDS => request = head_of(head),
                    _ => return Err(Failure::Broken(failed.into_error())),
                },
            }
        }
        Err(Failure::NoInstance)
    }

    async fn connect(&self, ports: Vec<u16>) -> Result<(Sender, Open), Failure> {
        let (stream, open) = connect_in_order(&self.routes, ports).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Failure::Broken)?;
        tokio::task::spawn_local(async move {
            // The request that is under way hears of an error.
            let _ = connection.with_upgrades().await;
        });
        Ok((sender, open))
    }

    /// Gives an instance's answer to the client.
    fn pass_on(self: Rc<Self>, answered: Answered, upgrade: Option<OnUpgrade>) -> Response<Answer> {
        let Answered { mut response, mut sender, open } = answered;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = upgrade_of(response.headers()).filter(|_| switched);
        strip(response.headers_mut(), protocol.as_ref());
        *response.version_mut() = Version::HTTP_11;
        if let (true, Some(client)) = (switched, upgrade) {
            let instance = hyper::upgrade::on(&mut response);
            tokio::task::spawn_local(tunnel(client, instance, open));
            return response.map(|_| Answer::Own(Bytes::new()));
        }
        let port = open.port;
        tokio::task::spawn_local(async move {
            // When the whole answer has been read, the connection takes the next request.
            if sender.ready().await.is_ok() {
                self.pool.put(port, sender);
            }
        });
        response.map(|incoming| Answer::Instance { incoming, _open: open })
    }
}

/// An upgraded connection is forwarded as it is, until both sides have ended.
async fn tunnel(client: OnUpgrade, instance: OnUpgrade, open: Open) {
    if let (Ok(client), Ok(instance)) = tokio::join!(client, instance) {
        // The end of one side ends the other, with or without an error.
        let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(instance)).await;
    }
    drop(open);
}

/// The same request without a body.
fn head_of<B>(request: &Request<B>) -> Request<body::Request> {
    let mut head = Request::new(body::Request::Empty);
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// A request may name the whole URL, as to a proxy; an instance gets the path, and the host as a field.
fn to_origin_form(request: &mut Request<Incoming>) -> Result<(), &'static str> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "the host is not readable")?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    Ok(())
}

/// An answer of the front itself.
fn own(status: StatusCode, text: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::Own(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
