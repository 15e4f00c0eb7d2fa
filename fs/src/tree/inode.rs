//! Inode numbers: the same for the same path in every run, and never the same for two nodes at a time.
//!
//! Numbers are a hash of the path. Owns which nodes the kernel knows; must be told when it forgets.

use super::node::Node;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;

/// The number of the top.
pub const ROOT_INO: u64 = 1;

/// Numbers of spec files have this bit, so that they never meet the others.
pub const SPEC_BIT: u64 = 1 << 62;

/// FNV-1a of what is written to it.
struct Fnv(u64);

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// FNV-1a, then mixed: a hash that is the same in every release of every compiler. Makes no text of a path: a folder may
/// have many thousand jobs.
pub fn path_hash(path: &(impl fmt::Display + ?Sized)) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    // Its writer never fails.
    let _ = write!(fnv, "{path}");
    let mut hash = fnv.0;
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 29;
    // Below 2^62, and above the numbers that mean something to the kernel.
    (hash & (SPEC_BIT - 1)).max(16)
}

/// The nodes that a client knows by number.
#[derive(Debug, Default)]
pub struct Inodes {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<u64, (Node, u64)>,
    numbers: HashMap<Node, u64>,
}

impl Known {
    fn number(&self, node: &Node) -> u64 {
        match node {
            Node::Root => return ROOT_INO,
            Node::Spec(_, ino) => return *ino,
            _ => {}
        }
        if let Some(ino) = self.numbers.get(node) {
            return *ino;
        }
        let mut ino = path_hash(node);
        while self.nodes.get(&ino).is_some_and(|(other, _)| other != node) {
            ino = (ino + 1) & (SPEC_BIT - 1);
        }
        ino
    }
}

impl Inodes {
    /// The number that a listing shows.
    pub fn number(&self, node: &Node) -> u64 {
        self.known.lock().number(node)
    }

    /// The number that a lookup gives: the node stays known until it is forgotten as often.
    pub fn remember(&self, node: &Node) -> u64 {
        let mut known = self.known.lock();
        let ino = known.number(node);
        if let Some((_, count)) = known.nodes.get_mut(&ino) {
            *count += 1;
        } else {
            known.nodes.insert(ino, (node.clone(), 1));
            known.numbers.insert(node.clone(), ino);
        }
        ino
    }

    /// The node of a number.
    pub fn node(&self, ino: u64) -> Option<Node> {
        if ino == ROOT_INO {
            return Some(Node::Root);
        }
        self.known.lock().nodes.get(&ino).map(|(node, _)| node.clone())
    }

    /// Takes lookups back; gives the node when that was the last one.
    pub fn forget(&self, ino: u64, lookups: u64) -> Option<Node> {
        let mut known = self.known.lock();
        let (_, count) = known.nodes.get_mut(&ino)?;
        *count = count.saturating_sub(lookups);
        if *count > 0 {
            return None;
        }
        let (node, _) = known.nodes.remove(&ino)?;
        known.numbers.remove(&node);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::node::RootFile;

    #[test]
    fn numbers_are_stable_and_survive_forgetting() {
        let inodes = Inodes::default();
        let node = Node::RootFile(RootFile::Help);
        let listed = inodes.number(&node);
        assert_eq!(inodes.remember(&node), listed);
        assert_eq!(inodes.remember(&node), listed);
        assert_eq!(inodes.node(listed), Some(node.clone()));
        assert_eq!(inodes.forget(listed, 1), None);
        assert_eq!(inodes.forget(listed, 1), Some(node.clone()));
        assert_eq!(inodes.node(listed), None);
        assert_eq!(inodes.number(&node), listed);
        assert_eq!(listed, path_hash("help"), "the hash is part of what clients may store");
    }

    #[test]
    fn two_nodes_never_share_a_number() {
        let inodes = Inodes::default();
        let node = Node::RootFile(RootFile::Help);
        // Somebody else sits on the number already.
        let taken = path_hash("help");
        inodes.known.lock().nodes.insert(taken, (Node::Apps, 1));
        assert_eq!(inodes.remember(&node), taken + 1);
        assert_eq!(inodes.node(taken + 1), Some(node));
        assert_eq!(inodes.node(taken), Some(Node::Apps));
    }
}
