//! The error of a request's body whose framing is malformed, as opposed to one that broke off.
//!
//! Listeners put it into the errors of bodies. It stays recognisable below the errors of whatever the body passes through.

use std::error::Error;

use crate::wire::chain;

/// The client sent a malformed body: a chunk or a trailer that is not one. Correct the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedBody(pub String);

impl MalformedBody {
    /// The malformed body behind an error.
    pub fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        chain(error).find_map(<dyn Error>::downcast_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn a_malformed_body_is_recognised_below_other_errors() {
        let malformed = MalformedBody("a chunk has no length".to_owned());
        let outer = Outer(Box::new(Outer(Box::new(malformed.clone()))));
        assert_eq!(MalformedBody::behind(&outer), Some(&malformed));
        assert_eq!(MalformedBody::behind(&Outer("cut".into())), None);
    }
}
