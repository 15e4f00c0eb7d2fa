//! A node without a device: computes what may be computed on the CPU while the device is unusable.
//!
//! A process of its own like any node, so that a job that takes too long can be ended. Loads no driver.

use super::message::Failure;
use super::message::Message;
use super::message::Waiting;
use super::process::Presence;
use super::process::watch;
use super::serve::compute_on_cpu;
use crate::device::DeviceInfo;
use crate::device::DeviceKind;
use crate::device::DeviceUuid;
use crate::device::Limits;
use crate::wire;
use crate::wire::CacheState;
use crate::wire::FromNode;
use crate::wire::JobTimes;
use crate::wire::Sender;
use crate::wire::StartTimes;
use crate::wire::ToNode;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A node for the CPU; its socket is descriptor 0. Ends as [`super::node_main`] does.
pub fn cpu_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zedd gpu-cpu: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let socket = || io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let (mut sender, mut receiver) = wire::split(socket()?)?;
    watch(socket()?, Arc::new(Presence::default()))?;
    let ready = FromNode::Ready {
        info: Box::new(no_device()),
        times: StartTimes::default(),
        cache: CacheState::Absent,
    };
    sender.send(&ready, &[], &[])?;
    while let Some(received) = receiver.receive::<ToNode>()? {
        let ToNode::Run(runs) = received.value else { break };
        let files = received.files.into_iter().map(File::from).collect();
        let from = Rc::new(Message { raw: received.raw, files });
        for run in runs {
            compute(&mut sender, &Waiting { run, from: Rc::clone(&from) })?;
        }
    }
    Ok(())
}

fn compute(sender: &mut Sender, waiting: &Waiting) -> io::Result<()> {
    let id = waiting.run.id;
    sender.send(&FromNode::Began(vec![id]), &[], &[])?;
    let started = Instant::now();
    let computed = if waiting.run.on_cpu {
        compute_on_cpu(waiting)
    } else {
        Err(Failure::new("this node has no device"))
    };
    match computed {
        Ok((outputs, kept)) => {
            let device = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            let times = JobTimes { device, batch: 1, ..JobTimes::default() };
            let raw: Vec<&[u8]> = kept.iter().map(Vec::as_slice).collect();
            sender.send(&FromNode::Done { id, outputs, times, on_cpu: true }, &raw, &[])
        }
        Err(Failure { error, kernel }) => sender.send(&FromNode::Failed { id, error, kernel }, &[], &[]),
    }
}

/// What stands in the place of a device.
fn no_device() -> DeviceInfo {
    DeviceInfo {
        uuid: DeviceUuid([0; 16]),
        kind: DeviceKind::Cpu,
        model: "the CPU, without a driver".to_owned(),
        vendor_id: 0,
        device_id: 0,
        driver: String::new(),
        driver_version: String::new(),
        driver_number: 0,
        driver_uuid: [0; 16],
        api_version: String::new(),
        pci_address: None,
        memory: 0,
        limits: Limits {
            push_bytes: 0,
            workgroup_threads: 0,
            groups: [0; 3],
            shared_bytes: 0,
            buffer_bytes: 0,
            bindings: 0,
            f64: true,
        },
    }
}
