//! Raw bytes against the real agent: what a gateway refuses, what arrives behind it, and how often.
//!
//! Every table runs over one agent. Behind it is a [`Recorder`], which keeps each request as it arrived and answers with
//! prescribed bytes. A table runs to its end and reports every row that is wrong.

mod answers;
mod frames;
mod front;
mod heads;
mod http2;
mod paths;
mod recorder;
mod requests;
mod websockets;

use front::Front;
use recorder::{Recorder, Seen};
