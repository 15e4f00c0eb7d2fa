//! Verbs: what can be said to a device and to a job, and who may.
//!
//! Root and zedd's own user may everything; others what concerns their own jobs.

use super::device::Device;
use super::host::NoticeKind;
use super::inner::Inner;
use super::journal::Entry;
use zed_ctl::Code;
use zed_ctl::CtlError;
use zed_ctl::GpuVerb;
use zed_fs::Caller;

/// Weights that can be given.
const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// Priorities that can be given.
const PRIORITIES: std::ops::RangeInclusive<i8> = -100..=100;

fn refused(code: Code, text: String) -> CtlError {
    CtlError::new(code, text)
}

fn may_all(caller: Caller) -> bool {
    caller.uid == 0 || caller.uid == nix::unistd::geteuid().as_raw()
}

impl Device {
    /// Carries out a verb of the device or of one of its jobs.
    pub(super) fn verb(&self, caller: Caller, job: Option<u64>, verb: &GpuVerb) -> Result<(), CtlError> {
        match job {
            Some(id) => self.job_verb(caller, id, verb),
            None => self.device_verb(caller, verb),
        }
    }

    fn job_verb(&self, caller: Caller, id: u64, verb: &GpuVerb) -> Result<(), CtlError> {
        self.with(|inner| {
            let Some(record) = inner.records.get(&id) else {
                return Err(refused(Code::NotFound, format!("gpu {} has no job {id}", self.gpu)));
            };
            if !may_all(caller) && record.uid != caller.uid {
                let text = format!("job {id} is of user {}, not of user {}", record.uid, caller.uid);
                return Err(refused(Code::NotPermitted, text));
            }
            let view = record.view(&inner.device);
            let done = match verb {
                GpuVerb::Start => inner.start(id),
                GpuVerb::Cancel => inner.cancel(id),
                GpuVerb::Priority { priority } if PRIORITIES.contains(priority) => {
                    inner.set_priority(id, *priority)
                }
                GpuVerb::Priority { priority } => {
                    let text = format!("the priority {priority} is not between -100 and 100");
                    return Err(refused(Code::BadArgument, text));
                }
                _ => {
                    return Err(refused(
                        Code::BadArgument,
                        "this is said to a device, not to a job".to_owned(),
                    ));
                }
            };
            if done {
                return Ok(());
            }
            let what = match verb {
                GpuVerb::Start => "it does not wait for inputs",
                GpuVerb::Cancel => "it has ended",
                _ => "it does not wait any more",
            };
            Err(refused(Code::Busy, format!("job {id} is {}: {what}", view.state)))
        })
    }

    fn device_verb(&self, caller: Caller, verb: &GpuVerb) -> Result<(), CtlError> {
        if let GpuVerb::Cancel = verb {
            self.with(|inner| inner.cancel_waiting(caller));
            return Ok(());
        }
        if matches!(verb, GpuVerb::Start | GpuVerb::Priority { .. }) {
            return Err(refused(Code::BadArgument, "this is said to a job, not to a device".to_owned()));
        }
        if !may_all(caller) {
            let text = format!("user {} may not command gpu {}", caller.uid, self.gpu);
            return Err(refused(Code::NotPermitted, text));
        }
        match verb {
            GpuVerb::Weight { user, weight } => {
                if !WEIGHTS.contains(weight) {
                    let text = format!("the weight {weight} is not between 1 and 1000");
                    return Err(refused(Code::BadArgument, text));
                }
                let uid = user_id(user)?;
                self.with(|inner| {
                    inner.schedule.set_weight(uid, *weight);
                    inner.log(&Entry::Weight(uid, *weight), &[]);
                });
                Ok(())
            }
            GpuVerb::Forgive { kernel } => self.with(|inner| inner.forgive(kernel.as_deref())),
            other => {
                self.with(|inner| inner.steer(other));
                Ok(())
            }
        }
    }
}

impl Inner {
    fn steer(&mut self, verb: &GpuVerb) {
        match verb {
            GpuVerb::Pause | GpuVerb::Resume => {
                self.paused = *verb == GpuVerb::Pause;
                self.log(&Entry::Paused(self.paused), &[]);
                self.pump(true);
            }
            GpuVerb::Restart => {
                self.restart = true;
                self.wake = true;
            }
            GpuVerb::Retain { jobs } => {
                self.retain = *jobs;
                self.log(&Entry::Retain(*jobs), &[]);
                self.trim();
            }
            _ => {}
        }
    }

    fn forgive(&mut self, kernel: Option<&str>) -> Result<(), CtlError> {
        let braked = self.suspects.brake();
        if !self.suspects.forgive(kernel) {
            if let Some(kernel) = kernel {
                let text = format!("the kernel {kernel} is no suspect of gpu {}", self.gpu);
                return Err(refused(Code::NotFound, text));
            }
            return Ok(());
        }
        self.suspects_changed = true;
        self.wake = true;
        if braked && !self.suspects.brake() {
            self.notice(NoticeKind::Released, "forgiven: the device takes all jobs again");
        }
        self.pump(true);
        Ok(())
    }

    /// The jobs of a user that have not been begun.
    fn cancel_waiting(&mut self, caller: Caller) {
        let waiting = |record: &&super::record::Record| record.uid == caller.uid && record.not_begun();
        let ids: Vec<u64> = self.records.values().filter(waiting).map(|record| record.id).collect();
        for id in ids {
            self.cancel(id);
        }
    }
}

/// A user by number or name.
fn user_id(user: &str) -> Result<u32, CtlError> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match nix::unistd::User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        Ok(None) => Err(refused(Code::NotFound, format!("this host has no user `{user}`"))),
        Err(error) => Err(refused(Code::Failed, format!("the user `{user}` cannot be looked up: {error}"))),
    }
}
