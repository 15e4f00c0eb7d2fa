//! The embedded store against the conformance suite.

use super::*;
use crate::conformance;
use crate::conformance::Fixture;
use crate::conformance::run_all;
use tempfile::TempDir;

struct EmbeddedFixture {
    // Dropped before the folder is removed.
    store: Option<EmbeddedStore>,
    dir: TempDir,
}

impl EmbeddedFixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("mounts")).unwrap();
        let mut fixture = Self { store: None, dir };
        fixture.reopen();
        fixture
    }
}

impl Fixture for EmbeddedFixture {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        self.store = Some(EmbeddedStore::open(&self.dir.path().join("store")).unwrap());
    }

    fn mount_base(&self) -> PathBuf {
        self.dir.path().join("mounts")
    }

    fn write(&self, dataset: &DatasetPath, name: &str, content: &[u8]) {
        conformance::write_at_mountpoint(self.store(), dataset, name, content);
    }

    fn remove(&self, dataset: &DatasetPath, name: &str) {
        conformance::remove_at_mountpoint(self.store(), dataset, name);
    }

    fn read(&self, dataset: &DatasetPath, name: &str) -> Option<Vec<u8>> {
        conformance::read_at_mountpoint(self.store(), dataset, name)
    }
}

#[test]
fn keeps_the_promises_of_a_store() {
    run_all(&mut || Box::new(EmbeddedFixture::new()));
}
