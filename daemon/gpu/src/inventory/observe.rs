//! Asks the bus and nvidia-smi of this host.
//!
//! Programs are run by the caller, with its deadline: this module says which, and what comes of their answers. What
//! cannot be asked is said and costs nothing else.

use super::pci::PciGpu;
use super::pci::observe_sysfs;
use super::text::SMI_FIELDS;
use super::text::SmiGpu;
use super::text::parse_nvidia_smi;
use super::text::parse_pciconf;
use super::text::parse_prtconf;
use std::path::Path;

/// Runs programs of the host.
pub trait Programs {
    /// What it prints; `None` when there is no such program.
    ///
    /// # Errors
    ///
    /// When it cannot be run, fails, or does not end in time: one line that names it and says why.
    fn output(&self, argv: &[&str]) -> Result<Option<String>, String>;
}

/// How a system shows its PCI devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System<'a> {
    /// Files below this folder, usually `/sys`.
    Linux(&'a Path),
    /// pciconf(8).
    FreeBsd,
    /// prtconf(8).
    Illumos,
}

impl System<'static> {
    /// The system that this program was built for.
    pub fn here() -> Self {
        if cfg!(target_os = "freebsd") {
            System::FreeBsd
        } else if cfg!(target_os = "illumos") {
            System::Illumos
        } else {
            System::Linux(Path::new("/sys"))
        }
    }
}

/// What a source shows, and what kept it from more, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// GPUs.
    pub found: Vec<T>,
    /// What could not be asked.
    pub troubles: Vec<String>,
}

impl<T> Answer<T> {
    /// Runs a program and takes what it prints; nothing when it is not there.
    fn ask(&mut self, programs: &dyn Programs, argv: &[&str]) -> String {
        match programs.output(argv) {
            Ok(text) => text.unwrap_or_default(),
            Err(trouble) => {
                self.troubles.push(trouble);
                String::new()
            }
        }
    }
}

/// Asks the bus. Takes as long as the programs do: not for a thread that others wait for.
pub fn observe_pci(system: System<'_>, programs: &dyn Programs) -> Answer<PciGpu> {
    let mut answer = Answer { found: Vec::new(), troubles: Vec::new() };
    answer.found = match system {
        System::Linux(sys) => observe_sysfs(sys),
        System::FreeBsd => parse_pciconf(&answer.ask(programs, &["pciconf", "-lv"])),
        System::Illumos => {
            let properties = answer.ask(programs, &["prtconf", "-pv"]);
            parse_prtconf(&properties, &answer.ask(programs, &["prtconf", "-D"]))
        }
    };
    answer
}

/// Asks nvidia-smi. It may take long, or for ever when the driver hangs: for a thread of its own.
pub fn observe_nvidia(programs: &dyn Programs) -> Answer<SmiGpu> {
    let mut answer = Answer { found: Vec::new(), troubles: Vec::new() };
    let query = format!("--query-gpu={SMI_FIELDS}");
    let text = answer.ask(programs, &["nvidia-smi", &query, "--format=csv,noheader,nounits"]);
    answer.found = parse_nvidia_smi(&text);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers by the first two words of a command; there is no other program.
    struct Canned<'a>(&'a [(&'a str, Result<&'a str, &'a str>)]);

    impl Programs for Canned<'_> {
        fn output(&self, argv: &[&str]) -> Result<Option<String>, String> {
            let command = argv[..2].join(" ");
            let found = self.0.iter().find(|(start, _)| command.starts_with(start));
            found.map(|(_, answer)| answer.map(str::to_owned).map_err(str::to_owned)).transpose()
        }
    }

    #[test]
    fn each_system_is_asked_in_its_own_way() {
        let pciconf = "none0@pci0:193:0:0:\tclass=0x030200 vendor=0x10de device=0x2335\n";
        let properties = "Node 0x1\n  reg:  00c10000.0\n  class-code:  00030200\n  vendor-id:  000010de\n  \
                          device-id:  00002335\n  name:  'display'\n";
        let answers = [
            ("pciconf -lv", Ok(pciconf)),
            ("prtconf -pv", Ok(properties)),
            ("prtconf -D", Ok("display, instance #0 (driver name: nvidia)\n")),
        ];
        for (system, driver) in [(System::FreeBsd, None), (System::Illumos, Some("nvidia"))] {
            let answer = observe_pci(system, &Canned(&answers));
            let [gpu] = answer.found.as_slice() else { panic!("{system:?}: {answer:?}") };
            assert_eq!(gpu.address.unwrap().to_string(), "0000:c1:00.0", "{system:?}");
            assert_eq!(gpu.driver.as_deref(), driver, "{system:?}");
            assert!(answer.troubles.is_empty(), "{system:?}");
        }
        let line = "NVIDIA H200, 143771, 570.86.15, [N/A], 00000000:C1:00.0\n";
        let answer = observe_nvidia(&Canned(&[("nvidia-smi --query-gpu=name", Ok(line))]));
        assert_eq!((answer.found.len(), answer.troubles.len()), (1, 0));
    }

    #[test]
    fn a_host_without_the_programs_has_no_gpus_and_no_troubles() {
        let empty = tempfile::tempdir().unwrap();
        for system in [System::Linux(empty.path()), System::FreeBsd, System::Illumos] {
            let answer = observe_pci(system, &Canned(&[]));
            assert_eq!(answer, Answer { found: Vec::new(), troubles: Vec::new() }, "{system:?}");
        }
        assert_eq!(observe_nvidia(&Canned(&[])), Answer { found: Vec::new(), troubles: Vec::new() });
    }

    #[test]
    fn a_program_that_fails_is_told() {
        let answer = observe_nvidia(&Canned(&[("nvidia-smi", Err("nvidia-smi: exit 9"))]));
        assert_eq!(answer.troubles, ["nvidia-smi: exit 9"]);
        let answer = observe_pci(System::FreeBsd, &Canned(&[("pciconf", Err("pciconf: exit 1"))]));
        assert_eq!(
            (answer.found.len(), answer.troubles.as_slice()),
            (0, &["pciconf: exit 1".to_owned()][..])
        );
    }
}
