//! What services with owned shards share: which shard this member has and what it may answer, how fresh an answer must be,
//! and how the data is kept open.

mod condition;
mod keep_open;
mod kept;
mod member;
mod read_level;
mod stall;

pub use condition::Condition;
pub use keep_open::{Closing, Open, OpenError, Pauses, keep_open};
pub use kept::{Kept, NotOpen};
pub use member::ShardMember;
pub use read_level::{Read, ReadLevel, ReadLevelError};
pub use stall::{Moment, STALL, StallDetector};
