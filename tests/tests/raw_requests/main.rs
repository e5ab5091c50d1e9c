//! Raw bytes against the real agent: what a gateway or a balancer in HTTP mode refuses, what arrives behind it, and how often.
//!
//! Every table runs over one agent for each of the two fronts; what only a gateway has, its routes, is named so. Behind it is
//! a [`Recorder`], which keeps each request as it arrived and answers with prescribed bytes. A table runs to its end and
//! reports every row that is wrong.

mod answers;
mod frames;
mod front;
mod heads;
mod http2;
mod lines;
mod paths;
mod recorder;
mod requests;
mod slow;
mod websockets;

use front::{Front, of_each_front};
use recorder::Recorder;
