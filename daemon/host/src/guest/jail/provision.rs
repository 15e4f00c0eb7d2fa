//! What is put into a running jail: packages, files, setup commands, services, in this order.
//!
//! Owns what "done" means for each: a package is in the jail's database, a file has this content and these bits, a
//! service says that it runs. Only what zed itself put there before is taken away again.

use super::JailCommand;
use super::Jails;
use super::find;
use crate::guest::GuestErrorKind;
use crate::guest::GuestRequest;
use crate::guest::record::Mark;
use crate::guest::record::read_mark;
use crate::guest::record::write_mark;
use std::collections::BTreeSet;
use std::path::Path;

impl Jails<'_> {
    pub(in crate::guest) fn provision(&self, request: &GuestRequest) -> Result<(), GuestErrorKind> {
        let name = self.name.as_str();
        // `bastille cmd` and others say 0 of a jail that does not run.
        if find(self.tools, name)?.is_none() {
            return Err(GuestErrorKind::Missing("it does not run".to_owned()));
        }
        let root = &request.root;
        let files = &*self.tools.files;
        let mut mark = read_mark(files, root)?.unwrap_or_else(|| Mark::new(Some(self.jail.release.clone())));
        let done = request.spec.content();
        if mark.content.as_ref() == Some(&done) {
            return self.ensure_services(false);
        }
        mark.content = None;
        let mut changed = self.packages(root, &mut mark)?;
        changed |= self.files(root)?;
        changed |= self.setup(root, &mut mark)?;
        self.services(root, &mut mark, changed)?;
        mark.content = Some(done);
        write_mark(files, root, &mark)
    }

    /// Names and origins of the packages inside: all, or those of another question.
    fn packages_there(&self, question: &JailCommand) -> Result<BTreeSet<String>, GuestErrorKind> {
        let command = question.command();
        let output = self.tools.run(&command)?;
        if !output.ok() {
            return Err(GuestErrorKind::state(&command, &output, "which packages it has is not known"));
        }
        Ok(output.text.split_whitespace().map(str::to_owned).collect())
    }

    fn packages(&self, root: &Path, mark: &mut Mark) -> Result<bool, GuestErrorKind> {
        let wanted = &self.jail.packages;
        let dropped: Vec<String> =
            mark.packages.iter().filter(|name| !wanted.contains(name)).cloned().collect();
        if wanted.is_empty() && dropped.is_empty() {
            return Ok(false);
        }
        let name = || self.name.to_string();
        let all = JailCommand::PackageNames { name: name() };
        let there = self.packages_there(&all)?;
        let missing: Vec<String> = wanted.iter().filter(|name| !there.contains(*name)).cloned().collect();
        // Before the effect: what is installed now is zed's to take away, also after a crash.
        mark.packages
            .extend(missing.iter().filter(|name| !mark.packages.contains(name)).cloned().collect::<Vec<_>>());
        write_mark(&*self.tools.files, root, mark)?;
        let mut changed = false;
        if !missing.is_empty() {
            let install = JailCommand::PackageInstall { name: name(), packages: missing.clone() }.command();
            let output = self.tools.run(&install)?;
            let there = self.packages_there(&all)?;
            if let Some(absent) = missing.iter().find(|name| !there.contains(*name)) {
                let state = format!("package `{absent}` is not in the jail");
                return Err(GuestErrorKind::state(&install, &output, state));
            }
            changed = true;
        }
        let present: Vec<String> = dropped.iter().filter(|name| there.contains(*name)).cloned().collect();
        if !present.is_empty() {
            // Not deleted outright: something that is wanted may need it.
            let release = JailCommand::PackageRelease { name: name(), packages: present.clone() };
            self.tools.run(&release.command())?;
            let remove = JailCommand::PackageAutoremove { name: name() }.command();
            let output = self.tools.run(&remove)?;
            let left = self.packages_there(&JailCommand::PackagesNotNeeded { name: name() })?;
            if let Some(still) = present.iter().find(|name| left.contains(*name)) {
                let state = format!("package `{still}` is in the jail, and nothing needs it");
                return Err(GuestErrorKind::state(&remove, &output, state));
            }
            changed = true;
        }
        mark.packages.retain(|name| wanted.contains(name));
        write_mark(&*self.tools.files, root, mark)?;
        Ok(changed)
    }

    fn files(&self, root: &Path) -> Result<bool, GuestErrorKind> {
        let mut changed = false;
        for file in &self.jail.files {
            let failed =
                |e: std::io::Error| GuestErrorKind::file(&root.join(file.path.trim_start_matches('/')), &e);
            let mode = u32::from_str_radix(&file.mode, 8).unwrap_or(0o600);
            let there = self.tools.files.read_in(root, &file.path).map_err(failed)?;
            if there.is_some_and(|(content, bits)| content == file.content.as_bytes() && bits == mode) {
                continue;
            }
            self.tools.files.write_in(root, &file.path, file.content.as_bytes(), mode).map_err(failed)?;
            changed = true;
        }
        Ok(changed)
    }

    /// All commands, when the list is another one than the last that was run to its end.
    fn setup(&self, root: &Path, mark: &mut Mark) -> Result<bool, GuestErrorKind> {
        if self.jail.setup.is_empty() {
            return Ok(false);
        }
        let hash = zed_plan::sha256_hex(format!("{:?}", self.jail.setup).as_bytes());
        if mark.setup.as_ref() == Some(&hash) {
            return Ok(false);
        }
        for argv in &self.jail.setup {
            let command = JailCommand::Exec { name: self.name.to_string(), argv: argv.clone() }.command();
            let output = self.tools.run(&command)?;
            if !output.ok() {
                return Err(GuestErrorKind::state(&command, &output, "the setup ends there"));
            }
        }
        mark.setup = Some(hash);
        write_mark(&*self.tools.files, root, mark)?;
        Ok(true)
    }

    fn services(&self, root: &Path, mark: &mut Mark, changed: bool) -> Result<(), GuestErrorKind> {
        let wanted = &self.jail.services;
        let name = || self.name.to_string();
        let dropped: Vec<String> =
            mark.services.iter().filter(|name| !wanted.contains(name)).cloned().collect();
        for service in dropped {
            for command in [
                JailCommand::Service { name: name(), service: service.clone(), verb: "onestop" },
                JailCommand::ServiceDisable { name: name(), service: service.clone() },
            ] {
                self.tools.run(&command.command())?;
            }
            if self.runs(&service)? {
                return Err(GuestErrorKind::Missing(format!("service `{service}` still runs inside")));
            }
        }
        mark.services.clone_from(wanted);
        write_mark(&*self.tools.files, root, mark)?;
        self.ensure_services(changed)
    }

    /// Every service of the spec is enabled and runs; `restart` when what it reads may have changed.
    fn ensure_services(&self, restart: bool) -> Result<(), GuestErrorKind> {
        for service in &self.jail.services {
            let (name, service) = (|| self.name.to_string(), || service.clone());
            let enable = JailCommand::ServiceEnable { name: name(), service: service() }.command();
            let output = self.tools.run(&enable)?;
            if !output.ok() {
                return Err(GuestErrorKind::state(&enable, &output, "the service is not enabled"));
            }
            let verb = match self.runs(&service())? {
                true if restart => "restart",
                true => continue,
                false => "start",
            };
            let command = JailCommand::Service { name: name(), service: service(), verb }.command();
            let output = self.tools.run(&command)?;
            if !self.runs(&service())? {
                let state = format!("service `{}` does not run inside", service());
                return Err(GuestErrorKind::state(&command, &output, state));
            }
        }
        Ok(())
    }

    fn runs(&self, service: &str) -> Result<bool, GuestErrorKind> {
        let (name, service) = (self.name.to_string(), service.to_owned());
        Ok(self.tools.run(&JailCommand::Service { name, service, verb: "status" }.command())?.ok())
    }
}
