//! The programs: a node, and the list of devices.
//!
//! Both are processes of their own because drivers crash and hang. A node never outlives the one that it works for.

use super::serve::End;
use super::serve::Node;
use super::start::Arguments;
use super::start::folder;
use super::start::start;
use crate::device::DeviceInfo;
use crate::device::DeviceKind;
use crate::vk::Driver;
use crate::wire;
use crate::wire::FromNode;
use nix::poll::PollFd;
use nix::poll::PollFlags;
use nix::poll::PollTimeout;
use nix::poll::poll;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::io;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a node that has nobody to work for may go on with what it is at.
const GRACE: Duration = Duration::from_millis(200);

/// How long writing the caches may take then.
const CLOSING: Duration = Duration::from_secs(10);

/// Whether anybody is there to work for, and whether the node is ending.
#[derive(Debug, Default)]
pub(super) struct Presence {
    gone: AtomicBool,
    ending: AtomicBool,
}

impl Presence {
    /// The other end of the socket is closed.
    pub(super) fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// Ends this process at once. Handlers of drivers that run at a usual exit may hang as the device does.
fn die() -> ! {
    let _ = kill(Pid::this(), Signal::SIGKILL);
    std::process::abort()
}

/// A GPU node: `--uuid HEX|--rank N --cache DIR [--allow-cpu]`, its socket as descriptor 0. Ends when it is told to, when
/// its device is lost, and when the other end of the socket is closed, whatever the device is doing then.
pub fn node_main(arguments: &[String]) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zedd gpu-node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let arguments = Arguments::parse(arguments)?;
    let socket = || io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let sockets = socket().and_then(|one| Ok((one, socket()?)));
    let (socket, watched) = sockets.map_err(|error| format!("there is no socket to work for: {error}"))?;
    let (mut sender, receiver) = wire::split(socket).map_err(|error| error.to_string())?;
    // Before any other thread: it tells drivers by the environment where their caches are.
    let folder = folder(&arguments);
    let presence = Arc::new(Presence::default());
    watch(watched, Arc::clone(&presence)).map_err(|error| format!("no thread can be started: {error}"))?;
    let started = match start(&arguments, folder) {
        Ok(started) => started,
        Err(reason) => {
            sender.send(&FromNode::Unusable(reason.clone()), &[], &[]).map_err(|error| error.to_string())?;
            return Err(reason);
        }
    };
    let (info, times, cache) = (Box::new(started.info), started.times, started.cache);
    let ready = FromNode::Ready { info, times, cache };
    sender.send(&ready, &[], &[]).map_err(|error| error.to_string())?;
    let mut node = Node::new(started.engine, sender, receiver, Arc::clone(&presence));
    let end = node.serve();
    presence.ending.store(true, Ordering::Release);
    match end {
        End::Stop | End::Closed => {
            node.close();
            Ok(())
        }
        End::Lost => die(),
        End::Socket(error) => {
            node.close();
            Err(format!("the socket: {error}"))
        }
    }
}

/// Ends the process soon after the other end of the socket is closed: a kernel that spins never gives the main thread a
/// chance to notice.
pub(super) fn watch(socket: UnixStream, presence: Arc<Presence>) -> io::Result<()> {
    std::thread::Builder::new().name("gpu-watch".to_owned()).spawn(move || {
        loop {
            // A hang-up is reported without being asked for.
            let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            match poll(&mut sockets, PollTimeout::NONE) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        presence.gone.store(true, Ordering::Release);
        std::thread::sleep(GRACE);
        if presence.ending.load(Ordering::Acquire) {
            std::thread::sleep(CLOSING);
        }
        die()
    })?;
    Ok(())
}

/// Prints the devices of this host as JSON, best first; with `--allow-cpu` also drivers that compute on the CPU.
pub fn list_main(arguments: &[String]) -> ExitCode {
    let allow_cpu = match arguments {
        [] => false,
        [one] if one == "--allow-cpu" => true,
        _ => {
            eprintln!("zedd gpu-list: the only argument is --allow-cpu");
            return ExitCode::from(2);
        }
    };
    match list(allow_cpu) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zedd gpu-list: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list(allow_cpu: bool) -> Result<(), String> {
    let driver = Driver::load().map_err(|error| error.to_string())?;
    let mut devices: Vec<DeviceInfo> = driver.devices();
    devices.retain(|info| allow_cpu || info.kind != DeviceKind::Cpu);
    let text = serde_json::to_string(&devices).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())
}
