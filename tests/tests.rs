//! Integration tests: one binary, real namespaces, real clients.
