//! The three files, as text. Pure.

use super::ZeddService;
use std::fmt::Write as _;

/// What none of the three files can hold without rules of its own is refused: no operator needs it in a path or an
/// option of zedd.
pub(super) fn check(service: &ZeddService) -> Result<(), String> {
    let program = service.program.to_string_lossy();
    if !program.starts_with('/') {
        return Err(format!("`{program}` is not an absolute path"));
    }
    for word in std::iter::once(&*program).chain(service.arguments.iter().map(String::as_str)) {
        let good = |c: char| c.is_ascii_alphanumeric() || "/-_.:=,@+".contains(c);
        if word.is_empty() || !word.chars().all(good) {
            return Err(format!("`{word}` cannot be in a service's file: use letters, digits and /-_.:=,@+"));
        }
    }
    Ok(())
}

fn line(service: &ZeddService) -> String {
    let mut line = service.program.to_string_lossy().into_owned();
    for argument in &service.arguments {
        let _ = write!(line, " {argument}");
    }
    line
}

/// systemd.service(5). `KillMode=process` keeps the apps running over a restart of zedd.
pub(super) fn systemd(service: &ZeddService) -> String {
    format!(
        "[Unit]\n\
         Description=zed: makes this host match its specs\n\
         After=zfs.target local-fs.target network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         Type=notify\n\
         ExecStart={}\n\
         KillMode=process\n\
         Restart=on-failure\n\
         TimeoutStopSec=90\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        line(service)
    )
}

/// rc.subr(8). `procname` is what rc.subr(8) looks for under the pid of the file: without it, it would look for
/// daemon(8) and say that zedd does not run.
pub(super) fn rcd(service: &ZeddService) -> String {
    let program = service.program.display();
    let arguments = service.arguments.join(" ");
    format!(
        "#!/bin/sh\n\
         #\n\
         # PROVIDE: zedd\n\
         # REQUIRE: FILESYSTEMS NETWORKING\n\
         # KEYWORD: shutdown\n\
         #\n\
         # zedd_enable (bool):  NO by default; YES starts zedd at boot.\n\
         # zedd_flags (str):    arguments of zedd.\n\
         \n\
         . /etc/rc.subr\n\
         \n\
         name=\"zedd\"\n\
         desc=\"zed: makes this host match its specs\"\n\
         rcvar=\"zedd_enable\"\n\
         \n\
         load_rc_config \"$name\"\n\
         \n\
         : \"${{zedd_enable:=NO}}\"\n\
         : \"${{zedd_flags={arguments}}}\"\n\
         \n\
         pidfile=\"/var/run/zedd.pid\"\n\
         procname=\"{program}\"\n\
         command=\"/usr/sbin/daemon\"\n\
         command_args=\"-f -p $pidfile $procname $zedd_flags\"\n\
         # rc.subr would hand zedd's flags to daemon(8).\n\
         zedd_flags=\"\"\n\
         \n\
         run_rc_command \"$1\"\n"
    )
}

/// smf(7), service_bundle(5). `child`: zedd stays in the foreground. The stop method ends zedd alone; `:kill` would
/// end the apps as well, because they are in the service's contract.
pub(super) fn smf(service: &ZeddService) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n\
         <!DOCTYPE service_bundle SYSTEM \"/usr/share/lib/xml/dtd/service_bundle.dtd.1\">\n\
         <service_bundle type=\"manifest\" name=\"zedd\">\n\
         \x20 <service name=\"system/zedd\" type=\"service\" version=\"1\">\n\
         \x20   <create_default_instance enabled=\"true\"/>\n\
         \x20   <single_instance/>\n\
         \x20   <dependency name=\"filesystem\" grouping=\"require_all\" restart_on=\"none\" type=\"service\">\n\
         \x20     <service_fmri value=\"svc:/system/filesystem/local\"/>\n\
         \x20   </dependency>\n\
         \x20   <dependency name=\"network\" grouping=\"optional_all\" restart_on=\"none\" type=\"service\">\n\
         \x20     <service_fmri value=\"svc:/milestone/network\"/>\n\
         \x20   </dependency>\n\
         \x20   <exec_method type=\"method\" name=\"start\" exec=\"{}\" timeout_seconds=\"0\"/>\n\
         \x20   <exec_method type=\"method\" name=\"stop\" exec=\"{STOP}\" timeout_seconds=\"90\"/>\n\
         \x20   <property_group name=\"startd\" type=\"framework\">\n\
         \x20     <propval name=\"duration\" type=\"astring\" value=\"child\"/>\n\
         \x20   </property_group>\n\
         \x20   <stability value=\"Unstable\"/>\n\
         \x20   <template>\n\
         \x20     <common_name>\n\
         \x20       <loctext xml:lang=\"C\">zed: makes this host match its specs</loctext>\n\
         \x20     </common_name>\n\
         \x20   </template>\n\
         \x20 </service>\n\
         </service_bundle>\n",
        line(service)
    )
}

/// smf_method(7) gives `SMF_FMRI`; the restarter notes the process that it started.
const STOP: &str = "kill -TERM `/usr/bin/svcprop -p restarter/start_pid $SMF_FMRI`";
