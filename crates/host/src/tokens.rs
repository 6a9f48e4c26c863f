//! What is kept by token: found, added and removed in constant time, without memory being allocated
//! or freed under a lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

use crate::Token;

/// A hash table that grows by one bucket for each new token (linear hashing), so that no single
/// call pays for all. Whoever adds a token brings its [`Node`], and now and then a [`Segment`].
pub(crate) struct Tokens<T> {
    /// Segment n has 2^n buckets, those from 2^n - 1 on.
    segments: Vec<Segment<T>>,
    /// How many buckets are in use: at least 1 once there is a segment.
    buckets: usize,
    len: usize,
}

/// Memory for as many buckets as there are.
pub(crate) struct Segment<T>(Box<[Chain<T>]>);

/// Memory for one token.
pub(crate) struct Node<T> {
    token: Token,
    next: Chain<T>,
    pub(crate) value: T,
}

type Chain<T> = Option<Box<Node<T>>>;

impl<T> Segment<T> {
    pub(crate) fn new(buckets: usize) -> Self {
        Segment((0..buckets).map(|_| None).collect())
    }
}

impl<T> Node<T> {
    pub(crate) fn new(token: Token, value: T) -> Box<Self> {
        Box::new(Node { token, next: None, value })
    }
}

/// Segments of 2^0 to 2^40 buckets: the list of them does not grow.
const SEGMENTS: usize = 41;

impl<T> Tokens<T> {
    pub(crate) fn new() -> Self {
        Tokens { segments: Vec::with_capacity(SEGMENTS), buckets: 0, len: 0 }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How large a segment is needed before a token can be added, if one is.
    pub(crate) fn lacks(&self) -> Option<usize> {
        let room = (1 << self.segments.len()) - 1;
        (self.len >= room && self.segments.len() < SEGMENTS).then_some(1 << self.segments.len())
    }

    /// Adds a segment if it is the one that is [lacking](Tokens::lacks); gives it back if not.
    pub(crate) fn extend(&mut self, segment: Segment<T>) -> Result<(), Segment<T>> {
        if self.lacks() != Some(segment.0.len()) {
            return Err(segment);
        }
        self.segments.push(segment);
        self.buckets = self.buckets.max(1);
        Ok(())
    }

    fn bucket_of(&self, token: Token) -> usize {
        // Sixty-four that follow each other stay neighbours, also in memory: tokens are numbers
        // given out in turn, or addresses.
        let mixed = (token.0 >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = token.0.wrapping_add(mixed ^ mixed >> 32) as usize;
        let buckets = self.buckets.max(1);
        let all = buckets.next_power_of_two();
        // Those that have not been split yet have twice their share.
        let bucket = hash & (all - 1);
        if bucket < buckets { bucket } else { bucket & (all / 2 - 1) }
    }

    fn chain(&mut self, bucket: usize) -> Option<&mut Chain<T>> {
        let segment = (bucket + 1).ilog2() as usize;
        self.segments.get_mut(segment)?.0.get_mut(bucket + 1 - (1 << segment))
    }

    pub(crate) fn find(&mut self, token: Token) -> Option<&mut T> {
        let mut at = self.chain(self.bucket_of(token))?.as_deref_mut();
        while let Some(node) = at {
            if node.token == token {
                return Some(&mut node.value);
            }
            at = node.next.as_deref_mut();
        }
        None
    }

    /// Adds a token that is not there. `None` if something is [lacking](Tokens::lacks).
    pub(crate) fn insert(&mut self, node: Box<Node<T>>) -> Option<&mut T> {
        self.len += 1;
        if self.len > self.buckets {
            self.split();
        }
        self.link(node)
    }

    fn link(&mut self, mut node: Box<Node<T>>) -> Option<&mut T> {
        let chain = self.chain(self.bucket_of(node.token))?;
        node.next = chain.take();
        Some(&mut chain.insert(node).value)
    }

    /// Uses one bucket more: some of the tokens of another are its own.
    fn split(&mut self) {
        let new = self.buckets;
        let split = new - (1 << new.ilog2());
        if self.chain(new).is_none() {
            return;
        }
        self.buckets += 1;
        let mut chain = self.chain(split).and_then(mem::take);
        while let Some(mut node) = chain {
            chain = node.next.take();
            self.link(node);
        }
    }

    /// Removes a token, and gives back its memory.
    pub(crate) fn remove(&mut self, token: Token) -> Chain<T> {
        let mut at = self.chain(self.bucket_of(token))?;
        while at.as_ref()?.token != token {
            at = &mut at.as_mut()?.next;
        }
        let mut node = at.take()?;
        *at = node.next.take();
        self.len -= 1;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn add(tokens: &mut Tokens<u32>, token: u64, value: u32) {
        if let Some(segment) = tokens.lacks() {
            assert!(tokens.extend(Segment::new(segment)).is_ok());
            assert!(tokens.lacks().is_none() && tokens.extend(Segment::new(segment)).is_err());
        }
        assert_eq!(tokens.insert(Node::new(Token(token), value)).copied(), Some(value));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_finds_what_a_map_finds(ops in prop::collection::vec((0u64..200, any::<u32>(), 0u32..3), 0..600)) {
            let (mut tokens, mut map) = (Tokens::new(), BTreeMap::new());
            for (token, value, what) in ops {
                let known = map.get(&token).copied();
                prop_assert_eq!(tokens.find(Token(token)).copied(), known);
                if what == 0 {
                    prop_assert_eq!(tokens.remove(Token(token)).map(|node| node.value), map.remove(&token));
                } else if known.is_none() {
                    add(&mut tokens, token, value);
                    map.insert(token, value);
                }
                prop_assert_eq!(tokens.len(), map.len());
            }
            for (token, value) in map {
                prop_assert_eq!(tokens.find(Token(token)).copied(), Some(value));
            }
        }
    }

    #[test]
    fn chains_stay_short_however_many_there_are() {
        for step in [1, 64, 4096, 0x1_0000_0001] {
            let mut tokens = Tokens::new();
            (0..50_000).for_each(|n| add(&mut tokens, n * step, 0));
            let longest = (0..tokens.buckets).map(|bucket| {
                let first = tokens.chain(bucket).unwrap().as_deref();
                core::iter::successors(first, |node| node.next.as_deref()).count()
            });
            let longest = longest.max().unwrap();
            assert!(longest <= 16, "{longest} by steps of {step}");
        }
    }
}
