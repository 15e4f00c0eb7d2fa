//! End-to-end tests of zed; see the files beside this one.
