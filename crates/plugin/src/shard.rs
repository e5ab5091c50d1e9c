//! What services with owned shards share: which shard this member has and what it may answer, keys and pages
//! of them, how fresh an answer must be, and how the data is kept open.

mod condition;
mod keep_open;
mod kept;
mod key;
mod member;
mod page;
mod read_level;
mod scan_range;
mod stall;

pub use condition::Condition;
pub use keep_open::{Closing, Open, OpenError, Pauses, keep_open};
pub use kept::{Kept, NotOpen};
pub use key::{Key, KeyError};
pub use member::ShardMember;
pub use page::{Listed, NotAKey, Page, merge};
pub use read_level::{Read, ReadLevel, ReadLevelError};
pub use scan_range::{MAX_BYTES, MAX_LIMIT, ScanRange};
pub use stall::{Moment, STALL, StallDetector};
