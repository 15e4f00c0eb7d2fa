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

/// What the bus and nvidia-smi show, and what kept them from it, one line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// GPUs on PCI.
    pub pci: Vec<PciGpu>,
    /// GPUs of NVIDIA.
    pub smi: Vec<SmiGpu>,
    /// What could not be asked.
    pub troubles: Vec<String>,
}

/// Asks. Takes as long as the programs do: not for a thread that others wait for.
pub fn observe(system: System<'_>, programs: &dyn Programs) -> Looked {
    let mut troubles = Vec::new();
    let mut ask = |argv: &[&str]| match programs.output(argv) {
        Ok(text) => text,
        Err(trouble) => {
            troubles.push(trouble);
            None
        }
    };
    let pci = match system {
        System::Linux(sys) => observe_sysfs(sys),
        System::FreeBsd => ask(&["pciconf", "-lv"]).map(|text| parse_pciconf(&text)).unwrap_or_default(),
        System::Illumos => {
            let properties = ask(&["prtconf", "-pv"]).unwrap_or_default();
            let drivers = ask(&["prtconf", "-D"]).unwrap_or_default();
            parse_prtconf(&properties, &drivers)
        }
    };
    let query = format!("--query-gpu={SMI_FIELDS}");
    let smi = ask(&["nvidia-smi", &query, "--format=csv,noheader,nounits"]);
    let smi = smi.map(|text| parse_nvidia_smi(&text)).unwrap_or_default();
    Looked { pci, smi, troubles }
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

    const SMI: (&str, Result<&str, &str>) =
        ("nvidia-smi --query-gpu=name", Ok("NVIDIA H200, 143771, 570.86.15, [N/A], 00000000:C1:00.0\n"));

    #[test]
    fn each_system_is_asked_in_its_own_way() {
        let pciconf = "none0@pci0:193:0:0:\tclass=0x030200 vendor=0x10de device=0x2335\n";
        let properties = "Node 0x1\n  reg:  00c10000.0\n  class-code:  00030200\n  vendor-id:  000010de\n  \
                          device-id:  00002335\n  name:  'display'\n";
        let answers = [
            ("pciconf -lv", Ok(pciconf)),
            ("prtconf -pv", Ok(properties)),
            ("prtconf -D", Ok("display, instance #0 (driver name: nvidia)\n")),
            SMI,
        ];
        for (system, driver) in [(System::FreeBsd, None), (System::Illumos, Some("nvidia"))] {
            let looked = observe(system, &Canned(&answers));
            let [gpu] = looked.pci.as_slice() else { panic!("{system:?}: {looked:?}") };
            assert_eq!(gpu.address.unwrap().to_string(), "0000:c1:00.0", "{system:?}");
            assert_eq!(gpu.driver.as_deref(), driver, "{system:?}");
            assert_eq!((looked.smi.len(), looked.troubles.len()), (1, 0), "{system:?}");
        }
    }

    #[test]
    fn a_host_without_the_programs_has_no_gpus_and_no_troubles() {
        let empty = tempfile::tempdir().unwrap();
        for system in [System::Linux(empty.path()), System::FreeBsd, System::Illumos] {
            assert_eq!(observe(system, &Canned(&[])), Looked::default(), "{system:?}");
        }
    }

    #[test]
    fn a_program_that_fails_is_told_and_hides_nothing_else() {
        let empty = tempfile::tempdir().unwrap();
        let stuck = "nvidia-smi: deadline of 10s passed";
        let looked = observe(System::Linux(empty.path()), &Canned(&[("nvidia-smi", Err(stuck))]));
        assert_eq!(looked.troubles, [stuck]);
        let looked = observe(System::FreeBsd, &Canned(&[("pciconf", Err("pciconf: exit 1")), SMI]));
        assert_eq!((looked.smi.len(), looked.troubles.as_slice()), (1, &["pciconf: exit 1".to_owned()][..]));
    }
}
