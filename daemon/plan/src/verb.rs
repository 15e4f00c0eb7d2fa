//! Plans for what an operator asks of a running app: start, stop, restart; and for starting apps after a boot.
//!
//! Works from the stamps and the kept releases alone: the spec has no say here.
