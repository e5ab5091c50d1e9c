//! A role while a node has it: its claim, its service from start to end, and the gate in front of it.

pub(crate) mod gate;
pub(crate) mod lifecycle;
pub(crate) mod owner;
pub(crate) mod reasons;
pub(crate) mod running;
