//! Buffers for copying between connections. Each thread keeps some for its next connections.

use std::cell::RefCell;

/// How many unused buffers each thread keeps.
const KEPT: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer of this thread's, which goes back to the thread on which it is dropped.
#[derive(Debug)]
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// The size of a buffer in bytes, and so the most that waits in our memory for one slow reader.
    pub const SIZE: usize = 64 * 1024;

    /// One that is not used. Its bytes are those of its last use.
    pub fn take() -> Self {
        let kept = FREE.try_with(|free| free.borrow_mut().pop()).ok().flatten();
        Self(kept.unwrap_or_else(|| vec![0; Self::SIZE].into_boxed_slice()))
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.0);
        // A thread that ends keeps nothing.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_used_again() {
        let taken: Vec<_> = (0..2 * KEPT).map(|_| Buffer::take()).collect();
        drop(taken);
        let kept = FREE.with(|free| free.borrow().len());
        assert_eq!(kept, KEPT, "only so many are kept");
        drop((Buffer::take(), Buffer::take()));
        assert_eq!(FREE.with(|free| free.borrow().len()), KEPT);
    }
}
