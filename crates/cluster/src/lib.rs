//! Membership by gossip: who is alive, what each node does. The only crate that names chitchat.

mod view;

pub use view::ClusterView;
