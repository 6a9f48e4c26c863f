//! Bytes that wait.

/// At most `N` bytes, which are taken in their order.
#[derive(Debug)]
pub struct Fifo<const N: usize> {
    bytes: [u8; N],
    first: usize,
    length: usize,
}

impl<const N: usize> Default for Fifo<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Fifo<N> {
    /// Returns an empty one.
    pub const fn new() -> Self {
        Fifo { bytes: [0; N], first: 0, length: 0 }
    }

    /// Inserts a byte. Returns whether there was room.
    pub fn push(&mut self, byte: u8) -> bool {
        let room = !self.is_full();
        if room {
            self.bytes[(self.first + self.length) % N] = byte;
            self.length += 1;
        }
        room
    }

    /// Takes the first byte.
    pub fn pop(&mut self) -> Option<u8> {
        if self.is_empty() {
            return None;
        }
        let byte = self.bytes[self.first];
        self.first = (self.first + 1) % N;
        self.length -= 1;
        Some(byte)
    }

    /// Returns whether there is no byte.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns whether there is no room.
    pub const fn is_full(&self) -> bool {
        self.length == N
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_their_order_and_what_has_no_room_does_not() {
        let mut fifo = Fifo::<3>::new();
        for round in 0..5 {
            assert!(
                [1, 2, 3].iter().all(|byte| fifo.push(round + byte))
                    && !fifo.push(9)
                    && fifo.is_full()
            );
            assert_eq!([fifo.pop(), fifo.pop()], [Some(round + 1), Some(round + 2)]);
            assert!(fifo.push(7));
            assert_eq!([fifo.pop(), fifo.pop(), fifo.pop()], [Some(round + 3), Some(7), None]);
            assert!(fifo.is_empty());
        }
    }
}
