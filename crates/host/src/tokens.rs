//! What is kept by token: found, added and removed in constant time, without memory being allocated
//! or freed under a lock.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;

/// What a producer and a consumer have in common: the identity of the eventfd between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// A hash table that grows by one bucket for each few tokens (linear hashing), so that no single
/// call pays for all. Who adds a token brings [`Room`] now and then, for some that follow, too; it
/// stays with the table.
///
/// With many tokens the time goes into cache misses and page faults, so all is small, and a bucket
/// is one cache line: who looks for a token that is not there, and adds it, touches no other that
/// is far from those of the last one. Which bucket is split next, where its other half goes, and
/// which node is used next, follows in memory upon the ones before. Nodes of others are not
/// touched, but for the few that do not fit into their buckets.
pub(crate) struct Tokens<T> {
    buckets: Chunks<Bucket>,
    /// How many buckets are in use: at least 1 once there is a chunk.
    in_use: usize,
    nodes: Chunks<Node<T>>,
    /// A list of nodes that were used.
    free: Index,
    /// The first of the nodes that were not.
    fresh: Index,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    entries: [Entry; WIDTH],
    /// A list of what does not fit.
    more: Index,
}

#[derive(Clone, Copy)]
struct Entry {
    /// What to look at before the node is touched.
    hash: Hash,
    node: Index,
}

/// Says of a token in which bucket it is, however many there are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Hash(u32);

/// A node, or [`NONE`].
type Index = u32;

const NONE: Index = u32::MAX;

struct Node<T> {
    token: Token,
    /// The next node among those that do not fit into their bucket, or among those that are free.
    next: Index,
    value: Option<T>,
}

/// A list that grows by chunks which stay where they are.
struct Chunks<E>(Vec<Box<[E]>>);

/// Memory for one chunk more, and for a longer list of them.
struct Growth<E> {
    chunk: Option<Box<[E]>>,
    list: Vec<Box<[E]>>,
}

/// How long a list of chunks has to be, if one more is needed: 0 if there is room in the one that
/// there is.
type Longer = Option<usize>;

/// Memory for more tokens.
pub(crate) struct Room<T> {
    buckets: Growth<Bucket>,
    nodes: Growth<Node<T>>,
}

/// What [`Tokens::lacks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lack {
    buckets: Longer,
    nodes: Longer,
}

/// How many tokens a bucket has room for.
const WIDTH: usize = 7;
/// How many it has on average. (One that has not been split for long has up to twice as many.)
const LOAD: usize = 4;
/// How many buckets, or nodes, are brought at a time: up to 4 KiB.
const CHUNK: usize = 64;

impl Bucket {
    const EMPTY: Self =
        Bucket { entries: [Entry { hash: Hash(0), node: NONE }; WIDTH], more: NONE };
}

impl Hash {
    fn of(token: Token) -> Self {
        // Sixty-four that follow each other stay neighbours, also in memory: tokens are numbers
        // given out in turn, or addresses.
        let mixed = (token.0 >> 6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Hash(token.0.wrapping_add(mixed ^ mixed >> 32) as u32)
    }

    fn bucket(self, buckets: usize) -> usize {
        let all = buckets.next_power_of_two();
        // Those that have not been split yet have twice their share.
        let bucket = self.0 as usize & (all - 1);
        if bucket < buckets { bucket } else { bucket & (all / 2 - 1) }
    }
}

impl<E> Chunks<E> {
    fn len(&self) -> usize {
        self.0.len() * CHUNK
    }

    fn at(&mut self, index: usize) -> Option<&mut E> {
        self.0.get_mut(index / CHUNK)?.get_mut(index % CHUNK)
    }

    fn longer(&self) -> usize {
        if self.0.len() < self.0.capacity() { 0 } else { (self.0.len() * 2).max(4) }
    }

