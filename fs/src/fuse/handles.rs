//! Open files and folders by the number that the kernel knows them by.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A table of open things.
pub(super) struct Handles<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    next: u64,
    open: HashMap<u64, Arc<T>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { next: 1, open: HashMap::new() }) }
    }
}

impl<T> Handles<T> {
    /// Gives it a number. Numbers are never used again.
    pub(super) fn insert(&self, handle: Arc<T>) -> u64 {
        let mut table = self.table.lock();
        let number = table.next;
        table.next += 1;
        table.open.insert(number, handle);
        number
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<T>> {
        self.table.lock().open.get(&number).cloned()
    }

    pub(super) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.table.lock().open.remove(&number)
    }
}
