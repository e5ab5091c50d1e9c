//! Where lines wait for the writer: a buffer for each core, so that no two cores wait for the same lock.

use std::sync::{Mutex, PoisonError};

use mesh::PerCore;

/// A buffer that has grown to this size is written soon.
const LONG: usize = 64 * 1024;
/// The size above which a buffer takes no further lines.
const FULL: usize = 8 * 1024 * 1024;
/// The largest buffer that is kept after it was written.
const KEPT: usize = 1024 * 1024;

/// The buffers of all cores.
#[derive(Debug, Default)]
pub(super) struct Buffers(PerCore<Mutex<Filled>>);

/// Lines in their order.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is the first in its buffer.
    First,
    /// There were others.
    Further,
    /// With it, the buffer has become long.
    Long,
    /// The buffer is full.
    Dropped,
}

impl Buffers {
    /// Appends a line and its end to the buffer of this core, unless `write` returns that there is none.
    pub(super) fn append(&self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Pushed {
        let Filled { bytes, lines } = &mut *self.0.here().lock().unwrap_or_else(PoisonError::into_inner);
        let before = bytes.len();
        if before >= FULL {
            return Pushed::Dropped;
        }
        if !write(bytes) {
            return Pushed::Further;
        }
        bytes.push(b'\n');
        *lines += 1;
        match before {
            0 => Pushed::First,
            _ if before < LONG && bytes.len() >= LONG => Pushed::Long,
            _ => Pushed::Further,
        }
    }

    /// Takes what all buffers have. `change` runs while no line can be appended.
    pub(super) fn take_all(&self, change: impl FnOnce()) -> Vec<Filled> {
        let mut locked: Vec<_> =
            self.0.iter().map(|buffer| buffer.lock().unwrap_or_else(PoisonError::into_inner)).collect();
        change();
        locked.iter_mut().map(|filled| std::mem::take(&mut **filled)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Mutex<Filled>> {
        self.0.iter()
    }
}

/// Takes what a buffer has.
pub(super) fn take(buffer: &Mutex<Filled>) -> Filled {
    std::mem::take(&mut *buffer.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Gives the memory of a buffer back, unless that is much or there are new lines already.
pub(super) fn give_back(buffer: &Mutex<Filled>, mut bytes: Vec<u8>) {
    bytes.clear();
    let filled = &mut *buffer.lock().unwrap_or_else(PoisonError::into_inner);
    if bytes.capacity() <= KEPT && filled.bytes.capacity() == 0 {
        filled.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_takes_no_line_until_it_is_taken() {
        let buffers = Buffers::default();
        let push = |len: usize| {
            buffers.append(|out| {
                out.resize(out.len() + len, b'x');
                true
            })
        };
        assert_eq!(push(10), Pushed::First);
        assert_eq!(push(10), Pushed::Further);
        assert_eq!(push(LONG), Pushed::Long);
        assert_eq!(push(FULL), Pushed::Further);
        assert_eq!(push(1), Pushed::Dropped);
        let taken = buffers.take_all(|| ());
        assert_eq!(taken.iter().map(|filled| filled.lines).sum::<u64>(), 4);
        assert_eq!(push(1), Pushed::First);
    }

    #[test]
    fn the_memory_of_a_buffer_is_used_again_unless_it_is_much() {
        let buffer = Mutex::default();
        for (capacity, is_kept) in [(KEPT, true), (KEPT + 1, false)] {
            take(&buffer);
            give_back(&buffer, Vec::with_capacity(capacity));
            assert_eq!(take(&buffer).bytes.capacity() > 0, is_kept);
        }
    }
}