    fn grow(&mut self, longer: Longer, growth: &mut Growth<E>) {
        let Some(longer) = longer.filter(|longer| *longer <= growth.list.capacity()) else {
            return;
        };
        if longer > 0 && growth.chunk.is_some() {
            // One word for each chunk moves here.
            growth.list.append(&mut self.0);
            mem::swap(&mut growth.list, &mut self.0);
        }
        self.0.extend(growth.chunk.take());
    }
}

impl<E> Growth<E> {
    fn new(longer: Longer, empty: impl Fn() -> E) -> Self {
        let chunk = longer.map(|_| (0..CHUNK).map(|_| empty()).collect());
        Growth { chunk, list: Vec::with_capacity(longer.unwrap_or(0)) }
    }
}

impl<T> Room<T> {
    pub(crate) fn new(lack: Lack) -> Self {
        let node = || Node { token: Token(0), next: NONE, value: None };
        Room {
            buckets: Growth::new(lack.buckets, || Bucket::EMPTY),
            nodes: Growth::new(lack.nodes, node),
        }
    }
}

impl<T> Tokens<T> {
    pub(crate) fn new() -> Self {
        let (buckets, nodes) = (Chunks(Vec::new()), Chunks(Vec::new()));
        Tokens { buckets, in_use: 0, nodes, free: NONE, fresh: 0, len: 0 }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns what is needed before a token can be added, if anything is.
    pub(crate) fn lacks(&self) -> Option<Lack> {
        let splits = self.len >= self.in_use * LOAD;
        let buckets = (splits && self.in_use == self.buckets.len()).then(|| self.buckets.longer());
        let used_up = self.free == NONE && self.fresh as usize == self.nodes.len();
        let nodes = used_up.then(|| self.nodes.longer());
        (buckets.is_some() || nodes.is_some()).then_some(Lack { buckets, nodes })
    }

    /// Adds room, as far as it is what is [lacking](Tokens::lacks). What is left is to be freed.
    pub(crate) fn extend(&mut self, room: &mut Room<T>) {
        let Some(lack) = self.lacks() else { return };
        self.buckets.grow(lack.buckets, &mut room.buckets);
        self.nodes.grow(lack.nodes, &mut room.nodes);
        self.in_use = self.in_use.max(self.buckets.len().min(1));
    }

    fn bucket(&mut self, hash: Hash) -> Option<&mut Bucket> {
        self.buckets.at(hash.bucket(self.in_use.max(1)))
    }

    fn node(&mut self, index: Index) -> Option<&mut Node<T>> {
        self.nodes.at(index as usize)
    }

    /// Returns the place of a token that is not outside of its bucket: which entry, and which node.
    fn inside(&mut self, bucket: &Bucket, token: Token, hash: Hash) -> Option<(usize, Index)> {
        let mut alike = bucket.entries.iter().enumerate().filter(|(_, entry)| entry.hash == hash);
        let (at, entry) = alike
            .find(|(_, entry)| self.node(entry.node).is_some_and(|node| node.token == token))?;
        Some((at, entry.node))
    }

    pub(crate) fn find(&mut self, token: Token) -> Option<&mut T> {
        let hash = Hash::of(token);
        let bucket = *self.bucket(hash)?;
        let mut index = match self.inside(&bucket, token, hash) {
            Some((_, index)) => index,
            None => bucket.more,
        };
        while self.node(index)?.token != token {
            index = self.node(index)?.next;
        }
        self.node(index)?.value.as_mut()
    }

    /// Adds a token that is not there. `None` if something is [lacking](Tokens::lacks).
    pub(crate) fn insert(&mut self, token: Token, value: T) -> Option<&mut T> {
        if self.len >= self.in_use * LOAD {
            self.split()?;
        }
        let index = if self.free == NONE { self.fresh } else { self.free };
        let node = self.nodes.at(index as usize)?;
        let next = mem::replace(node, Node { token, next: NONE, value: Some(value) }).next;
        if self.free == NONE {
            self.fresh += 1;
        } else {
            self.free = next;
        }
        self.len += 1;
        self.link(Entry { hash: Hash::of(token), node: index })?;
        self.node(index)?.value.as_mut()
    }

    fn link(&mut self, entry: Entry) -> Option<()> {
        let bucket = self.bucket(entry.hash)?;
        if let Some(free) = bucket.entries.iter_mut().find(|entry| entry.node == NONE) {
            *free = entry;
            return Some(());
        }
        let next = mem::replace(&mut bucket.more, entry.node);
        self.node(entry.node)?.next = next;
        Some(())
    }

    /// Adds what did not fit where it was.
    fn link_all(&mut self, mut more: Index) -> Option<()> {
        while more != NONE {
            let node = self.node(more)?;
            let (hash, next) = (Hash::of(node.token), mem::replace(&mut node.next, NONE));
            self.link(Entry { hash, node: more })?;
            more = next;
        }
        Some(())
    }

    /// Uses one bucket more: some of the tokens of another are its own.
    fn split(&mut self) -> Option<()> {
        let new = self.in_use;
        self.buckets.at(new)?;
        let split = new - (1 << new.checked_ilog2()?);
        self.in_use += 1;
        let Bucket { entries, more } = mem::replace(self.buckets.at(split)?, Bucket::EMPTY);
        for entry in entries.into_iter().filter(|entry| entry.node != NONE) {
            self.link(entry)?;
        }
        self.link_all(more)
    }

    /// Removes a token.
    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let hash = Hash::of(token);
        let bucket = *self.bucket(hash)?;
        let index = match self.inside(&bucket, token, hash) {
            Some((at, index)) => {
                let place = self.bucket(hash)?;
                place.entries[at].node = NONE;
                // The first of those that did not fit has a place now.
                let more = mem::replace(&mut place.more, NONE);
                self.link_all(more)?;
                index
            }
            None => self.unlink(hash, bucket.more, token)?,
        };
        let free = mem::replace(&mut self.free, index);
        self.len -= 1;
        let node = self.node(index)?;
        node.next = free;
        node.value.take()
    }

