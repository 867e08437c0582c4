//! The container's processes: how it is cloned, set up, watched and ended.