    /// Takes a token off the list of what does not fit into its bucket.
    fn unlink(&mut self, hash: Hash, first: Index, token: Token) -> Option<Index> {
        let (mut before, mut index) = (NONE, first);
        while self.node(index)?.token != token {
            (before, index) = (index, self.node(index)?.next);
        }
        let next = self.node(index)?.next;
        match self.node(before) {
            Some(before) => before.next = next,
            None => self.bucket(hash)?.more = next,
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn add(tokens: &mut Tokens<u32>, token: u64, value: u32) {
        if let Some(lack) = tokens.lacks() {
            let mut room = Room::new(lack);
            tokens.extend(&mut room);
            let (buckets, nodes) = (room.buckets.chunk.is_some(), room.nodes.chunk.is_some());
            assert!(tokens.lacks().is_none() && !buckets && !nodes);
            let mut late = Room::new(lack);
            let (longer, more) = (tokens.buckets.len(), tokens.nodes.len());
            tokens.extend(&mut late);
            assert_eq!(
                (tokens.buckets.len(), tokens.nodes.len()),
                (longer, more),
                "others have brought it meanwhile"
            );
        }
        assert_eq!(tokens.insert(Token(token), value).copied(), Some(value));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn it_finds_what_a_map_finds(
            step in prop::sample::select(alloc::vec![1, 1 << 32, 1 << 40]),
            ops in prop::collection::vec((0u64..200, any::<u32>(), 0u32..3), 0..600),
        ) {
            let (mut tokens, mut map) = (Tokens::new(), BTreeMap::new());
            for (token, value, what) in ops {
                let token = token * step;
                let known = map.get(&token).copied();
                prop_assert_eq!(tokens.find(Token(token)).copied(), known);
                if what == 0 {
                    prop_assert_eq!(tokens.remove(Token(token)), map.remove(&token));
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

    /// How many tokens are outside of their buckets, and how many of one bucket at most.
    fn outside(tokens: &mut Tokens<u32>) -> (usize, usize) {
        let firsts: Vec<_> = tokens.buckets.0.iter().flatten().map(|bucket| bucket.more).collect();
        let mut beside = |first| {
            let next = |index: &Index| tokens.node(*index).map(|node| node.next);
            core::iter::successors(Some(first), next).take_while(|index| *index != NONE).count()
        };
        let all = firsts.into_iter().map(&mut beside);
        all.fold((0, 0), |(sum, most), count| (sum + count, most.max(count)))
    }

    #[test]
    fn it_takes_no_more_steps_with_many_tokens_than_with_few() {
        assert_eq!((mem::size_of::<Bucket>(), mem::align_of::<Bucket>()), (64, 64));
        for step in [1, 64, 192, 4096, 0x1_0000_0001, 0x9e37_79b9_7f4a_7c15] {
            let mut tokens = Tokens::new();
            let token = |n: usize| (n as u64).wrapping_mul(step);
            for n in 0..174_000 {
                let (buckets, nodes) = (tokens.buckets.len(), tokens.nodes.len());
                add(&mut tokens, token(n), 0);
                // At most one bucket more is used; all nodes are, but for the last ones.
                assert_eq!(tokens.in_use, n / LOAD + 1);
                assert_eq!(
                    tokens.buckets.len(),
                    tokens.in_use.next_multiple_of(CHUNK),
                    "after {buckets}"
                );
                assert_eq!(tokens.nodes.len(), (n + 1).next_multiple_of(CHUNK), "after {nodes}");
                if [999, 9_999, 19_999, 49_999, 131_071, 173_999].contains(&n) {
                    // What a search has to look at: one line, and of few buckets something beside.
                    let (all, most) = outside(&mut tokens);
                    assert!(
                        all * 100 <= n * 6 && most <= 16,
                        "{all} of {n}, {most} in a row, by steps of {step:#x}"
                    );
                }
            }
            (0..174_000).for_each(|n| assert!(tokens.remove(Token(token(n))).is_some()));
            assert_eq!((tokens.len(), outside(&mut tokens)), (0, (0, 0)));
        }
    }
}
